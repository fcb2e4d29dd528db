// Package record writes the engine's durable files and names the instants at
// which a crash must be survivable.
//
// A file written here is either the old one or the new one, never a mixture:
// it is written beside its target and renamed over it. Rename alone survives
// the death of the engine at any instant (kill -9); only WriteDurable, which
// costs one fdatasync, also survives loss of power.
package record

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// tempPrefix marks half-written files. A dot file of this name found at start
// is left over from a crash and belongs to nobody.
const tempPrefix = ".tmp-"

// syncs counts what waited for the disk; see Syncs.
var syncs atomic.Uint64

// Syncs is how often this process has waited for the disk in WriteDurable. What
// a container's life may cost in syncs is a promise that tests hold the engine to.
func Syncs() uint64 { return syncs.Load() }

// Write replaces path atomically with data. Readers see the old or the new
// content; a crash of the engine leaves one of the two. Loss of power may lose
// the new content (never mix the two).
func Write(path string, data []byte, perm os.FileMode) error {
	return write(path, data, perm, false)
}

// WriteDurable is Write with one fdatasync before the rename, so that the
// content is on the disk when the name is.
func WriteDurable(path string, data []byte, perm os.FileMode) error {
	return write(path, data, perm, true)
}

// WritePrepared is WriteDurable of a path that Prepare may have readied, and that was
// not written since.
func WritePrepared(path string, data []byte, perm os.FileMode) error {
	tmp := tempOf(path)
	filled, err := overwrite(tmp, data)
	if err == nil && !filled {
		err = fill(tmp, data, perm, true)
	}
	return put(tmp, path, err)
}

func write(path string, data []byte, perm os.FileMode, durable bool) error {
	tmp := tempOf(path)
	// One writer per file is the caller's promise, so a fixed name is enough
	// and a crash leaves at most one leftover per file.
	return put(tmp, path, fill(tmp, data, perm, durable))
}

// put gives what was written its name, unless that has failed with err.
func put(tmp, path string, err error) error {
	if err == nil {
		err = uninterrupted(func() error { return unix.Rename(tmp, path) })
	}
	if err != nil {
		_ = os.Remove(tmp)
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

func tempOf(path string) string {
	dir, base := filepath.Split(path)
	return filepath.Join(dir, tempPrefix+base)
}

// fill writes by system calls: an os.File would be offered to the poller first,
// which takes as many of them again.
func fill(path string, data []byte, perm os.FileMode, durable bool) error {
	fd := -1
	err := uninterrupted(func() (err error) {
		fd, err = unix.Open(path, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC|unix.O_CLOEXEC, uint32(perm.Perm()))
		return err
	})
	if err != nil {
		return err
	}
	return finish(fd, data, durable)
}

// finish writes data to fd and closes it.
func finish(fd int, data []byte, durable bool) (err error) {
	for len(data) > 0 && err == nil {
		n := 0
		err = uninterrupted(func() (err error) {
			n, err = unix.Write(fd, data)
			return err
		})
		data = data[max(n, 0):]
	}
	if err == nil && durable {
		syncs.Add(1)
		err = uninterrupted(func() error { return unix.Fdatasync(fd) })
	}
	return errors.Join(err, unix.Close(fd))
}

// overwrite is fill of what Prepare or Retire has made; false if there is none with
// room for data. What was there behind it becomes blank.
func overwrite(path string, data []byte) (bool, error) {
	fd := -1
	err := uninterrupted(func() (err error) {
		fd, err = unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
		return err
	})
	if err == unix.ENOENT {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Size != preparedSize || len(data) > preparedSize {
		return false, errors.Join(err, unix.Close(fd))
	}
	whole := blanks(preparedSize)
	copy(whole, data)
	return true, finish(fd, whole, true)
}

func blanks(n int) []byte { return bytes.Repeat([]byte(" "), n) }

func uninterrupted(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}

// preparedSize has room for most containers' records.
const preparedSize = 8 << 10

// Prepare makes the later WritePrepared of each path, whose directory is new, wait
// less: its temporary file is there, and the file and its directories are on the disk
// already. The file has its blocks, too, all blank, which what is written as JSON may
// end in: to write over them changes nothing that a filesystem keeps a journal of. It
// waits for the disk itself, a few times for all, and is meant for when nobody waits.
// SweepTemp takes away what is not used.
func Prepare(paths []string, perm os.FileMode) error {
	var files []*os.File
	var err error
	blank := blanks(preparedSize)
	for _, p := range paths {
		var f *os.File
		if f, err = os.OpenFile(tempOf(p), os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm); err != nil {
			break
		}
		files = append(files, f)
		if _, err = f.Write(blank); err != nil {
			break
		}
		// All are on their way before one is waited for. Where that is not to be had, each is waited for.
		_ = unix.SyncFileRange(int(f.Fd()), 0, 0, unix.SYNC_FILE_RANGE_WRITE)
	}
	for _, f := range files {
		if err == nil {
			err = f.Sync()
		}
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		return fmt.Errorf("preparing records: %w", err)
	}
	return nil
}

// Retire gives the file at path, which nobody needs any more, the name of one that Prepare
// has made. It reports false where WritePrepared was not the last to write it. See Settle.
func Retire(path string) (bool, error) {
	var st unix.Stat_t
	err := unix.Lstat(path, &st)
	if err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size != preparedSize {
		return false, err
	}
	return true, unix.Rename(path, tempOf(path))
}

// Settle ends what Retire has begun with files that have come to lie at paths, below dir:
// WritePrepared writes over them in place, so nothing on the disk may call them by their
// former names any more, or loss of power leaves new content there. Like Prepare it is
// meant for when nobody waits.
func Settle(dir string, paths []string) error {
	err := SyncTree(dir)
	for _, p := range paths {
		// Nothing is left to write. But for ext4 without a journal a renamed file is a new one until its own fsync:
		// the first would write its directories again.
		if err == nil {
			err = fsync(tempOf(p))
		}
	}
	return err
}

// Sync has a file that Write has written, and its name, on the disk. It is for when nobody waits.
func Sync(path string) error {
	syncs.Add(1)
	for _, p := range []string{path, filepath.Dir(path)} {
		if err := fsync(p); err != nil {
			return err
		}
	}
	return nil
}

func fsync(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// SyncTree has everything on the disk that was written below dir: it writes out the
// whole filesystem, which is quicker than doing so file by file.
func SyncTree(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	syncs.Add(1)
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		return fmt.Errorf("syncfs %s: %w", dir, err)
	}
	return nil
}

// WriteJSON is Write with v encoded as JSON.
func WriteJSON(path string, v any, perm os.FileMode) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode %s: %w", path, err)
	}
	return Write(path, data, perm)
}

// ReadJSON decodes the file at path into v. A missing file is fs.ErrNotExist.
func ReadJSON(path string, v any) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("%s is damaged: %w", path, err)
	}
	return nil
}

// SweepTemp removes files in dir that an interrupted Write left behind.
func SweepTemp(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), tempPrefix) {
			err = errors.Join(err, os.Remove(filepath.Join(dir, e.Name())))
		}
	}
	return err
}
