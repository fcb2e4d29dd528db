package build

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/cleatlabs/cleat/internal/mount"
)

// Sweep takes down what an engine that was killed while it built has left mounted: below
// temporary, the directory that this process makes its temporary files in, and below
// the builder's root. It costs next to nothing if there is nothing to sweep. Call it
// before anything is built.
func Sweep(root, temporary string) error {
	return errors.Join(sweep(filepath.Join(root, mountsDir)), sweep(temporary))
}

// sweep empties a directory whose entries may be mounts.
func sweep(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(entries) == 0 {
		return nil
	}
	if err != nil {
		return fmt.Errorf("sweep after builds: %w", err)
	}
	if err := mount.UnmountAll(dir); err != nil {
		return fmt.Errorf("sweep after builds: %w", err)
	}
	var errs []error
	for _, e := range entries {
		errs = append(errs, os.RemoveAll(filepath.Join(dir, e.Name())))
	}
	return errors.Join(errs...)
}
