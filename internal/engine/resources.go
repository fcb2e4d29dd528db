package engine

import (
	"errors"
	"io/fs"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/blkiodev"
	"github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/cgroup"
	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/runtime"
)

const (
	cpuPeriod    = 100_000 // microseconds, the kernel's default
	maxHostNodes = 4096    // of a privileged container's /dev
)

// withSwap is a limit of memory and swap for who limits memory alone: as much of each. Where that is more than a number
// holds, as of a limit that was read from a group without one, there is none.
func withSwap(memory int64) int64 {
	if memory > math.MaxInt64/2 {
		return -1
	}
	return 2 * memory
}

// cgroupResources turns the limits of a host config into those of a group.
func cgroupResources(h *container.HostConfig) (cgroup.Resources, error) {
	r := cgroup.Resources{
		Memory: h.Memory, MemorySwap: h.MemorySwap, MemoryReservation: h.MemoryReservation,
		MemorySwappiness: h.MemorySwappiness,
		CPUShares:        h.CPUShares, CPUPeriod: h.CPUPeriod, CPUQuota: max(h.CPUQuota, -1), // any negative one is none
		CPURtPeriod: h.CPURealtimePeriod, CPURtRuntime: h.CPURealtimeRuntime,
		CpusetCpus: h.CpusetCpus, CpusetMems: h.CpusetMems, BlkioWeight: h.BlkioWeight,
		AllowAllDevices: h.Privileged,
	}
	if h.OomKillDisable != nil {
		r.OOMKillDisable = *h.OomKillDisable
	}
	if h.NanoCPUs > 0 {
		r.CPUPeriod, r.CPUQuota = cpuPeriod, h.NanoCPUs*cpuPeriod/1e9
	}
	if h.PidsLimit != nil {
		r.PidsLimit = *h.PidsLimit
	}
	var err error
	for _, w := range h.BlkioWeightDevice {
		d, derr := blockDevice(w.Path)
		err = errors.Join(err, derr)
		r.BlkioWeightDevice = append(r.BlkioWeightDevice, cgroup.DeviceWeight{
			Major: int64(unix.Major(d)), Minor: int64(unix.Minor(d)), Weight: w.Weight,
		})
	}
	for _, t := range []struct {
		from []*blkiodev.ThrottleDevice
		to   *[]cgroup.DeviceLimit
	}{
		{h.BlkioDeviceReadBps, &r.BlkioThrottleReadBps}, {h.BlkioDeviceWriteBps, &r.BlkioThrottleWriteBps},
		{h.BlkioDeviceReadIOps, &r.BlkioThrottleReadIOPS}, {h.BlkioDeviceWriteIOps, &r.BlkioThrottleWriteIOPS},
	} {
		for _, l := range t.from {
			d, derr := blockDevice(l.Path)
			err = errors.Join(err, derr)
			*t.to = append(*t.to, cgroup.DeviceLimit{Major: int64(unix.Major(d)), Minor: int64(unix.Minor(d)), Rate: l.Rate})
		}
	}
	if err != nil {
		return r, err
	}
	if h.Privileged {
		return r, nil
	}
	r.Devices = cgroup.DefaultDeviceRules()
	for _, d := range h.Devices {
		rules, derr := deviceRules(d)
		if derr != nil {
			return r, derr
		}
		r.Devices = append(r.Devices, rules...)
	}
	rules, err := deviceCgroupRules(h.DeviceCgroupRules)
	r.Devices = append(r.Devices, rules...)
	return r, err
}

func blockDevice(path string) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, failure.Invalid("block device %s: %w", path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return 0, failure.Invalid("%s is not a block device", path)
	}
	return st.Rdev, nil
}

// hostDevices lists the device nodes to make: those of --device, or every node
// of the host's /dev for a privileged container. With need false a missing
// device is no error yet: it may appear before the container starts.
func hostDevices(h *container.HostConfig, need bool) ([]runtime.Device, error) {
	var out []runtime.Device
	if h.Privileged && need {
		all, err := devicesBelow("/dev", "/dev")
		if err != nil {
			return nil, err
		}
		out = all
	}
	for _, d := range h.Devices {
		if d.PathInContainer == "" {
			d.PathInContainer = d.PathOnHost
		}
		if d.PathOnHost == "" || !filepath.IsAbs(d.PathInContainer) || strings.ContainsRune(d.PathInContainer, 0) {
			return nil, failure.Invalid("invalid device mapping %q: both paths must be absolute, and without a zero byte", d.PathOnHost+":"+d.PathInContainer)
		}
		if strings.Trim(d.CgroupPermissions, "rwm") != "" {
			return nil, failure.Invalid("invalid device mode: %s: want some of r, w and m", d.CgroupPermissions)
		}
		if !need {
			continue
		}
		found, err := devicesBelow(d.PathOnHost, d.PathInContainer)
		if err != nil {
			return nil, failure.Invalid("error gathering device information while adding custom device %q: %w", d.PathOnHost, err)
		}
		if len(found) == 0 {
			return nil, failure.Invalid("error gathering device information while adding custom device %q: not a device node", d.PathOnHost)
		}
		out = append(out, found...)
	}
	return out, nil
}

// skippedInDev are parts of /dev that a container has of its own.
var skippedInDev = map[string]bool{
	"/dev/pts": true, "/dev/shm": true, "/dev/fd": true, "/dev/mqueue": true, "/dev/console": true, "/dev/.udev": true,
	"/dev/.lxc": true, "/dev/.lxd-mounts": true,
}

// devicesBelow lists the nodes at or below the host path, placed at target.
func devicesBelow(path, target string) ([]runtime.Device, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return nil, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		d, ok := deviceOf(&st, target)
		if !ok {
			return nil, nil
		}
		return []runtime.Device{d}, nil
	}
	path, err := filepath.EvalSymlinks(path) // a walk does not follow a link that it begins with
	if err != nil {
		return nil, err
	}
	var out []runtime.Device
	err = filepath.WalkDir(path, func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
				return nil // it went away while we looked
			}
			return err
		}
		if skippedInDev[p] {
			if e.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if e.Type()&fs.ModeDevice == 0 || len(out) >= maxHostNodes {
			return nil
		}
		var st unix.Stat_t
		if unix.Lstat(p, &st) != nil {
			return nil
		}
		rel, err := filepath.Rel(path, p)
		if err != nil {
			return err
		}
		if d, ok := deviceOf(&st, filepath.Join(target, rel)); ok {
			out = append(out, d)
		}
		return nil
	})
	return out, err
}

func deviceOf(st *unix.Stat_t, target string) (runtime.Device, bool) {
	d := runtime.Device{
		Path: target, Major: int64(unix.Major(st.Rdev)), Minor: int64(unix.Minor(st.Rdev)),
		Mode: st.Mode & 0o777, UID: st.Uid, GID: st.Gid,
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFCHR:
		d.Type = 'c'
	case unix.S_IFBLK:
		d.Type = 'b'
	default:
		return d, false
	}
	return d, true
}

// deviceRules are the cgroup rules that let a container use one mapped device.
func deviceRules(d container.DeviceMapping) ([]cgroup.DeviceRule, error) {
	access := d.CgroupPermissions
	if access == "" {
		access = "rwm"
	}
	nodes, err := devicesBelow(d.PathOnHost, d.PathOnHost)
	if err != nil {
		return nil, failure.Invalid("error gathering device information while adding custom device %q: %w", d.PathOnHost, err)
	}
	var out []cgroup.DeviceRule
	for _, n := range nodes {
		out = append(out, cgroup.DeviceRule{Allow: true, Type: n.Type, Major: n.Major, Minor: n.Minor, Access: access})
	}
	return out, nil
}

// deviceCgroupRules reads rules such as "c 42:* rmw".
func deviceCgroupRules(rules []string) ([]cgroup.DeviceRule, error) {
	var out []cgroup.DeviceRule
	for _, rule := range rules {
		bad := failure.Invalid("invalid device cgroup rule format: '%s'", rule)
		f := strings.Fields(rule)
		if len(f) != 3 || len(f[0]) != 1 || !strings.Contains("abc", f[0]) || f[2] == "" || strings.Trim(f[2], "rwm") != "" {
			return nil, bad
		}
		major, minor, ok := strings.Cut(f[1], ":")
		if !ok {
			return nil, bad
		}
		r := cgroup.DeviceRule{Allow: true, Type: rune(f[0][0]), Access: f[2]}
		for _, n := range []struct {
			text string
			to   *int64
		}{{major, &r.Major}, {minor, &r.Minor}} {
			if n.text == "*" {
				*n.to = -1
				continue
			}
			v, err := strconv.ParseUint(n.text, 10, 32)
			if err != nil {
				return nil, bad
			}
			*n.to = int64(v)
		}
		out = append(out, r)
	}
	return out, nil
}

// rlimitNames are the limits that --ulimit takes.
var rlimitNames = map[string]bool{
	"core": true, "cpu": true, "data": true, "fsize": true, "locks": true, "memlock": true, "msgqueue": true, "nice": true,
	"nofile": true, "nproc": true, "rss": true, "rtprio": true, "rttime": true, "sigpending": true, "stack": true, "as": true,
}

func rlimits(ulimits []*container.Ulimit) ([]runtime.Rlimit, error) {
	var out []runtime.Rlimit
	for _, u := range ulimits {
		if u == nil || !rlimitNames[u.Name] {
			name := ""
			if u != nil {
				name = u.Name
			}
			return nil, failure.Invalid("invalid ulimit type: %s", name)
		}
		if u.Hard != -1 && (u.Soft > u.Hard || u.Soft == -1) {
			return nil, failure.Invalid("ulimit soft limit must be less than or equal to hard limit: %d > %d", u.Soft, u.Hard)
		}
		// -1 is RLIM_INFINITY, which is all ones.
		out = append(out, runtime.Rlimit{Type: u.Name, Soft: uint64(u.Soft), Hard: uint64(u.Hard)})
	}
	return out, nil
}

func isIP(s string) bool {
	_, err := netip.ParseAddr(s)
	return err == nil
}

// readLine returns the first line of a small kernel file, "" if unreadable.
func readLine(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(b), "\n")
	return line
}
