package store

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/record"
	"github.com/cleatlabs/cleat/internal/rootpath"
)

// The archive of a layer that a build has made has little in it that is not in the layer's own files: headers. It is
// kept woven: a file of headers and small contents, and a list of which files of the layer belong where in between.
// So a layer is written once, not once as files and once as an archive, and takes its space once. A woven blob reads as
// any other, and goes out in a push or a save as what its digest says. It holds its layer, which nobody changes, by a
// label that the garbage collection follows.

const (
	// wovenFile is the size in bytes from which a file's content is left where it is: smaller ones are read faster in
	// one piece with their headers.
	wovenFile = 64 << 10
	// wovenDir has the woven blobs, below the content store's directory.
	wovenDir = "woven"

	// wovenPart ends the name of one that is about to replace another.
	wovenPart = ".part"

	wovenMagic = "cleat woven 1\n"
	// wovenFooter ends a woven blob's file: the length of the list, which lies before it.
	wovenFooter = 8 + len(wovenMagic)
	// largestPattern bounds the list when it is read.
	largestPattern = 256 << 20
)

// pattern says how a woven blob is put together.
type pattern struct {
	Size int64 // of the archive
	// Layers are directories of layers that have the files, below the store's root: the same archive may have come of
	// several builds, and each holds only its own layer.
	Layers []string
	Files  []strand
}

// strand is a file's content.
type strand struct {
	At, Size int64
	Name     string // in the layer
}

// inline is how many bytes of the archive, which are in the blob's own file, lie before the strand i.
func (p *pattern) inline() int64 {
	n := p.Size
	for _, f := range p.Files {
		n -= f.Size
	}
	return n
}

// weaving, in a context, says that what is written is the plain archive of the layer in a directory.
type weaving struct {
	layer string
	used  bool // valid when all is written
}

type weavingKey struct{}

// LayerWriter is Content.Writer for the plain archive of an unpacked, committed layer: contents of the layer's files are
// not written again. It is for who writes the archive from those very files.
func (s *Store) LayerWriter(ctx context.Context, layer string, opts ...content.WriterOpt) (content.Writer, error) {
	dir, err := s.layerDir(ctx, layer)
	if err != nil {
		return nil, err
	}
	w := &weaving{layer: dir}
	cw, err := s.Content.Writer(context.WithValue(ctx, weavingKey{}, w), opts...)
	if err != nil {
		return nil, err
	}
	return &layerWriter{cw, w, layer}, nil
}

// layerWriter has the blob hold its layer.
type layerWriter struct {
	content.Writer
	weaving *weaving
	layer   string
}

func (w *layerWriter) Commit(ctx context.Context, size int64, expected digest.Digest, opts ...content.Opt) error {
	if w.weaving.used {
		opts = append(opts, func(i *content.Info) error {
			if i.Labels == nil {
				i.Labels = map[string]string{}
			}
			i.Labels["containerd.io/gc.ref.snapshot."+Snapshotter] = w.layer
			return nil
		})
	}
	return w.Writer.Commit(ctx, size, expected, opts...)
}

// layerDir is the directory of a layer, below the root.
func (s *Store) layerDir(ctx context.Context, layer string) (string, error) {
	keys := &backendKeys{}
	if _, err := s.Snapshots.Stat(context.WithValue(ctx, keysKey{}, keys), layer); err != nil {
		return "", fmt.Errorf("find the layer %s: %w", layer, err)
	}
	info, err := s.overlay.Stat(ctx, keys.last)
	if err != nil {
		return "", fmt.Errorf("find the layer %s: %w", layer, err)
	}
	dir, err := filepath.Rel(s.root, info.Labels[layerDirLabel])
	if err != nil || !filepath.IsLocal(dir) {
		return "", fmt.Errorf("find the layer %s: it is not in the store", layer)
	}
	return dir, nil
}

// LayerPath is the directory of an unpacked layer, by its name in Snapshots.
func (s *Store) LayerPath(ctx context.Context, layer string) (string, error) {
	dir, err := s.layerDir(ctx, layer)
	return filepath.Join(s.root, dir), err
}

// layerDirLabel is how the snapshotter tells where a layer is.
const layerDirLabel = "containerd.io/snapshot/overlay.upperdir"

// errOtherFile is that of a layer whose files somebody has changed.
var errOtherFile = errors.New("it is not the file that it was")

// openStrand opens a file of a layer whose directory is dir.
func openStrand(dir int, s strand) (*os.File, error) {
	// A pipe, if it were one, is not to be waited for.
	fd, err := rootpath.Open(dir, s.Name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err = unix.Fstat(fd, &st); err == nil && (st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size != s.Size) {
		err = errOtherFile
	}
	if err != nil {
		return nil, errors.Join(&fs.PathError{Op: "open", Path: s.Name, Err: err}, unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), s.Name), nil
}

func (b *blobBackend) wovenPath(d digest.Digest) string {
	return filepath.Join(b.root, wovenDir, d.Encoded())
}

// readPattern reads how a woven blob is put together.
func readPattern(f *os.File) (*pattern, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	damaged := func(err error) error { return fmt.Errorf("the woven blob %s is damaged: %w", f.Name(), err) }
	footer := make([]byte, wovenFooter)
	if _, err := f.ReadAt(footer, st.Size()-int64(wovenFooter)); err != nil {
		return nil, damaged(err)
	}
	n := binary.BigEndian.Uint64(footer)
	if string(footer[8:]) != wovenMagic || n > largestPattern || int64(n) > st.Size()-int64(wovenFooter) {
		return nil, damaged(errors.New("it has no list of files"))
	}
	inline := st.Size() - int64(wovenFooter) - int64(n)
	list := make([]byte, n)
	if _, err := f.ReadAt(list, inline); err != nil {
		return nil, damaged(err)
	}
	p := &pattern{}
	if err := json.Unmarshal(list, p); err != nil {
		return nil, damaged(err)
	}
	at := int64(0)
	for _, s := range p.Files {
		if s.At < at || s.Size <= 0 || s.Size > p.Size-s.At {
			return nil, damaged(fmt.Errorf("the place of %q is not possible", s.Name))
		}
		at = s.At + s.Size
	}
	if p.inline() != inline || slices.ContainsFunc(p.Layers, func(l string) bool { return !filepath.IsLocal(l) }) {
		return nil, damaged(errors.New("its parts do not fit"))
	}
	return p, nil
}

// mostSyncedFiles is how many files are synced one by one; more are synced with all of their filesystem.
const mostSyncedFiles = 64

// syncStrands has the contents on the disk that woven blobs are about to rely on. Mostly they are.
func (b *blobBackend) syncStrands(list []*unsyncedBlob) error {
	if !slices.ContainsFunc(list, func(u *unsyncedBlob) bool { return u.pattern != nil && len(u.pattern.Files) > 0 }) {
		return nil
	}
	if err := b.failure(); err != nil {
		return err
	}
	if err := b.trySyncStrands(list); err != nil {
		return b.fail(err)
	}
	return nil
}

func (b *blobBackend) trySyncStrands(list []*unsyncedBlob) error {
	n := 0
	for _, u := range list {
		if u.pattern != nil {
			n += len(u.pattern.Files)
		}
	}
	if n > mostSyncedFiles {
		return record.SyncTree(b.layers)
	}
	for _, u := range list {
		if u.pattern == nil || len(u.pattern.Files) == 0 {
			continue
		}
		if err := u.pattern.sync(b.layers); err != nil {
			return err
		}
	}
	return nil
}

// sync syncs the files that were archived; they are in the layer that was noted last.
func (p *pattern) sync(root string) error {
	layer := p.Layers[len(p.Layers)-1]
	dir, err := os.Open(filepath.Join(root, layer))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // the layer is gone, and with it who needs it
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	for _, s := range p.Files {
		f, err := openStrand(int(dir.Fd()), s)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errOtherFile) {
			continue // somebody has been at it; who reads the blob is told
		}
		if err != nil {
			return fmt.Errorf("a file of the layer in %s: %w", layer, err)
		}
		if err := errors.Join(unix.Fdatasync(int(f.Fd())), f.Close()); err != nil {
			return fmt.Errorf("sync %s: %w", filepath.Join(layer, s.Name), err)
		}
	}
	return nil
}

// BlobSpace is how many bytes a blob of the given size takes on the disk: of a woven one only what is not in its layer.
func (s *Store) BlobSpace(d digest.Digest, size int64) int64 { return s.blobs.onDisk(d, size) }

func (b *blobBackend) onDisk(d digest.Digest, size int64) int64 {
	st, err := os.Lstat(b.wovenPath(d))
	if err != nil || b.has(b.path(d)) {
		return size
	}
	return st.Size()
}
