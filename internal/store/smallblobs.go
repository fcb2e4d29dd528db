package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/failure"
)

// blobBackend is the content store below the metadata database. It keeps a blob that is being written in memory while
// it is small, and then makes one file of it: manifests, configurations, build records and most layers of builds are
// small, and the store below takes a directory with five files and three syncs for each, in part while the database
// is locked. What grows is handed to that store, and so is what is closed before it is whole, so that it can be
// resumed.
//
// While transactions do not wait for the disk, see [Deferral], small blobs do not either: they are synced before the
// transactions are that know them. After a crash of the machine a file may have less in it than its name says, then;
// the database does not know it, and who writes the blob anew looks into it.
type blobBackend struct {
	content.Store
	root   string // of the store below
	layers string // of the store, whose layers woven blobs refer to
	// known reports whether the database knows a blob. It may be asked by who has locked the database.
	known func(digest.Digest) (bool, error)
	// deferring reports whether transactions wait for the disk later. It is asked by who has locked the database.
	deferring func() bool

	mu       sync.Mutex
	open     map[string]openBlob // by ref
	unsynced []*unsyncedBlob     // blobs that have their names
	failed   error               // see failure
}

// openBlob is one that is being written.
type openBlob interface {
	Status() (content.Status, error)
	// abort ends it without a result. It reports whether there is nothing of it anywhere else.
	abort() bool
}

// unsyncedBlob is a blob whose file, and what that relies on, is not on the disk yet.
type unsyncedBlob struct {
	file    *os.File
	pattern *pattern // nil for one that is all in its file
}

const (
	// smallBlobs is how many bytes of a blob stay in memory.
	smallBlobs = 256 << 10
	// mostUnsynced bounds the open files; beyond it they are synced as they come.
	mostUnsynced = 64
)

func newBlobBackend(below content.Store, root, layers string, known func(digest.Digest) (bool, error), deferring func() bool) *blobBackend {
	return &blobBackend{Store: below, root: root, layers: layers, known: known, deferring: deferring, open: map[string]openBlob{}}
}

// Writer begins a blob, or goes on with one that the store below has a part of.
func (b *blobBackend) Writer(ctx context.Context, opts ...content.WriterOpt) (content.Writer, error) {
	var o content.WriterOpts
	for _, opt := range opts {
		if err := opt(&o); err != nil {
			return nil, err
		}
	}
	// A digest of another algorithm, or one that might be there already, is the other store's affair.
	if o.Ref == "" || o.Desc.Size > smallBlobs || o.Desc.Digest != "" {
		return b.below(ctx, o.Ref, opts...)
	}
	if _, err := b.Store.Status(ctx, o.Ref); !errdefs.IsNotFound(err) {
		return b.below(ctx, o.Ref, opts...)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if w := b.open[o.Ref]; w != nil {
		return nil, failure.Unavailable("ref %s is locked", o.Ref)
	}
	if weaving, ok := ctx.Value(weavingKey{}).(*weaving); ok {
		if w, possible, err := b.openWoven(o.Ref, weaving); possible || err != nil {
			if err == nil {
				b.open[o.Ref] = w
			}
			return w, err
		}
	}
	now := time.Now()
	w := &smallBlob{b: b, ref: o.Ref, total: o.Desc.Size, began: now, changed: now, digester: digest.Canonical.Digester()}
	b.open[o.Ref] = w
	return w, nil
}

// Status tells of a blob that is being written.
func (b *blobBackend) Status(ctx context.Context, ref string) (content.Status, error) {
	b.mu.Lock()
	w := b.open[ref]
	b.mu.Unlock()
	if w != nil {
		if st, err := w.Status(); err == nil {
			return st, nil
		}
	}
	return b.Store.Status(ctx, ref)
}

// WalkStatusRefs names the unfinished blobs on the disk, for the garbage collection. One that ends meanwhile is passed
// over: a listing of their statuses fails then, and the collection with it.
func (b *blobBackend) WalkStatusRefs(_ context.Context, fn func(ref string) error) error {
	dir := filepath.Join(b.root, "ingest")
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		ref, err := os.ReadFile(filepath.Join(dir, e.Name(), "ref"))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err == nil {
			err = fn(string(ref))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Abort gives a blob up that is not whole.
func (b *blobBackend) Abort(ctx context.Context, ref string) error {
	b.mu.Lock()
	w := b.open[ref]
	b.mu.Unlock()
	if w != nil && w.abort() {
		return nil
	}
	return b.Store.Abort(ctx, ref)
}

func (b *blobBackend) path(d digest.Digest) string {
	return filepath.Join(b.root, "blobs", d.Algorithm().String(), d.Encoded())
}

// later has a blob synced by the next sync. It reports false if that must be done now.
func (b *blobBackend) later(u *unsyncedBlob) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.unsynced) >= mostUnsynced {
		return false
	}
	b.unsynced = append(b.unsynced, u)
	return true
}

// sync returns when all blobs until now, and their names, are on the disk. While it runs no transaction is made. If it
// fails they never are: whoever calls it gives the transactions up that know them.
func (b *blobBackend) sync() error {
	b.mu.Lock()
	list := b.unsynced
	b.unsynced = nil
	b.mu.Unlock()
	if len(list) == 0 {
		return nil
	}
	errs := []error{b.syncStrands(list)}
	woven := false
	for _, u := range list {
		errs = append(errs, unix.Fdatasync(int(u.file.Fd())))
		woven = woven || u.pattern != nil
	}
	errs = append(errs, syncDir(filepath.Join(b.root, "blobs", digest.Canonical.String())))
	if woven {
		errs = append(errs, syncDir(filepath.Join(b.root, wovenDir)))
	}
	failed := errors.Join(errs...)
	for _, u := range list {
		failed = errors.Join(failed, u.file.Close())
	}
	if failed != nil {
		return fmt.Errorf("sync blobs: %w", failed)
	}
	return nil
}

// forget lets others write a blob of a ref again that w has written.
func (b *blobBackend) forget(ref string, w openBlob) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.open[ref] == w {
		delete(b.open, ref)
	}
}

// smallBlob is a blob that is being written. Its methods may be called while it is aborted, but by one goroutine at a
// time otherwise.
type smallBlob struct {
	b     *blobBackend
	ref   string
	total int64
	began time.Time

	mu       sync.Mutex
	data     bytes.Buffer
	digester digest.Digester
	changed  time.Time
	grown    content.Writer // takes it all once it is not small any more
	over     bool
}

// Status is that of the blob.
func (w *smallBlob) Status() (content.Status, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.grown != nil {
		return w.grown.Status()
	}
	return content.Status{Ref: w.ref, Offset: int64(w.data.Len()), Total: w.total, StartedAt: w.began, UpdatedAt: w.changed}, nil
}

// Digest is that of what was written until now.
func (w *smallBlob) Digest() digest.Digest {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.grown != nil {
		return w.grown.Digest()
	}
	return w.digester.Digest()
}

var errBlobOver = failure.New(errdefs.ErrFailedPrecondition, "the blob is not being written any more")

func (w *smallBlob) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.over {
		return 0, errBlobOver
	}
	if w.grown == nil && w.data.Len()+len(p) > smallBlobs {
		if err := w.grow(); err != nil {
			return 0, err
		}
	}
	if w.grown != nil {
		return w.grown.Write(p)
	}
	w.changed = time.Now()
	w.digester.Hash().Write(p)
	return w.data.Write(p)
}

// grow hands the blob to the store below. The caller holds w.mu.
func (w *smallBlob) grow() error {
	grown, err := w.b.below(context.Background(), w.ref, content.WithRef(w.ref), content.WithDescriptor(ocispec.Descriptor{Size: w.total}))
	if err != nil {
		return err
	}
	if _, err := grown.Write(w.data.Bytes()); err != nil {
		// A part of it must not be gone on with: the next try begins with all that is here.
		return errors.Join(err, grown.Close(), w.b.Store.Abort(context.Background(), w.ref))
	}
	w.grown, w.data = grown, bytes.Buffer{}
	return nil
}

// Truncate begins anew.
func (w *smallBlob) Truncate(size int64) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.grown != nil:
		return w.grown.Truncate(size)
	case size != 0:
		return errors.New("Truncate: unsupported size")
	}
	w.data.Reset()
	w.digester.Hash().Reset()
	return nil
}

// Sync is called before the database is locked for Commit.
func (w *smallBlob) Sync() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if s, ok := w.grown.(content.Syncer); ok {
		return s.Sync()
	}
	return nil
}

func (w *smallBlob) abort() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.grown != nil {
		return false
	}
	w.end()
	return true
}

// end has others write a blob of the ref. The caller holds w.mu.
func (w *smallBlob) end() {
	w.over, w.data = true, bytes.Buffer{}
	w.b.forget(w.ref, w)
}

// Close leaves what there is to be gone on with.
func (w *smallBlob) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.over {
		return nil
	}
	var err error
	if w.grown == nil && w.data.Len() > 0 {
		err = w.grow()
	}
	if w.grown != nil {
		err = errors.Join(err, w.grown.Close())
	}
	w.end()
	return err
}

// Commit makes it a blob, if it is what is expected. Those who call it have locked the database.
func (w *smallBlob) Commit(ctx context.Context, size int64, expected digest.Digest, opts ...content.Opt) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.over {
		return errBlobOver
	}
	if w.grown == nil && expected != "" && expected.Algorithm() != digest.Canonical {
		if err := w.grow(); err != nil { // it knows how to
			return err
		}
	}
	if w.grown != nil {
		w.end()
		return w.grown.Commit(ctx, size, expected, opts...)
	}
	defer w.end()
	data, actual := w.data.Bytes(), w.digester.Digest()
	if size > 0 && size != int64(len(data)) {
		return failure.New(errdefs.ErrFailedPrecondition, "unexpected commit size %d, expected %d", len(data), size)
	}
	if expected != "" && expected != actual {
		return failure.New(errdefs.ErrFailedPrecondition, "unexpected commit digest %s, expected %s", actual, expected)
	}
	err := w.b.put(actual, data)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EISDIR) { // a filesystem without files that have no name
		if err = w.grow(); err == nil {
			err = w.grown.Commit(ctx, size, expected, opts...)
		}
	}
	return err
}

// put makes the file of a blob: it has its name when it is complete, and nothing is left of it otherwise.
func (b *blobBackend) put(d digest.Digest, data []byte) (err error) {
	target := b.path(d)
	if known, err := os.ReadFile(target); err == nil {
		// One that the database does not know is read from memory, maybe, and not on the disk.
		sure, err := b.known(d)
		if err != nil {
			return err
		}
		if sure && bytes.Equal(known, data) {
			return failure.New(errdefs.ErrAlreadyExists, "content %v", d)
		}
		if err := os.Remove(target); err != nil {
			return err
		}
	}
	dir := filepath.Dir(target)
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_WRONLY|unix.O_CLOEXEC, 0o444)
	if errors.Is(err, unix.ENOENT) {
		if err = os.MkdirAll(dir, 0o755); err == nil {
			fd, err = unix.Open(dir, unix.O_TMPFILE|unix.O_WRONLY|unix.O_CLOEXEC, 0o444)
		}
	}
	if err != nil {
		return fmt.Errorf("make the blob %s: %w", d, err)
	}
	f := os.NewFile(uintptr(fd), target)
	if _, err = io.Copy(f, bytes.NewReader(data)); err != nil {
		return errors.Join(fmt.Errorf("write the blob %s: %w", d, err), f.Close())
	}
	kept, err := b.place(&unsyncedBlob{file: f}, target)
	if err != nil {
		err = fmt.Errorf("make the blob %s: %w", d, err)
	}
	if !kept {
		err = errors.Join(err, f.Close())
	}
	return err
}

// place gives a file that has no name its name. It reports whether the file is still needed, by the next sync. Those who
// call it have locked the database.
func (b *blobBackend) place(u *unsyncedBlob, target string) (kept bool, err error) {
	fd := int(u.file.Fd())
	durably := func() error { return errors.Join(b.syncStrands([]*unsyncedBlob{u}), unix.Fdatasync(fd)) }
	wait := !b.deferring()
	if wait {
		err = durably()
	}
	if err == nil {
		err = unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), unix.AT_FDCWD, target, unix.AT_SYMLINK_FOLLOW)
	}
	if err != nil {
		return false, err
	}
	if !wait {
		if b.later(u) {
			return true, nil
		}
		err = durably()
	}
	if err = errors.Join(err, syncDir(filepath.Dir(target))); err != nil {
		err = errors.Join(err, os.Remove(target)) // else the next who brings it would find it there
	}
	return false, err
}
