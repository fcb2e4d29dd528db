// Package store is the engine's storage of images: containerd's content store,
// metadata database, overlay snapshotter, leases and garbage collector, wired in
// process and opened once.
//
// What it promises:
//
//   - After a kill -9 at any instant [Open] works again, and nothing of an unfinished
//     pull, load or build is left: partial blobs, temporary leases and half-unpacked
//     layers are swept (see recover.go).
//   - Space of what nobody refers to any more is really freed, by one collector in the
//     background that runs after [Store.ScheduleGC]; no caller waits for it.
//   - Readers can tell cheaply whether any name changed: [Store.Generation].
//
// Builds use the same store, so that an image built, pulled or loaded is the same
// thing to everyone. Every context handed to a service of the store must come from
// [Store.Context].
package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/core/metadata/boltutil"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/containerd/containerd/v2/plugins/diff/walking"
	"github.com/containerd/containerd/v2/plugins/snapshots/overlay"
	"github.com/containerd/log"
	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/failure"
)

// Snapshotter is the snapshotter's name in labels and leases. containerd's unpacker
// converts whiteouts in parallel mode for exactly this name.
const Snapshotter = "overlayfs"

// Namespace is the containerd namespace of all objects of the engine.
const Namespace = "cleat"

// TemporaryLabel marks leases that end with the operation that made them. [Open]
// deletes those left by an engine that was killed.
const TemporaryLabel = "dev.cleat/temporary"

// Config says where and how a store works.
type Config struct {
	// Root is the directory of the store; it is made if missing, with its parents.
	Root string
	// LockTimeout is how long to wait for another process that has the store open;
	// 0 is one second, long enough for a predecessor that is just going away.
	LockTimeout time.Duration
	// Warn, if not nil, is told of faults that end no operation: in background work, and
	// in what is cleaned up after one. It must not block.
	Warn func(error)
}

// Store is an opened store. Its services may be used from many goroutines.
type Store struct {
	// Content holds blobs by digest.
	Content content.Store
	// Images holds names; every change moves [Store.Generation] on.
	Images images.Store
	// Leases keep objects from the collector.
	Leases leases.Manager
	// Snapshots holds the unpacked layers, named by chain id.
	Snapshots snapshots.Snapshotter
	// Applier unpacks a layer; Differ makes one.
	Applier diff.Applier
	Differ  diff.Comparer

	root       string
	warn       func(error)
	logger     *log.Entry
	db         *bolt.DB
	meta       *metadata.DB
	overlay    snapshots.Snapshotter
	blobs      *blobBackend
	generation atomic.Uint64
	timed      *timedLeases
	collector  *collector
	deferrals  deferrals
	closed     sync.Once
}

// Open opens or makes the store and sweeps what a killed predecessor left. If another
// process has it open, the error matches errdefs.ErrUnavailable and names Root.
//
// Open sets CONTAINERD_DISABLE_IGZIP and CONTAINERD_DISABLE_PIGZ in this process's
// environment: containerd would otherwise start an external igzip or unpigz per layer
// if the machine happens to have one, which costs a process each and behaves
// differently from machine to machine.
func Open(ctx context.Context, cfg Config) (_ *Store, err error) {
	if err := checkRoot(cfg.Root); err != nil {
		return nil, err
	}
	os.Setenv("CONTAINERD_DISABLE_IGZIP", "1")
	os.Setenv("CONTAINERD_DISABLE_PIGZ", "1")

	if err := os.MkdirAll(cfg.Root, 0o711); err != nil {
		return nil, fmt.Errorf("image store: %w", err)
	}
	s := &Store{root: cfg.Root, warn: cfg.Warn}
	if s.warn == nil {
		s.warn = func(error) {}
	}
	s.logger = newLogger(s.warn)
	defer func() {
		if err != nil {
			s.closeDatabases()
		}
	}()
	if err := RecoverDatabase(filepath.Join(cfg.Root, "meta.db")); err != nil {
		return nil, err
	}
	if err := checkDatabases(cfg.Root); err != nil {
		return nil, err
	}
	if s.db, err = openDatabase(filepath.Join(cfg.Root, "meta.db"), cfg); err != nil {
		return nil, err
	}
	if err := s.openBackends(); err != nil {
		return nil, err
	}
	s.deferrals.warn = s.warn
	own := NewDeferral(filepath.Join(cfg.Root, "meta.db"), s.db)
	own.before = s.blobs.sync
	s.deferrals.own, s.deferrals.list = own, []*Deferral{own}
	s.meta = metadata.NewDB(&guarded{Transactor: s.db, deferral: own}, s.blobs, map[string]snapshots.Snapshotter{Snapshotter: s.overlay})
	if err := s.meta.Init(ctx); err != nil {
		return nil, fmt.Errorf("open the image database in %s: %w", cfg.Root, err)
	}
	s.Content = s.meta.ContentStore()
	s.Images = &countedImages{Store: metadata.NewImageStore(s.meta), generation: &s.generation, settle: s.deferrals.settle}
	s.timed = &timedLeases{Manager: metadata.NewLeaseManager(s.meta), now: time.Now, ends: map[timedLease]time.Time{}}
	s.Leases = s.timed
	s.Snapshots = s.meta.Snapshotter(Snapshotter)
	s.Applier = newApplier(s.Content)
	s.Differ = walking.NewWalkingDiff(s.Content)
	s.generation.Store(1)

	found, err := s.recover(s.Context(ctx))
	if err != nil {
		return nil, fmt.Errorf("sweep the image store in %s: %w", cfg.Root, err)
	}
	s.collector = startCollector(s)
	if found {
		s.ScheduleGC()
	}
	return s, nil
}

func checkRoot(root string) error {
	if !filepath.IsAbs(root) {
		return failure.Invalid("the image store's directory %q is not an absolute path", root)
	}
	if strings.ContainsAny(root, ":,\\") {
		return failure.Invalid("the image store's directory %q contains ':', ',' or '\\', which overlay mounts cannot carry; choose another data root", root)
	}
	return nil
}

// openBackends opens what the metadata database is about: blobs and the layers' directories.
func (s *Store) openBackends() error {
	large, err := local.NewStore(filepath.Join(s.root, "content"))
	if err != nil {
		return fmt.Errorf("open the content store in %s: %w", s.root, err)
	}
	s.blobs = newBlobBackend(large, filepath.Join(s.root, "content"), s.root, s.knowsBlob, func() bool { return s.db.NoSync })
	// AsynchronousRemove: directories of removed layers go away in the collector and
	// not while the metadata database is locked.
	layers, err := overlay.NewSnapshotter(filepath.Join(s.root, "snapshots"), overlay.AsynchronousRemove, overlay.WithUpperdirLabel)
	if err != nil {
		return fmt.Errorf("open the layer store in %s: %w", s.root, err)
	}
	s.overlay = &layerBackend{layers}
	return nil
}

// checkDatabases refuses a store whose database has been lost while what it lists is there: to a database that is made
// anew all of that would be garbage.
func checkDatabases(root string) error {
	for _, c := range []struct{ database, lists string }{
		{"meta.db", "content/blobs/sha256"},
		{"meta.db", "content/woven"},
		{"snapshots/metadata.db", "snapshots/snapshots"},
	} {
		if st, err := os.Stat(filepath.Join(root, c.database)); err == nil && st.Size() > 0 {
			continue
		}
		if entries, err := os.ReadDir(filepath.Join(root, c.lists)); err == nil && len(entries) > 0 {
			return fmt.Errorf("%s is gone or empty, but what it lists is there, in %s: put a copy back, or remove %s "+
				"to start without any image (containers that are kept need theirs again)",
				filepath.Join(root, c.database), filepath.Join(root, c.lists), root)
		}
	}
	return nil
}

func openDatabase(path string, cfg Config) (*bolt.DB, error) {
	opts := *bolt.DefaultOptions
	opts.NoFreelistSync = true // the list is rebuilt at open; each commit is smaller
	opts.NoStatistics = true
	opts.InitialMmapSize = DatabaseSpace // see Deferral
	opts.Timeout = cfg.LockTimeout
	if opts.Timeout == 0 {
		opts.Timeout = time.Second
	}
	db, err := bolt.Open(path, 0o600, &opts)
	switch {
	case errors.Is(err, berrors.ErrTimeout):
		return nil, failure.Unavailable("another engine is using the image store in %s; stop it, or start this one with another --data-root", cfg.Root)
	case err != nil:
		return nil, fmt.Errorf("open the image database %s: %w", path, err)
	}
	return db, nil
}

// Root is the directory of the store.
func (s *Store) Root() string { return s.root }

// Free is how many bytes there are for more in the directory of the store.
func (s *Store) Free() (int64, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(s.root, &fs); err != nil {
		return 0, fmt.Errorf("ask for the space in %s: %w", s.root, err)
	}
	return int64(fs.Bavail) * fs.Bsize, nil
}

// Context returns ctx with the namespace that all services of the store require, and
// with a logger that passes on what their packages warn of to Config.Warn.
func (s *Store) Context(ctx context.Context) context.Context {
	return log.WithLogger(namespaces.WithNamespace(ctx, Namespace), s.logger)
}

// Generation changes whenever a name was made, moved or deleted, also by a build, and
// after a collection. What was read from the store before a call that returns the same
// number still holds as far as names go, and what of their images was here is.
func (s *Store) Generation() uint64 { return s.generation.Load() }

// Close stops the collector, finishing a collection that is under way, and closes
// the databases. Nothing of the store may be in use any more. What is open may be
// lost to a kill -9 instead: the next Open recovers. A second Close does nothing.
func (s *Store) Close() (err error) {
	s.closed.Do(func() {
		s.collector.stop()
		err = s.closeDatabases()
	})
	return err
}

func (s *Store) closeDatabases() error {
	var errs []error
	if s.overlay != nil {
		errs = append(errs, s.overlay.Close())
	}
	if s.db != nil {
		_, err := s.deferrals.suspend() // for good
		if own := s.deferrals.own; own != nil {
			err = errors.Join(err, own.release())
		}
		errs = append(errs, err, s.db.Close())
	}
	return errors.Join(errs...)
}

// WithTemporaryLease makes a lease for the duration of one operation. Everything that
// is written under the returned context is safe from the collector until done is
// called, which deletes the lease whatever has become of ctx.
func (s *Store) WithTemporaryLease(ctx context.Context) (leased context.Context, done func(), err error) {
	lease, err := s.Leases.Create(ctx, leases.WithRandomID(),
		leases.WithExpiration(24*time.Hour),
		leases.WithLabel(TemporaryLabel, "true"))
	if err != nil {
		return nil, nil, fmt.Errorf("make a lease: %w", err)
	}
	done = func() {
		if err := s.Leases.Delete(context.WithoutCancel(ctx), lease); err != nil {
			s.warn(fmt.Errorf("delete the lease %s: %w", lease.ID, err))
		}
	}
	return leases.WithLease(ctx, lease.ID), done, nil
}

// EmptyLayer gives a directory that is empty and stays so: the one lower layer of an
// image that has none.
func (s *Store) EmptyLayer() (string, error) {
	dir := filepath.Join(s.root, "empty")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("make an empty layer: %w", err)
	}
	return dir, nil
}

// LowerDirs reads the layer directories, topmost first, out of the mounts that a view
// of a snapshot gives.
func (s *Store) LowerDirs(mounts []mount.Mount) ([]string, error) {
	if len(mounts) != 1 {
		return nil, fmt.Errorf("a view of a layer gives %d mounts, not one", len(mounts))
	}
	m := mounts[0]
	if m.Type == "bind" {
		return []string{m.Source}, nil
	}
	for _, o := range m.Options {
		if dirs, ok := strings.CutPrefix(o, "lowerdir="); ok {
			return strings.Split(dirs, ":"), nil
		}
	}
	return nil, fmt.Errorf("a view of a layer gives a %q mount without lower directories", m.Type)
}

// Update runs fn in one transaction: what it does to names and leases under the context
// that it is given becomes durable in one commit, or not at all if it returns an error.
// fn must not touch blobs or snapshots, nor wait for anything: their stores have locks
// that are taken before the database's, here it would be the other way round.
func (s *Store) Update(ctx context.Context, fn func(ctx context.Context) error) error {
	defer s.generation.Add(1)
	err := s.meta.Update(func(tx *bolt.Tx) error {
		return fn(boltutil.WithTransaction(ctx, tx))
	})
	if err != nil {
		return err
	}
	return s.deferrals.settle()
}
