package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"sync"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// wovenReader reads a woven blob. It may be used by many goroutines.
type wovenReader struct {
	*pattern
	file   *os.File
	dirs   []*os.File // of the layers that are there
	before []int64    // bytes of files' contents before each of them

	mu   sync.Mutex
	last int      // the file that is open
	open *os.File // or nil
}

// readWoven opens a woven blob; that there is none is an fs.ErrNotExist.
func (b *blobBackend) readWoven(d digest.Digest) (_ content.ReaderAt, err error) {
	f, err := os.Open(b.wovenPath(d))
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = f.Close() // the error that is returned is the cause
		}
	}()
	p, err := readPattern(f)
	if err != nil {
		return nil, err
	}
	r := &wovenReader{pattern: p, file: f, before: make([]int64, len(p.Files)+1)}
	for _, l := range p.Layers {
		if dir, err := os.Open(filepath.Join(b.layers, l)); err == nil {
			r.dirs = append(r.dirs, dir)
		}
	}
	if len(r.dirs) == 0 { // which is not that the blob is not there
		return nil, fmt.Errorf("the layer of the blob %s is not in %v any more", d, p.Layers)
	}
	for i, s := range p.Files {
		r.before[i+1] = r.before[i] + s.Size
	}
	return r, nil
}

// Size is that of the archive.
func (r *wovenReader) Size() int64 { return r.pattern.Size }

// ReadAt reads of the archive.
func (r *wovenReader) ReadAt(p []byte, at int64) (n int, err error) {
	if at < 0 {
		return 0, errors.New("negative offset")
	}
	for n < len(p) && err == nil {
		var m int
		m, err = r.piece(p[n:], at+int64(n))
		n += m
	}
	if n == len(p) {
		err = nil
	}
	return n, err
}

// piece reads what lies in one file.
func (r *wovenReader) piece(p []byte, at int64) (int, error) {
	if at >= r.pattern.Size {
		return 0, io.EOF
	}
	i := sort.Search(len(r.Files), func(i int) bool { return r.Files[i].At > at }) - 1 // the last that has begun
	if i >= 0 && at < r.Files[i].At+r.Files[i].Size {
		return r.strand(i, p, at-r.Files[i].At)
	}
	end := r.pattern.Size
	if i+1 < len(r.Files) {
		end = r.Files[i+1].At
	}
	return whole(r.file, p[:min(int64(len(p)), end-at)], at-r.before[i+1])
}

// strand reads of a file of the layer.
func (r *wovenReader) strand(i int, p []byte, at int64) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.Files[i]
	if r.open == nil || r.last != i {
		f, err := r.find(s)
		if err != nil {
			return 0, err
		}
		if r.open != nil {
			_ = r.open.Close() // it was only read
		}
		r.open, r.last = f, i
	}
	return whole(r.open, p[:min(int64(len(p)), s.Size-at)], at)
}

// find opens a file in one of the layers.
func (r *wovenReader) find(s strand) (*os.File, error) {
	var errs []error
	for _, dir := range r.dirs {
		f, err := openStrand(int(dir.Fd()), s)
		if err == nil {
			return f, nil
		}
		errs = append(errs, fmt.Errorf("a file of the layer in %s: %w", dir.Name(), err))
	}
	return nil, errors.Join(errs...)
}

// whole reads all of p: a file that has become shorter is an error.
func whole(f *os.File, p []byte, at int64) (int, error) {
	n, err := f.ReadAt(p, at)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
		if n == len(p) {
			err = nil
		}
	}
	return n, err
}

// Close ends reading.
func (r *wovenReader) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	err := r.file.Close()
	for _, dir := range r.dirs {
		err = errors.Join(err, dir.Close())
	}
	if r.open != nil {
		err = errors.Join(err, r.open.Close())
		r.open = nil
	}
	return err
}

// ReaderAt opens a blob.
func (b *blobBackend) ReaderAt(ctx context.Context, desc ocispec.Descriptor) (content.ReaderAt, error) {
	r, err := b.Store.ReaderAt(ctx, desc)
	if !errdefs.IsNotFound(err) {
		return r, err
	}
	woven, werr := b.readWoven(desc.Digest)
	if errors.Is(werr, fs.ErrNotExist) {
		return nil, err
	}
	return woven, werr
}

// Delete removes a blob in whichever form it is there.
func (b *blobBackend) Delete(ctx context.Context, d digest.Digest) error {
	woven, below := os.Remove(b.wovenPath(d)), b.Store.Delete(ctx, d)
	switch {
	case errors.Is(woven, fs.ErrNotExist):
		return below
	case errdefs.IsNotFound(below):
		return woven
	}
	return errors.Join(woven, below)
}

// Walk tells of all blobs, once of each. Of a woven one that the database does not know nobody else is told: its layer
// may be gone. (Info does not know of woven blobs at all, for the database asks it only for one that it does not know.)
func (b *blobBackend) Walk(ctx context.Context, fn content.WalkFunc, filters ...string) error {
	seen := map[string]bool{}
	err := b.Store.Walk(ctx, func(i content.Info) error {
		seen[i.Digest.Encoded()] = true
		return fn(i)
	}, filters...)
	if err != nil {
		return err
	}
	entries, err := os.ReadDir(filepath.Join(b.root, wovenDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		d := digest.NewDigestFromEncoded(digest.Canonical, e.Name())
		if seen[e.Name()] || d.Validate() != nil {
			continue
		}
		if err := fn(content.Info{Digest: d}); err != nil {
			return err
		}
	}
	return nil
}
