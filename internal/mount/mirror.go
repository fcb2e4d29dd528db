package mount

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/failure"
)

// settling is how old the last change of a file must be, when the file is looked at, for its times to tell of every later
// one. It covers what a kernel's clock cannot tell apart (10 ms; a second on ext4 with old inodes) and the time between
// the moment in which a write sets the times and that in which the disk has it (direct I/O).
const settling = 5 * time.Second

// tellsChanges are the magic numbers of filesystems on which every change of a file, through a mapping of it too, sets
// its time of change: ext4 (and 2, 3), XFS, Btrfs, F2FS. Not so tmpfs, nor what a server keeps.
var tellsChanges = []int64{unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.F2FS_SUPER_MAGIC}

// Mirror makes a copy of a directory that others write to, in passes: the first copies everything, each later one what
// has changed since. A last pass while nobody writes makes it a copy of that instant, in little more time than it takes
// to look at every file's attributes. What is copied is as CopyTree has it. It holds some hundred bytes of memory for
// each file, and is for one goroutine.
type Mirror struct {
	src, dst *os.File
	device   uint64
	settling time.Duration
	known    map[uint64]known // by the original's inode number
	c        copier           // of this pass
	still    bool             // nobody writes in this pass
	done     Pass
}

// known is what the last pass found of a file.
type known struct {
	copy         uint64 // the copy's inode number
	size         int64
	mtime, ctime int64 // nanoseconds
	settled      bool  // a later change shows in the times
	shared       bool  // content, with the copy
}

// Pass says what one pass has done.
type Pass struct {
	Copied        // the whole copy
	Looked  int64 // bytes of the files whose content was copied or compared
	Pending int64 // bytes of those that the next pass has to look into again, even if nobody writes
}

// CanMirror says whether the filesystem of a directory tells what has changed; if not, use CopyTree while nobody writes.
func CanMirror(dir string) bool {
	var st unix.Statfs_t
	return unix.Statfs(dir, &st) == nil && slices.Contains(tellsChanges, st.Type)
}

// NewMirror prepares the copy of the directory src to the empty directory dst. Close it.
func NewMirror(src, dst string) (*Mirror, error) {
	from, err := openNoFollow(unix.AT_FDCWD, src)
	if err != nil {
		return nil, err
	}
	to, err := openNoFollow(unix.AT_FDCWD, dst)
	if err != nil {
		from.Close()
		return nil, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(from.Fd()), &st); err != nil {
		from.Close()
		to.Close()
		return nil, &os.PathError{Op: "stat", Path: src, Err: err}
	}
	return &Mirror{src: from, dst: to, device: uint64(st.Dev), settling: settling, known: map[uint64]known{}}, nil
}

// Close frees what the mirror holds; the copy stays as it is.
func (m *Mirror) Close() error { return errors.Join(m.src.Close(), m.dst.Close()) }

// Follow brings the copy up to date while others go on writing: what vanishes meanwhile is left out.
func (m *Mirror) Follow(ctx context.Context) (Pass, error) { return m.pass(ctx, false) }

// Finish makes the copy equal to the original, which nobody writes to meanwhile.
func (m *Mirror) Finish(ctx context.Context) (Pass, error) { return m.pass(ctx, true) }

func (m *Mirror) pass(ctx context.Context, still bool) (Pass, error) {
	m.still, m.done = still, Pass{}
	m.c = copier{ctx: ctx, root: m.dst, links: map[inode]string{}}
	src, err := openNoFollow(int(m.src.Fd()), ".") // a reader of its own: directories are read once
	if err != nil {
		return m.done, err
	}
	defer src.Close()
	dst, err := openNoFollow(int(m.dst.Fd()), ".")
	if err != nil {
		return m.done, err
	}
	defer dst.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(src.Fd()), &st); err != nil {
		return m.done, err
	}
	if err := m.directory(src, dst); err != nil {
		return m.done, err
	}
	return m.done, copyAttributes(int(src.Fd()), int(dst.Fd()), &st, true)
}

// directory makes dst hold what src does.
func (m *Mirror) directory(src, dst *os.File) error {
	if len(m.c.path) > maxDepth {
		return failure.Invalid("directories are nested more than %d deep", maxDepth)
	}
	there, err := dst.Readdirnames(-1)
	if err != nil {
		return err
	}
	names, err := src.Readdirnames(-1)
	if err != nil && !m.vanished(err) {
		return err
	}
	stays := make(map[string]bool, len(names))
	for _, name := range names {
		if err := m.c.ctx.Err(); err != nil {
			return err
		}
		stays[name] = true
		if err := m.entry(int(src.Fd()), int(dst.Fd()), name); err != nil && !m.vanished(err) {
			var deeper *os.PathError
			if errors.As(err, &deeper) {
				return err // names the file already
			}
			return &os.PathError{Op: "copy", Path: filepath.Join(append(m.c.path, name)...), Err: err}
		}
	}
	for _, name := range there {
		if stays[name] {
			continue
		}
		if err := removeAt(int(dst.Fd()), name); err != nil {
			return &os.PathError{Op: "remove", Path: filepath.Join(append(m.c.path, name)...), Err: err}
		}
	}
	return nil
}

// vanished says that a file went away while it was looked at, as it may while others write. What there is of its copy
// goes with the next pass.
func (m *Mirror) vanished(err error) bool {
	return !m.still && (errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESTALE))
}

// entry makes one name in dst what it is in src.
func (m *Mirror) entry(src, dst int, name string) error {
	from, err := unix.Openat(src, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(from)
	var st, copied unix.Stat_t
	if err := unix.Fstat(from, &st); err != nil {
		return err
	}
	kind := st.Mode & unix.S_IFMT
	k, seen := m.known[st.Ino]
	seen = seen && uint64(st.Dev) == m.device
	err = unix.Fstatat(dst, name, &copied, unix.AT_SYMLINK_NOFOLLOW)
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	there := err == nil
	mine := there && seen && copied.Ino == k.copy && copied.Mode&unix.S_IFMT == kind
	if there && !mine {
		if err := removeAt(dst, name); err != nil {
			return err
		}
	}
	if kind == unix.S_IFDIR {
		return m.subdirectory(from, dst, name, &st, mine)
	}
	if st.Nlink > 1 {
		if mine && m.c.links[inode{uint64(st.Dev), st.Ino}] != "" {
			return nil // this pass has seen to it under another name
		}
		if done, err := m.link(&st, dst, name); done || err != nil {
			return err
		}
	}
	if mine && k.unchanged(&st) && copied.Mtim == st.Mtim {
		m.count(&k)
		return nil
	}
	return m.file(from, dst, name, mine)
}

// link makes another name for a file that this pass has copied under an earlier one.
func (m *Mirror) link(st *unix.Stat_t, dst int, name string) (done bool, err error) {
	if first := m.c.links[inode{uint64(st.Dev), st.Ino}]; first != "" {
		if err := removeAt(dst, name); err != nil && !errors.Is(err, unix.ENOENT) {
			return false, err
		}
	}
	return m.c.link(st, dst, name)
}

// file copies what is no directory, anew or over the copy that is there, and notes what it has found.
func (m *Mirror) file(from, dst int, name string, mine bool) error {
	var in *os.File
	var st unix.Stat_t
	err := unix.Fstat(from, &st)
	kind := st.Mode & unix.S_IFMT
	if err == nil && kind == unix.S_IFREG {
		if in, err = os.Open(throughProc(from)); err != nil {
			return err
		}
		defer in.Close()
		if !m.still {
			// What is written through a mapping sets the times only when a page is first
			// written to after it was sent to the disk. So it is sent, and then looked at.
			err = unix.SyncFileRange(int(in.Fd()), 0, 0, unix.SYNC_FILE_RANGE_WAIT_BEFORE|unix.SYNC_FILE_RANGE_WRITE|unix.SYNC_FILE_RANGE_WAIT_AFTER)
			if err == nil {
				err = unix.Fstat(from, &st)
			}
		}
	}
	if err != nil {
		return err
	}
	now := time.Now()
	shared := int64(0)
	switch {
	case in != nil:
		m.done.Looked += st.Size
		was := m.c.done.Shared
		err = m.content(in, dst, name, st.Size, mine)
		shared = m.c.done.Shared - was
	case mine:
		err = removeAt(dst, name)
	}
	if err == nil && in == nil {
		if kind == unix.S_IFLNK {
			err = copyLink(from, dst, name)
		} else {
			err = unix.Mknodat(dst, name, kind|0o600, int(st.Rdev))
		}
	}
	if err != nil {
		return err
	}
	to, err := unix.Openat(dst, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(to)
	if err := copyAttributes(from, to, &st, mine); err != nil {
		return err
	}
	k, err := m.note(to, &st, now, in != nil && shared == st.Size)
	if err == nil {
		m.count(&k)
	}
	return err
}

// note remembers what st, of the time now, says of a file with the copy to.
func (m *Mirror) note(to int, st *unix.Stat_t, now time.Time, shared bool) (known, error) {
	var copied unix.Stat_t
	if err := unix.Fstat(to, &copied); err != nil {
		return known{}, err
	}
	k := known{
		copy: copied.Ino, mtime: st.Mtim.Nano(), ctime: st.Ctim.Nano(), shared: shared,
		settled: time.Unix(0, st.Ctim.Nano()).Add(m.settling).Before(now),
	}
	if st.Mode&unix.S_IFMT == unix.S_IFREG {
		k.size = st.Size
	}
	if uint64(st.Dev) == m.device { // of what is mounted in there nobody knows whether it tells
		m.known[st.Ino] = k
	}
	return k, nil
}

func (m *Mirror) count(k *known) {
	m.done.Bytes += k.size
	if k.shared {
		m.done.Shared += k.size
	}
	if !k.settled {
		m.done.Pending += k.size
	}
}

func (k *known) unchanged(st *unix.Stat_t) bool {
	return k.settled && k.ctime == st.Ctim.Nano() && k.mtime == st.Mtim.Nano() && (k.size == st.Size || st.Mode&unix.S_IFMT != unix.S_IFREG)
}

// subdirectory brings a directory up to date, in the copy that there is or a new one.
func (m *Mirror) subdirectory(from, dst int, name string, st *unix.Stat_t, mine bool) error {
	if !mine {
		if err := unix.Mkdirat(dst, name, 0o700); err != nil {
			return err
		}
	}
	return m.c.inside(from, dst, name, func(in, out *os.File) error {
		before, now := m.known[st.Ino], time.Now()
		// Noted before it is filled: if that is not completed, the next pass goes on with it.
		if _, err := m.note(int(out.Fd()), st, now, false); err != nil {
			return err
		}
		if err := m.directory(in, out); err != nil {
			return err
		}
		var copied unix.Stat_t
		if err := unix.Fstat(int(out.Fd()), &copied); err != nil {
			return err
		}
		if mine && before.unchanged(st) && copied.Mtim == st.Mtim {
			return nil
		}
		return copyAttributes(int(in.Fd()), int(out.Fd()), st, mine)
	})
}

// content makes a file hold what in does: the copy that there is, or a new one.
func (m *Mirror) content(in *os.File, dst int, name string, size int64, mine bool) error {
	flags := unix.O_CREAT | unix.O_EXCL | unix.O_WRONLY
	if mine {
		flags = unix.O_RDWR
	}
	fd, err := unix.Openat(dst, name, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	out := os.NewFile(uintptr(fd), name)
	if mine {
		err = m.refresh(in, out, size)
	} else {
		err = m.c.content(in, out, size)
	}
	return errors.Join(err, out.Close())
}

// refresh makes an older copy equal: it writes only what is different, as most of a large file mostly is not.
func (m *Mirror) refresh(in, out *os.File, size int64) error {
	if size > 0 && unix.IoctlFileClone(int(out.Fd()), int(in.Fd())) == nil {
		m.c.done.Shared += size
		return out.Truncate(size)
	}
	if err := out.Truncate(size); err != nil {
		return err
	}
	a, b := make([]byte, compareChunk), make([]byte, compareChunk)
	for at := int64(0); at < size; {
		data, hole, err := nextData(in, at, size)
		if err != nil {
			return err
		}
		switch err := punch(out, at, data-at); {
		case errors.Is(err, unix.EOPNOTSUPP):
			data = at // its zeros are content then
		case err != nil:
			return err
		}
		for at = data; at < hole; {
			if err := m.c.ctx.Err(); err != nil {
				return err
			}
			n, err := rewrite(in, out, at, a[:min(hole-at, compareChunk)], b)
			if err != nil {
				return err
			}
			if n == 0 {
				return nil // it was cut short meanwhile
			}
			at += int64(n)
		}
	}
	return nil
}

// compareChunk is how many bytes are compared at once: what the processor's cache holds twice.
const compareChunk = 256 << 10

// rewrite writes the chunk at an offset if it is another in the copy, and returns its length.
func rewrite(in, out *os.File, at int64, a, b []byte) (int, error) {
	n, err := in.ReadAt(a, at)
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	had, err := out.ReadAt(b[:n], at)
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	if had == n && bytes.Equal(a[:n], b[:n]) {
		return n, nil
	}
	_, err = out.WriteAt(a[:n], at)
	return n, err
}

// nextData finds the next stretch of content from an offset on; both are size if only a hole is left.
func nextData(f *os.File, at, size int64) (data, hole int64, err error) {
	data, err = unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) {
		return size, size, nil
	}
	if err != nil {
		return 0, 0, err
	}
	hole, err = unix.Seek(int(f.Fd()), data, unix.SEEK_HOLE)
	if errors.Is(err, unix.ENXIO) { // it was cut short meanwhile
		return size, size, nil
	}
	return min(data, size), min(hole, size), err
}

func punch(f *os.File, at, n int64) error {
	if n == 0 {
		return nil
	}
	return unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, at, n)
}

// removeAt deletes a name in an open directory, with all below it. It follows no link.
func removeAt(dir int, name string) error {
	err := unix.Unlinkat(dir, name, 0)
	if !errors.Is(err, unix.EISDIR) {
		return err
	}
	sub, err := openNoFollow(dir, name)
	if err != nil {
		return err
	}
	defer sub.Close()
	names, err := sub.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, n := range names {
		if err := removeAt(int(sub.Fd()), n); err != nil {
			return err
		}
	}
	return unix.Unlinkat(dir, name, unix.AT_REMOVEDIR)
}
