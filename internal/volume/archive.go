package volume

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"time"

	"github.com/moby/moby/api/types/volume"
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/archive"
	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/record"
)

// exportPrefix begins the names of copies that are being exported; they are swept
// like volumes that were not completed.
const exportPrefix = newPrefix + "export-"

// Export is a volume's data, ready to be packed. Pack it, then Close it.
type Export struct {
	How   Copying // Method is "" if nothing had to be copied
	data  string
	check func() error
	close func() error
}

// Pack writes the data as a tar stream whose first entry, "./", is the volume's own
// directory.
func (x *Export) Pack(ctx context.Context, w io.Writer) error {
	fd, err := unix.Open(x.data, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: x.data, Err: err}
	}
	defer unix.Close(fd)
	p := archive.NewPacker(ctx, w)
	if err := p.Tree(fd, "."); err != nil {
		return err
	}
	if err := x.check(); err != nil {
		return err
	}
	return p.Close()
}

// Close ends the export.
func (x *Export) Close() error { return x.close() }

// Export prepares a volume's data, or those of one of its snapshots, to be packed
// as they are at one instant. If containers run with the volume a copy is made, as
// Clone makes one: they do not stand still for as long as somebody reads. Else the
// data themselves are read; should a container be started with them before the end,
// Pack fails.
func (s *Service) Export(ctx context.Context, name, snapshot string, q Quiesce) (*Export, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, err := s.free(ctx, name)
	if err != nil {
		return nil, err
	}
	nothing := func() error { return nil }
	if snapshot != "" {
		if _, ok := e.snapshots[snapshot]; !ok {
			return nil, noSnapshot(name, snapshot)
		}
		return &Export{data: s.snapshotData(name, snapshot), check: nothing, close: nothing}, nil
	}
	if len(e.active) == 0 && e.isDirectory() {
		starts := e.starts
		return &Export{data: s.mountpoint(name), close: nothing, check: func() error {
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.entries[name] != e || e.starts != starts {
				return failure.Conflict("export %s: a container has been started with the volume: what was read is of no one instant", name)
			}
			return nil
		}}, nil
	}
	dir := filepath.Join(s.root, exportPrefix+randomName()[:16])
	x := &Export{data: filepath.Join(dir, dataDir), check: nothing, close: func() error { return removeTree(dir) }}
	err = s.holdOpen(e, func() (err error) {
		if err := os.MkdirAll(x.data, 0o700); err != nil {
			return err
		}
		x.How, err = s.copyStill(ctx, name, e, x.data, q)
		return err
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("export volume %s: %w", name, err), x.Close())
	}
	return x, nil
}

// Import makes a new volume of the driver local of a tar stream, which may be
// compressed. An entry for "./", as Export writes it, is the volume's own directory.
// A stream that cannot be unpacked to its end leaves no volume.
func (s *Service) Import(ctx context.Context, name string, labels map[string]string, r io.Reader) (*volume.Volume, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	meta := metadata{Labels: maps.Clone(labels), CreatedAt: time.Now().UTC()}
	e := newEntry(meta)
	e.busy = make(chan struct{})
	s.mu.Lock()
	if s.entries[name] != nil {
		s.mu.Unlock()
		return nil, failure.Conflict("import %s: a volume of this name exists already", name)
	}
	if err := s.mayTake(name); err != nil {
		s.mu.Unlock()
		return nil, fmt.Errorf("import %s: %w", name, err)
	}
	s.entries[name] = e
	s.mu.Unlock()
	err := s.makeDirs(name, &meta, true, func(data string) error { return unpack(ctx, r, data) })
	s.mu.Lock()
	defer s.mu.Unlock()
	close(e.busy)
	if err != nil {
		delete(s.entries, name)
		return nil, err
	}
	e.busy = nil
	return s.describe(name, e), nil
}

func unpack(ctx context.Context, r io.Reader, data string) error {
	plain, done, err := archive.Decompress(r)
	if errors.Is(err, archive.ErrEmpty) {
		return failure.Invalid("the archive is empty: give a tar archive, as cleat volume export writes it")
	}
	if err != nil {
		return err
	}
	defer done()
	fd, err := unix.Open(data, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: data, Err: err}
	}
	defer unix.Close(fd)
	if err := archive.Unpack(ctx, fd, "/", plain, archive.Options{Whole: true}); err != nil {
		return err
	}
	return record.SyncTree(data)
}
