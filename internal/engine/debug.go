package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	api "github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/container"
	"github.com/cleatlabs/cleat/internal/keeper"
	"github.com/cleatlabs/cleat/internal/kernel"
	cmount "github.com/cleatlabs/cleat/internal/mount"
	"github.com/cleatlabs/cleat/internal/network"
	"github.com/cleatlabs/cleat/internal/runtime"
)

// Debug answers `cleatd debug`.
type Debug struct {
	containers *container.Store
	starter    *Starter
	runtime    *runtime.Runtime
}

// Launch returns the text of the launch program that a start of the container
// would run now. It starts nothing.
func (d *Debug) Launch(ctx context.Context, name string) (string, error) {
	c, err := d.containers.Find(name)
	if err != nil {
		return "", err
	}
	a := d.starter.attempt(c)
	a.life = d.starter.lives.of(c)
	defer a.closeFDs()
	if a.r.State.Alive() {
		// Its overlay must not be mounted twice: the running root shows the same.
		r := a.life.live()
		if r == nil {
			return "", fmt.Errorf("container %s is just exiting: try again", name)
		}
		a.rootFD, err = d.runtime.RootFD(r.process)
	} else {
		d.starter.heads.drop(c.ID())
		err = a.mountRootfs(ctx)
	}
	if err != nil {
		return "", err
	}
	if mode := a.r.HostConfig.NetworkMode; !mode.IsHost() && !mode.IsNone() {
		// Stands for the namespace that Attach would make.
		if a.netFD, err = unix.Open("/proc/self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
			return "", err
		}
	}
	spec, err := d.starter.specs.container(c, a.r)
	if err != nil {
		return "", err
	}
	if err := d.starter.join(spec, a.r.HostConfig); err != nil {
		return "", err
	}
	spec.RootFD, spec.NetNS = a.rootFD, a.netNS()
	if spec.User, err = lookupUser(a.rootFD, a.r.Config.User, a.r.HostConfig.GroupAdd); err != nil {
		return "", err
	}
	spec.Env = environment(a.r, nil, spec.User.Home)
	return d.runtime.Dump(spec)
}

// Settle takes away what containers that have ended have left, which otherwise waits for a moment without other work: what
// is still there then is a difference.
func (d *Debug) Settle(ctx context.Context) { d.starter.exits.leftovers.Settle(ctx) }

// Check compares the records with the kernel and says what differs, one
// sentence each; none means that all is well. It works without an engine too.
// networks compares what concerns the network, and is given what the records of
// running containers say; nil leaves it out.
func Check(store *container.Store, settings Settings, networks func(running []*network.Sandbox) []string) []string {
	var out []string
	say := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	boot, err := kernel.BootID()
	if err != nil {
		say("the boot id cannot be read: %v", err)
	}
	known := map[string]bool{}
	alive := map[string]bool{}
	fresh := map[string]bool{} // which may have a head start
	var sandboxes []*network.Sandbox
	for _, c := range store.All() {
		r := c.Load()
		known[r.ID] = true
		alive[r.ID] = r.State.Alive()
		fresh[r.ID] = r.State.Status == api.StateCreated
		checkFiles(c, r, say)
		if r.State.Alive() {
			checkProcess(r, boot, say)
			if r.State.Sandbox != nil {
				sandboxes = append(sandboxes, r.State.Sandbox)
			}
		} else if r.State.Keeper != nil {
			say("container %s (%s) is %s, but its record names a process", r.Name, r.ID[:12], r.State.Status)
		}
	}
	for _, id := range cgroupChildren(filepath.Join("/", settings.CgroupParent)) {
		switch {
		case !known[id]:
			say("cgroup %s belongs to no container", id)
		case fresh[id] && !populated(filepath.Join("/", settings.CgroupParent, id)):
		case !alive[id]:
			say("cgroup %s belongs to a container that does not run", id)
		}
	}
	checkVolumeMounts(store, filepath.Join(settings.DataRoot, "volumes"), say)
	entries, _ := os.ReadDir(filepath.Join(settings.ExecRoot, "stdio"))
	for _, e := range entries {
		if !alive[e.Name()] {
			say("journals %s belong to no running container", e.Name())
		}
	}
	for _, dir := range strayOwnFiles(&settings, store) {
		say("files %s belong to no container", dir)
	}
	checkExecs(settings.ExecRoot, alive, say)
	if networks != nil {
		out = append(out, networks(sandboxes)...)
	}
	slices.Sort(out)
	return out
}

// populated says whether a process is in a group.
func populated(group string) bool {
	for _, pattern := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/*"} {
		lists, _ := filepath.Glob(pattern + group + "/cgroup.procs")
		for _, list := range lists {
			if pids, err := os.ReadFile(list); err == nil && len(pids) > 0 {
				return true
			}
		}
	}
	return false
}

// checkExecs looks at the execs that are to outlive their engine.
func checkExecs(execRoot string, alive map[string]bool, say func(string, ...any)) {
	dirs, _ := filepath.Glob(filepath.Join(execRoot, "runtime", "*", "status"))
	for _, d := range dirs {
		note, err := keeper.ReadNote(filepath.Dir(d))
		if errors.Is(err, fs.ErrNotExist) {
			continue // it has just ended
		}
		var about aboutExec
		if err == nil {
			err = json.Unmarshal(note.About, &about)
		}
		switch {
		case err != nil:
			say("an exec's note cannot be read: %v", err)
		case !alive[about.Container]:
			say("exec %s belongs to no running container", note.Process.ID[:12])
		}
	}
}

func checkFiles(c *container.Container, r *container.Record, say func(string, ...any)) {
	for _, d := range []string{upperDir, workDir} {
		if !exists(c.Path(d)) {
			say("container %s (%s) has lost its directory %s", r.Name, r.ID[:12], c.Path(d))
		}
	}
	for _, m := range r.Mounts {
		if m.Name != "" && m.Driver == localDriver && !exists(m.Source) {
			say("container %s (%s) uses volume %s, whose data is missing", r.Name, r.ID[:12], m.Name)
		}
	}
}

func checkProcess(r *container.Record, boot string, say func(string, ...any)) {
	k := r.State.Keeper
	if k == nil {
		say("container %s (%s) is %s, but its record names no process", r.Name, r.ID[:12], api.StateRunning)
		return
	}
	if k.BootID != boot {
		say("container %s (%s) was running before the host was booted last", r.Name, r.ID[:12])
		return
	}
	for _, p := range []struct {
		what  string
		pid   int
		start uint64
	}{{"keeper", k.KeeperPID, k.KeeperStart}, {"process", k.PID, k.PIDStart}} {
		if start, err := kernel.StartTime(p.pid); err != nil || start != p.start {
			say("container %s (%s): its %s (PID %d) is gone", r.Name, r.ID[:12], p.what, p.pid)
		}
	}
}

// checkVolumeMounts looks for what is mounted for volumes that nobody runs with.
func checkVolumeMounts(store *container.Store, root string, say func(string, ...any)) {
	root, err := filepath.EvalSymlinks(root)
	if err != nil {
		return // there are no volumes
	}
	mounted, err := cmount.Below(root)
	if err != nil {
		say("the mounts cannot be read: %v", err)
	}
	inUse := map[string]bool{}
	for _, c := range store.All() {
		if r := c.Load(); r.State.Alive() {
			for _, name := range volumeNames(r) {
				inUse[name] = true
			}
		}
	}
	for _, point := range mounted {
		name, _, _ := strings.Cut(strings.TrimPrefix(point, root+"/"), "/")
		if !inUse[name] {
			say("%s is mounted, but no container runs with the volume %s", point, name)
		}
	}
}
