// Package cdi finds devices that their vendors describe in files of the Container Device Interface: device nodes, the
// files that go with them and variables, under a name such as nvidia.com/gpu=0.
//
// Promises:
//   - The files are read when a device is asked for, and not before: whoever uses none pays nothing, and a description
//     that was installed a moment ago counts.
//   - A device is had with all that its description asks for, or not at all. Hooks, which are programs of the vendor's
//     to be run, network devices and RDT classes are refused by name.
package cdi

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"tags.cncf.io/container-device-interface/pkg/cdi"
	"tags.cncf.io/container-device-interface/pkg/parser"

	"github.com/cleatlabs/cleat/internal/failure"
)

// DefaultDirs are where descriptions lie; those of a later directory win.
func DefaultDirs() []string { return []string{cdi.DefaultStaticDir, cdi.DefaultDynamicDir} }

// Edits are what a container gets with its devices.
type Edits struct {
	Env     []string
	Devices []specs.LinuxDevice       // type, numbers and path are always set
	Rules   []specs.LinuxDeviceCgroup // all of them allow
	Mounts  []specs.Mount
	Groups  []uint32
}

// IsName says whether a string has the form of a device's name, vendor/class=device.
func IsName(s string) bool { return parser.IsQualifiedName(s) }

// Find gives what the named devices ask for. One that nobody describes is errdefs.ErrInvalidArgument, as is one that
// cannot be had in full.
func Find(dirs, names []string) (*Edits, error) {
	for _, n := range names {
		if !IsName(n) {
			return nil, failure.Invalid("CDI device injection failed: %q is not the name of a device, as vendor.com/class=name", n)
		}
	}
	cache, err := cdi.NewCache(cdi.WithSpecDirs(dirs...), cdi.WithAutoRefresh(false))
	if err != nil {
		return nil, failure.Invalid("CDI device injection failed: %w", err)
	}
	spec := &specs.Spec{Process: &specs.Process{}, Linux: &specs.Linux{}}
	unknown, err := cache.InjectDevices(spec, names...)
	if len(unknown) > 0 {
		return nil, failure.Invalid("CDI device injection failed: unresolvable CDI devices %s: no description of them in %s%s",
			strings.Join(unknown, ", "), strings.Join(dirs, " or "), faults(cache))
	}
	if err != nil {
		return nil, failure.Invalid("CDI device injection failed: %w", err)
	}
	return editsOf(spec, names)
}

// editsOf takes out of a specification what was put in, and refuses what a container cannot have here.
func editsOf(spec *specs.Spec, names []string) (*Edits, error) {
	e := &Edits{Env: spec.Process.Env, Groups: spec.Process.User.AdditionalGids, Mounts: spec.Mounts, Devices: spec.Linux.Devices}
	if spec.Linux.Resources != nil {
		e.Rules = spec.Linux.Resources.Devices
	}
	what := strings.Join(names, ", ")
	switch {
	case spec.Hooks != nil:
		return nil, failure.NotImplemented("CDI device %s: its description has hooks (%s), and this engine runs no programs of the host: "+
			"generate one without them (nvidia-ctk cdi generate --disable-hook=all)", what, strings.Join(hookNames(spec.Hooks), ", "))
	case len(spec.Linux.NetDevices) > 0:
		return nil, failure.NotImplemented("CDI device %s: network devices are not supported by this engine", what)
	case spec.Linux.IntelRdt != nil:
		return nil, failure.NotImplemented("CDI device %s: RDT classes (intelRdt) are not supported by this engine", what)
	}
	for _, m := range e.Mounts {
		if m.Type != "" && m.Type != "bind" {
			return nil, failure.NotImplemented("CDI device %s: a mount of type %s is not supported by this engine", what, m.Type)
		}
	}
	return e, nil
}

func hookNames(h *specs.Hooks) []string {
	paths := map[string]bool{}
	//nolint:staticcheck // descriptions may have the old kind, too
	for _, list := range [][]specs.Hook{h.Prestart, h.CreateRuntime, h.CreateContainer, h.StartContainer, h.Poststart, h.Poststop} {
		for _, hook := range list {
			paths[hook.Path] = true
		}
	}
	return slices.Sorted(maps.Keys(paths))
}

// faults says which descriptions could not be read: the device may be in one of them.
func faults(cache *cdi.Cache) string {
	var out []string
	all := cache.GetErrors()
	for _, path := range slices.Sorted(maps.Keys(all)) {
		out = append(out, fmt.Sprintf("%s: %v", path, errors.Join(all[path]...)))
	}
	if len(out) == 0 {
		return ""
	}
	return "; some could not be read: " + strings.Join(out, "; ")
}

// Names lists all devices that are described, sorted.
func Names(dirs []string) []string {
	cache, err := cdi.NewCache(cdi.WithSpecDirs(dirs...), cdi.WithAutoRefresh(false))
	if err != nil {
		return nil
	}
	return slices.Sorted(slices.Values(cache.ListDevices()))
}
