package engine

import (
	"path"
	"strings"

	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"

	"github.com/cleatlabs/cleat/internal/apparmor"
	"github.com/cleatlabs/cleat/internal/container"
	"github.com/cleatlabs/cleat/internal/kernel"
	"github.com/cleatlabs/cleat/internal/network"
	"github.com/cleatlabs/cleat/internal/rootpath"
	"github.com/cleatlabs/cleat/internal/runtime"
	"github.com/cleatlabs/cleat/internal/seccomp"
	"github.com/cleatlabs/cleat/internal/systemd"
)

const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// specBuilder turns records into what the runtime starts.
type specBuilder struct {
	containers *container.Store
	features   kernel.Features
	settings   Settings
	seccomp    *seccomp.Cache
	profiles   *apparmor.Profiles
}

// container builds the spec of a container except what only exists while it
// starts: the rootfs, the network namespace and the user.
func (b *specBuilder) container(c *container.Container, r *container.Record) (*runtime.Spec, error) {
	cfg, host := r.Config, r.HostConfig
	res, err := cgroupResources(host)
	if err != nil {
		return nil, err
	}
	s := &runtime.Spec{
		ID: r.ID, ReadonlyRootfs: host.ReadonlyRootfs,
		Args: append([]string{r.Path}, r.Args...),
		Cwd:  cfg.WorkingDir, Umask: host.Umask,
		TTY: cfg.Tty, Rows: size16(host.ConsoleSize[0]), Cols: size16(host.ConsoleSize[1]),
		OpenStdin: cfg.OpenStdin, StdinOnce: cfg.StdinOnce,
		Hostname: cfg.Hostname, Domainname: cfg.Domainname, ShmSize: host.ShmSize,
		HostPID: host.PidMode.IsHost(), HostIPC: host.IpcMode.IsHost(), NoShm: host.IpcMode.IsNone(), HostUTS: host.UTSMode.IsHost(),
		HostCgroupNS: host.CgroupnsMode.IsHost(),
		CgroupPath:   b.cgroupPath(r), Resources: res,
		Privileged: host.Privileged, MaskedPaths: host.MaskedPaths, ReadonlyPaths: host.ReadonlyPaths,
		Sysctls: host.Sysctls, OOMScoreAdj: host.OomScoreAdj, Init: b.settings.Containers.init(host.Init),
	}
	if s.Devices, err = hostDevices(host, true); err != nil {
		return nil, err
	}
	if s.Rlimits, err = rlimits(b.settings.Containers.ulimits(host.Ulimits)); err != nil {
		return nil, err
	}
	if s.Mounts, err = b.mounts(c, r); err != nil {
		return nil, err
	}
	return s, b.confine(s, host)
}

// confine fills in capabilities, seccomp and the like.
func (b *specBuilder) confine(s *runtime.Spec, host *api.HostConfig) (err error) {
	if s.Capabilities, err = kernel.EffectiveCaps(host.CapAdd, host.CapDrop, host.Privileged, b.features.LastCap); err != nil {
		return err
	}
	opts, err := parseSecurityOpts(host.SecurityOpt, b.features)
	if err != nil {
		return err
	}
	opts = b.settings.Containers.security(opts, host.Privileged)
	s.NoNewPrivs = opts.noNewPrivs
	if s.AppArmorProfile, err = b.profiles.Choose(opts.appArmor, host.Privileged); err != nil {
		return err
	}
	s.Seccomp, err = b.filter(opts, host.Privileged, s.Capabilities)
	return err
}

// filter compiles the seccomp program; nil is unconfined.
func (b *specBuilder) filter(opts securityOpts, privileged bool, caps uint64) ([]byte, error) {
	switch {
	case opts.profile != nil:
		return b.seccomp.Compile(opts.profile, caps, b.features.Major, b.features.Minor)
	case opts.unconfined, privileged:
		return nil, nil
	default:
		return b.seccomp.Default(caps, b.features.Major, b.features.Minor)
	}
}

func (b *specBuilder) cgroupPath(r *container.Record) string {
	parent := r.HostConfig.CgroupParent
	if parent == "" {
		parent = b.settings.CgroupParent
	}
	if b.settings.Slices && systemd.IsSlice(parent) {
		if group, err := systemd.GroupOfSlice(parent); err == nil { // else the create has refused it
			parent = group
		}
	}
	return path.Join("/", parent, r.ID)
}

// mounts lists the container's mounts with the engine's files, parents first.
func (b *specBuilder) mounts(c *container.Container, r *container.Record) ([]runtime.Mount, error) {
	var out []runtime.Mount
	taken := map[string]bool{}
	for i := range r.Mounts {
		m := &r.Mounts[i]
		taken[m.Destination] = true
		rm := runtime.Mount{
			Target: m.Destination, Type: "bind", Source: m.Source, ReadOnly: m.ReadOnly,
			RecursiveReadOnly: m.ReadOnly && !m.ReadOnlyNonRecursive, NonRecursive: m.NonRecursive,
			Propagation: string(m.Propagation), Options: m.Options, Subpath: m.Subpath,
		}
		switch m.Type {
		case mount.TypeTmpfs:
			rm.Type, rm.Source = "tmpfs", ""
		case mount.TypeImage: // openImages has the rest
		case typeFile:
			rm.IsFile = true
			if !exists(m.Source) {
				return nil, absentFile(m)
			}
		default:
			var err error
			if rm.IsFile, err = prepareSource(m, &rm); err != nil {
				return nil, err
			}
		}
		out = append(out, rm)
	}
	for _, name := range engineFiles {
		target := "/etc/" + name
		// A mount of the user's on the file, or on all of /etc, wins: that is
		// what he asked for.
		if taken[target] || (r.HostConfig.NetworkMode == network.ModeNone && name == "resolv.conf" && !exists(c.Path(name))) {
			continue
		}
		out = append(out, runtime.Mount{
			Target: target, Type: "bind", Source: b.etcFile(c, r, name), IsFile: true, Engine: true, Propagation: string(mount.PropagationRPrivate),
			ReadOnly: r.HostConfig.ReadonlyRootfs,
		})
	}
	return out, nil
}

// engineFiles are the files in /etc that go with the network.
var engineFiles = []string{"resolv.conf", "hosts", "hostname"}

// etcFile is where one of the files in /etc that go with the network lies: with the
// container whose network it is.
func (b *specBuilder) etcFile(c *container.Container, r *container.Record, name string) string {
	const deepest = 8 // containers in the network of one in the network of one …
	for range deepest {
		if !r.HostConfig.NetworkMode.IsContainer() {
			break
		}
		other, err := b.containers.Find(r.HostConfig.NetworkMode.ConnectedContainer())
		if err != nil {
			break // its network is gone, too: the start has failed already
		}
		c, r = other, other.Load()
	}
	return c.Path(name)
}

// environment completes the record's variables as Docker does: defaults that
// the container's own override, then HOME of the user who runs.
func environment(r *container.Record, links []string, home string) []string {
	env := []string{defaultPath, "HOSTNAME=" + r.Config.Hostname}
	if r.Config.Tty {
		env = append(env, "TERM=xterm")
	}
	return withHome(overrideEnv(append(env, links...), r.Config.Env), home)
}

// overrideEnv replaces in env what more sets and appends the rest. An entry of
// more without "=" takes the variable away.
func overrideEnv(env, more []string) []string {
	at := make(map[string]int, len(env)+len(more))
	out := make([]string, 0, len(env)+len(more)+1)
	put := func(e string) {
		name, _, set := strings.Cut(e, "=")
		i, known := at[name]
		switch {
		case !set && known:
			out[i] = ""
			delete(at, name)
		case !set:
		case known:
			out[i] = e
		default:
			at[name] = len(out)
			out = append(out, e)
		}
	}
	for _, e := range env {
		put(e)
	}
	for _, e := range more {
		put(e)
	}
	kept := out[:0]
	for _, e := range out {
		if e != "" {
			kept = append(kept, e)
		}
	}
	return kept
}

func withHome(env []string, home string) []string {
	for _, e := range env {
		if strings.HasPrefix(e, "HOME=") {
			return env
		}
	}
	if home == "" {
		home = "/"
	}
	return append(env, "HOME="+home)
}

func size16(n uint) uint16 { return uint16(min(n, 1<<16-1)) }

// lookupUser resolves a user inside the rootfs; its faults are the request's.
func lookupUser(rootFD int, spec string, groups []string) (rootpath.User, error) {
	return rootpath.LookupUser(rootFD, spec, groups)
}
