package engine

import (
	"github.com/moby/moby/api/types/mount"

	"github.com/cleatlabs/cleat/internal/kernel"
	"github.com/cleatlabs/cleat/internal/rootpath"
)

// propagate gives the binds that say nothing of it their propagation.
func (p *mountPlan) propagate(dataRoot string) {
	for i := range p.mounts {
		if m := &p.mounts[i]; m.Type == mount.TypeBind && m.Propagation == "" {
			m.Propagation = usualPropagation(m.Source, dataRoot)
		}
	}
}

// usualPropagation is private, but for what holds the engine's data or lies in it, such as the host's root: as with Docker
// that follows the host where it can, so that monitors which bind it (-v /:/rootfs:ro) see what is mounted later.
func usualPropagation(source, dataRoot string) mount.Propagation {
	if !rootpath.IsBelow(source, dataRoot) && !rootpath.IsBelow(dataRoot, source) {
		return mount.PropagationRPrivate
	}
	if m, err := kernel.MountOf(source); err != nil || !m.Shared && !m.Slave {
		return mount.PropagationRPrivate
	}
	return mount.PropagationRSlave
}
