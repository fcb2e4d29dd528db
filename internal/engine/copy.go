package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
	"time"

	api "github.com/moby/moby/api/types/container"
	apievents "github.com/moby/moby/api/types/events"
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/archive"
	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/rootpath"
)

// Copier copies files into and out of containers, whether they run or not. No program
// of the container takes part.
type Copier struct {
	fs  *filesystems
	say *announcer
}

// CopyOptions are those of PUT /containers/{id}/archive.
type CopyOptions struct {
	// KeepKind refuses to replace a directory by another kind of file and the reverse.
	KeepKind bool
	// ToUser gives the files to the user that the container runs as.
	ToUser bool
	// Interrupt lets a read of the archive return that waits for the client; nil if none
	// ever waits for long.
	Interrupt func()
}

// PathArchive is a path of a container that was found. Its owner calls Pack once, or
// Close.
type PathArchive struct {
	Stat api.PathStat

	files *files
	fd    int
	as    string
	done  func()
}

// StatPath describes a path of a container; a link at its end is not followed. ErrNotFound if there is no such path.
func (cp *Copier) StatPath(ctx context.Context, name, p string) (*api.PathStat, error) {
	a, err := cp.find(ctx, name, p)
	if err != nil {
		return nil, err
	}
	defer a.Close()
	return &a.Stat, nil
}

// ArchivePath finds a path of a container, to be packed: of a directory everything
// below it, under the directory's name, or under "." if the path ends with "/.".
func (cp *Copier) ArchivePath(ctx context.Context, name, p string) (*PathArchive, error) {
	a, err := cp.find(ctx, name, p)
	if err != nil {
		return nil, err
	}
	a.done = func() { cp.say.container(a.files.c, apievents.ActionArchivePath) }
	return a, nil
}

// Pack writes the tar archive to w, uncompressed, and closes a.
func (a *PathArchive) Pack(ctx context.Context, w io.Writer) error {
	defer a.Close()
	p := archive.NewPacker(ctx, w)
	if err := p.Tree(a.fd, a.as); err != nil {
		return err
	}
	if err := p.Close(); err != nil {
		return err
	}
	a.done()
	return nil
}

// Close lets go of the container's files. It may be called twice.
func (a *PathArchive) Close() {
	if a.files != nil {
		_ = unix.Close(a.fd)
		a.files.close()
		a.files = nil
	}
}

func (cp *Copier) find(ctx context.Context, name, p string) (*PathArchive, error) {
	if p == "" {
		return nil, failure.Invalid("bad parameter: path cannot be empty")
	}
	abs := absolute(p)
	f, err := cp.fs.open(ctx, name, false)
	if err != nil {
		return nil, err
	}
	a := &PathArchive{files: f, fd: -1}
	if a.fd, err = rootpath.Open(f.root, abs, unix.O_PATH|unix.O_NOFOLLOW, 0); err != nil {
		f.close()
		return nil, pathError(err, name, p)
	}
	if err := a.describe(abs); err != nil {
		a.Close()
		return nil, pathError(err, name, p)
	}
	return a, nil
}

// absolute is a path of the container, seen from its root: cleaned, but for the slash or
// the "/." at its end, which say something.
func absolute(p string) string {
	clean := path.Join("/", p)
	switch {
	case clean == "/" && path.Base(p) == ".":
		return "/."
	case clean == "/":
	case path.Base(p) == ".":
		clean += "/."
	case strings.HasSuffix(p, "/"):
		clean += "/"
	}
	return clean
}

// pathError tells the client what is wrong with his path.
func pathError(err error, name, p string) error {
	switch {
	case errors.Is(err, unix.ENOENT):
		return failure.NotFound("Could not find the file %s in container %s", p, name)
	case errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP), errors.Is(err, unix.ENAMETOOLONG), errors.Is(err, unix.EINVAL):
		var pe *fs.PathError
		if errors.As(err, &pe) {
			err = pe.Err
		}
		return failure.Invalid("%s in container %s: %w", p, name, err)
	}
	return err
}

// describe fills in what is known of the open file.
func (a *PathArchive) describe(abs string) error {
	var st unix.Stat_t
	if err := unix.Fstat(a.fd, &st); err != nil {
		return err
	}
	a.Stat = api.PathStat{Name: path.Base(abs), Size: st.Size, Mode: goMode(st.Mode), Mtime: time.Unix(st.Mtim.Unix())}
	if strings.HasSuffix(abs, "/.") {
		a.Stat.Name = "."
	}
	a.as = a.Stat.Name
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		target, err := a.linkTarget(abs)
		if err != nil {
			return err
		}
		a.Stat.LinkTarget = target
	case unix.S_IFDIR:
		// The mount point itself is there for everyone to see; its content is not.
	default:
		if archive.IsKernelInterface(a.fd) {
			return unix.ENOENT
		}
	}
	return nil
}

// linkTarget is where a link leads in the end, seen from the container's root; where
// nothing is there, how far it leads.
func (a *PathArchive) linkTarget(abs string) (string, error) {
	fd, err := rootpath.Open(a.files.root, abs, unix.O_PATH, 0)
	if err == nil {
		defer unix.Close(fd)
		return a.files.pathOf(fd)
	}
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(a.fd, "", buf)
	if err != nil {
		return "", err
	}
	if target := string(buf[:n]); path.IsAbs(target) {
		return path.Clean(target), nil
	}
	return path.Join(path.Dir(abs), string(buf[:n])), nil
}

// goMode is a file mode in Go's notation, which the API speaks.
func goMode(mode uint32) fs.FileMode {
	m := fs.FileMode(mode & 0o777)
	switch mode & unix.S_IFMT {
	case unix.S_IFDIR:
		m |= fs.ModeDir
	case unix.S_IFLNK:
		m |= fs.ModeSymlink
	case unix.S_IFIFO:
		m |= fs.ModeNamedPipe
	case unix.S_IFSOCK:
		m |= fs.ModeSocket
	case unix.S_IFBLK:
		m |= fs.ModeDevice
	case unix.S_IFCHR:
		m |= fs.ModeDevice | fs.ModeCharDevice
	}
	for _, bit := range []struct {
		unix uint32
		of   fs.FileMode
	}{{unix.S_ISUID, fs.ModeSetuid}, {unix.S_ISGID, fs.ModeSetgid}, {unix.S_ISVTX, fs.ModeSticky}} {
		if mode&bit.unix != 0 {
			m |= bit.of
		}
	}
	return m
}

// ExtractTo unpacks the tar archive r, plain or compressed, into a directory of a
// container.
func (cp *Copier) ExtractTo(ctx context.Context, name, p string, r io.Reader, opts CopyOptions) error {
	if p == "" {
		return failure.Invalid("bad parameter: path cannot be empty")
	}
	f, err := cp.fs.open(ctx, name, true)
	if err != nil {
		return err
	}
	defer f.close()
	if f.locked {
		var cancel context.CancelCauseFunc
		ctx, cancel = context.WithCancelCause(ctx)
		defer cancel(nil)
		wr, done := cp.fs.writers.begin(f.c.ID(), func(why error) {
			cancel(why)
			if opts.Interrupt != nil {
				opts.Interrupt()
			}
		})
		defer done()
		r = wr.reader(r)
	}
	err = cp.extract(ctx, f, name, p, r, opts)
	if why := context.Cause(ctx); errors.Is(why, errEvicted) || errors.Is(why, errStalled) {
		return fmt.Errorf("copy to container %s: %w", name, why)
	}
	return err
}

func (cp *Copier) extract(ctx context.Context, f *files, name, p string, r io.Reader, opts CopyOptions) error {
	dir, err := cp.destination(f, name, p)
	if err != nil {
		return err
	}
	o := archive.Options{KeepKind: opts.KeepKind}
	if user := f.c.Load().Config.User; opts.ToUser && user != "" {
		u, err := lookupUser(f.root, user, nil)
		if err != nil {
			return err
		}
		o.Owner = &archive.Owner{UID: u.UID, GID: u.GID}
	}
	plain, done, err := archive.Decompress(r)
	if errors.Is(err, archive.ErrEmpty) {
		return nil // as Docker: nothing to unpack
	}
	if err != nil {
		return err
	}
	defer done()
	if err := archive.Unpack(ctx, f.root, dir, plain, o); err != nil {
		return fmt.Errorf("copy to container %s: %w", name, err)
	}
	cp.say.container(f.c, apievents.ActionExtractToDir)
	return nil
}

// destination checks the directory that is to be unpacked into, and gives its path
// without links.
func (cp *Copier) destination(f *files, name, p string) (string, error) {
	fd, err := rootpath.Open(f.root, path.Join("/", p), unix.O_PATH, 0)
	if err != nil {
		return "", pathError(err, name, p)
	}
	defer unix.Close(fd)
	var st unix.Statx_t
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_TYPE|unix.STATX_MNT_ID, &st); err != nil {
		return "", err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return "", failure.Invalid("extraction point is not a directory: %s in container %s", p, name)
	}
	var top unix.Statx_t
	if err := unix.Statx(f.root, "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, &top); err != nil {
		return "", err
	}
	var flags unix.Statfs_t
	if err := unix.Fstatfs(fd, &flags); err != nil {
		return "", err
	}
	readOnly := flags.Flags&unix.ST_RDONLY != 0
	switch {
	case st.Mnt_id == top.Mnt_id && (readOnly || f.c.Load().HostConfig.ReadonlyRootfs):
		return "", failure.Invalid("container rootfs is marked read-only: copy into a volume or bind mount of %s instead of %s", name, p)
	case readOnly:
		return "", failure.Invalid("mounted volume is marked read-only: %s in container %s", p, name)
	}
	return f.pathOf(fd)
}
