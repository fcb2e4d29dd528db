package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/mount"
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/container"
	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/rootpath"
	"github.com/cleatlabs/cleat/internal/runtime"
	"github.com/cleatlabs/cleat/internal/volume"
)

// mountVolumes readies the volumes of the container: in the order of their names,
// so that two starts and a copy of a volume never wait for each other in a circle.
func (a *attempt) mountVolumes(ctx context.Context) error {
	for _, name := range volumeNames(a.r) {
		if _, err := a.s.volumes.Mount(ctx, name, a.r.ID); err != nil {
			return err
		}
	}
	return nil
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
		if rm.Source, err = subpath(m.Source, m.Subpath); err != nil {
			return false, failure.Invalid("cannot access path %s of volume %s: %w", m.Subpath, m.Name, err)
		}
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

// subpath resolves path inside the volume, which a container may have filled
// with symlinks: the result lies inside it, whatever they say.
func subpath(volume, path string) (string, error) {
	root, err := unix.Open(volume, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", &fs.PathError{Op: "open", Path: volume, Err: err}
	}
	defer unix.Close(root)
	fd, err := rootpath.Open(root, path, unix.O_PATH, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	real, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		return "", err
	}
	if real != volume && !strings.HasPrefix(real, volume+"/") {
		return "", fmt.Errorf("it leads out of the volume")
	}
	return real, nil
}
