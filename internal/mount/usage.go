package mount

import (
	"context"
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// Usage adds up the sizes in bytes of the files below dir, those with several names once. It does not leave dir's
// filesystem, follows no symbolic link, and returns ctx's error when that ends. What disappears meanwhile is left out.
func Usage(ctx context.Context, dir string) (int64, error) {
	top, err := openNoFollow(unix.AT_FDCWD, dir)
	if err != nil {
		return 0, err
	}
	defer top.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(top.Fd()), &st); err != nil {
		return 0, &os.PathError{Op: "stat", Path: dir, Err: err}
	}
	m := meter{ctx: ctx, device: uint64(st.Dev), seen: map[uint64]struct{}{}}
	err = m.directory(top, 0)
	return m.sum, err
}

type meter struct {
	ctx    context.Context
	device uint64
	seen   map[uint64]struct{} // inodes with several names
	sum    int64
}

func (m *meter) directory(dir *os.File, depth int) error {
	if depth > maxDepth {
		return nil
	}
	for {
		if err := m.ctx.Err(); err != nil {
			return err
		}
		names, err := dir.Readdirnames(1024)
		for _, name := range names {
			if err := m.entry(dir, name, depth); err != nil {
				return err
			}
		}
		if err != nil || len(names) == 0 {
			return nil // io.EOF, or it is being deleted
		}
	}
}

func (m *meter) entry(dir *os.File, name string, depth int) error {
	var st unix.Stat_t
	if err := unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil || uint64(st.Dev) != m.device {
		return nil
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		if st.Nlink > 1 {
			if _, double := m.seen[st.Ino]; double {
				return nil
			}
			m.seen[st.Ino] = struct{}{}
		}
		m.sum += st.Size
	case unix.S_IFDIR:
		sub, err := openNoFollow(int(dir.Fd()), name)
		if errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) {
			return err // anything else: it has just been deleted or replaced
		}
		if err != nil {
			return nil
		}
		defer sub.Close()
		return m.directory(sub, depth+1)
	}
	return nil
}
