package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/container"
	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/image"
	"github.com/cleatlabs/cleat/internal/kernel"
	cmount "github.com/cleatlabs/cleat/internal/mount"
	"github.com/cleatlabs/cleat/internal/rootpath"
	"github.com/cleatlabs/cleat/internal/runtime"
	"github.com/cleatlabs/cleat/internal/volume"
)

// filesystems opens the files of containers for the engine.
type filesystems struct {
	containers *container.Store
	images     *image.Service
	ground     *ground
	volumes    *volume.Service
	lives      *lives
	specs      *specBuilder
	features   kernel.Features
	log        *slog.Logger
	heads      *headStarts

	writers writers
}

// files are a container's, as open has found them.
type files struct {
	c *container.Container
	// root is the topmost directory, with volumes and bind mounts in their places.
	root    int
	locked  bool // nobody starts or removes the container until close
	closers []func()
}

func (f *files) close() {
	for i := len(f.closers) - 1; i >= 0; i-- {
		f.closers[i]()
	}
}

// open gives what a container sees. Of one that runs that is its own mount namespace,
// with tmpfs and whatever else is mounted there. One that does not run gets its
// volumes and bind mounts, as Docker does it, in a view of the engine's own; for
// writing, and before its first start (its volumes are filled from the image first),
// no start can come between until close.
func (fs *filesystems) open(ctx context.Context, name string, write bool) (*files, error) {
	c, err := fs.containers.Find(name)
	if err == nil {
		err = c.Load().Whole()
	}
	if err != nil {
		return nil, err
	}
	if f, err := fs.ofProcess(c, (*runtime.Process).Root); f != nil || err != nil {
		return f, err
	}
	if r := c.Load(); !write && r.State.VolumesFilled {
		f, err := fs.view(ctx, c, false)
		return f, unlessGone(c, err)
	}
	unlock, err := c.Lock(ctx)
	if err != nil {
		return nil, err
	}
	f, err := fs.openLocked(ctx, c)
	if err != nil {
		unlock()
		return nil, err
	}
	f.closers, f.locked = append([]func(){unlock}, f.closers...), true
	return f, nil
}

// fill copies what a container's image holds into its new volumes, as its first start does: another one is to have them.
func (fs *filesystems) fill(ctx context.Context, c *container.Container) error {
	r := c.Load()
	if r.State.VolumesFilled || !slices.ContainsFunc(r.Mounts, func(m container.Mount) bool { return m.CopyUp }) {
		return nil
	}
	unlock, err := c.Lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if r = c.Load(); c.Gone() || r.State.VolumesFilled {
		return nil // whoever takes the mounts of one that is gone finds that its volumes are
	}
	if err := fs.awaitLast(ctx, c); err != nil {
		return err
	}
	r, unmount, err := fs.mountVolumes(ctx, r)
	if err != nil {
		return err
	}
	defer unmount()
	root, err := fs.mountWritable(ctx, c)
	if err != nil {
		return err
	}
	defer unix.Close(root)
	return fs.fillNew(ctx, c, r, root)
}

// fillNew fills the volumes of a container that have not been yet, from its root filesystem.
func (fs *filesystems) fillNew(ctx context.Context, c *container.Container, r *container.Record, root int) error {
	if r.State.VolumesFilled {
		return nil
	}
	if err := fillVolumes(ctx, fs.volumes, root, r); err != nil {
		return err
	}
	return c.SetState(func(st *container.State) { st.VolumesFilled = true })
}

// unlessGone is err, but where files are missing as the container is being removed, or was, it says so.
func unlessGone(c *container.Container, err error) error {
	if errors.Is(err, unix.ENOENT) && (c.Gone() || c.Load().State.Status == api.StateRemoving) {
		return failure.NotFound("No such container: %s", c.ID())
	}
	return err
}

func (fs *filesystems) openLocked(ctx context.Context, c *container.Container) (*files, error) {
	if c.Gone() {
		return nil, failure.NotFound("No such container: %s", c.ID())
	}
	if f, err := fs.ofProcess(c, (*runtime.Process).Root); f != nil || err != nil {
		return f, err // started while we waited
	}
	if err := fs.awaitLast(ctx, c); err != nil {
		return nil, err
	}
	return fs.view(ctx, c, true)
}

// awaitLast waits until the mounts of a container's last process are gone: no two overlays may share a directory to write to.
func (fs *filesystems) awaitLast(ctx context.Context, c *container.Container) error {
	last := fs.lives.of(c).current()
	if last == nil {
		return nil
	}
	select {
	case <-last.left.known:
		last.tidy()
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// ofProcess opens the files by way of the container's process; nil if it has none.
func (fs *filesystems) ofProcess(c *container.Container, open func(*runtime.Process) (int, error)) (*files, error) {
	switch st := c.Load().State.Status; st {
	case api.StateRemoving, api.StateDead:
		return nil, failure.Conflict("container %s is marked for removal: its files cannot be used", c.ID())
	}
	run := fs.lives.of(c).live()
	if run == nil {
		return nil, nil
	}
	root, err := open(run.process)
	if errors.Is(err, runtime.ErrNotRunning) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &files{c: c, root: root, closers: []func(){func() { _ = unix.Close(root) }}}, nil
}

// bare gives the root filesystem alone, as a commit or an export takes it. It needs no
// lock: of a container that does not run, what it wrote is read as one more layer.
func (fs *filesystems) bare(ctx context.Context, c *container.Container) (*files, error) {
	if f, err := fs.ofProcess(c, (*runtime.Process).BareRoot); f != nil || err != nil {
		return f, err
	}
	root, err := fs.mountReadOnly(ctx, c)
	if err != nil {
		return nil, err
	}
	return &files{c: c, root: root, closers: []func(){func() { _ = unix.Close(root) }}}, nil
}

func (fs *filesystems) mountReadOnly(ctx context.Context, c *container.Container) (int, error) {
	lower, err := fs.ground.lower(ctx, c.Load())
	if err != nil {
		return -1, err
	}
	layers := append([]string{c.Path(upperDir)}, lower...)
	fd, err := cmount.Overlay{Lower: layers}.Mount(fs.features)
	if err != nil {
		return -1, fmt.Errorf("root filesystem: %w", err)
	}
	return fd, nil
}

// mountWritable mounts a container's filesystem as a start does. The caller holds its
// lock.
func (fs *filesystems) mountWritable(ctx context.Context, c *container.Container) (int, error) {
	if fd := fs.heads.takeRoot(c.ID()); fd >= 0 {
		return fd, nil
	}
	r := c.Load()
	lower, err := fs.ground.lower(ctx, r)
	if err != nil {
		return -1, err
	}
	if r.State.StartedAt.IsZero() {
		if err := copyRootAttributes(lower, c.Path(upperDir)); err != nil {
			return -1, err
		}
	}
	fd, err := cmount.Overlay{Lower: lower, Upper: c.Path(upperDir), Work: c.Path(workDir)}.Mount(fs.features)
	if err != nil {
		return -1, fmt.Errorf("root filesystem: %w", err)
	}
	return fd, nil
}

// view mounts what a container that does not run would see.
func (fs *filesystems) view(ctx context.Context, c *container.Container, write bool) (*files, error) {
	r := c.Load()
	r, unmount, err := fs.mountVolumes(ctx, r)
	if err != nil {
		return nil, err
	}
	f, err := fs.viewOf(ctx, c, r, write)
	if err != nil {
		unmount()
		return nil, err
	}
	f.closers = append([]func(){unmount}, f.closers...)
	return f, nil
}

// mountVolumes readies the container's volumes, under a name of its own: the container
// may be started and end meanwhile. The record that it returns says where they are.
func (fs *filesystems) mountVolumes(ctx context.Context, r *container.Record) (at *container.Record, unmount func(), err error) {
	fs.fillFirst(ctx, r)
	user := container.NewID()
	names := volumeNames(r)
	unmount = func() {
		for _, name := range names {
			if err := fs.volumes.Unmount(context.WithoutCancel(ctx), name, user); err != nil {
				fs.log.Warn("volume of a container that was copied from or to", "container", r.ID, "volume", name, "error", err)
			}
		}
	}
	for _, name := range names {
		path, err := fs.volumes.Mount(ctx, name, user)
		if err != nil {
			unmount()
			return nil, nil, err
		}
		if isAt(r, name, path) {
			continue
		}
		moved := *r
		moved.Definition = movedVolume(r.Definition, name, path)
		r = &moved
	}
	return r, unmount, nil
}

func (fs *filesystems) viewOf(ctx context.Context, c *container.Container, r *container.Record, write bool) (*files, error) {
	mounts, err := fs.specs.mounts(c, r)
	if err != nil {
		return nil, err
	}
	images, err := openImages(ctx, fs.images, fs.features, r, mounts)
	defer func() {
		for _, fd := range images {
			_ = unix.Close(fd)
		}
	}()
	if err != nil {
		return nil, err
	}
	mountRoot := fs.mountReadOnly
	if write {
		mountRoot = fs.mountWritable
	}
	root, err := mountRoot(ctx, c)
	if err != nil {
		return nil, err
	}
	defer unix.Close(root)
	if write {
		if err := fs.fillNew(ctx, c, r, root); err != nil {
			return nil, err
		}
	}
	v, err := cmount.NewView(root, c.Path(workDir), func() error {
		for i := range mounts {
			if err := place(root, &mounts[i], write); err != nil {
				return unfit(fmt.Errorf("mount %s: %w", mounts[i].Target, err))
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &files{c: c, root: v.Root, closers: []func(){v.Close}}, nil
}

// written says whether a file has content: those of the engine are made with their
// container, and filled by its first start.
func written(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.Size() > 0
}

// unfit makes an error about a mount's place the fault of who chose it, where it is.
func unfit(err error) error {
	if rootpath.Unfit(err) {
		return failure.Wrap(errdefs.ErrInvalidArgument, err)
	}
	return err
}

// place mounts one of a container's mounts in a view. A tmpfs has no content without
// the container that runs.
func place(root int, m *runtime.Mount, write bool) error {
	if m.Type != string(mount.TypeBind) || m.Engine && !written(m.Source) {
		return nil
	}
	target, err := placeOf(root, m, write)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(target)
	tree, err := sourceOf(m)
	if err != nil {
		return err
	}
	if m.Tree == 0 {
		defer unix.Close(tree)
	}
	attr := cmount.Attr{Propagation: "rprivate"}
	if m.ReadOnly || !write {
		attr.Set, attr.Recursive = unix.MOUNT_ATTR_RDONLY, m.RecursiveReadOnly || !write
	}
	if err := cmount.SetAttr(tree, attr); err != nil {
		return err
	}
	return cmount.Attach(tree, target)
}

// sourceOf is what is mounted, as a detached mount. Files keep the owners that they
// have on the disk, whatever the container sees.
func sourceOf(m *runtime.Mount) (int, error) {
	switch {
	case m.Tree != 0:
		return m.Tree, nil
	case m.Subpath != "":
		return cmount.BindBelow(m.Source, m.Subpath, !m.NonRecursive)
	}
	return cmount.Bind(m.Source, !m.NonRecursive)
}

// placeOf opens where a mount belongs; a place that is missing is made where that is
// possible.
func placeOf(root int, m *runtime.Mount, write bool) (int, error) {
	switch {
	case !write || m.Engine:
		return rootpath.Open(root, m.Target, unix.O_PATH, 0)
	case m.IsFile:
		return rootpath.CreateFile(root, m.Target, 0o755, 0, 0)
	default:
		return rootpath.MkdirAll(root, m.Target, 0o755, 0, 0)
	}
}

// pathOf is the path of an open file as the container sees it, without any link.
func (f *files) pathOf(fd int) (string, error) {
	at, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
	if err != nil {
		return "", err
	}
	top, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(f.root))
	if err != nil {
		return "", err
	}
	return "/" + strings.TrimPrefix(strings.TrimPrefix(at, strings.TrimSuffix(top, "/")), "/"), nil
}
