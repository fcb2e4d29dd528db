package mount

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/kernel"
)

// MaxLayers is how many lower directories the kernel takes for one overlay.
const MaxLayers = 500

// Overlay describes the root filesystem of a container: a stack of read-only directories and a writable one on top.
// Everything about inode numbers, renamed directories and metadata is left as the kernel's overlay has it by default,
// except index=off, so that a directory can be mounted again while an earlier mount of it is still going away.
type Overlay struct {
	Lower       []string // topmost first, absolute; at least one, at most MaxLayers
	Upper, Work string   // on the same filesystem; both empty: a read-only overlay
	Volatile    bool     // nothing is ever synced to the disk: the upper directory is lost in a crash of the host
	Options     []string // further ones of the filesystem, "key" or "key=value", which the caller answers for
}

// Mount makes the overlay and returns it as a detached mount: a close-on-exec file descriptor, which the caller closes.
// An error names the directory that is to blame and the kernel's own reason.
func (o Overlay) Mount(f kernel.Features) (int, error) {
	if err := o.validate(); err != nil {
		return -1, err
	}
	if o.Volatile {
		if err := o.ForgetVolatile(); err != nil {
			return -1, err
		}
	}
	mount := o.mountLegacy
	if f.OverlayAppendLower {
		mount = func() (int, error) { return o.mountByContext(f) }
	}
	fd, err := mount()
	if err != nil {
		return -1, err
	}
	if err := o.checkWritable(fd); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// checkWritable fails where the kernel has made an overlay read-only that is to be written to: it does so, and says it in
// its log alone, where it cannot make a directory in the work directory, as on a disk without inodes. It would stay so.
func (o Overlay) checkWritable(fd int) error {
	if o.Upper == "" {
		return nil
	}
	var st unix.Statfs_t
	if err := ignoringInterrupts(func() error { return unix.Fstatfs(fd, &st) }); err != nil {
		return fmt.Errorf("statfs of an overlay: %w", err)
	}
	if st.Flags&unix.ST_RDONLY == 0 {
		return nil
	}
	// What the kernel has met is met again, or has passed.
	dir := filepath.Join(o.Work, "work")
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("overlay work directory: %w", err)
	}
	return dirError("work directory", o.Work, unix.EROFS, "the kernel could not make "+dir)
}

func (o Overlay) mountByContext(f kernel.Features) (int, error) {
	fs, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("fsopen overlay: %w", err)
	}
	defer unix.Close(fs)
	if err := o.configure(fs, f.FsconfigSetFD); err != nil {
		return -1, err
	}
	if err := ignoringInterrupts(func() error { return unix.FsconfigCreate(fs) }); err != nil {
		return -1, o.explain(err, kernel.ContextLog(fs))
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return -1, o.explain(err, kernel.ContextLog(fs))
	}
	return fd, nil
}

func (o Overlay) validate() error {
	switch n := len(o.Lower); {
	case n == 0:
		return failure.Invalid("an overlay needs at least one lower directory")
	case n > MaxLayers:
		return failure.Invalid("%d layers are too many: the kernel stacks at most %d; squash the image", n, MaxLayers)
	case (o.Upper == "") != (o.Work == ""):
		return failure.Invalid("an overlay needs both an upper and a work directory, or neither")
	case o.Upper == "" && o.Volatile:
		return failure.Invalid("a read-only overlay cannot be volatile")
	}
	for _, d := range o.dirs() {
		if !filepath.IsAbs(d) {
			return failure.Invalid("overlay directory %q is not an absolute path", d)
		}
	}
	return nil
}

// dirs lists every directory of the overlay.
func (o Overlay) dirs() []string {
	dirs := append(make([]string, 0, len(o.Lower)+2), o.Lower...)
	if o.Upper != "" {
		dirs = append(dirs, o.Upper, o.Work)
	}
	return dirs
}

// ForgetVolatile removes the mark that a volatile overlay leaves in its work directory, by which the kernel refuses to
// mount the directory again. Whoever asks for a volatile mount has already accepted what the mark warns of. The kernel
// looks at it when it mounts only: it may go while the overlay is in use.
func (o Overlay) ForgetVolatile() error {
	if err := os.RemoveAll(filepath.Join(o.Work, "work", "incompat", "volatile")); err != nil {
		return fmt.Errorf("clearing the volatile mark of %s: %w", o.Work, err)
	}
	return nil
}

// configure hands every option to the filesystem context.
func (o Overlay) configure(fs int, byFD bool) error {
	set := setDirPath
	if byFD {
		set = setDirFD
	}
	for _, d := range o.Lower {
		if err := set(fs, "lowerdir+", d); err != nil {
			return dirError("layer", d, err, kernel.ContextLog(fs))
		}
	}
	if o.Upper != "" {
		if err := set(fs, "upperdir", o.Upper); err != nil {
			return dirError("upper directory", o.Upper, err, kernel.ContextLog(fs))
		}
		if err := set(fs, "workdir", o.Work); err != nil {
			return dirError("work directory", o.Work, err, kernel.ContextLog(fs))
		}
	}
	// The first column of df and mount, which scripts look for.
	if err := unix.FsconfigSetString(fs, "source", "overlay"); err != nil {
		return fmt.Errorf("overlay option source: %w", err)
	}
	if err := unix.FsconfigSetString(fs, "index", "off"); err != nil {
		return fmt.Errorf("overlay option index=off: %w", err)
	}
	if o.Volatile {
		if err := unix.FsconfigSetFlag(fs, "volatile"); err != nil {
			return fmt.Errorf("overlay option volatile: %w", err)
		}
	}
	for _, opt := range o.Options {
		key, value, hasValue := strings.Cut(opt, "=")
		err := error(nil)
		if hasValue {
			err = unix.FsconfigSetString(fs, key, value)
		} else {
			err = unix.FsconfigSetFlag(fs, key)
		}
		if err != nil {
			return fmt.Errorf("overlay option %s: %w", opt, err)
		}
	}
	return nil
}

// setDirFD opens the directory and hands over the descriptor: no limit of length and no character to escape.
func setDirFD(fs int, key, dir string) error {
	fd, err := openDir(dir)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return ignoringInterrupts(func() error { return unix.FsconfigSetFd(fs, key, fd) })
}

// setDirPath is for kernels from 6.7 to 6.12, which take strings: of up to 255 bytes, and some characters mean
// something. A directory's number in /proc is neither too long nor misunderstood.
func setDirPath(fs int, key, dir string) error {
	fd, err := openDir(dir)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return ignoringInterrupts(func() error {
		return unix.FsconfigSetString(fs, key, "/proc/self/fd/"+strconv.Itoa(fd))
	})
}

func openDir(dir string) (int, error) {
	for {
		fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

// explain turns the failure of the mount as a whole into one that names a directory where it can: the kernel says
// "invalid argument" for most of them and the reason, if at all, in its log.
func (o Overlay) explain(err error, log string) error {
	for _, d := range o.dirs() {
		st, serr := os.Stat(d)
		if serr != nil {
			return dirError("directory", d, errors.Unwrap(serr), log)
		}
		if !st.IsDir() {
			return dirError("directory", d, unix.ENOTDIR, log)
		}
	}
	what := fmt.Sprintf("mounting an overlay of %d layers", len(o.Lower))
	if o.Upper != "" {
		what += " with the upper directory " + o.Upper
	}
	if log != "" {
		return fmt.Errorf("%s: %w (%s)", what, err, log)
	}
	return fmt.Errorf("%s: %w", what, err)
}

func dirError(what, dir string, err error, log string) error {
	if log != "" {
		return fmt.Errorf("overlay %s %s: %w (%s)", what, dir, err, log)
	}
	return fmt.Errorf("overlay %s %s: %w", what, dir, err)
}

// ignoringInterrupts repeats a system call that a signal cut short: Go's own preemption signal does that at times.
func ignoringInterrupts(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
