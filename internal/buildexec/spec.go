package buildexec

import (
	"fmt"
	"math"
	"path"
	"strings"

	"github.com/moby/buildkit/executor"
	"github.com/moby/buildkit/solver/pb"

	"github.com/cleatlabs/cleat/internal/cgroup"
	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/kernel"
	"github.com/cleatlabs/cleat/internal/rootpath"
	"github.com/cleatlabs/cleat/internal/runtime"
)

// defaultHostname is what steps are called in every builder; their results must not depend on which one it is.
const defaultHostname = "buildkitsandbox"

// checkMeta refuses what cannot be done as asked.
func checkMeta(m *executor.Meta) error {
	if err := pb.ValidateSecurityMode(m.SecurityMode); err != nil {
		return err
	}
	for _, d := range m.CDIDevices {
		if d != nil && !d.Optional {
			return failure.NotImplemented("device %s: CDI devices are not supported in build steps", d.Name)
		}
	}
	if m.Proxy != nil {
		return failure.NotImplemented("network proxy: BuildKit's proxy network for build steps is not supported")
	}
	if p := m.CgroupParent; p != "" {
		if strings.Contains(p, ".slice") || strings.ContainsAny(p, ":\x00\n") {
			return failure.Invalid("cgroup parent %q is not a path such as /builds (systemd slices are not supported)", p)
		}
		if clean := path.Clean("/" + p); clean == "/" {
			return failure.Invalid("cgroup parent %q is the root", p)
		}
		return cgroup.CheckPath(groupBelow(p, newID()))
	}
	return nil
}

// resources are the limits of a step.
func resources(m *executor.Meta) (cgroup.Resources, error) {
	r := cgroup.Resources{Devices: stepDevices(), AllowAllDevices: m.SecurityMode == pb.SecurityMode_INSECURE}
	l := m.LinuxResources
	if l == nil {
		return r, nil
	}
	if l.CpuShares > math.MaxInt64 || l.CpuPeriod > math.MaxInt64 {
		return r, failure.Invalid("CPU shares %d or period %d are out of range", l.CpuShares, l.CpuPeriod)
	}
	r.Memory, r.MemorySwap = l.Memory, l.MemorySwap
	r.CPUShares, r.CPUPeriod, r.CPUQuota = int64(l.CpuShares), int64(l.CpuPeriod), l.CpuQuota
	r.CpusetCpus, r.CpusetMems = l.CpusetCpus, l.CpusetMems
	return r, nil
}

// spec is what the runtime starts. Everything in it has been made.
func (s *step) spec() (*runtime.Spec, error) {
	m := &s.meta
	res, err := resources(m)
	if err != nil {
		return nil, err
	}
	spec := &runtime.Spec{
		ID: "build-" + s.id, RootFD: s.bound, ReadonlyRootfs: s.readonly,
		Args: m.Args, Env: withHome(m.Env, s.user), Cwd: m.Cwd, User: s.user,
		Hostname: m.Hostname, Mounts: s.mounts, NetNS: s.netNS(), CgroupPath: s.groupPath, Resources: res, Group: s.group,
		Rlimits: rlimits(m.Ulimit),
	}
	if spec.Hostname == "" {
		spec.Hostname = defaultHostname
	}
	return spec, s.e.confine(spec, s.insecure())
}

func (s *step) netNS() int {
	switch {
	case s.place != nil:
		return s.place.ns
	case s.meta.NetMode == pb.NetMode_HOST:
		return runtime.HostNetwork
	default:
		return runtime.NewNetwork
	}
}

// confine makes a step what a container is by default, or, if it may be, a privileged one.
func (e *Executor) confine(spec *runtime.Spec, insecure bool) (err error) {
	if spec.Capabilities, err = kernel.EffectiveCaps(nil, nil, insecure, e.c.Features.LastCap); err != nil {
		return err
	}
	if spec.AppArmorProfile, err = e.c.AppArmor.Choose("", insecure); err != nil {
		return err
	}
	if insecure {
		spec.Privileged, spec.Devices = true, insecureDevices()
		return nil
	}
	spec.MaskedPaths, spec.ReadonlyPaths = runtime.DefaultMaskedPaths(), runtime.DefaultReadonlyPaths()
	spec.Seccomp, err = e.filters.Default(spec.Capabilities, e.c.Features.Major, e.c.Features.Minor)
	return err
}

// insecureDevices are those that BuildKit gives a step without confinement, whether the kernel has drivers for them or
// not.
func insecureDevices() []runtime.Device {
	list := []runtime.Device{
		{Path: "/dev/kmsg", Type: 'c', Major: 1, Minor: 11}, {Path: "/dev/cuse", Type: 'c', Major: 10, Minor: 203},
		{Path: "/dev/fuse", Type: 'c', Major: 10, Minor: 229}, {Path: "/dev/kvm", Type: 'c', Major: 10, Minor: 232},
		{Path: "/dev/net/tun", Type: 'c', Major: 10, Minor: 200}, {Path: "/dev/loop-control", Type: 'c', Major: 10, Minor: 237},
	}
	const loops = 16
	for i := range loops {
		list = append(list, runtime.Device{Path: fmt.Sprintf("/dev/loop%d", i), Type: 'b', Major: 7, Minor: int64(i)})
	}
	for i := range list {
		list[i].Mode = 0o600
	}
	return list
}

// rlimits passes a step's limits on. A negative number is no limit.
func rlimits(list []*pb.Ulimit) []runtime.Rlimit {
	var out []runtime.Rlimit
	for _, u := range list {
		if u != nil {
			out = append(out, runtime.Rlimit{Type: u.Name, Soft: uint64(u.Soft), Hard: uint64(u.Hard)})
		}
	}
	return out
}

// withHome adds HOME where a step has none, as OCI runtimes do.
func withHome(env []string, u rootpath.User) []string {
	for _, e := range env {
		if strings.HasPrefix(e, "HOME=") {
			return env
		}
	}
	return append(env[:len(env):len(env)], "HOME="+u.Home)
}
