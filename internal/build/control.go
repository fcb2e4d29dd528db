package build

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"runtime"
	"time"

	"github.com/moby/buildkit/cache/remotecache"
	inlinecache "github.com/moby/buildkit/cache/remotecache/inline"
	localcache "github.com/moby/buildkit/cache/remotecache/local"
	registrycache "github.com/moby/buildkit/cache/remotecache/registry"
	bkclient "github.com/moby/buildkit/client"
	"github.com/moby/buildkit/control"
	"github.com/moby/buildkit/frontend"
	"github.com/moby/buildkit/frontend/gateway"
	"github.com/moby/buildkit/frontend/gateway/forwarder"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/snapshot"
	ctdsnapshot "github.com/moby/buildkit/snapshot/containerd"
	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/solver/bboltcachestorage"
	httpsource "github.com/moby/buildkit/source/http"
	"github.com/moby/buildkit/util/entitlements"
	"github.com/moby/buildkit/util/leaseutil"
	"github.com/moby/buildkit/worker"
	"github.com/moby/buildkit/worker/base"
	"github.com/moby/buildkit/worker/label"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
	"golang.org/x/sync/semaphore"

	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/store"
)

// Version is BuildKit's version, as it is told to clients; go.mod has the same.
const Version = "v0.34.2"

// labelHostGateway is where buildx looks for the address of host-gateway.
const labelHostGateway = "org.mobyproject.buildkit.worker.moby.host-gateway-ip"

// keysFile is the database of the keys by which things are found in the cache.
const keysFile = "cache.db"

// mountsDir is where filesystems that steps share are mounted, below the root.
const mountsDir = "mounts"

// newControl opens the databases and wires BuildKit together.
func (b *Builder) newControl(ctx context.Context) (_ *control.Controller, _ *imageWorker, err error) {
	var closers []func() error
	defer func() {
		if err != nil {
			for _, c := range closers {
				_ = c() // the error that is returned is the cause
			}
		}
	}()
	history, err := b.openHistory()
	if err != nil {
		return nil, nil, err
	}
	closers = append(closers, history.Close)
	settler, killed, crashed, err := openSettler(b.cfg.Root, b.cfg.Store.Root(), b.warn)
	if err != nil {
		return nil, nil, err
	}
	keys, err := b.openKeys(crashed)
	if err != nil {
		return nil, nil, err
	}
	closers = append(closers, keys.Close)
	w, err := b.newWorker(ctx, settler, killed, crashed)
	if err != nil {
		return nil, nil, err
	}
	closers = append(closers, w.settle, w.Close)
	workers := &worker.Controller{}
	if err := workers.Add(w); err != nil {
		return nil, nil, err
	}
	images, err := gateway.NewGatewayFrontend(workers.Infos(), nil)
	if err != nil {
		return nil, nil, err
	}
	c, err := control.NewController(control.Opt{
		SessionManager:   b.sessions,
		WorkerController: workers,
		Frontends: map[string]frontend.Frontend{
			"dockerfile.v0": forwarder.NewGatewayForwarder(workers.Infos(), solveDockerfile),
			"gateway.v0":    images,
		},
		CacheManager: solver.NewCacheManager(ctx, "local", keys, worker.NewCacheResultStorage(workers)),
		CacheStore:   keys,
		ResolveCacheImporterFuncs: map[string]remotecache.ResolveCacheImporterFunc{
			"local":    localcache.ResolveCacheImporterFunc(b.sessions),
			"registry": registrycache.ResolveCacheImporterFunc(b.sessions, w.ContentStore(), b.cfg.Registries),
		},
		ResolveCacheExporterFuncs: b.cacheExporters(),
		Entitlements:              b.entitlements(),
		HistoryDB:                 history,
		HistoryConfig:             b.cfg.History.config(),
		LeaseManager:              w.LeaseManager(),
		ContentStore:              w.ContentStore(),
		GarbageCollect:            w.GarbageCollect,
	})
	return c, w, err
}

// cacheExporters are the kinds of `--cache-to`.
func (b *Builder) cacheExporters() map[string]remotecache.ResolveCacheExporterFunc {
	return map[string]remotecache.ResolveCacheExporterFunc{
		"inline":   inlinecache.ResolveCacheExporterFunc(),
		"local":    localcache.ResolveCacheExporterFunc(b.sessions),
		"registry": compressedCache(registrycache.ResolveCacheExporterFunc(b.sessions, b.cfg.Registries)),
	}
}

// openHistory opens the record of builds.
func (b *Builder) openHistory() (*bolt.DB, error) {
	path := filepath.Join(b.cfg.Root, "history.db")
	if err := soundDatabase(path, false, b.warn); err != nil {
		return nil, err
	}
	return openDatabase(path)
}

// openKeys opens the keys by which the cache is found. crashed says that the machine has: BuildKit never syncs them.
func (b *Builder) openKeys(crashed bool) (*bboltcachestorage.Store, error) {
	path := filepath.Join(b.cfg.Root, keysFile)
	if err := soundDatabase(path, crashed, b.warn); err != nil {
		return nil, err
	}
	return bboltcachestorage.NewStore(path)
}

// compressedCache has the layers of a cache compressed that goes to a registry.
func compressedCache(resolve remotecache.ResolveCacheExporterFunc) remotecache.ResolveCacheExporterFunc {
	return func(ctx context.Context, g session.Group, attrs map[string]string) (remotecache.Exporter, error) {
		attrs = maps.Clone(attrs)
		if attrs == nil {
			attrs = map[string]string{}
		}
		compressed(attrs)
		return resolve(ctx, g, attrs)
	}
}

// openDatabase opens one of the builder's own databases. The engine has locked its data
// root, so another holder is an engine that is just going away.
func openDatabase(path string) (*bolt.DB, error) {
	opts := *bolt.DefaultOptions
	opts.NoFreelistSync = true
	opts.FreelistType = bolt.FreelistMapType
	opts.NoStatistics = true
	opts.Timeout = time.Second
	db, err := bolt.Open(path, 0o600, &opts)
	if err == berrors.ErrTimeout {
		return nil, failure.Unavailable("another engine is using %s", path)
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return db, nil
}

// entitlements are what a build may be allowed beyond what every build may.
func (b *Builder) entitlements() []string {
	var list []string
	if b.cfg.AllowHostNetwork {
		list = append(list, entitlements.EntitlementNetworkHost.String())
	}
	if b.cfg.AllowInsecure {
		list = append(list, entitlements.EntitlementSecurityInsecure.String())
	}
	return list
}

// newWorker makes the part of BuildKit that has contents: sources, cache, steps and
// exporters, over the engine's store.
func (b *Builder) newWorker(ctx context.Context, settler *settler, killed, crashed bool) (_ *imageWorker, err error) {
	steps, err := b.cfg.Steps(ctx)
	if err != nil {
		return nil, err
	}
	id, err := base.ID(b.cfg.Root)
	if err != nil {
		return nil, err
	}
	refs, settle, err := b.openRefs(filepath.Join(b.cfg.Root, refsFile))
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, settle(), refs.Close()) // the next try would wait for its lock
		}
	}()
	if err := b.recover(ctx, refs, settler, killed, crashed); err != nil {
		return nil, err
	}
	s := b.cfg.Store
	blobs := ctdsnapshot.NewContentStore(quietBlobs{s.Content, s, refs}, store.Namespace)
	relief := &relief{Manager: quietLeases{s.Leases}, dir: s.Root(), collect: s.ScheduleGC}
	named := names{s, b.cfg.Images, settler.with(steps.Settle)}
	opt := base.WorkerOpt{
		ID:               id,
		Root:             b.cfg.Root,
		Labels:           b.labels(),
		Platforms:        []ocispec.Platform{nativePlatform()},
		BuildkitVersion:  bkclient.BuildkitVersion{Package: "github.com/moby/buildkit", Version: Version},
		NetworkProviders: steps.Networks,
		Executor:         steps.Executor,
		Snapshotter:      snapshotsOf(s, steps),
		ContentStore:     blobs,
		Applier:          s.NewApplier(blobs),
		Differ:           s.NewDiffer(blobs),
		ImageStore:       named,
		RegistryHosts:    b.cfg.Registries,
		LeaseManager:     leaseutil.WithNamespace(hastyLeases{relief, func() { s.Defer(); settler.stir() }}, store.Namespace),
		GarbageCollect:   s.GarbageCollect,
		ParallelismSem:   semaphore.NewWeighted(int64(max(4, runtime.NumCPU()))),
		MetadataStore:    refs,
		MountPoolRoot:    filepath.Join(b.cfg.Root, mountsDir),
	}
	if opt.GCPolicy, err = b.cfg.Budget.policy(s.Root()); err != nil {
		return nil, err
	}
	w, err := base.NewWorker(ctx, opt)
	if err != nil {
		return nil, err
	}
	// In place of the worker's own, which does not know the bodies of requests.
	if w.HTTPSource, err = httpsource.NewSource(httpsource.Opt{CacheAccessor: w.CacheManager(), Transport: &b.bodies}); err != nil {
		return nil, err
	}
	w.SourceManager.Register(w.HTTPSource)
	return &imageWorker{Worker: w, settle: settle, settler: settler, relief: relief, wrote: steps.Wrote, images: b.cfg.Images, names: named, store: s}, nil
}

// snapshotsOf are the store's layers as steps are to see them.
func snapshotsOf(s *store.Store, steps Steps) snapshot.Snapshotter {
	layers := ctdsnapshot.NewSnapshotter(store.Snapshotter, baseLayers{s.Snapshots, s}, store.Namespace, nil)
	if steps.Snapshots != nil {
		return steps.Snapshots(layers)
	}
	return layers
}

// labels are what clients learn of the worker.
func (b *Builder) labels() map[string]string {
	labels := map[string]string{
		label.Executor:    "cleat",
		label.Snapshotter: store.Snapshotter, // by this label buildx knows that images of many platforms can be kept
		label.Network:     "bridge",
	}
	if b.cfg.HostGateway.IsValid() {
		labels[labelHostGateway] = b.cfg.HostGateway.String()
	}
	return labels
}
