package buildexec

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/moby/buildkit/snapshot"
	"golang.org/x/sys/unix"

	cmount "github.com/cleatlabs/cleat/internal/mount"
)

// forStep marks the context in which a step asks BuildKit for its root filesystem.
type forStep struct{}

// Snapshots gives BuildKit's snapshotter back as one whose overlays are volatile, and that makes the root filesystems of
// steps in the Executor's way: they are mounted nowhere. BuildKit by itself mounts each in the engine's mount namespace,
// for others to share, and takes it down when the step has ended, which is to wait for the disk. Where the kernel cannot
// share a mount that has no place (before Linux 6.15) all is as BuildKit has it.
func (e *Executor) Snapshots(s snapshot.Snapshotter) snapshot.Snapshotter {
	if !sharesDetached() {
		return s
	}
	return &snapshots{Snapshotter: s, e: e}
}

// sharesDetached asks the kernel.
func sharesDetached() bool {
	fs, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return false
	}
	defer unix.Close(fs)
	if err := unix.FsconfigCreate(fs); err != nil {
		return false
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	clone, err := cmount.BindFD(fd, true)
	if err != nil {
		return false
	}
	return unix.Close(clone) == nil
}

type snapshots struct {
	snapshot.Snapshotter
	e *Executor
}

func (s *snapshots) Mounts(ctx context.Context, key string) (snapshot.Mountable, error) {
	m, err := s.Snapshotter.Mounts(ctx, key)
	if err != nil {
		return nil, err
	}
	if ctx.Value(forStep{}) == nil {
		return &copyRoot{Mountable: m, e: s.e}, nil
	}
	return &stepRoot{Mountable: m, e: s.e}, nil
}

// copyRoot is what BuildKit itself mounts and writes to, for COPY and the like: an overlay that is not synced when it is
// taken down either.
type copyRoot struct {
	snapshot.Mountable
	e *Executor
}

// maxPage is how many layers always fit into mount(2)'s options, which is how BuildKit mounts: their names have one page.
const maxPage = 256

// Mount gives the mounts that are to be made. What is no overlay that can be written to is as it is.
func (r *copyRoot) Mount() ([]mount.Mount, func() error, error) {
	list, release, err := r.Mountable.Mount()
	if err != nil || len(list) != 1 || list[0].Type != "overlay" {
		return list, release, err
	}
	o, err := overlayOf(list[0])
	if err != nil || o.Upper == "" {
		return list, release, nil // BuildKit knows what to do with it
	}
	if len(o.Lower) > maxPage {
		return r.detached(o, release)
	}
	// A mark is there if an engine was killed while it had this mounted.
	if err := o.ForgetVolatile(); err != nil {
		return nil, nil, errors.Join(err, release())
	}
	m := list[0]
	m.Options = append(slices.Clone(m.Options), "volatile")
	return []mount.Mount{m}, sync.OnceValue(func() error {
		return errors.Join(o.ForgetVolatile(), r.e.settling.wrote(o.Upper), release())
	}), nil
}

// detached makes the overlay, and gives a bind of it.
func (r *copyRoot) detached(o cmount.Overlay, release func() error) ([]mount.Mount, func() error, error) {
	fd, err := volatile(o, r.e.overlay)
	if err != nil {
		return nil, nil, errors.Join(err, release())
	}
	return bindOf(fd), sync.OnceValue(func() error {
		return errors.Join(unix.Close(fd), r.e.settling.wrote(o.Upper), release())
	}), nil
}

// bindOf is the mount of what is open.
func bindOf(fd int) []mount.Mount {
	return []mount.Mount{{Type: "bind", Source: fmt.Sprintf("/proc/self/fd/%d", fd), Options: []string{"rbind", "rw"}}}
}

// stepRoot is the root filesystem of a step. All who have it at a time, such as processes that look into a failed step,
// share one overlay: two of the same directories would not see each other's changes.
type stepRoot struct {
	snapshot.Mountable
	e *Executor

	mu      sync.Mutex
	users   int
	fd      int // the overlay, while there are users
	upper   string
	release func() error
}

// Mount gives a bind of the overlay, by its descriptor.
func (r *stepRoot) Mount() ([]mount.Mount, func() error, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.users == 0 {
		if list, release, err := r.open(); list != nil || err != nil {
			return list, release, err
		}
	}
	r.users++
	return bindOf(r.fd), sync.OnceValue(r.leave), nil
}

// open makes the overlay. What is no overlay that can be written to is returned as it is.
func (r *stepRoot) open() ([]mount.Mount, func() error, error) {
	list, release, err := r.Mountable.Mount()
	if err != nil {
		return nil, nil, err
	}
	var o cmount.Overlay
	if len(list) == 1 && list[0].Type == "overlay" {
		if o, err = overlayOf(list[0]); err != nil {
			return nil, nil, errors.Join(err, release())
		}
	}
	if o.Upper == "" {
		return list, release, nil
	}
	if r.fd, err = volatile(o, r.e.overlay); err != nil {
		return nil, nil, errors.Join(err, release())
	}
	r.upper, r.release = o.Upper, release
	return nil, nil, nil
}

func (r *stepRoot) leave() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.users--; r.users > 0 {
		return nil
	}
	return errors.Join(unix.Close(r.fd), r.e.settling.wrote(r.upper), r.release())
}
