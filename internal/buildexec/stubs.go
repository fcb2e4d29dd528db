package buildexec

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/rootpath"
	"github.com/cleatlabs/cleat/internal/runtime"
)

// stubs are the files and directories that a step's mounts lie on and that the root filesystem did not have. They are
// made before the step and removed after it, unless it has put something into them: they are no part of its result. The
// directories around them keep their times, so that the same step has the same result.
//
// Each is known by its name in an open directory, whatever the step does to the paths that led there.
type stubs struct {
	made []stub // in the order in which they were made
}

type stub struct {
	parent int // descriptor of the directory
	file   int // of a file: itself, as it is below what is mounted on it; else -1
	name   string
	dir    bool
	open   bool // of a tmpfs, which takes over its mode: everyone may write to it
	stays  bool // it is not removed
}

// makeStubs makes what is missing for the mounts. Directories on the way to a target are removed again only if
// recursive is set: that is the newer behaviour, which builds ask for. What lies on another mount, or on one of the
// kernel's filesystems, is not in the root filesystem.
func makeStubs(root int, mounts []runtime.Mount, recursive bool) (_ *stubs, err error) {
	s := &stubs{}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.clean())
		}
	}()
	for i, m := range mounts {
		target := path.Clean("/" + m.Target)
		if below(target, mounts[:i]) || kernels(target) {
			continue
		}
		if err := s.make(root, target, &mounts[i], recursive); err != nil {
			return nil, fmt.Errorf("making the mount target %s: %w", target, err)
		}
	}
	return s, nil
}

// kernels says whether a path is on a filesystem that every step has of its own.
func kernels(p string) bool {
	return rootpath.IsBelow(p, "/proc") || rootpath.IsBelow(p, "/sys") || rootpath.IsBelow(p, "/dev")
}

func (s *stubs) make(root int, target string, m *runtime.Mount, recursive bool) error {
	// Nearly always it is there, or its directory is.
	if fd, err := rootpath.Open(root, target, unix.O_PATH, 0); err == nil {
		return unix.Close(fd)
	}
	dir, missing, err := split(root, target)
	if err != nil || kernels(dir) {
		return err
	}
	for i, name := range missing {
		last := i == len(missing)-1
		if err := s.add(root, dir, stub{file: -1, name: name, dir: !last || !m.IsFile, open: last && m.Type == "tmpfs", stays: !last && !recursive}); err != nil {
			return err
		}
		dir = path.Join(dir, name)
	}
	return nil
}

// add makes one stub in a directory that exists.
func (s *stubs) add(root int, dir string, st stub) (err error) {
	if st.parent, err = rootpath.Open(root, dir, unix.O_RDONLY|unix.O_DIRECTORY, 0); err != nil {
		return err
	}
	noted := false // from then on clean closes it
	defer func() {
		if !noted {
			unix.Close(st.parent)
		}
	}()
	return s.keepingTimes(st.parent, func() error {
		mode := uint32(0o755)
		if st.open {
			mode = 0o1777
		}
		if st.dir {
			err = unix.Mkdirat(st.parent, st.name, mode)
		} else {
			mode = 0o644
			err = unix.Mknodat(st.parent, st.name, unix.S_IFREG|mode, 0)
		}
		if err == nil { // whatever the engine's umask is
			err = unix.Fchmodat(st.parent, st.name, mode, 0)
		}
		if err == nil && !st.dir {
			st.file, err = unix.Openat(st.parent, st.name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		}
		if err == nil {
			s.made, noted = append(s.made, st), true
		}
		return err
	})
}

// keepingTimes leaves a directory with the times that it had.
func (s *stubs) keepingTimes(dir int, change func() error) error {
	var st unix.Stat_t
	if err := unix.Fstat(dir, &st); err != nil {
		return err
	}
	if err := change(); err != nil {
		return err
	}
	return unix.UtimesNanoAt(dir, "", []unix.Timespec{st.Atim, st.Mtim}, unix.AT_EMPTY_PATH)
}

// clean removes the stubs that are as they were made. The step has ended; what was mounted on them may still be going.
func (s *stubs) clean() error {
	var errs []error
	for i := len(s.made) - 1; i >= 0; i-- {
		st := &s.made[i]
		if !st.stays {
			errs = append(errs, s.remove(st))
		}
		errs = append(errs, unix.Close(st.parent))
		if st.file >= 0 {
			errs = append(errs, unix.Close(st.file))
		}
	}
	s.made = nil
	return errors.Join(errs...)
}

// remove takes a name away, which does not look at what is mounted there: a directory that is not empty stays by
// itself.
func (s *stubs) remove(st *stub) error {
	flags := unix.AT_REMOVEDIR
	if !st.dir {
		if own, err := st.untouched(); err != nil || !own {
			return err
		}
		flags = 0
	}
	err := s.keepingTimes(st.parent, func() error { return unix.Unlinkat(st.parent, st.name, flags) })
	if errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("removing the mount target %s: %w", st.name, err)
	}
	return nil
}

// untouched says whether a file is empty, and still has its name: a step without confinement can take it away and put
// another there.
func (st *stub) untouched() (bool, error) {
	var made, named unix.Stat_t
	if err := unix.Fstat(st.file, &made); err != nil || made.Size != 0 || made.Nlink == 0 {
		return false, err
	}
	fd, err := unix.Openat2(st.parent, st.name, &unix.OpenHow{Flags: unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_XDEV})
	switch {
	case errors.Is(err, unix.EXDEV): // the mount on it is still there
		return true, nil
	case errors.Is(err, unix.ENOENT):
		return false, nil
	case err != nil:
		return false, err
	}
	defer unix.Close(fd)
	err = unix.Fstat(fd, &named)
	return named.Ino == made.Ino && named.Dev == made.Dev, err
}

// maxLinks is how many symbolic links a path may lead over, as in the kernel.
const maxLinks = 40

// split finds out how far a path exists: the directory that does, without links, and the names from there on. Nobody
// else works in the root filesystem meanwhile; if somebody did, each step would still be taken inside it.
func split(root int, p string) (dir string, missing []string, err error) {
	dir = "/"
	rest := names(p)
	for links := 0; len(rest) > 0; {
		name := rest[0]
		if name == ".." {
			dir, rest = path.Dir(dir), rest[1:]
			continue
		}
		link, exists, err := look(root, path.Join(dir, name))
		switch {
		case err != nil:
			return "", nil, err
		case !exists:
			// Nothing is below what is not there: the rest is taken by its letters.
			return dir, names(path.Clean("/" + strings.Join(rest, "/"))), nil
		case link == "":
			dir, rest = path.Join(dir, name), rest[1:]
			continue
		}
		if links++; links > maxLinks {
			return "", nil, unix.ELOOP
		}
		if path.IsAbs(link) {
			dir = "/"
		}
		rest = append(names(link), rest[1:]...)
	}
	return dir, nil, nil
}

// names splits a path.
func names(p string) []string {
	var list []string
	for name := range strings.SplitSeq(p, "/") {
		if name != "" && name != "." {
			list = append(list, name)
		}
	}
	return list
}

// look tells whether there is something at a path without links, and where it leads if it is one.
func look(root int, p string) (link string, exists bool, err error) {
	fd, err := rootpath.Open(root, p, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if errors.Is(err, unix.ENOENT) {
		return "", false, nil
	}
	if err != nil {
		return "", false, err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFLNK {
		return "", true, err
	}
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(fd, "", buf)
	if err != nil {
		return "", true, err
	}
	if n == 0 {
		return "", true, unix.ENOENT
	}
	return string(buf[:n]), true, nil
}
