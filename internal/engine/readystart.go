package engine

import (
	"context"
	"errors"

	api "github.com/moby/moby/api/types/container"

	"github.com/cleatlabs/cleat/internal/cgroup"
	"github.com/cleatlabs/cleat/internal/container"
	"github.com/cleatlabs/cleat/internal/runtime"
)

// readiable says whether what a start of r finds is known when r is created: that it has no part in another container,
// in a volume or in files and devices of the host, which all may be others by then.
func readiable(r *container.Record) bool {
	host := r.HostConfig
	joins := host.NetworkMode.IsContainer() || host.PidMode.IsContainer() || host.IpcMode.IsContainer()
	return !joins && len(r.Mounts) == 0 && len(host.Devices) == 0 && len(host.DeviceRequests) == 0 && len(host.Links) == 0 &&
		len(host.StorageOpt) == 0 && !host.Privileged && !r.Config.Tty && r.State.Status == api.StateCreated
}

// makeReady does what a start does but for network and process, with the attempt's group, which it takes over. Where
// that fails, the start does it all, or meets the same and reports it.
func (a *attempt) makeReady(ctx context.Context, resources cgroup.Resources) {
	if !a.filesExist() || a.mountRootfs(ctx) != nil {
		return
	}
	spec, err := a.spec(resources)
	if err != nil {
		return
	}
	switch mode := a.r.HostConfig.NetworkMode; {
	case mode.IsHost():
		spec.NetNS = runtime.HostNetwork
	case mode.IsNone():
		spec.NetNS = runtime.NewNetwork
	default:
		spec.NetNS = runtime.LaterNetwork
	}
	spec.Env = environment(a.r, nil, spec.User.Home)
	spec.Group, a.group = a.group, nil
	a.ready, _ = a.s.runtime.Ready(spec)
}

// filesExist says whether the engine's own files of the container are there for a program to bind, though they are
// written later.
func (a *attempt) filesExist() bool {
	for _, name := range engineFiles {
		if !exists(a.c.Path(name)) {
			return false
		}
	}
	return true
}

// takeReady makes what was begun this attempt's. If it has not got ready, there is the control group at most, which is
// being made again where it went with the rest.
func (a *attempt) takeReady(head *headStart) {
	<-head.readied
	b := head.attempt
	if b.ready == nil {
		defer b.closeFDs()
		if b.group != nil {
			a.group, b.group = b.group, nil
			return
		}
		if err := b.unready(); err != nil {
			a.s.log.Warn("control group of a container that is started late", "container", a.c.ID(), "error", err)
		}
		r := a.r
		a.group = a.s.runtime.PrepareGroup(a.s.specs.cgroupPath(r), head.resources, r.HostConfig.Privileged)
		return
	}
	a.ready, a.rootFD, a.profile = b.ready, b.rootFD, b.profile
	b.ready, b.rootFD = nil, -1
}

// unready undoes what was made ready, but for the mount of the root filesystem.
func (a *attempt) unready() error {
	var err error
	if a.ready != nil {
		err = a.ready.Discard()
		a.ready = nil
	}
	err = errors.Join(err, a.group.Discard())
	a.group = nil
	return err
}
