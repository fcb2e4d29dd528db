package engine

import (
	"context"
	"path"
	"time"

	"github.com/containerd/errdefs"

	"github.com/cleatlabs/cleat/internal/runtime"
	"github.com/cleatlabs/cleat/internal/systemd"
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

// sliceTimeout bounds the start of a slice, as calls on D-Bus usually are.
const sliceTimeout = 25 * time.Second

// startSlice has systemd start the slice that a container is to lie in, if it is to lie in one.
func (s *Starter) startSlice(ctx context.Context, parent string) error {
	if !s.settings.Slices || !systemd.IsSlice(parent) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, sliceTimeout)
	defer cancel()
	return systemd.StartSlice(ctx, parent)
}

// checkSlice refuses a parent that is named as a slice and can be none.
func checkSlice(parent string, settings *Settings) error {
	if !settings.Slices || !systemd.IsSlice(parent) {
		return nil
	}
	_, err := systemd.GroupOfSlice(parent)
	return err
}

// ownsParent says whether a group lies in the engine's own parent, which a later
// engine searches for what this one may leave. One that lies elsewhere is found
// by its container's record alone, so that must not go before it.
func (b *specBuilder) ownsParent(group string) bool {
	parent := path.Dir(group)
	return parent == "/" || parent == path.Join("/", b.settings.CgroupParent)
}
