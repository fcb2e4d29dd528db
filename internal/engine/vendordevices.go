package engine

import (
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cleatlabs/cleat/internal/cdi"
	"github.com/cleatlabs/cleat/internal/cgroup"
	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/runtime"
)

const (
	cdiDriver = "cdi"
	gpuDriver = "nvidia"
	gpuKind   = "nvidia.com/gpu" // of which --gpus are, as Docker has it
	gpuAdvice = "nvidia-ctk cdi generate --disable-hook=all --output=/etc/cdi/nvidia.yaml describes the host's"
	nodeMode  = 0o666 // of a device whose description says no other
)

// vendorDevices are what the requested devices of vendors bring with them; nil are none.
type vendorDevices struct{ edits *cdi.Edits }

// requestedDevices finds what --gpus and --device VENDOR/CLASS=NAME ask for. A request
// that cannot be met is an error, whatever the rest.
func requestedDevices(dirs []string, requests []container.DeviceRequest) (*vendorDevices, error) {
	if len(requests) == 0 {
		return nil, nil
	}
	var names []string
	gpus := false
	for i := range requests {
		more, err := deviceNames(&requests[i])
		if err != nil {
			return nil, err
		}
		gpus = gpus || requests[i].Driver != cdiDriver
		names = append(names, more...)
	}
	edits, err := cdi.Find(dirs, names)
	if err != nil && gpus {
		return nil, failure.Invalid("could not select device driver %q with capabilities: %v: %w; %s",
			requests[0].Driver, requests[0].Capabilities, err, gpuAdvice)
	}
	if err != nil {
		return nil, err
	}
	return &vendorDevices{edits}, nil
}

// deviceNames are the names by which the vendors know what is asked for.
func deviceNames(r *container.DeviceRequest) ([]string, error) {
	if len(r.Options) > 0 {
		return nil, failure.NotImplemented("options of device requests are not supported by this engine: leave out %v", r.Options)
	}
	if r.Driver == cdiDriver {
		if len(r.Capabilities) > 0 || r.Count != 0 {
			return nil, failure.Invalid("device requests of the driver cdi name their devices, without capabilities and count")
		}
		return r.DeviceIDs, nil
	}
	isGPU := len(r.Capabilities) == 0 || slices.ContainsFunc(r.Capabilities, func(all []string) bool { return slices.Contains(all, "gpu") })
	if r.Driver != "" && r.Driver != gpuDriver || !isGPU {
		return nil, failure.Invalid("could not select device driver %q with capabilities: %v", r.Driver, r.Capabilities)
	}
	if len(r.DeviceIDs) > 0 && r.Count != 0 {
		return nil, failure.Invalid("cannot set both Count and DeviceIDs on device request")
	}
	ids := r.DeviceIDs
	switch {
	case r.Count < 0:
		ids = []string{"all"}
	case r.Count > maxGPUs:
		return nil, failure.Invalid("invalid device request: %d GPUs", r.Count)
	}
	for i := range r.Count {
		ids = append(ids, strconv.Itoa(i))
	}
	names := make([]string, 0, len(ids))
	for _, id := range ids {
		names = append(names, gpuKind+"="+id)
	}
	return names, nil
}

// maxGPUs bounds what a request can make of memory.
const maxGPUs = 1024

// rules let the container use the devices.
func (v *vendorDevices) rules() ([]cgroup.DeviceRule, error) {
	if v == nil {
		return nil, nil
	}
	var out []cgroup.DeviceRule
	for i := range v.edits.Rules {
		r := &v.edits.Rules[i]
		kind, err := deviceKind(r.Type)
		if err != nil {
			return nil, err
		}
		if r.Access == "" {
			continue // a node that is only there
		}
		out = append(out, cgroup.DeviceRule{Allow: true, Type: kind, Major: orAny(r.Major), Minor: orAny(r.Minor), Access: r.Access})
	}
	return out, nil
}

func orAny(n *int64) int64 {
	if n == nil {
		return -1
	}
	return *n
}

func deviceKind(t string) (rune, error) {
	if len(t) != 1 || !strings.Contains("bcup", t) {
		return 0, failure.Invalid("CDI device injection failed: a device of type %q", t)
	}
	return rune(t[0]), nil
}

// addTo puts nodes, files and groups into a container that is being started.
func (v *vendorDevices) addTo(s *runtime.Spec) error {
	if v == nil {
		return nil
	}
	for i := range v.edits.Devices {
		d, err := nodeOf(&v.edits.Devices[i])
		if err != nil {
			return err
		}
		s.Devices = slices.DeleteFunc(s.Devices, func(o runtime.Device) bool { return o.Path == d.Path })
		s.Devices = append(s.Devices, d)
	}
	for i := range v.edits.Mounts {
		m, err := mountOf(&v.edits.Mounts[i])
		if err != nil {
			return err
		}
		s.Mounts = slices.DeleteFunc(s.Mounts, func(o runtime.Mount) bool { return o.Target == m.Target })
		s.Mounts = append(s.Mounts, m)
	}
	if len(v.edits.Mounts) > 0 {
		slices.SortStableFunc(s.Mounts, func(a, b runtime.Mount) int { return higherFirst(a.Target, b.Target) })
	}
	for _, g := range v.edits.Groups {
		if !slices.Contains(s.User.Groups, int(g)) {
			s.User.Groups = append(s.User.Groups, int(g))
		}
	}
	return nil
}

// env completes a container's variables.
func (v *vendorDevices) env(env []string) []string {
	if v == nil {
		return env
	}
	return overrideEnv(env, v.edits.Env)
}

func nodeOf(d *specs.LinuxDevice) (runtime.Device, error) {
	kind, err := deviceKind(d.Type)
	if err != nil {
		return runtime.Device{}, err
	}
	out := runtime.Device{Path: d.Path, Type: kind, Major: d.Major, Minor: d.Minor, Mode: nodeMode}
	if d.FileMode != nil {
		out.Mode = uint32(d.FileMode.Perm())
	}
	if d.UID != nil {
		out.UID = *d.UID
	}
	if d.GID != nil {
		out.GID = *d.GID
	}
	return out, nil
}

// mountOf is a bind of a description: its options are those of mount(8).
func mountOf(m *specs.Mount) (runtime.Mount, error) {
	target, err := checkTarget(m.Destination, m.Destination)
	if err != nil {
		return runtime.Mount{}, err
	}
	st, err := os.Stat(m.Source)
	if err != nil {
		return runtime.Mount{}, failure.Invalid("CDI device injection failed: mount of %s: %w", m.Source, err)
	}
	out := runtime.Mount{Target: target, Type: "bind", Source: m.Source, IsFile: !st.IsDir(), NonRecursive: true, Propagation: "rprivate"}
	for _, o := range m.Options {
		switch o {
		case "ro":
			out.ReadOnly = true
		case "rbind":
			out.NonRecursive = false
		case "bind", "rw":
		case "private", "rprivate", "slave", "rslave", "shared", "rshared":
			out.Propagation = o
		case "nosuid", "suid", "nodev", "dev", "noexec", "exec", "noatime", "relatime", "strictatime", "nodiratime", "nosymfollow":
			out.Options = append(out.Options, o)
		default:
			return out, failure.NotImplemented("CDI device injection failed: mount of %s: the option %q is not supported by this engine", m.Source, o)
		}
	}
	return out, nil
}
