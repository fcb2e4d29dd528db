package localfiles

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Errors with Docker's words.
var (
	ErrNotDirectory  = errors.New("not a directory")
	ErrDirNotExists  = errors.New("no such directory")
	ErrCannotCopyDir = errors.New("cannot copy directory")
)

// Info is what is known of a path that takes part in a copy.
type Info struct {
	Path   string
	Exists bool
	IsDir  bool
	// Rebase, if not empty, is the name that the copy has in place of the path's own: a
	// link was followed.
	Rebase string
}

// Plan says where the files of a source go.
type Plan struct {
	Dir      string // to be unpacked into
	Old, New string // the first part of each name, and what replaces it; nothing does if New is empty
}

// Prepare applies Docker's rules: into an existing directory the source goes under its
// own name; else the copy gets the name of the destination.
func Prepare(src, dst Info) (Plan, error) {
	dir, base := Split(dst.Path)
	_, old := Split(src.Path)
	if src.Rebase != "" {
		old = src.Rebase
	}
	switch {
	case dst.Exists && dst.IsDir:
		return Plan{Dir: dst.Path}, nil
	case dst.Exists && src.IsDir:
		return Plan{}, ErrCannotCopyDir
	case !dst.Exists && !src.IsDir && assertsDirectory(dst.Path):
		return Plan{}, fmt.Errorf("%w: %s", ErrDirNotExists, dst.Path)
	}
	return Plan{Dir: dir, Old: old, New: base}, nil
}

// Rename gives an entry of the archive the name that it has in the copy.
func (p Plan) Rename(name string) string {
	if p.New == "" {
		return name
	}
	old, new := strings.TrimRight(p.Old, "/"), strings.TrimRight(p.New, "/")
	if old == "" {
		name = strings.TrimLeft(name, "/")
		if new == "" {
			return name
		}
		return new + "/" + name
	}
	rest, ok := strings.CutPrefix(name, old)
	if !ok || (rest != "" && !strings.HasPrefix(rest, "/")) {
		return name
	}
	return new + rest
}

// Split cuts a path into directory and last name; a path that ends with "/." has the
// last name ".".
func Split(path string) (dir, base string) {
	clean := filepath.Clean(path)
	if specifiesCurrentDir(path) {
		clean += "/."
	}
	return filepath.Dir(clean), filepath.Base(clean)
}

// Absolute is the path from the root, with the slash or "/." at its end kept.
func Absolute(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	return keepEnd(abs, path), nil
}

func keepEnd(clean, original string) string {
	if specifiesCurrentDir(original) && !specifiesCurrentDir(clean) {
		clean = strings.TrimSuffix(clean, "/") + "/."
	}
	if strings.HasSuffix(original, "/") && !strings.HasSuffix(clean, "/") {
		clean += "/"
	}
	return clean
}

func assertsDirectory(path string) bool {
	return strings.HasSuffix(path, "/") || specifiesCurrentDir(path)
}

func specifiesCurrentDir(path string) bool { return filepath.Base(path) == "." }

// Followed is where a link at path leads, with the end of path kept, and the name that
// the copy has if it is not the target's own.
func Followed(path, target string) (resolved, rebase string) {
	if specifiesCurrentDir(path) && !specifiesCurrentDir(target) {
		target += "/."
	}
	if strings.HasSuffix(path, "/") && !strings.HasSuffix(target, "/") {
		target += "/"
	}
	if filepath.Base(path) != filepath.Base(target) {
		rebase = filepath.Base(path)
	}
	return target, rebase
}

// Source looks at a local path that is to be copied. Links on the way are followed; the
// last one only if followLink is set.
func Source(path string, followLink bool) (Info, error) {
	info := Info{Exists: true}
	if followLink {
		resolved, err := filepath.EvalSymlinks(path)
		if err != nil {
			return Info{}, err
		}
		info.Path, info.Rebase = Followed(path, resolved)
	} else {
		dir, base := filepath.Split(path)
		resolved, err := filepath.EvalSymlinks(dir)
		if err != nil {
			return Info{}, err
		}
		info.Path = strings.TrimSuffix(resolved, "/") + "/" + base
		if strings.HasSuffix(path, "/") && filepath.Base(path) != filepath.Base(info.Path) {
			info.Rebase = filepath.Base(path)
		}
	}
	st, err := os.Lstat(info.Path)
	if err != nil {
		return Info{}, err
	}
	info.IsDir = st.IsDir()
	return info, nil
}

// Destination looks at a local path that is to be written. Links are followed, also to
// what is not there yet; its directory must be.
func Destination(path string) (Info, error) {
	const maxLinks = 10
	original := path
	st, err := os.Lstat(path)
	for n := 0; err == nil && st.Mode()&os.ModeSymlink != 0; n++ {
		if n > maxLinks {
			return Info{}, errors.New("too many symlinks in " + original)
		}
		target, rerr := os.Readlink(path)
		if rerr != nil {
			return Info{}, rerr
		}
		if !filepath.IsAbs(target) {
			dir, _ := Split(path)
			target = filepath.Join(dir, target)
		}
		path = target
		st, err = os.Lstat(path)
	}
	if err == nil {
		return Info{Path: path, Exists: true, IsDir: st.IsDir()}, nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		return Info{}, err
	}
	dir, _ := Split(path)
	parent, err := os.Stat(dir)
	if err != nil {
		return Info{}, err
	}
	if !parent.IsDir() {
		return Info{}, ErrNotDirectory
	}
	return Info{Path: path}, nil
}

// CheckOutput refuses an output path whose directory is missing, or that is neither a
// directory nor a file.
func CheckOutput(path string) error {
	dir := filepath.Dir(filepath.Clean(path))
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("invalid output path: directory %q does not exist", dir)
	}
	if st, err := os.Stat(path); err == nil {
		if err := CheckMode(st.Mode()); err != nil {
			return fmt.Errorf("invalid output path: %q must be a directory or a regular file: %w", path, err)
		}
	}
	return nil
}

// CheckMode refuses devices and the like.
func CheckMode(mode os.FileMode) error {
	switch {
	case mode&os.ModeDevice != 0:
		return errors.New("got a device")
	case mode&os.ModeIrregular != 0:
		return errors.New("got an irregular file")
	}
	return nil
}

// ContentSize adds up the sizes of the regular files at and below path, in bytes.
func ContentSize(path string) (sum int64, err error) {
	err = filepath.WalkDir(path, func(_ string, e os.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		sum += info.Size()
		return nil
	})
	return sum, err
}
