package classic

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math"
	"os"
	"path"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/docker/go-units"
	"github.com/opencontainers/go-digest"
	"github.com/tonistiigi/fsutil"
	"github.com/tonistiigi/fsutil/types"
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/archive"
	"github.com/cleatlabs/cleat/internal/failure"
)

const (
	// maxEntries bounds what an archive of nothing but headers can make of memory.
	maxEntries = 2_000_000
	// maxDescribed bounds, in bytes, what the archive says about its files: their names, links and extended attributes.
	// All of it is in memory, several times while it goes through BuildKit, and a compressed archive has a gigabyte of
	// it in a megabyte.
	maxDescribed = 128 << 20
	// maxAttribute is the most bytes that an extended attribute has on Linux.
	maxAttribute = 64 << 10
	// maxLinks bounds a chain of hard links to hard links.
	maxLinks = 40
)

// sources is a build context: the files of an archive, which lies in one unlinked file. It
// implements fsutil.FS. It is read by several goroutines once it is made.
type sources struct {
	digest  digest.Digest // of the archive
	file    *os.File
	entries map[string]*entry
	sorted  []*entry // in fsutil's order of paths, parents first
}

// entry is one file of the context.
type entry struct {
	stat   *types.Stat
	offset int64 // of the content
}

// readSources keeps the archive in a file without a name in dir. The archive may be
// compressed. The caller closes what is returned.
func readSources(ctx context.Context, dir string, body io.Reader) (*sources, error) {
	plain, release, err := archive.Decompress(body)
	if errors.Is(err, archive.ErrEmpty) {
		return nil, failure.Invalid("the build context is empty: send a tar archive that holds the Dockerfile")
	}
	if err != nil {
		return nil, err
	}
	defer release()
	free, err := freeSpace(dir)
	if err != nil {
		return nil, err
	}
	file, err := os.CreateTemp(dir, "context-")
	if err != nil {
		return nil, fmt.Errorf("keep the build context: %w", err)
	}
	s := &sources{file: file, entries: map[string]*entry{}}
	whole := digest.SHA256.Digester()
	err = errors.Join(os.Remove(file.Name()), s.fill(ctx, io.TeeReader(plain, whole.Hash()), free))
	s.digest = whole.Digest()
	if err == nil {
		err = passOver(ctx, body)
	}
	if err != nil {
		_ = file.Close()
		return nil, err
	}
	return s, nil
}

// passOver reads what is left of a request's body. An archive ends before the stream does
// that brings it, and a server of HTTP looks out for a client that goes away only when it
// has read all that the client has to send.
func passOver(ctx context.Context, body io.Reader) error {
	if _, err := io.Copy(io.Discard, whileAlive{ctx, body}); err != nil {
		return fmt.Errorf("read the build context: %w", err)
	}
	return nil
}

func (s *sources) Close() error { return s.file.Close() }

// freeSpace is how many bytes the filesystem of a directory can take.
func freeSpace(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, fmt.Errorf("keep the build context: %w", &fs.PathError{Op: "statfs", Path: dir, Err: err})
	}
	return int64(min(st.Bavail, math.MaxInt64/uint64(st.Bsize)) * uint64(st.Bsize)), nil
}

// fill indexes the archive while it is written to the file, which may grow to free bytes:
// a sparse file of a few bytes in the archive can be of any size.
func (s *sources) fill(ctx context.Context, r io.Reader, free int64) error {
	var at int64
	described := 0
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return failure.Invalid("the build context is no readable tar archive: %w", err)
		}
		size, err := describes(h)
		if err != nil {
			return err
		}
		described += size
		if err := s.bounded(described); err != nil {
			return err
		}
		e, err := s.add(h, at)
		if err != nil {
			return err
		}
		if e == nil || (h.Typeflag != tar.TypeReg && h.Typeflag != tar.TypeGNUSparse) {
			continue
		}
		if h.Size > free-at {
			return fmt.Errorf("the build context's %s has %s, and %s are free where the context is kept: exclude it by a .dockerignore or make room",
				e.stat.Path, units.HumanSize(float64(h.Size)), units.HumanSize(float64(free-at)))
		}
		n, err := io.Copy(s.file, whileAlive{ctx, tr})
		if err != nil {
			return fmt.Errorf("keep the build context: %w", err)
		}
		at += n
	}
	if err := s.addParents(described); err != nil {
		return err
	}
	s.sorted = slices.Collect(maps.Values(s.entries))
	slices.SortFunc(s.sorted, func(a, b *entry) int { return fsutil.ComparePath(a.stat.Path, b.stat.Path) })
	return nil
}

// bounded refuses one file more, or that so many bytes are said about the files.
func (s *sources) bounded(described int) error {
	switch {
	case len(s.entries) >= maxEntries:
		return failure.Invalid("the build context has more than %d files: exclude what the build does not need by a .dockerignore", maxEntries)
	case described > maxDescribed:
		return failure.Invalid("the names and attributes of the files of the build context come to more than %d MiB: exclude what the build does not need by a .dockerignore", maxDescribed>>20)
	}
	return nil
}

// describes is how many bytes a header says about a file, of those that are kept. What no file can have is an error.
func describes(h *tar.Header) (int, error) {
	if err := archive.CheckName(h); err != nil {
		return 0, err
	}
	size := len(h.Name) + len(h.Linkname)
	for name, value := range attributes(h) {
		if len(value) > maxAttribute {
			return 0, failure.Invalid("the build context's %s has an extended attribute %.40q of %d bytes, and no file can have more than %d: exclude it by a .dockerignore",
				h.Name, name, len(value), maxAttribute)
		}
		size += len(name) + len(value)
	}
	return size, nil
}

// whileAlive reads until the build is cancelled. What else ends it before the end is the client's doing.
type whileAlive struct {
	ctx context.Context
	r   io.Reader
}

func (w whileAlive) Read(p []byte) (int, error) {
	if err := w.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := w.r.Read(p)
	switch {
	case err == nil || errors.Is(err, io.EOF):
		return n, err
	case errors.Is(err, io.ErrUnexpectedEOF):
		return n, failure.Invalid("it ends in the middle: %w", err)
	}
	return n, failure.Invalid("it cannot be read: %w", err)
}

// add indexes one entry; nil for one that is no file of a context. A later entry of the
// same name wins, as when an archive is unpacked.
func (s *sources) add(h *tar.Header, at int64) (*entry, error) {
	name := strings.TrimPrefix(path.Clean("/"+h.Name), "/")
	if name == "" {
		return nil, nil
	}
	if !utf8.ValidString(name) || !utf8.ValidString(h.Linkname) {
		return nil, failure.Invalid("the build context's %q has a name, or is a link to one, that is not UTF-8: rename it, or exclude it by a .dockerignore", h.Name)
	}
	e := &entry{offset: at, stat: &types.Stat{
		Path: name, Mode: uint32(h.FileInfo().Mode()), Uid: uint32(h.Uid), Gid: uint32(h.Gid),
		ModTime: h.ModTime.UnixNano(), Xattrs: attributes(h),
	}}
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeGNUSparse:
		e.stat.Size = h.Size
	case tar.TypeDir:
	case tar.TypeSymlink:
		e.stat.Linkname = h.Linkname
	case tar.TypeLink:
		if err := s.link(e, h.Linkname); err != nil {
			return nil, err
		}
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		e.stat.Devmajor, e.stat.Devminor = h.Devmajor, h.Devminor
	default:
		return nil, nil
	}
	s.entries[name] = e
	return e, nil
}

// link makes e a further name of a file that came before: the same content and mode.
func (s *sources) link(e *entry, target string) error {
	of := s.entries[strings.TrimPrefix(path.Clean("/"+target), "/")]
	if of == nil || !fs.FileMode(of.stat.Mode).IsRegular() {
		return failure.Invalid("the build context's %s is a hard link to %s, which is no file that comes before it", e.stat.Path, target)
	}
	e.offset, e.stat.Size, e.stat.Mode = of.offset, of.stat.Size, of.stat.Mode
	return nil
}

// addParents adds the directories that the archive does not name, and makes directories of
// those which have something below them though a later entry of their name is none. They are
// bounded with what was described: two thousand may lie above each file.
func (s *sources) addParents(described int) error {
	for _, name := range slices.Collect(maps.Keys(s.entries)) {
		for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
			if e := s.entries[dir]; e != nil && fs.FileMode(e.stat.Mode).IsDir() {
				break
			}
			described += len(dir)
			if err := s.bounded(described); err != nil {
				return err
			}
			s.entries[dir] = &entry{stat: &types.Stat{Path: dir, Mode: uint32(fs.ModeDir | 0o755)}}
		}
	}
	return nil
}

// attributes are the extended attributes of a PAX header.
func attributes(h *tar.Header) map[string][]byte {
	const prefix = "SCHILY.xattr."
	var found map[string][]byte
	for key, value := range h.PAXRecords {
		if name, ok := strings.CutPrefix(key, prefix); ok {
			if found == nil {
				found = map[string][]byte{}
			}
			found[name] = []byte(value)
		}
	}
	return found
}

// drop removes a file that is no directory.
func (s *sources) drop(name string) {
	if e := s.entries[name]; e == nil || fs.FileMode(e.stat.Mode).IsDir() {
		return
	}
	delete(s.entries, name)
	s.sorted = slices.DeleteFunc(s.sorted, func(e *entry) bool { return e.stat.Path == name })
}

// Walk calls fn for the target and all below it, parents first.
func (s *sources) Walk(ctx context.Context, target string, fn fs.WalkDirFunc) error {
	target = strings.Trim(path.Clean("/"+target), "/")
	skip := ""
	for _, e := range s.sorted {
		name := e.stat.Path
		if target != "" && name != target && !strings.HasPrefix(name, target+"/") {
			continue
		}
		if skip != "" && strings.HasPrefix(name, skip) {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		switch err := fn(name, &fsutil.DirEntryInfo{Stat: e.stat}, nil); {
		case errors.Is(err, fs.SkipAll):
			return nil
		case errors.Is(err, fs.SkipDir):
			skip = name + "/"
			if !fs.FileMode(e.stat.Mode).IsDir() {
				skip = path.Dir(name) + "/"
			}
		case err != nil:
			return err
		}
	}
	return nil
}

// Open reads a file's content.
func (s *sources) Open(name string) (io.ReadCloser, error) {
	e := s.entries[strings.TrimPrefix(path.Clean("/"+name), "/")]
	if e == nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return io.NopCloser(io.NewSectionReader(s.file, e.offset, e.stat.Size)), nil
}

// read returns a file's content, following symbolic links within the context.
func (s *sources) read(name string, limit int64) ([]byte, error) {
	for range maxLinks {
		name = strings.TrimPrefix(path.Clean("/"+name), "/")
		e := s.entries[name]
		switch {
		case e == nil:
			return nil, fs.ErrNotExist
		case fs.FileMode(e.stat.Mode)&fs.ModeSymlink != 0:
			if path.IsAbs(e.stat.Linkname) {
				name = e.stat.Linkname
			} else {
				name = path.Join(path.Dir(name), e.stat.Linkname)
			}
			continue
		case !fs.FileMode(e.stat.Mode).IsRegular():
			return nil, fs.ErrNotExist
		case e.stat.Size > limit:
			return nil, failure.Invalid("%s is larger than %d MiB", name, limit>>20)
		}
		r, err := s.Open(name)
		if err != nil {
			return nil, err
		}
		return io.ReadAll(r)
	}
	return nil, failure.Invalid("too many symbolic links at %s", name)
}
