package localfiles

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Unpack unpacks a tar archive by the plan. A directory is never replaced by a file, nor
// the reverse.
func Unpack(ctx context.Context, r io.Reader, plan Plan) error {
	root, err := os.OpenRoot(plan.Dir)
	if err != nil {
		return err
	}
	defer root.Close()
	u := &unpacker{root: root, dir: plan.Dir}
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return u.finish()
		}
		if err != nil {
			return fmt.Errorf("read the archive: %w", err)
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		h.Name = plan.Rename(h.Name)
		if h.Typeflag == tar.TypeLink {
			h.Linkname = plan.Rename(h.Linkname)
		}
		if err := u.entry(h, tr); err != nil {
			return errors.Join(err, u.finish())
		}
	}
}

type unpacker struct {
	root *os.Root
	dir  string
	dirs []*tar.Header
}

// local is a name of the archive as the root takes it.
func local(name string) string { return path.Clean(strings.TrimLeft(name, "/")) }

func (u *unpacker) entry(h *tar.Header, r io.Reader) error {
	name := local(h.Name)
	if name == "." || h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	if err := u.root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	isDir := h.Typeflag == tar.TypeDir
	was, err := u.root.Lstat(name)
	switch {
	case errors.Is(err, os.ErrNotExist):
	case err != nil:
		return err
	case was.IsDir() && !isDir:
		return fmt.Errorf("cannot overwrite directory %q with non-directory %q", path.Join(u.dir, name), u.dir)
	case !was.IsDir() && isDir:
		return fmt.Errorf("cannot overwrite non-directory %q with directory %q", path.Join(u.dir, name), u.dir)
	case !was.IsDir():
		if err := u.root.Remove(name); err != nil {
			return err
		}
	}
	return u.make(h, name, r, err == nil)
}

func (u *unpacker) make(h *tar.Header, name string, r io.Reader, exists bool) error {
	switch h.Typeflag {
	case tar.TypeDir:
		if !exists {
			if err := u.root.Mkdir(name, 0o700); err != nil {
				return err
			}
		}
		u.dirs = append(u.dirs, h)
		return u.root.Chmod(name, h.FileInfo().Mode().Perm()|0o700)
	case tar.TypeReg:
		return u.file(h, name, r)
	case tar.TypeLink:
		return u.root.Link(local(h.Linkname), name)
	case tar.TypeSymlink:
		return u.root.Symlink(h.Linkname, name)
	case tar.TypeFifo, tar.TypeChar, tar.TypeBlock:
		return u.node(h, name)
	}
	return fmt.Errorf("the archive has %q with the unknown type %q", h.Name, h.Typeflag)
}

func (u *unpacker) file(h *tar.Header, name string, r io.Reader) (err error) {
	f, err := u.root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := f.Close(); err == nil {
			err = cerr
		}
		if err == nil {
			err = u.root.Chtimes(name, accessTime(h), h.ModTime)
		}
	}()
	if _, err := io.Copy(f, r); err != nil {
		return err
	}
	if err := setAttributes(f, h.PAXRecords); err != nil {
		return fmt.Errorf("extended attributes of %s: %w", name, err)
	}
	return f.Chmod(fileMode(h))
}

func fileMode(h *tar.Header) os.FileMode {
	return h.FileInfo().Mode() & (os.ModePerm | os.ModeSetuid | os.ModeSetgid | os.ModeSticky)
}

func accessTime(h *tar.Header) time.Time {
	if h.AccessTime.Before(h.ModTime) {
		return h.ModTime
	}
	return h.AccessTime
}

func (u *unpacker) node(h *tar.Header, name string) error {
	dir, err := u.root.Open(path.Dir(name))
	if err != nil {
		return err
	}
	defer dir.Close()
	kind := map[byte]uint32{tar.TypeFifo: unix.S_IFIFO, tar.TypeChar: unix.S_IFCHR, tar.TypeBlock: unix.S_IFBLK}[h.Typeflag]
	dev := unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor))
	if err := unix.Mknodat(int(dir.Fd()), path.Base(name), kind|0o600, int(dev)); err != nil {
		return &os.PathError{Op: "mknod", Path: path.Join(u.dir, name), Err: err}
	}
	return u.root.Chmod(name, fileMode(h))
}

// finish gives directories what would have been in the way before: a mode that may
// forbid writing, and a time that writing changes. The innermost go first.
func (u *unpacker) finish() error {
	var errs []error
	for i := len(u.dirs) - 1; i >= 0; i-- {
		h := u.dirs[i]
		name := local(h.Name)
		errs = append(errs, u.root.Chtimes(name, accessTime(h), h.ModTime), u.root.Chmod(name, fileMode(h)))
	}
	u.dirs = nil
	return errors.Join(errs...)
}
