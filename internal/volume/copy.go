package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/moby/moby/api/types/volume"
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/mount"
	"github.com/cleatlabs/cleat/internal/record"
)

const (
	snapshotsDir = "snapshots" // beside _data: holds a directory with _data for each
	snapshotFile = "snapshot.json"
	restoreDir   = ".restore" // what is to become _data, or was it
)

// Quiesce makes running containers stand still and returns what lets them go on,
// once. resume fails if one has moved meanwhile, as a stop lets it.
type Quiesce func(ctx context.Context, containers []string) (resume func() error, err error)

// Copying says how a copy was made.
type Copying struct {
	// Method is reflink, if original and copy share their content until one of them
	// is changed, else copy.
	Method string
	Bytes  int64 // of the files
	// Paused is how long the containers that run with the volume stood still.
	Paused time.Duration
}

// CloneRequest asks for a copy of a volume under another name.
type CloneRequest struct {
	From, To string
	Snapshot string            // of From; "" copies the volume itself
	Labels   map[string]string // nil takes those of From
}

// Clone makes a new volume of the driver local with the data of another or of one
// of its snapshots. The copy is of one instant, in which the containers that run with
// it stand still; most is copied before, while they go on, where the filesystem tells
// what they change meanwhile. It ends with ctx.
func (s *Service) Clone(ctx context.Context, r CloneRequest, q Quiesce) (v *volume.Volume, how Copying, err error) {
	if err := checkName(r.To); err != nil {
		return nil, how, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	from, err := s.free(ctx, r.From)
	if err != nil {
		return nil, how, err
	}
	if _, ok := from.snapshots[r.Snapshot]; r.Snapshot != "" && !ok {
		return nil, how, noSnapshot(r.From, r.Snapshot)
	}
	if s.entries[r.To] != nil {
		return nil, how, failure.Conflict("clone %s: a volume named %s exists already", r.From, r.To)
	}
	if err := s.mayTake(r.To); err != nil {
		return nil, how, fmt.Errorf("clone %s: %w", r.From, err)
	}
	meta := metadata{Labels: r.Labels, CreatedAt: time.Now().UTC()}
	if meta.Labels == nil {
		meta.Labels = maps.Clone(from.meta.Labels)
		delete(meta.Labels, AnonymousLabel) // it has got a name
	}
	if size := from.meta.Options[optSize]; size != "" && !from.isPlugins() {
		meta.Options = map[string]string{optSize: size}
	}
	to := newEntry(meta)
	to.busy = make(chan struct{})
	s.entries[r.To] = to
	err = s.holdOpen(from, func() error {
		return s.makeDirs(r.To, &to.meta, true, func(data string) error {
			if r.Snapshot != "" {
				how, err = copyData(ctx, s.snapshotData(r.From, r.Snapshot), data)
			} else {
				how, err = s.copyStill(ctx, r.From, from, data, q)
			}
			record.Failpoint("volume.clone.after-copy")
			return err
		})
	})
	close(to.busy)
	if err != nil {
		delete(s.entries, r.To)
		return nil, how, err
	}
	to.busy = nil
	return s.describe(r.To, to), how, nil
}

// Snapshot is a copy of a volume's data that is kept with it.
type Snapshot struct {
	Name      string
	CreatedAt time.Time
}

// Snapshot copies a volume's data and keeps the copy with the volume; "" as its
// name takes the time. It treats containers as Clone does.
func (s *Service) Snapshot(ctx context.Context, name, snapshot string, q Quiesce) (snap Snapshot, how Copying, err error) {
	snap = Snapshot{Name: snapshot, CreatedAt: time.Now().UTC()}
	if snap.Name == "" {
		snap.Name = snap.CreatedAt.Format("20060102T150405.000Z")
	}
	if !validName.MatchString(snap.Name) || len(snap.Name) > maxName {
		return snap, how, failure.Invalid("invalid snapshot name %q: only %q are allowed", snap.Name, nameChars)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	e, err := s.free(ctx, name)
	if err != nil {
		return snap, how, err
	}
	if _, taken := e.snapshots[snap.Name]; taken {
		return snap, how, failure.Conflict("volume %s has a snapshot %s already", name, snap.Name)
	}
	err = s.holdOpen(e, func() error {
		return s.makeSnapshot(name, snap, func(data string) error {
			how, err = s.copyStill(ctx, name, e, data, q)
			return err
		})
	})
	if err != nil {
		return snap, how, fmt.Errorf("snapshot of volume %s: %w", name, err)
	}
	e.snapshots[snap.Name] = snap.CreatedAt
	return snap, how, nil
}

// makeSnapshot makes a snapshot's directory: whole or not at all.
func (s *Service) makeSnapshot(name string, snap Snapshot, fill func(data string) error) (err error) {
	dir := filepath.Join(s.root, name, snapshotsDir)
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	tmp := filepath.Join(dir, newPrefix+snap.Name)
	if err := removeTree(tmp); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, removeTree(tmp))
		}
	}()
	data := filepath.Join(tmp, dataDir)
	if err := os.MkdirAll(data, 0o700); err != nil {
		return err
	}
	if err := fill(data); err != nil {
		return err
	}
	if err := record.WriteJSON(filepath.Join(tmp, snapshotFile), &snap, 0o600); err != nil {
		return err
	}
	record.Failpoint("volume.snapshot.before-rename")
	return os.Rename(tmp, filepath.Join(dir, snap.Name))
}

// loadSnapshots reads what snapshots a volume has and removes what a crash left of
// others.
func loadSnapshots(volumeDir string) (map[string]time.Time, error) {
	found := map[string]time.Time{}
	dir := filepath.Join(volumeDir, snapshotsDir)
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return found, nil
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			err = errors.Join(err, removeTree(filepath.Join(dir, e.Name())))
			continue
		}
		var snap Snapshot
		if rerr := record.ReadJSON(filepath.Join(dir, e.Name(), snapshotFile), &snap); rerr != nil {
			err = errors.Join(err, rerr)
			continue
		}
		found[e.Name()] = snap.CreatedAt
	}
	return found, err
}

// Snapshots lists a volume's snapshots, the oldest first.
func (s *Service) Snapshots(ctx context.Context, name string) ([]Snapshot, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, err := s.settled(ctx, name)
	if err != nil {
		return nil, err
	}
	if e == nil {
		return nil, missing(name)
	}
	list := make([]Snapshot, 0, len(e.snapshots))
	for snap, at := range e.snapshots {
		list = append(list, Snapshot{Name: snap, CreatedAt: at})
	}
	slices.SortFunc(list, func(a, b Snapshot) int {
		if c := a.CreatedAt.Compare(b.CreatedAt); c != 0 {
			return c
		}
		return strings.Compare(a.Name, b.Name)
	})
	return list, nil
}

// RemoveSnapshot deletes one snapshot; ErrNotFound if there is none of that name. It waits while the volume is copied.
func (s *Service) RemoveSnapshot(ctx context.Context, name, snapshot string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, err := s.free(ctx, name)
	if err != nil {
		return err
	}
	if _, ok := e.snapshots[snapshot]; !ok {
		return noSnapshot(name, snapshot)
	}
	dir := filepath.Join(s.root, name, snapshotsDir)
	return s.hold(e, func() error {
		doomed := filepath.Join(dir, doomedPrefix+randomName()[:16])
		if err := os.Rename(filepath.Join(dir, snapshot), doomed); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		s.mu.Lock()
		delete(e.snapshots, snapshot)
		s.mu.Unlock()
		return removeTree(doomed)
	})
}

// Restore replaces a volume's data by those of a snapshot, in one step. It is
// refused while a container runs with the volume, and none is started meanwhile.
func (s *Service) Restore(ctx context.Context, name, snapshot string) (how Copying, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, err := s.free(ctx, name)
	if err != nil {
		return how, err
	}
	if _, ok := e.snapshots[snapshot]; !ok {
		return how, noSnapshot(name, snapshot)
	}
	if !e.isDirectory() {
		return how, failure.NotImplemented("restore %s: its data lie on a filesystem that the engine cannot replace them on in one step: make a new volume of the snapshot with clone", name)
	}
	if len(e.active) > 0 {
		return how, failure.Conflict("restore %s: a container runs with the volume - [%s]: stop it first", name, strings.Join(slices.Sorted(maps.Keys(e.active)), ", "))
	}
	err = s.hold(e, func() (err error) {
		how, err = s.swapIn(ctx, name, e, snapshot)
		return err
	})
	if err != nil {
		return how, fmt.Errorf("restore volume %s: %w", name, err)
	}
	return how, nil
}

func (s *Service) swapIn(ctx context.Context, name string, e *entry, snapshot string) (how Copying, err error) {
	dir := filepath.Join(s.root, name, restoreDir)
	if err := removeTree(dir); err != nil {
		return how, err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return how, err
	}
	if err := s.share(dir, &e.meta); err != nil {
		return how, errors.Join(err, removeTree(dir))
	}
	defer func() { err = errors.Join(err, s.setLimit(&e.meta, true)) }()
	how, err = copyData(ctx, s.snapshotData(name, snapshot), dir)
	if err != nil {
		return how, errors.Join(err, removeTree(dir))
	}
	record.Failpoint("volume.restore.before-swap")
	if err := unix.Renameat2(unix.AT_FDCWD, dir, unix.AT_FDCWD, s.mountpoint(name), unix.RENAME_EXCHANGE); err != nil {
		return how, errors.Join(&os.LinkError{Op: "exchange", Old: dir, New: s.mountpoint(name), Err: err}, removeTree(dir))
	}
	record.Failpoint("volume.restore.after-swap")
	return how, removeTree(dir)
}

func (s *Service) snapshotData(name, snapshot string) string {
	return filepath.Join(s.root, name, snapshotsDir, snapshot, dataDir)
}

func noSnapshot(name, snapshot string) error {
	return failure.NotFound("volume %s has no snapshot %s", name, snapshot)
}

// isDirectory says whether the volume's data lie in a directory of the engine's.
func (e *entry) isDirectory() bool { return !e.isPlugins() && !isMounted(e.meta.Options) }

// copyStill copies the data of a volume that is held open, as of one instant in which those who run with it stand still.
// For most of the copying they need not, and others may be started.
func (s *Service) copyStill(ctx context.Context, name string, e *entry, dst string, q Quiesce) (how Copying, err error) {
	src, done, err := s.reach(ctx, name, e)
	if err != nil {
		return how, err
	}
	defer func() { err = errors.Join(err, done()) }()
	copyRest := func() (Copying, error) { return copyTree(ctx, src, dst) }
	running, starts := s.uses(e)
	if e.isDirectory() && q != nil && mount.CanMirror(src) {
		m, err := mount.NewMirror(src, dst)
		if err != nil {
			return how, err
		}
		defer m.Close()
		copied, err := s.follow(ctx, e, m)
		if err != nil {
			return how, err
		}
		copyRest = func() (Copying, error) {
			if now, started := s.uses(e); now+running == 0 && started == starts {
				return copyingOf(copied), nil // nobody has written
			}
			done, err := m.Finish(ctx)
			return copyingOf(done.Copied), err
		}
	}
	s.shut(e)
	if users := s.Users(name); len(users) > 0 && q != nil {
		how, err = standStill(ctx, users, q, copyRest)
	} else {
		how, err = copyRest()
	}
	if err == nil {
		err = record.SyncTree(dst) // they need not wait for that
	}
	return how, err
}

// standStill copies while containers stand still.
func standStill(ctx context.Context, users []string, q Quiesce, copyRest func() (Copying, error)) (Copying, error) {
	resume, err := q(ctx, users)
	if err != nil {
		return Copying{}, err
	}
	from := time.Now()
	how, err := copyRest()
	err = errors.Join(err, resume())
	how.Paused = time.Since(from)
	return how, err
}

const (
	// calm is how many bytes may be left to look into while containers stand still: that
	// takes some hundredths of a second.
	calm = 64 << 20
	// maxPasses bounds the attempts to come down to that.
	maxPasses = 8
	// passPause is between two passes: what was just written gets old enough to be told
	// from what is written next.
	passPause = time.Second
	// enough is how long after the first pass one that has hardly less to do than that
	// before is the last: what was only just written is told apart by then, and what is
	// left is written to all the time.
	enough = 6 * time.Second
)

// follow copies what a volume has while containers run with it, until it is calm.
func (s *Service) follow(ctx context.Context, e *entry, m *mount.Mirror) (mount.Copied, error) {
	last, first := int64(math.MaxInt64), time.Time{}
	for pass := 1; ; pass++ {
		done, err := m.Follow(ctx)
		if err != nil {
			return done.Copied, err
		}
		record.Failpoint("volume.copy.after-pass")
		if pass == 1 {
			first = time.Now()
		}
		ever := done.Looked > last/4*3 && time.Since(first) > enough
		if running, _ := s.uses(e); running == 0 || done.Looked <= calm || pass == maxPasses || ever {
			return done.Copied, nil
		}
		last = done.Looked
		select {
		case <-time.After(passPause):
		case <-ctx.Done():
			return done.Copied, ctx.Err()
		}
	}
}

// uses says how many containers run with a volume, and how many were ever started.
func (s *Service) uses(e *entry) (running int, starts uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(e.active), e.starts
}

// reach makes the data of a held volume reachable until done is called.
func (s *Service) reach(ctx context.Context, name string, e *entry) (path string, done func() error, err error) {
	path = s.mountpoint(name)
	if e.isPlugins() {
		path, err = s.mountIn(ctx, name, e, copier)
		return path, func() error { return s.unmountIn(context.WithoutCancel(ctx), name, e, copier) }, err
	}
	if e.isDirectory() {
		return path, func() error { return nil }, nil
	}
	if err := s.ensureMounted(ctx, e.meta.Options, path); err != nil {
		return "", nil, err
	}
	return path, func() error {
		s.mu.Lock()
		used := len(e.active) > 0 || s.unknown
		s.mu.Unlock()
		if used {
			return nil
		}
		return s.ensureUnmounted(name)
	}, nil
}

// copyData copies a tree and has it on the disk when it returns.
func copyData(ctx context.Context, src, dst string) (Copying, error) {
	how, err := copyTree(ctx, src, dst)
	if err == nil {
		err = record.SyncTree(dst)
	}
	return how, err
}

func copyTree(ctx context.Context, src, dst string) (Copying, error) {
	done, err := mount.CopyTree(ctx, src, dst)
	return copyingOf(done), err
}

func copyingOf(done mount.Copied) Copying {
	how := Copying{Method: "copy", Bytes: done.Bytes}
	if done.Bytes > 0 && done.Shared == done.Bytes {
		how.Method = "reflink"
	}
	return how
}
