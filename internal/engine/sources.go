package engine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/moby/moby/api/types/mount"
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/container"
	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/rootpath"
	"github.com/cleatlabs/cleat/internal/runtime"
)

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
