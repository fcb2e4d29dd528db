package store

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/record"
)

// wovenBlob is one that is being written. Its methods may be called while it is aborted, but by one goroutine at a time
// otherwise.
type wovenBlob struct {
	b       *blobBackend
	ref     string
	began   time.Time
	weaving *weaving

	mu       sync.Mutex
	dir      int // of the layer
	digester digest.Digester
	changed  time.Time
	cutter   *tarCutter
	pattern  pattern
	file     *os.File
	out      *bufio.Writer
	over     bool
}

// openWoven begins one. It reports false where there cannot be any: the filesystem has no files without a name.
func (b *blobBackend) openWoven(ref string, weaving *weaving) (*wovenBlob, bool, error) {
	dir := filepath.Join(b.root, wovenDir)
	for _, d := range []string{dir, filepath.Join(b.root, "blobs", digest.Canonical.String())} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return nil, false, err
		}
	}
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o444)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EISDIR) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, &fs.PathError{Op: "make a file in", Path: dir, Err: err}
	}
	layer, err := unix.Open(filepath.Join(b.layers, weaving.layer), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, false, errors.Join(&fs.PathError{Op: "open", Path: weaving.layer, Err: err}, unix.Close(fd))
	}
	now := time.Now()
	w := &wovenBlob{b: b, ref: ref, began: now, changed: now, weaving: weaving, dir: layer, file: os.NewFile(uintptr(fd), dir)}
	w.out = bufio.NewWriterSize(w.file, wovenFile)
	w.reset()
	return w, true, nil
}

func (w *wovenBlob) reset() {
	w.digester = digest.Canonical.Digester()
	w.cutter = newTarCutter(w.leaveOut)
	w.pattern = pattern{Layers: []string{w.weaving.layer}}
	w.weaving.used = false
	w.out.Reset(w.file)
}

// leaveOut takes a file of the archive for one of the layer if it is large and there is one like it.
func (w *wovenBlob) leaveOut(name string, size, at int64) bool {
	if size < wovenFile || !filepath.IsLocal(name) {
		return false
	}
	f, err := openStrand(w.dir, strand{Name: name, Size: size})
	if err != nil {
		return false
	}
	w.pattern.Files = append(w.pattern.Files, strand{At: at, Size: size, Name: name})
	w.weaving.used = true
	return f.Close() == nil
}

func (w *wovenBlob) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.over {
		return 0, errBlobOver
	}
	w.digester.Hash().Write(p)
	w.changed = time.Now()
	for rest := p; len(rest) > 0; {
		n, out := w.cutter.next(rest)
		if !out {
			if _, err := w.out.Write(rest[:n]); err != nil {
				return len(p) - len(rest), err
			}
		}
		rest = rest[n:]
	}
	w.pattern.Size += int64(len(p))
	return len(p), nil
}

// Status is that of the blob.
func (w *wovenBlob) Status() (content.Status, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return content.Status{Ref: w.ref, Offset: w.pattern.Size, StartedAt: w.began, UpdatedAt: w.changed}, nil
}

// Digest is that of what was written until now.
func (w *wovenBlob) Digest() digest.Digest {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.digester.Digest()
}

// Truncate begins anew.
func (w *wovenBlob) Truncate(size int64) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if size != 0 {
		return errors.New("Truncate: unsupported size")
	}
	if w.over {
		return errBlobOver
	}
	w.reset()
	if _, err := w.file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	return w.file.Truncate(0)
}

func (w *wovenBlob) abort() bool {
	_ = w.Close() // nothing of it has a name
	return true
}

// Close gives it up, if it is not a blob yet.
func (w *wovenBlob) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.over {
		return nil
	}
	return errors.Join(w.end(), w.file.Close())
}

// end has others write a blob of the ref. The caller holds w.mu, and has the file.
func (w *wovenBlob) end() error {
	w.over = true
	w.b.forget(w.ref, w)
	return unix.Close(w.dir)
}

// Commit makes it a blob, if it is what is expected. Those who call it have locked the database.
func (w *wovenBlob) Commit(_ context.Context, size int64, expected digest.Digest, _ ...content.Opt) (err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.over {
		return errBlobOver
	}
	keep := false // the file is still needed
	defer func() {
		err = errors.Join(err, w.end())
		if !keep {
			err = errors.Join(err, w.file.Close())
		}
	}()
	actual := w.digester.Digest()
	if size > 0 && size != w.pattern.Size {
		return failure.New(errdefs.ErrFailedPrecondition, "unexpected commit size %d, expected %d", w.pattern.Size, size)
	}
	if expected != "" && expected != actual {
		return failure.New(errdefs.ErrFailedPrecondition, "unexpected commit digest %s, expected %s", actual, expected)
	}
	u := &unsyncedBlob{file: w.file, pattern: &w.pattern}
	if len(w.pattern.Files) == 0 {
		keep, err = w.place(u, w.b.path(actual), actual)
	} else if target := w.b.wovenPath(actual); w.b.has(target) {
		keep, err = w.replace(u, target, actual)
	} else {
		keep, err = w.place(u, target, actual)
	}
	if err != nil && !errdefs.IsAlreadyExists(err) {
		err = fmt.Errorf("make the blob %s: %w", actual, err)
	}
	record.Failpoint("store.woven.after-blob")
	return err
}

func (b *blobBackend) has(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// place makes a blob of it that is not there, or that a crash of the machine has left the database without.
func (w *wovenBlob) place(u *unsyncedBlob, target string, d digest.Digest) (kept bool, err error) {
	if w.b.has(target) {
		known, err := w.b.known(d)
		if err != nil {
			return false, err
		}
		if known {
			return false, failure.New(errdefs.ErrAlreadyExists, "content %v", d)
		}
		if err := os.Remove(target); err != nil {
			return false, err
		}
	}
	if err := w.sign(); err != nil {
		return false, err
	}
	return w.b.place(u, target)
}

// replace makes it in place of a woven blob of the same digest. If the database knows that one it stays as it is, but
// for one more layer that has the files: who holds this one need not hold that.
func (w *wovenBlob) replace(u *unsyncedBlob, target string, d digest.Digest) (kept bool, err error) {
	known, err := w.b.known(d)
	if err != nil {
		return false, err
	}
	if !known {
		return w.place(u, target, d)
	}
	exists := failure.New(errdefs.ErrAlreadyExists, "content %v", d)
	old, err := os.Open(target)
	if err != nil {
		return false, err
	}
	before, err := readPattern(old)
	if err = errors.Join(err, old.Close()); err != nil {
		return false, err
	}
	if slices.Contains(before.Layers, w.weaving.layer) {
		return false, exists
	}
	own := w.pattern.Layers
	w.pattern.Layers = append(slices.DeleteFunc(before.Layers, func(l string) bool { return !w.b.has(filepath.Join(w.b.layers, l)) }), own...)
	if err := w.sign(); err != nil {
		return false, err
	}
	// The database knows it, also after a crash: so must the disk.
	if err := unix.Fdatasync(int(w.file.Fd())); err != nil {
		return false, err
	}
	part := target + wovenPart
	_ = os.Remove(part) // of an engine that was killed here
	if kept, err = w.b.place(u, part); err != nil {
		return kept, err
	}
	record.Failpoint("store.woven.before-replace")
	if err := os.Rename(part, target); err != nil {
		return kept, err
	}
	return kept, exists
}

// sign ends the file, with the list if there is one.
func (w *wovenBlob) sign() error {
	if len(w.pattern.Files) == 0 {
		return w.out.Flush()
	}
	list, err := json.Marshal(&w.pattern)
	if err != nil {
		return err
	}
	list = binary.BigEndian.AppendUint64(list, uint64(len(list)))
	if _, err = w.out.Write(append(list, wovenMagic...)); err != nil {
		return err
	}
	return w.out.Flush()
}
