package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"

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

// mountVolumes readies the volumes of the container: in the order of their names,
// so that two starts and a copy of a volume never wait for each other in a circle.
func (a *attempt) mountVolumes(ctx context.Context) error {
	for _, name := range volumeNames(a.r) {
		path, err := a.s.volumes.Mount(ctx, name, a.r.ID)
		if err != nil {
			return err
		}
		if err := a.foundAt(name, path); err != nil {
			return err
		}
	}
	return nil
}

// foundAt records where a volume is, which a plugin says only when it has mounted it.
func (a *attempt) foundAt(name, path string) error {
	if isAt(a.r, name, path) {
		return nil
	}
	err := a.s.containers.Redefine(a.c, func(d *container.Definition) { *d = movedVolume(*d, name, path) })
	a.r = a.c.Load()
	return err
}

// isAt says whether a container's record has the volume at path.
func isAt(r *container.Record, name, path string) bool {
	return !slices.ContainsFunc(r.Mounts, func(m container.Mount) bool { return m.Name == name && m.Source != path })
}

// movedVolume is d with the volume at path.
func movedVolume(d container.Definition, name, path string) container.Definition {
	d.Mounts = slices.Clone(d.Mounts)
	for i := range d.Mounts {
		if d.Mounts[i].Name == name {
			d.Mounts[i].Source = path
		}
	}
	return d
}

// unmountVolumes takes back what mountVolumes did.
func unmountVolumes(ctx context.Context, volumes *volume.Service, r *container.Record, log *slog.Logger) {
	for _, name := range volumeNames(r) {
		if err := volumes.Unmount(ctx, name, r.ID); err != nil {
			log.Warn("volume of a container that does not run any more", "container", r.ID, "volume", name, "error", err)
		}
	}
}

// volumeNames lists the volumes of a container, each once.
func volumeNames(r *container.Record) []string {
	var names []string
	for i := range r.Mounts {
		if name := r.Mounts[i].Name; name != "" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// prepareSource makes sure that the host side of a bind or volume is there,
// and says whether it is a file.
func prepareSource(m *container.Mount, rm *runtime.Mount) (isFile bool, err error) {
	if m.Subpath != "" {
		return statBelow(m)
	}
	st, err := os.Stat(rm.Source)
	if errors.Is(err, fs.ErrNotExist) && m.CreateSource {
		if err := os.MkdirAll(rm.Source, 0o755); err != nil {
			return false, failure.Invalid("error while creating mount source path '%s': %w", rm.Source, err)
		}
		return false, nil
	}
	if errors.Is(err, fs.ErrNotExist) {
		if m.Type == mount.TypeVolume {
			return false, failure.NotFound("the data of volume %s is missing: %s does not exist", m.Name, rm.Source)
		}
		return false, failure.Invalid("invalid mount config for type \"bind\": bind source path does not exist: %s", rm.Source)
	}
	if err != nil {
		return false, fmt.Errorf("mount source: %w", err)
	}
	return !st.IsDir(), nil
}

// statBelow says whether a volume's subpath is a file. The volume may be full of
// links that a container made: none leads out of it, here or when it is bound.
func statBelow(m *container.Mount) (isFile bool, err error) {
	root, err := unix.Open(m.Source, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false, &fs.PathError{Op: "open", Path: m.Source, Err: err}
	}
	defer unix.Close(root)
	st, err := statAt(root, m.Subpath)
	if err != nil {
		return false, failure.Invalid("cannot access path %s of volume %s: %w", m.Subpath, m.Name, err)
	}
	return st.Mode&unix.S_IFMT != unix.S_IFDIR, nil
}

func statAt(root int, path string) (st unix.Stat_t, err error) {
	fd, err := rootpath.Open(root, path, unix.O_PATH, 0)
	if err != nil {
		return st, err
	}
	defer unix.Close(fd)
	return st, unix.Fstat(fd, &st)
}

// openImages mounts the images among a container's mounts, of which ms are the
// first in the same order. The descriptors are the caller's to close.
func openImages(ctx context.Context, images *image.Service, f kernel.Features, r *container.Record, ms []runtime.Mount) (fds []int, err error) {
	for i := range r.Mounts {
		m := &r.Mounts[i]
		if m.Type != mount.TypeImage {
			continue
		}
		fd, err := openImage(ctx, images, f, m)
		if err != nil {
			return fds, failure.Invalid("mount of image %s: %w", m.Source, err)
		}
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return append(fds, fd), err
		}
		fds = append(fds, fd)
		ms[i].Tree, ms[i].IsFile = fd, st.Mode&unix.S_IFMT != unix.S_IFDIR
	}
	return fds, nil
}

func openImage(ctx context.Context, images *image.Service, f kernel.Features, m *container.Mount) (int, error) {
	lower, err := images.Lower(ctx, asImage(m.Image))
	if err != nil {
		return -1, err
	}
	if len(lower) == 1 { // an overlay needs two
		return cmount.BindBelow(lower[0], "/"+m.Subpath, false)
	}
	tree, err := cmount.Overlay{Lower: lower}.Mount(f)
	if err != nil || m.Subpath == "" {
		return tree, err
	}
	defer unix.Close(tree)
	return cmount.Subtree(tree, m.Subpath)
}

// openMaps makes the user namespaces that binds with idmap need, and closes those
// that it has made if it fails.
func openMaps(r *container.Record, user rootpath.User, ms []runtime.Mount) (fds []int, err error) {
	for i := range r.Mounts {
		m := &r.Mounts[i]
		if m.IDMap == nil {
			continue
		}
		host := *m.IDMap
		if host.Owner {
			var st unix.Stat_t
			if err := unix.Stat(m.Source, &st); err != nil {
				return fds, &fs.PathError{Op: "stat", Path: m.Source, Err: err}
			}
			host.UID, host.GID = int(st.Uid), int(st.Gid)
		}
		if host.UID == user.UID && host.GID == user.GID {
			continue
		}
		fd, err := cmount.UserNamespace(cmount.Swap{Disk: uint32(host.UID), Mounted: uint32(user.UID)}, cmount.Swap{Disk: uint32(host.GID), Mounted: uint32(user.GID)})
		if err != nil {
			return fds, fmt.Errorf("idmap of %s: %w", m.Source, err)
		}
		fds = append(fds, fd)
		ms[i].UserNS = fd
	}
	return fds, nil
}
