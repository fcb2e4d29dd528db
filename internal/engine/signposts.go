package engine

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/container"
)

// storageDriver is what programs are told that containers' files are kept by. It is the name that they know best:
// cAdvisor, told overlayfs, asks a containerd that is not there and leaves all containers out.
const storageDriver = "overlay2"

// Programs that know the driver look for a container's files there: <data-root>/image/overlay2/layerdb/mounts/ID/mount-id
// has a name, and <data-root>/overlay2/NAME/diff is the writable layer. Here both lead to the container's directory, and the
// name is its id. As diff is a link, who counts the bytes below it and those of the container's directory, as cAdvisor does,
// counts none twice.
const (
	mountIDFile = "mount-id"
	upperLink   = "diff"
)

// makeSignposts makes what leads to containers' files, where it is missing: earlier engines have made none.
func makeSignposts(dataRoot string, containers *container.Store) error {
	layers := filepath.Join(dataRoot, "image", storageDriver, "layerdb")
	if err := os.MkdirAll(layers, 0o710); err != nil {
		return err
	}
	for _, link := range []string{filepath.Join(layers, "mounts"), filepath.Join(dataRoot, storageDriver)} {
		// Relative, so that it leads there from a container with the host's / mounted, too.
		target, err := filepath.Rel(filepath.Dir(link), containers.DirOf(""))
		if err == nil {
			err = symlink(target, link)
		}
		if err != nil {
			return err
		}
	}
	for _, c := range containers.All() {
		if exists(c.Path(mountIDFile)) {
			continue
		}
		if err := errors.Join(symlink(upperDir, c.Path(upperLink)), writeMountID(c.Dir())); err != nil {
			return err
		}
	}
	return nil
}

// symlink leaves alone what is there.
func symlink(target, link string) error {
	if err := os.Symlink(target, link); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// writeMountID fills the file in a container's directory, which has the container's id as its name. What a former
// container's file held is as long. It is not truncated first: ext4 has what was truncated written to the disk at once.
// System calls do it, as every create waits for it: an os.File would be offered to the poller first.
func writeMountID(dir string) error {
	path := filepath.Join(dir, mountIDFile)
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CREAT|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	if _, err = unix.Write(fd, []byte(filepath.Base(dir))); err != nil {
		err = &os.PathError{Op: "write", Path: path, Err: err}
	}
	return errors.Join(err, unix.Close(fd))
}
