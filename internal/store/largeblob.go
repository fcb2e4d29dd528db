package store

import (
	"context"
	"errors"
	"os"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/cleatlabs/cleat/internal/record"
)

// largeBlob is one that the store below is writing. What that leaves unfinished is gone on with by the next who writes
// the ref, and is taken for written: so nothing may be left whose sync has failed.
type largeBlob struct {
	content.Writer
	b     *blobBackend
	ref   string
	doubt error // the sync that failed
}

// below begins a blob of the store below, or goes on with one.
func (b *blobBackend) below(ctx context.Context, ref string, opts ...content.WriterOpt) (content.Writer, error) {
	w, err := b.Store.Writer(ctx, opts...)
	if err != nil {
		return nil, err
	}
	return &largeBlob{Writer: w, b: b, ref: ref}, nil
}

// Sync is called before the database is locked for Commit.
func (w *largeBlob) Sync() error {
	if s, ok := w.Writer.(content.Syncer); ok {
		w.doubt = errors.Join(w.doubt, s.Sync())
	}
	return w.doubt
}

// Commit makes it a blob. If it fails for another reason than what was written nothing is left of it.
func (w *largeBlob) Commit(ctx context.Context, size int64, expected digest.Digest, opts ...content.Opt) error {
	target := w.b.path(w.Digest())
	before := w.b.has(target)
	err := w.Writer.Commit(ctx, size, expected, opts...)
	if err == nil || errdefs.IsAlreadyExists(err) || errdefs.IsFailedPrecondition(err) {
		return err
	}
	if !before {
		if rerr := os.Remove(target); !errors.Is(rerr, os.ErrNotExist) {
			err = errors.Join(err, rerr)
		}
	}
	return errors.Join(err, w.discard())
}

// Close leaves what there is to be gone on with, if it is on the disk.
func (w *largeBlob) Close() error {
	_ = w.Sync() // w.doubt has it
	doubt := w.doubt
	err := w.Writer.Close()
	if doubt != nil {
		err = errors.Join(err, w.discard())
	}
	return err
}

func (w *largeBlob) discard() error {
	if err := w.b.Store.Abort(context.Background(), w.ref); err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	return nil
}

// failure is why no more blobs are taken that rely on the contents of layers, or nil.
func (b *blobBackend) failure() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.failed
}

// fail notes that contents of layers are not on the disk, which nobody can write again.
func (b *blobBackend) fail(err error) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.failed == nil {
		b.failed = record.Unwritten(b.layers, err)
	}
	return b.failed
}
