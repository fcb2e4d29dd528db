package archive

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/failure"
)

// maxDepth is how deep directories may be nested: as deep as a path can name.
const maxDepth = unix.PathMax / 2

// copyBuffer is the size of one read of a file's content.
const copyBuffer = 256 << 10

// Packer writes a tar stream. It is not safe for concurrent use.
type Packer struct {
	ctx   context.Context
	tw    *tar.Writer
	links map[inode]string // files with several names, by the one packed first
	buf   []byte
}

type inode struct{ dev, ino uint64 }

// NewPacker makes a packer that writes to w until ctx ends.
func NewPacker(ctx context.Context, w io.Writer) *Packer {
	return &Packer{ctx: ctx, tw: tar.NewWriter(w), links: map[inode]string{}}
}

// Close writes the end of the stream. It does not close the underlying writer.
func (p *Packer) Close() error { return p.tw.Close() }

// Tree packs the file that fd (O_PATH is enough) stands for, with everything below it,
// under the name as. A file below that disappears meanwhile is left out. Sockets are
// left out too: they mean nothing without the process that serves them.
func (p *Packer) Tree(fd int, as string) error {
	f := &entry{fd: fd}
	if err := unix.Fstat(fd, &f.st); err != nil {
		return &os.PathError{Op: "stat", Path: as, Err: err}
	}
	return p.tree(f, as, 0)
}

func (p *Packer) tree(f *entry, as string, depth int) error {
	if depth > maxDepth {
		return failure.Invalid("directories are nested more than %d deep", maxDepth)
	}
	if err := p.one(f, as); err != nil {
		return err
	}
	if f.kind() != unix.S_IFDIR || isKernelInterface(f.fd) {
		return nil
	}
	sub, err := openDirectory(f.fd)
	if err != nil {
		return gone(err)
	}
	defer sub.Close()
	names, err := sub.Readdirnames(-1)
	if err != nil {
		return gone(err)
	}
	slices.Sort(names)
	for _, name := range names {
		child, err := openEntry(int(sub.Fd()), name)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return err
		}
		err = p.tree(child, join(as, name), depth+1)
		child.close()
		if err != nil {
			return err
		}
	}
	return nil
}

// join keeps a leading "./" and does not double a slash.
func join(dir, name string) string { return strings.TrimSuffix(dir, "/") + "/" + name }

// gone makes nothing of a file that has disappeared.
func gone(err error) error {
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

// File packs the one file name of the directory dir under the name as: of a directory
// only itself.
func (p *Packer) File(dir int, name, as string) error {
	f, err := openEntry(dir, name)
	if err != nil {
		return err
	}
	defer f.close()
	return p.one(f, as)
}

// Whiteout packs the mark that a layer removes the file called as.
func (p *Packer) Whiteout(as string) error {
	dir, base := path.Split(as)
	return p.header(&tar.Header{Typeflag: tar.TypeReg, Name: dir + ".wh." + base, Mode: 0o600, ModTime: time.Unix(0, 0)})
}

func (p *Packer) header(h *tar.Header) error {
	if err := p.ctx.Err(); err != nil {
		return context.Cause(p.ctx)
	}
	h.Format = tar.FormatPAX
	return p.tw.WriteHeader(h)
}

// one packs a single file.
func (p *Packer) one(f *entry, as string) error {
	h, err := f.header(as)
	if h == nil || err != nil {
		return err
	}
	if f.kind() != unix.S_IFDIR && f.st.Nlink > 1 {
		key := inode{uint64(f.st.Dev), f.st.Ino}
		if first, seen := p.links[key]; seen {
			h.Typeflag, h.Linkname, h.Size, h.PAXRecords = tar.TypeLink, first, 0, nil
			return p.header(h)
		}
		p.links[key] = as
	}
	if h.Typeflag != tar.TypeReg {
		return p.header(h)
	}
	content, err := os.Open(procPath(f.fd)) // known to be a regular file
	if err != nil {
		return fmt.Errorf("%s: %w", as, err)
	}
	defer content.Close()
	if err := p.header(h); err != nil {
		return err
	}
	return p.content(content, as, h.Size)
}

// content packs exactly size bytes: of a file that has grown meanwhile no more, of one
// that has shrunk zeros in place of the rest.
func (p *Packer) content(r io.Reader, as string, size int64) error {
	if p.buf == nil {
		p.buf = make([]byte, copyBuffer)
	}
	for size > 0 {
		if p.ctx.Err() != nil {
			return context.Cause(p.ctx)
		}
		chunk := p.buf[:min(int64(len(p.buf)), size)]
		n, err := io.ReadFull(r, chunk)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			clear(chunk[n:])
			n, err = len(chunk), nil
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", as, err)
		}
		if _, err := p.tw.Write(chunk[:n]); err != nil {
			return err
		}
		size -= int64(n)
	}
	return nil
}

// entry is a file that is held by an O_PATH descriptor, links not followed.
type entry struct {
	fd int
	st unix.Stat_t
}

func openEntry(dir int, name string) (*entry, error) {
	fd, err := unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	f := &entry{fd: fd}
	if err := unix.Fstat(fd, &f.st); err != nil {
		f.close()
		return nil, &os.PathError{Op: "stat", Path: name, Err: err}
	}
	return f, nil
}

func (f *entry) close() { _ = unix.Close(f.fd) }

func (f *entry) kind() uint32 { return f.st.Mode & unix.S_IFMT }

// openDirectory opens the directory that dir stands for, to be read.
func openDirectory(dir int) (*os.File, error) {
	fd, err := unix.Openat(dir, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: ".", Err: err}
	}
	return os.NewFile(uintptr(fd), "."), nil
}

// procPath names an open file, of whatever type, to calls that take only paths.
func procPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// header describes the file; nil for a socket.
func (f *entry) header(as string) (*tar.Header, error) {
	h := &tar.Header{
		Name: as, Mode: int64(f.st.Mode & 0o7777), Uid: int(f.st.Uid), Gid: int(f.st.Gid),
		ModTime: time.Unix(f.st.Mtim.Unix()),
	}
	switch f.kind() {
	case unix.S_IFREG:
		h.Typeflag, h.Size = tar.TypeReg, f.st.Size
	case unix.S_IFDIR:
		h.Typeflag, h.Name = tar.TypeDir, strings.TrimSuffix(as, "/")+"/"
	case unix.S_IFLNK:
		h.Typeflag = tar.TypeSymlink
		target, err := readLink(f.fd)
		if err != nil {
			return nil, fmt.Errorf("read the link %s: %w", as, err)
		}
		h.Linkname = target
	case unix.S_IFIFO:
		h.Typeflag = tar.TypeFifo
	case unix.S_IFCHR, unix.S_IFBLK:
		h.Typeflag = tar.TypeChar
		if f.kind() == unix.S_IFBLK {
			h.Typeflag = tar.TypeBlock
		}
		h.Devmajor, h.Devminor = int64(unix.Major(uint64(f.st.Rdev))), int64(unix.Minor(uint64(f.st.Rdev)))
	default:
		return nil, nil
	}
	if h.Typeflag == tar.TypeReg || h.Typeflag == tar.TypeDir {
		attrs, err := readAttributes(f.fd)
		if err != nil {
			return nil, fmt.Errorf("extended attributes of %s: %w", as, err)
		}
		h.PAXRecords = attrs
	}
	return h, nil
}

func readLink(fd int) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(fd, "", buf)
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

// isKernelInterface reports whether a directory lies on a filesystem whose files are not
// data.
func isKernelInterface(fd int) bool {
	var fs unix.Statfs_t
	if unix.Fstatfs(fd, &fs) != nil {
		return false
	}
	switch int64(fs.Type) {
	case unix.PROC_SUPER_MAGIC, unix.SYSFS_MAGIC, unix.CGROUP_SUPER_MAGIC, unix.CGROUP2_SUPER_MAGIC, unix.DEVPTS_SUPER_MAGIC,
		unix.DEBUGFS_MAGIC, unix.TRACEFS_MAGIC, unix.SECURITYFS_MAGIC, unix.BPF_FS_MAGIC, unix.PSTOREFS_MAGIC, unix.SELINUX_MAGIC,
		unix.EFIVARFS_MAGIC, mqueueMagic:
		return true
	}
	return false
}

// mqueueMagic is that of POSIX message queues, which the kernel's headers do not have.
const mqueueMagic = 0x19800202

// IsKernelInterface reports whether the file that fd stands for lies on a filesystem that
// is an interface of the kernel (procfs, sysfs …) and holds no files to copy.
func IsKernelInterface(fd int) bool { return isKernelInterface(fd) }
