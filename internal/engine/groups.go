package engine

import (
	"path"

	"github.com/containerd/errdefs"

	"github.com/cleatlabs/cleat/internal/runtime"
)

// removeGroup removes the control group (cgroupPath) of a container that does
// not run, and the parent that it asked for, if that was made for it and is
// empty now.
func (b *specBuilder) removeGroup(rt *runtime.Runtime, group string) error {
	if err := rt.RemoveCgroup(group); err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	if b.ownsParent(group) {
		return nil // it stays for the next container
	}
	return rt.RemoveMadeParent(path.Dir(group))
}

// ownsParent says whether a group lies in the engine's own parent, which a later
// engine searches for what this one may leave. One that lies elsewhere is found
// by its container's record alone, so that must not go before it.
func (b *specBuilder) ownsParent(group string) bool {
	parent := path.Dir(group)
	return parent == "/" || parent == path.Join("/", b.settings.CgroupParent)
}
