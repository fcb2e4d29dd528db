// Package changes finds out what a container has changed in its root filesystem, from
// the upper directory of its overlay: to list it, and to make an image layer of it.
//
// What it promises:
//
//   - What overlay leaves in an upper directory (whiteouts, opaque and redirected
//     directories, files whose data is still below) is read as the kernel means it:
//     names come from the upper directory, everything else from the merged view.
//   - Mount points that the engine has made for its own mounts are no changes.
//   - A tree that changes meanwhile gives what was there when it was looked at, and no
//     path leads out of it.
//   - A layer's order and content depend on the tree alone.
package changes

import (
	"context"
	"errors"
	"io"
	"os"
	"path"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/archive"
	"github.com/cleatlabs/cleat/internal/failure"
)

// Kind is what has become of a path, with the API's numbers.
type Kind uint8

const (
	Modified Kind = iota
	Added
	Deleted
)

// Change is one path that has changed, from the root.
type Change struct {
	Path string
	Kind Kind
}

// Source are three views of one filesystem, as descriptors of directories: what was
// written, what it was written over, and both together.
type Source struct{ Upper, Lower, Merged int }

// maxDepth is how deep directories may be nested: each takes three descriptors.
const maxDepth = 1000

// List gives all changes, sorted, parents before children. A directory is modified if
// something was added to it or deleted from it, or if its own attributes have changed.
func List(ctx context.Context, s Source) ([]Change, error) {
	list := []Change{}
	same := map[string]bool{}    // directories with the attributes that they had
	touched := map[string]bool{} // directories with another set of names
	err := walk(ctx, s, func(c *found) error {
		list = append(list, Change{c.path, c.kind})
		same[c.path] = c.same
		if c.kind != Modified {
			touched[path.Dir(c.path)] = true
		}
		return nil
	})
	list = slices.DeleteFunc(list, func(c Change) bool { return same[c.Path] && !touched[c.Path] })
	slices.SortFunc(list, func(a, b Change) int {
		if a.Path < b.Path {
			return -1
		}
		return 1
	})
	return list, err
}

// Layer writes the changes to w as the tar stream of an image layer, and says whether
// there were none.
func Layer(ctx context.Context, s Source, w io.Writer) (empty bool, err error) {
	p := archive.NewPacker(ctx, w)
	empty = true
	err = walk(ctx, s, func(c *found) error {
		empty = false
		name := c.path[1:]
		if c.kind == Deleted {
			return p.Whiteout(name)
		}
		return gone(p.File(c.parent, path.Base(name), name))
	})
	if err != nil {
		return false, err
	}
	return empty, p.Close()
}

// found is a change on its way to the visitor.
type found struct {
	path string
	kind Kind
	// same says that it is a directory whose own attributes are as they were.
	same   bool
	parent int // its directory in the merged view, until the visitor returns
}

// ownFiles are the mount points that the engine makes where an image lacks them.
var ownFiles = map[string]bool{
	"/proc": true, "/sys": true, "/dev": true, "/etc/resolv.conf": true, "/etc/hosts": true, "/etc/hostname": true,
	"/dev/pts": true, "/dev/shm": true, "/dev/mqueue": true, "/dev/console": true,
}

// ownParents are the directories that the engine makes for them.
var ownParents = map[string]bool{"/etc": true, "/dev": true}

type walker struct {
	ctx   context.Context
	visit func(*found) error
	// pending are directories that are a change only if something in them is.
	pending []*found
}

func walk(ctx context.Context, s Source, visit func(*found) error) error {
	w := &walker{ctx: ctx, visit: visit}
	l := level{path: "/", upper: s.Upper, lower: s.Lower, merged: s.Merged}
	return w.directory(&l, 0)
}

// level is a directory in the three views; -1 where it is not there.
type level struct {
	path                 string
	upper, lower, merged int
	// whole says that nothing of lower shows through: what is there is in merged.
	whole bool
}

func (w *walker) directory(l *level, depth int) error {
	if depth > maxDepth {
		return failure.Invalid("%s: directories are nested more than %d deep", l.path, maxDepth)
	}
	if w.ctx.Err() != nil {
		return context.Cause(w.ctx)
	}
	names, err := namesIn(l)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := w.entry(l, name, depth); err != nil {
			return err
		}
	}
	if !l.whole || l.lower < 0 {
		return nil
	}
	return w.missing(l, names)
}

func namesIn(l *level) ([]string, error) {
	dir := l.upper
	if l.whole {
		dir = l.merged
	}
	return readNames(dir)
}

func readNames(dir int) ([]string, error) {
	fd, err := unix.Openat(dir, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, gone(err)
	}
	f := os.NewFile(uintptr(fd), ".")
	defer f.Close()
	names, err := f.Readdirnames(-1)
	slices.Sort(names)
	return names, gone(err)
}

// missing reports what the directory that now hides the lower one does not have.
func (w *walker) missing(l *level, have []string) error {
	names, err := readNames(l.lower)
	if err != nil {
		return err
	}
	for _, name := range names {
		if _, there := slices.BinarySearch(have, name); !there {
			if err := w.report(&found{path: path.Join(l.path, name), kind: Deleted}); err != nil {
				return err
			}
		}
	}
	return nil
}

func (w *walker) entry(l *level, name string, depth int) error {
	at := path.Join(l.path, name)
	before, existed, err := stat(l.lower, name)
	if err != nil {
		return err
	}
	if !l.whole {
		st, there, err := stat(l.upper, name)
		if !there || err != nil {
			return err
		}
		if isWhiteout(&st) {
			if !existed {
				return nil // made and removed again
			}
			return w.report(&found{path: at, kind: Deleted})
		}
	}
	now, there, err := stat(l.merged, name)
	if !there || err != nil {
		return err
	}
	c := &found{path: at, kind: Added, parent: l.merged}
	if existed {
		c.kind = Modified
	}
	isDir := now.Mode&unix.S_IFMT == unix.S_IFDIR
	if !isDir {
		if !existed && ownFiles[at] && now.Size == 0 {
			return nil
		}
		return w.report(c)
	}
	c.same = existed && sameDirectory(&before, &now, ownParents[at])
	return w.subdirectory(l, name, c, existed && before.Mode&unix.S_IFMT == unix.S_IFDIR, depth)
}

func (w *walker) subdirectory(l *level, name string, c *found, wasDir bool, depth int) error {
	lazy := c.same || !wasDir && c.kind == Added && (ownFiles[c.path] || ownParents[c.path])
	if lazy {
		w.pending = append(w.pending, c)
	} else if err := w.report(c); err != nil {
		return err
	}
	sub, err := l.enter(name, wasDir)
	if err != nil {
		return gone(err)
	}
	defer sub.close()
	sub.path = c.path
	err = w.directory(sub, depth+1)
	if n := len(w.pending); lazy && n > 0 && w.pending[n-1] == c {
		w.pending = w.pending[:n-1]
	}
	return err
}

// report visits a change, and before it the directories that it makes changes too.
func (w *walker) report(c *found) error {
	for len(w.pending) > 0 {
		p := w.pending[0]
		w.pending = w.pending[1:]
		if err := w.visit(p); err != nil {
			return err
		}
	}
	return w.visit(c)
}

// enter opens a directory below in the three views.
func (l *level) enter(name string, lower bool) (*level, error) {
	sub := &level{upper: -1, lower: -1, merged: -1, whole: l.whole}
	var err error
	if sub.merged, err = openDir(l.merged, name); err != nil {
		return nil, err
	}
	if lower {
		if sub.lower, err = openDir(l.lower, name); err != nil {
			sub.close()
			return nil, err
		}
	}
	if !sub.whole {
		if sub.upper, err = openDir(l.upper, name); err != nil {
			sub.close()
			return nil, err
		}
		sub.whole = hides(sub.upper)
	}
	return sub, nil
}

func (l *level) close() {
	for _, fd := range []int{l.upper, l.lower, l.merged} {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
}

func openDir(dir int, name string) (int, error) {
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	return fd, nil
}

// hides reports whether a directory of the upper layer is not merged with the lower one
// of its name: it is opaque, or shows another one.
func hides(fd int) bool {
	var buf [unix.PathMax]byte
	if n, err := unix.Fgetxattr(fd, "trusted.overlay.opaque", buf[:]); err == nil && n == 1 && buf[0] == 'y' {
		return true
	}
	_, err := unix.Fgetxattr(fd, "trusted.overlay.redirect", buf[:])
	return err == nil
}

func isWhiteout(st *unix.Stat_t) bool {
	return st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0
}

func stat(dir int, name string) (st unix.Stat_t, there bool, err error) {
	if dir < 0 {
		return st, false, nil
	}
	err = unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
		return st, false, nil
	case err != nil:
		return st, false, &os.PathError{Op: "stat", Path: name, Err: err}
	}
	return st, true, nil
}

// sameDirectory compares attributes; not the time, if the engine's own mount points may
// have changed it.
func sameDirectory(a, b *unix.Stat_t, anyTime bool) bool {
	return a.Mode == b.Mode && a.Uid == b.Uid && a.Gid == b.Gid && (anyTime || a.Mtim == b.Mtim)
}

// gone makes nothing of a file that has disappeared meanwhile.
func gone(err error) error {
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	return err
}

// Everything writes all of a filesystem to w as a tar stream, with names relative to its
// root.
func Everything(ctx context.Context, root int, w io.Writer) error {
	p := archive.NewPacker(ctx, w)
	names, err := readNames(root)
	if err != nil {
		return err
	}
	for _, name := range names {
		fd, err := unix.Openat(root, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return err
		}
		err = p.Tree(fd, name)
		_ = unix.Close(fd)
		if err != nil {
			return err
		}
	}
	return p.Close()
}
