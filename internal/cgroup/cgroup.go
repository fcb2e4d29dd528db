// Package cgroup gives each container its control group: the same calls on hosts with cgroup v1, hybrid and v2. It writes
// the kernel's files directly; no systemd, no library in between.
//
// A group is one directory in every hierarchy. On v1 and hybrid hosts the limits live in the v1 hierarchies, and a
// process enters the group by writing "0" to each hierarchy's tasks file itself (TaskFDs): a write from outside to
// cgroup.procs waits for an RCU grace period, some milliseconds. On v2 hosts, and for the unified hierarchy of hybrid
// ones, it is born into the group by CLONE_INTO_CGROUP (DirFD).
//
// What is tested where: v1 and hybrid on a real kernel (6.18), with, in the unified hierarchy of a hybrid host,
// cgroup.kill, CLONE_INTO_CGROUP and the device filter. The tests of v2 alone (limits, freezer, killing, out-of-memory
// events) skip where the host has v1; they have run on Linux 6.1 with a pure v2 tree. Besides, v2's files are tested
// against a directory that stands in for the kernel's; of block I/O, swap and huge pages only there.
package cgroup

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/kernel"
)

// Hierarchy is the host's control group tree. Its methods may be called by several goroutines.
type Hierarchy struct {
	mode    string // v1, hybrid or v2
	v1      []tree
	unified string // mount point of cgroup2; "" on v1 hosts

	mkdir func(path string) error // os.Mkdir; a test's stand-in for the kernel fills the directory

	mu      sync.Mutex
	parents map[string]parent // those that were made or checked already
	// own is the path that this engine has claimed, "" if none, and owner its id.
	own, owner string
	lock       *os.File // that directory, while this process lives
}

// tree is one v1 hierarchy.
type tree struct {
	mount       string
	controllers []string // "cpu", "cpuacct", …; "name=systemd" for one without a controller
}

func (t tree) has(controller string) bool { return slices.Contains(t.controllers, controller) }

// Detect finds the mounted hierarchies.
func Detect() (*Hierarchy, error) {
	table, err := kernel.MountTable()
	if err != nil {
		return nil, fmt.Errorf("looking for control groups: %w", err)
	}
	return among(table)
}

// usualMount is where hosts have their control groups mounted: the unified hierarchy (v2), or a directory of hierarchies.
const usualMount = "/sys/fs/cgroup"

// among finds the hierarchies in a mount table. What is mounted at usualMount decides: on a host of v2, a VPN's or an old
// container's hierarchy of v1 (net_cls, name=systemd) says nothing about where the limits are, and is none of ours.
func among(table []kernel.Mounted) (*Hierarchy, error) {
	h := &Hierarchy{mkdir: makeDir, parents: map[string]parent{}}
	seen := map[string]bool{} // the controllers of mounted hierarchies: a second mount of one is not another
	var atTop string          // what filesystem is there: of several mounts the last, which hides the others
	for _, m := range table {
		if m.Point == usualMount {
			atTop = m.Type
		}
		switch m.Type {
		case "cgroup2":
			if h.unified == "" {
				h.unified = m.Point
			}
		case "cgroup":
			controllers := v1Controllers(m.Options)
			if key := strings.Join(controllers, ","); key != "" && !seen[key] {
				seen[key] = true
				h.v1 = append(h.v1, tree{mount: m.Point, controllers: controllers})
			}
		}
	}
	if atTop == "cgroup2" {
		h.v1, h.unified = nil, usualMount
	}
	switch {
	case len(h.v1) > 0 && h.unified != "":
		h.mode = "hybrid"
	case len(h.v1) > 0:
		h.mode = "v1"
	case h.unified != "":
		h.mode = "v2"
	default:
		return nil, failure.Unavailable("no control groups are mounted: mount them with `mount -t cgroup2 none /sys/fs/cgroup`")
	}
	return h, nil
}

// v1Controllers picks the controllers out of a v1 mount's options ("rw,cpu,cpuacct").
func v1Controllers(options string) []string {
	var found []string
	for o := range strings.SplitSeq(options, ",") {
		switch o {
		case "rw", "ro", "xattr", "noprefix", "clone_children", "cpuset_v2_mode", "favordynmods", "nofavordynmods", "none", "seclabel":
			continue
		}
		if strings.HasPrefix(o, "release_agent=") {
			continue
		}
		found = append(found, o)
	}
	return found
}

// Version is 1 (v1 and hybrid hosts: the limits are those of v1) or 2.
func (h *Hierarchy) Version() int {
	if h.mode == "v2" {
		return 2
	}
	return 1
}

// Unified reports whether a group has a directory that a process can be born into (Group.DirFD).
func (h *Hierarchy) Unified() bool { return h.unified != "" }

// TaskFiles is how many descriptors Group.TaskFDs returns.
func (h *Hierarchy) TaskFiles() int { return len(h.v1) }

// Uses reports whether groups have a directory in the hierarchy that is mounted at mount.
func (h *Hierarchy) Uses(mount string) bool { return slices.Contains(h.mounts(), mount) }

// Driver is "cgroupfs": directories are made directly, without systemd.
func (h *Hierarchy) Driver() string { return "cgroupfs" }

// Support tells which limits the host's controllers can carry.
type Support struct {
	Memory, Swap, Swappiness, OOMKillDisable, MemoryReservation bool
	CPUShares, CPUQuota, Cpuset, Pids, BlkioWeight              bool
}

// Support looks at the controllers' files. A limit that is not supported is an error in Create and Update; callers that
// want to warn and go on instead ask here first.
func (h *Hierarchy) Support() Support {
	if h.mode == "v2" {
		return h.supportV2()
	}
	root := func(controller, file string) bool {
		t, ok := h.tree(controller)
		return ok && exists(filepath.Join(t.mount, file))
	}
	_, pids := h.tree("pids")
	return Support{
		Memory:            root("memory", "memory.limit_in_bytes"),
		Swap:              root("memory", "memory.memsw.limit_in_bytes"),
		Swappiness:        root("memory", "memory.swappiness"),
		OOMKillDisable:    root("memory", "memory.oom_control"),
		MemoryReservation: root("memory", "memory.soft_limit_in_bytes"),
		CPUShares:         root("cpu", "cpu.shares"),
		CPUQuota:          root("cpu", "cpu.cfs_quota_us"),
		Cpuset:            root("cpuset", "cpuset.cpus"),
		Pids:              pids,
		BlkioWeight:       root("blkio", "blkio.weight") || root("blkio", "blkio.bfq.weight"),
	}
}

func (h *Hierarchy) supportV2() Support {
	b, err := os.ReadFile(filepath.Join(h.unified, "cgroup.controllers"))
	if err != nil {
		return Support{}
	}
	list := strings.Fields(string(b))
	has := func(c string) bool { return slices.Contains(list, c) }
	return Support{
		Memory: has("memory"), Swap: has("memory") && h.countsSwap(), MemoryReservation: has("memory"),
		CPUShares: has("cpu"), CPUQuota: has("cpu"), Cpuset: has("cpuset"), Pids: has("pids"), BlkioWeight: has("io"),
	}
}

// countsSwap tells whether v2's groups have limits of swap: a kernel that is booted with swapaccount=0 or
// cgroup.memory=noswap, or built without swap, has none. The host's top group has no such file either way, so any group
// below it that has the controller answers; without one, those that this engine makes are taken to have it.
func (h *Hierarchy) countsSwap() bool {
	entries, err := os.ReadDir(h.unified)
	if err != nil {
		return false
	}
	for _, e := range entries {
		if dir := filepath.Join(h.unified, e.Name()); e.IsDir() && exists(filepath.Join(dir, "memory.max")) {
			return exists(filepath.Join(dir, "memory.swap.max"))
		}
	}
	return exists("/proc/swaps")
}

// tree returns the v1 hierarchy that a controller is in.
func (h *Hierarchy) tree(controller string) (tree, bool) {
	for _, t := range h.v1 {
		if t.has(controller) {
			return t, true
		}
	}
	return tree{}, false
}

// mounts lists the mount points of all hierarchies.
func (h *Hierarchy) mounts() []string {
	all := make([]string, 0, len(h.v1)+1)
	for _, t := range h.v1 {
		all = append(all, t.mount)
	}
	if h.unified != "" {
		all = append(all, h.unified)
	}
	return all
}

// primary is the mount point of the hierarchy that the processes of a group are counted in: the freezer's on v1, because
// it is the one that Freeze and Kill work with.
func (h *Hierarchy) primary() string {
	if h.mode == "v2" {
		return h.unified
	}
	if t, ok := h.tree("freezer"); ok {
		return t.mount
	}
	return h.v1[0].mount
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
