package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/cleatlabs/cleat/internal/container"
	"github.com/cleatlabs/cleat/internal/image"
	cmount "github.com/cleatlabs/cleat/internal/mount"
)

// ground is a directory that lies below the layers of every container's image. It
// has what the engine mounts something on in every container, and images often
// lack, and what programs expect to find in a container of Docker's: made once, it
// need not be made in each container's own layer, which has the kernel copy
// directories up and costs a start as much as its overlay does. An image that has
// one of the names itself covers the ground's. Where an image hides
// what is below it (with a whiteout, an opaque directory or a link), the start
// makes what it misses, as it always can.
type ground struct {
	dir    string
	images *image.Service
}

func newGround(dataRoot string, images *image.Service) *ground {
	return &ground{dir: filepath.Join(dataRoot, "ground"), images: images}
}

// make makes what is missing of the ground. Nothing ever writes to it but this.
func (g *ground) make() error {
	for _, dir := range []string{"", "dev", "etc", "proc", "sys"} {
		if err := g.clear(dir, fs.ModeDir); err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Join(g.dir, dir), 0o755); err != nil {
			return fmt.Errorf("mount points of containers: %w", err)
		}
	}
	for _, name := range engineFiles {
		if err := g.file(filepath.Join("etc", name), 0o644); err != nil {
			return err
		}
	}
	if err := g.file(containerMark, 0o755); err != nil {
		return err
	}
	if err := g.clear(mountTable, fs.ModeSymlink); err != nil {
		return err
	}
	err := os.Symlink("/proc/mounts", filepath.Join(g.dir, mountTable))
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("what containers find in their files: %w", err)
	}
	return nil
}

// clear takes away what somebody or a damaged disk has put in the place of one of ours, which is of that type.
func (g *ground) clear(name string, want fs.FileMode) error {
	path := filepath.Join(g.dir, name)
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist), err == nil && info.Mode().Type() == want:
		return nil
	case err == nil:
		err = os.RemoveAll(path)
	}
	if err != nil {
		return fmt.Errorf("mount points of containers: %w", err)
	}
	return nil
}

// What programs look for in a container of Docker's beside the mount points.
const (
	// containerMark is the empty file by which they know that they are in a container.
	containerMark = ".dockerenv"
	// mountTable is where older ones look for what is mounted.
	mountTable = "etc/mtab"
)

// file makes an empty file of the ground if it is missing.
func (g *ground) file(name string, mode fs.FileMode) error {
	if err := g.clear(name, 0); err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(g.dir, name), os.O_WRONLY|os.O_CREATE, mode)
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		return fmt.Errorf("what containers find in their files: %w", err)
	}
	return nil
}

// lower lists the directories that the container's own layer lies over, topmost
// first: its image's, and the ground.
func (g *ground) lower(ctx context.Context, r *container.Record) ([]string, error) {
	lower, err := g.images.Lower(ctx, imageOf(r))
	if err != nil {
		return nil, fmt.Errorf("layers of image %s: %w", r.Config.Image, err)
	}
	// One more may lie on top, when a container is only looked at.
	if len(lower)+2 > cmount.MaxLayers {
		return lower, nil
	}
	return append(lower[:len(lower):len(lower)], g.dir), nil
}
