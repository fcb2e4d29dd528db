package buildexec

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/rootpath"
)

// To sync a filesystem is to wait for all that is dirty on it, be it others': the files of a client's context, above
// all, of which the step's are copies. Where steps have written a few large files, those alone are synced; many small
// ones come to the disk faster with the whole filesystem.

const (
	// mostFewFiles is how many files and directories are few.
	mostFewFiles = 64
	// leastLarge is how many bytes in all are worth it.
	leastLarge = 8 << 20
)

// errMany says that there is too much to go through.
var errMany = errors.New("many files")

// layerFiles are files and directories of a layer, by their names in it.
type layerFiles struct {
	dir   string
	names []string
}

// fewLarge lists what is below directories, if it is a few large files.
func fewLarge(dirs ...string) (list []layerFiles, ok bool) {
	entries, bytes := 0, int64(0)
	for _, dir := range dirs {
		l := layerFiles{dir: dir}
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if entries++; entries > mostFewFiles {
				return errMany
			}
			if d.Type().IsRegular() {
				st, err := d.Info()
				if err != nil {
					return err
				}
				bytes += st.Size()
			}
			if d.Type().IsRegular() || d.IsDir() {
				l.names = append(l.names, strings.TrimPrefix(path, dir))
			}
			return nil
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // which is a step's that was not kept
			return nil, false
		}
		list = append(list, l)
	}
	return list, bytes >= leastLarge
}

// each calls do with each of the files. What has gone meanwhile need not be on the disk.
func (l layerFiles) each(do func(fd int) error) error {
	dir, err := unix.Open(l.dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return &os.PathError{Op: "open", Path: l.dir, Err: err}
	}
	defer unix.Close(dir)
	for _, name := range l.names {
		fd, err := rootpath.Open(dir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = errors.Join(do(fd), unix.Close(fd))
		}
		if err != nil {
			return fmt.Errorf("sync %s of %s: %w", name, l.dir, err)
		}
	}
	return nil
}

// beginWriting has the kernel begin to write large files that a step has left, while its layer is being archived. Where
// it does not, the sync takes the longer.
func beginWriting(upper string) {
	list, ok := fewLarge(upper)
	for _, l := range list {
		if ok {
			_ = l.each(func(fd int) error { return unix.SyncFileRange(fd, 0, 0, unix.SYNC_FILE_RANGE_WRITE) })
		}
	}
}

// sync returns when what steps have written is on the disk.
func (w *written) sync() error {
	list, ok := fewLarge(w.uppers...)
	if !ok {
		return unix.Syncfs(w.fd)
	}
	for _, l := range list {
		if err := l.each(unix.Fsync); err != nil {
			return err
		}
		// The layer itself, and its name.
		own := layerFiles{filepath.Dir(filepath.Dir(l.dir)), []string{"", filepath.Base(filepath.Dir(l.dir))}}
		if err := own.each(unix.Fsync); err != nil {
			return err
		}
	}
	return nil
}
