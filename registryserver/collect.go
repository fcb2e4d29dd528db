package registryserver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/distribution/distribution/v3/registry/storage"
	"github.com/distribution/distribution/v3/registry/storage/driver/filesystem"
	"golang.org/x/sys/unix"
)

// Collect removes from the directory data what no manifest refers to any more, as after manifests were deleted, and what
// uploads that were never finished have left. It says how many bytes that freed. It is an error while a server has the
// directory: what is being pushed is referred to last.
func Collect(ctx context.Context, data string) (freed int64, err error) {
	held, err := hold(data, unix.LOCK_EX)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return 0, fmt.Errorf("a registry serves %s: end it first, and start it again afterwards", data)
	}
	if err != nil {
		return 0, err
	}
	defer held.Close()
	before, err := size(data)
	if err != nil {
		return 0, err
	}
	if _, err := os.Stat(filepath.Join(data, repositoriesDir)); errors.Is(err, fs.ErrNotExist) {
		return 0, nil // nothing was ever pushed
	}
	files := filesystem.New(filesystem.DriverParameters{RootDirectory: data, MaxThreads: 100})
	repositories, err := storage.NewRegistry(ctx, files)
	if err == nil {
		err = storage.MarkAndSweep(ctx, files, repositories, storage.GCOpts{Quiet: true})
	}
	if err != nil {
		return 0, fmt.Errorf("collect what is not needed in %s: %w", data, err)
	}
	if _, errs := storage.PurgeUploads(ctx, files, time.Now(), true); len(errs) > 0 {
		return 0, fmt.Errorf("remove unfinished uploads in %s: %w", data, errors.Join(errs...))
	}
	after, err := size(data)
	return before - after, err
}

// repositoriesDir is where distribution has the repositories, below the data directory.
const repositoriesDir = "docker/registry/v2/repositories"

// hold takes a directory for the life of the process or until it is closed: servers share it, a collection has it alone.
func hold(dir string, how int) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, &os.PathError{Op: "lock", Path: dir, Err: err}
	}
	return f, nil
}

// size is how many bytes the files below a directory have.
func size(dir string) (n int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			n += info.Size()
		}
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("measure %s: %w", dir, err)
	}
	return n, nil
}
