package archive

import (
	"archive/tar"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/kernel"
	"github.com/cleatlabs/cleat/internal/rootpath"
)

// Options are the choices of [Unpack].
type Options struct {
	// KeepKind refuses to replace a directory by something else, and the reverse.
	KeepKind bool
	// Owner, if not nil, is whom all files are given to; else it is as the stream says.
	Owner *Owner
	// Whole lets an entry for the directory itself, as "./", count, too.
	Whole bool
}

// Owner is a user and a group.
type Owner struct{ UID, GID int }

// Unpack unpacks the tar stream r into the directory dir, an absolute path, inside
// the root. Existing directories are merged with those of the stream, other files are
// replaced. Missing directories on the way are made, with mode 0755 and root's. dir
// itself stays as it is, unless Options.Whole says otherwise.
//
// A stream that is no tar stream, or has names that lead out of dir, is
// errdefs.ErrInvalidArgument; what was unpacked before stays.
func Unpack(ctx context.Context, rootFD int, dir string, r io.Reader, o Options) error {
	u := &unpacker{ctx: ctx, root: rootFD, dir: dir, o: o, parentFD: -1, dirs: map[string][]unix.Timespec{}}
	defer u.leave()
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return u.finish()
		}
		if err != nil {
			return u.streamError(err)
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := CheckName(h); err != nil {
			return errors.Join(err, u.finish())
		}
		if err := u.entry(h, tr); err != nil {
			return errors.Join(err, u.finish())
		}
	}
}

type unpacker struct {
	ctx  context.Context
	root int
	dir  string
	o    Options
	buf  []byte

	parent   string // the directory that parentFD stands for, relative to dir
	parentFD int
	// dirs are the times of directories, set when nothing is unpacked into them any more.
	dirs      map[string][]unix.Timespec
	dirsBytes int // of their names
}

// mostDirsBytes bounds the names of the directories whose times have yet to be set: an archive that takes little room,
// compressed, can have any number of them.
const mostDirsBytes = 4 << 20

// streamError tells a damaged stream from a client that has gone.
func (u *unpacker) streamError(err error) error {
	if u.ctx.Err() != nil {
		return context.Cause(u.ctx)
	}
	if errors.Is(err, tar.ErrHeader) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, tar.ErrFieldTooLong) {
		return failure.Invalid("the archive is damaged or not a tar archive: %w", err)
	}
	return fmt.Errorf("read the archive: %w", err)
}

// CheckName refuses a file of a stream whose name no path can hold.
func CheckName(h *tar.Header) error {
	if longest := max(len(h.Name), len(h.Linkname)); longest >= unix.PathMax {
		return failure.Invalid("the archive has a name of %d bytes, longer than any path can be: %.40q …", longest, h.Name)
	}
	return nil
}

// inside cleans a name of the stream and refuses one that leads out of the directory.
func inside(name string) (string, error) {
	if strings.ContainsRune(name, 0) {
		return "", failure.Invalid("the archive has a name with a zero byte: %q", name)
	}
	// As Docker, an absolute name counts from the directory.
	clean := path.Clean(strings.TrimLeft(name, "/"))
	if clean == ".." || strings.HasPrefix(clean, "../") {
		return "", failure.Invalid("the archive has the name %q, outside of the directory that it is unpacked into", name)
	}
	return clean, nil
}

// top is the name of the directory itself.
const top = "."

func (u *unpacker) entry(h *tar.Header, r io.Reader) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	name, err := inside(h.Name)
	if err != nil || name == top && !(u.o.Whole && h.Typeflag == tar.TypeDir) {
		return err
	}
	f := &incoming{u: u, h: h, r: r, name: name, base: path.Base(name)}
	if f.owner, err = u.owner(h); err != nil {
		return err
	}
	if err := u.enter(path.Dir(name)); err != nil {
		return err
	}
	if err := f.unpack(); err != nil {
		return f.explain(err)
	}
	return nil
}

func (u *unpacker) owner(h *tar.Header) (Owner, error) {
	if u.o.Owner != nil {
		return *u.o.Owner, nil
	}
	const most = 1<<32 - 2
	if h.Uid < 0 || h.Gid < 0 || h.Uid > most || h.Gid > most {
		return Owner{}, failure.Invalid("the archive gives %q to %d:%d, which is no user and group", h.Name, h.Uid, h.Gid)
	}
	return Owner{h.Uid, h.Gid}, nil
}

// enter opens the directory that the next files go into. It is resolved from the root:
// links that the container has on the way count, inside.
func (u *unpacker) enter(parent string) error {
	if u.parentFD >= 0 && u.parent == parent {
		return nil
	}
	u.leave()
	at := path.Join(u.dir, parent)
	fd, err := rootpath.MkdirAll(u.root, at, 0o755, 0, 0)
	if err != nil {
		if errors.Is(err, unix.ENOTDIR) {
			return failure.Invalid("%s is not a directory", at)
		}
		if errors.Is(err, unix.ENAMETOOLONG) {
			return failure.Invalid("the archive has a name that is too long: %.40q …", parent)
		}
		return err
	}
	if isKernelInterface(fd) {
		_ = unix.Close(fd)
		return failure.Invalid("%s is an interface of the kernel: files cannot be copied into it", at)
	}
	u.parent, u.parentFD = parent, fd
	return nil
}

func (u *unpacker) leave() {
	if u.parentFD >= 0 {
		_ = unix.Close(u.parentFD)
		u.parentFD = -1
	}
}

// later notes the time of a directory, and sets those of earlier ones when they become many, but for the directories that
// this one lies in: an archive has what is in a directory behind it, before what is not.
func (u *unpacker) later(name string, times []unix.Timespec) error {
	if _, again := u.dirs[name]; !again {
		u.dirsBytes += len(name)
	}
	u.dirs[name] = times
	if u.dirsBytes <= mostDirsBytes {
		return nil
	}
	return u.setTimes(func(other string) bool { return other != top && !strings.HasPrefix(name+"/", other+"/") })
}

// finish sets the times of directories, which unpacking into them has changed.
func (u *unpacker) finish() error {
	u.leave()
	return u.setTimes(func(string) bool { return true })
}

func (u *unpacker) setTimes(of func(dir string) bool) error {
	for name, times := range u.dirs {
		if !of(name) {
			continue
		}
		delete(u.dirs, name)
		u.dirsBytes -= len(name)
		fd, err := rootpath.Open(u.root, path.Join(u.dir, name), unix.O_PATH|unix.O_NOFOLLOW|unix.O_DIRECTORY, 0)
		if err != nil {
			continue // somebody else has replaced it
		}
		err = unix.UtimesNanoAt(fd, "", times, unix.AT_EMPTY_PATH)
		_ = unix.Close(fd)
		if err != nil {
			return fmt.Errorf("set the time of %s: %w", name, err)
		}
	}
	return nil
}

// incoming is one file of the stream on its way into its directory.
type incoming struct {
	u          *unpacker
	h          *tar.Header
	r          io.Reader
	name, base string
	owner      Owner
}

func (f *incoming) explain(err error) error {
	if failure.Class(err) != nil || f.u.ctx.Err() != nil {
		return err
	}
	err = kernel.NoSpace(bare(err), "/proc/self/fd/"+strconv.Itoa(f.u.parentFD))
	return &os.PathError{Op: "unpack", Path: path.Join(f.u.dir, f.name), Err: err}
}

// bare is the errno of an error that names the path of a descriptor, or the error.
func bare(err error) error {
	var pe *os.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

// occupant is what has the name already.
type occupant struct {
	there, dir, mounted bool
}

func (f *incoming) occupant() (occupant, error) {
	var st unix.Statx_t
	err := unix.Statx(f.u.parentFD, f.base, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, unix.STATX_TYPE, &st)
	if errors.Is(err, unix.ENOENT) {
		return occupant{}, nil
	}
	if err != nil {
		return occupant{}, err
	}
	return occupant{there: true, dir: st.Mode&unix.S_IFMT == unix.S_IFDIR, mounted: st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0}, nil
}

func (f *incoming) unpack() error {
	was, err := f.occupant()
	if err != nil {
		return err
	}
	isDir := f.h.Typeflag == tar.TypeDir
	at := path.Join(f.u.dir, f.name)
	switch {
	case !was.there, was.dir && isDir:
	case f.u.o.KeepKind && was.dir:
		return failure.Invalid("cannot overwrite directory %q with non-directory %q", at, f.u.dir)
	case f.u.o.KeepKind && isDir:
		return failure.Invalid("cannot overwrite non-directory %q with directory %q", at, f.u.dir)
	case was.mounted:
		// Its name seems free to the kernel, since the mount is in the container's
		// namespace only: taking it would take the mount away.
		return unix.EBUSY
	case was.dir:
		if err := removeTree(f.u.parentFD, f.base); err != nil {
			return err
		}
	case isDir:
		if err := unix.Unlinkat(f.u.parentFD, f.base, 0); err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
	switch f.h.Typeflag {
	case tar.TypeDir:
		return f.directory(was.there && was.dir)
	case tar.TypeReg, '\x00', tar.TypeCont, tar.TypeGNUSparse: // whose holes the reader has filled
		return f.regular()
	case tar.TypeLink:
		return f.hardLink()
	case tar.TypeSymlink:
		return f.put(func(name string) error { return unix.Symlinkat(f.h.Linkname, f.u.parentFD, name) }, true)
	case tar.TypeFifo:
		return f.node(unix.S_IFIFO)
	case tar.TypeChar:
		return f.node(unix.S_IFCHR)
	case tar.TypeBlock:
		return f.node(unix.S_IFBLK)
	}
	return failure.Invalid("the archive has %q with the unknown type %q", f.h.Name, f.h.Typeflag)
}

func (f *incoming) directory(exists bool) error {
	if !exists {
		if err := unix.Mkdirat(f.u.parentFD, f.base, 0o700); err != nil {
			return err
		}
	}
	fd, err := unix.Openat(f.u.parentFD, f.base, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if isKernelInterface(fd) {
		return nil // /proc in an archive of a whole tree
	}
	if err := f.dress(fd); err != nil {
		return err
	}
	return f.u.later(f.name, f.times())
}

func (f *incoming) node(kind uint32) error {
	dev := unix.Mkdev(uint32(f.h.Devmajor), uint32(f.h.Devminor))
	return f.put(func(name string) error { return unix.Mknodat(f.u.parentFD, name, kind|0o600, int(dev)) }, true)
}

// hardLink makes another name for a file of the directory that is unpacked into.
func (f *incoming) hardLink() error {
	target, err := inside(f.h.Linkname)
	if err != nil {
		return err
	}
	fd, err := rootpath.Open(f.u.root, path.Join(f.u.dir, target), unix.O_PATH|unix.O_NOFOLLOW, 0)
	if errors.Is(err, unix.ENOENT) {
		return failure.Invalid("the archive links %q to %q, which is not there", f.h.Name, f.h.Linkname)
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return f.put(func(name string) error {
		return unix.Linkat(unix.AT_FDCWD, procPath(fd), f.u.parentFD, name, unix.AT_SYMLINK_FOLLOW)
	}, false)
}

// regular unpacks a file under no name, and then gives it the name.
func (f *incoming) regular() error {
	fd, err := unix.Openat(f.u.parentFD, ".", unix.O_TMPFILE|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EISDIR) || errors.Is(err, unix.ENOENT) {
		return f.regularNamed()
	}
	if err != nil {
		return err
	}
	file := os.NewFile(uintptr(fd), f.base)
	defer file.Close()
	if err := f.fill(file); err != nil {
		return err
	}
	return f.put(func(name string) error {
		return unix.Linkat(unix.AT_FDCWD, procPath(fd), f.u.parentFD, name, unix.AT_SYMLINK_FOLLOW)
	}, false)
}

// regularNamed is for filesystems without nameless files.
func (f *incoming) regularNamed() error {
	name := temporaryName()
	fd, err := unix.Openat(f.u.parentFD, name, unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	file := os.NewFile(uintptr(fd), f.base)
	err = f.fill(file)
	file.Close()
	if err == nil {
		err = unix.Renameat(f.u.parentFD, name, f.u.parentFD, f.base)
	}
	if err != nil {
		return errors.Join(err, unix.Unlinkat(f.u.parentFD, name, 0))
	}
	return nil
}

// fill gives a new file its content and all else.
func (f *incoming) fill(file *os.File) error {
	if f.u.buf == nil {
		f.u.buf = make([]byte, copyBuffer)
	}
	if err := f.content(file); err != nil {
		return err
	}
	if err := f.dress(int(file.Fd())); err != nil {
		return err
	}
	return unix.UtimesNanoAt(int(file.Fd()), "", f.times(), unix.AT_EMPTY_PATH)
}

// checked is how large a file, in bytes, the filesystem's size is compared with.
const checked = 1 << 30

// content writes what is not zero; the rest becomes holes.
func (f *incoming) content(file *os.File) error {
	if f.h.Size >= checked {
		if err := f.possible(file); err != nil {
			return err
		}
	}
	for at := int64(0); at < f.h.Size; {
		if f.u.ctx.Err() != nil {
			return context.Cause(f.u.ctx)
		}
		n, err := io.ReadFull(f.r, f.u.buf[:min(int64(len(f.u.buf)), f.h.Size-at)])
		if err != nil {
			return f.u.streamError(err)
		}
		if err := writeData(file, f.u.buf[:n], at); err != nil {
			return err
		}
		at += int64(n)
	}
	return file.Truncate(f.h.Size)
}

// possible refuses a file that is larger than the filesystem: a few bytes of a stream can
// declare a petabyte of holes, which would be read for days.
func (f *incoming) possible(file *os.File) error {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(file.Fd()), &fs); err != nil {
		return err
	}
	if size := fs.Blocks * uint64(fs.Bsize); uint64(f.h.Size) > size {
		return failure.Invalid("the archive's %.200q has %d bytes, and the whole filesystem that it is unpacked into %d", f.h.Name, f.h.Size, size)
	}
	return nil
}

// put makes the file by that name, or by another one that then takes the name over from
// what has it now. dress says that the file is new and has yet to get its owner and so
// on.
func (f *incoming) put(make func(name string) error, dress bool) error {
	err := make(f.base)
	if err == nil {
		return f.dressed(f.base, dress)
	}
	if !errors.Is(err, unix.EEXIST) {
		return err
	}
	name := temporaryName()
	if err := make(name); err != nil {
		return err
	}
	err = f.dressed(name, dress)
	if err == nil {
		err = unix.Renameat(f.u.parentFD, name, f.u.parentFD, f.base)
	}
	// Renaming one name of a file over another of the same file leaves both.
	if uerr := unix.Unlinkat(f.u.parentFD, name, 0); uerr != nil && !errors.Is(uerr, unix.ENOENT) {
		err = errors.Join(err, uerr)
	}
	return err
}

func (f *incoming) dressed(name string, dress bool) error {
	if !dress {
		return nil
	}
	fd, err := unix.Openat(f.u.parentFD, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := f.dress(fd); err != nil {
		return err
	}
	return unix.UtimesNanoAt(fd, "", f.times(), unix.AT_EMPTY_PATH)
}

// dress sets owner, mode and attributes. The owner goes first: a change of it clears
// set-id bits and capabilities.
func (f *incoming) dress(fd int) error {
	if err := unix.Fchownat(fd, "", f.owner.UID, f.owner.GID, unix.AT_EMPTY_PATH); err != nil {
		return err
	}
	if f.h.Typeflag == tar.TypeSymlink {
		return nil
	}
	if err := unix.Chmod(procPath(fd), uint32(f.h.Mode&0o7777)); err != nil {
		return err
	}
	return setAttributes(fd, f.h.PAXRecords)
}

// times are access and change; a stream that does not say the first means the second.
func (f *incoming) times() []unix.Timespec {
	mtime, atime := f.h.ModTime, f.h.AccessTime
	if mtime.Before(time.Unix(0, 0)) {
		mtime = time.Unix(0, 0)
	}
	if atime.Before(mtime) {
		atime = mtime
	}
	return []unix.Timespec{timespec(atime), timespec(mtime)}
}

// timespec is a time of any year: nanoseconds alone end in 2262, and go round.
func timespec(t time.Time) unix.Timespec {
	return unix.Timespec{Sec: t.Unix(), Nsec: int64(t.Nanosecond())}
}

// temporaryName is one that nobody guesses.
func temporaryName() string { return ".cleat-copy-" + rand.Text() }
