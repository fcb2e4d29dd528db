package build

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/moby/buildkit/control"
	"github.com/moby/buildkit/executor"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/snapshot"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/archutil"
	"github.com/moby/buildkit/util/network"
	"github.com/moby/buildkit/util/tracing"
	"github.com/moby/buildkit/util/tracing/detect"
	bkversion "github.com/moby/buildkit/version"
	"google.golang.org/grpc"

	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/kernel"
	"github.com/cleatlabs/cleat/internal/store"
)

// Steps runs the steps of builds.
type Steps struct {
	// Executor runs a step's process.
	Executor executor.Executor
	// Networks gives the network of a step by its mode. It is closed with the builder.
	Networks map[pb.NetMode]network.Provider
	// Snapshots, if not nil, changes how BuildKit gets at snapshots, for the steps' sake.
	Snapshots func(snapshot.Snapshotter) snapshot.Snapshotter
	// Settle, if not nil, returns when what steps have written is on the disk. It is called
	// before an image is named.
	Settle func() error
	// Wrote, if not nil, tells who settles of a directory that was written to by no step.
	Wrote func(dir string) error
}

// Config is what a [Builder] stands on.
type Config struct {
	// Root is the directory of the build cache's and the history's databases; it is made
	// if missing. Blobs and layers are in Store.
	Root string
	// Store holds the images and the cache's contents.
	Store *store.Store
	// Registries says where an image's repository is asked for, by its domain.
	Registries docker.RegistryHosts
	// Steps is called once, when the builder is first used.
	Steps func(ctx context.Context) (Steps, error)
	// HostGateway is what the name host-gateway of an extra host stands for; clients ask.
	// The zero address is none.
	HostGateway netip.Addr
	// AllowHostNetwork lets a build ask for the host's network, AllowInsecure for steps
	// without isolation. A client has to ask, too.
	AllowHostNetwork, AllowInsecure bool
	// Budget bounds the cache; the zero value is BuildKit's default for the size of
	// the filesystem.
	Budget Budget
	// History bounds the record of builds; nil is the newest ones of [DefaultHistory].
	History *History
	// Images is where the images that are made belong.
	Images Images
	// Log takes what goes wrong beside a build. Nil discards it.
	Log *slog.Logger
}

// Builder builds images. It may be used by many goroutines.
type Builder struct {
	cfg      Config
	sessions *session.Manager
	calls    calls
	bodies   bodies
	pace     pace

	mu     sync.Mutex
	opened *solving
	closed bool
}

// solving is an opened builder.
type solving struct {
	control *control.Controller
	worker  *imageWorker
	server  *grpc.Server
	// end ends what runs in the background.
	end context.CancelFunc
}

// New makes a builder, which opens its databases when it is first used.
func New(cfg Config) (*Builder, error) {
	if !filepath.IsAbs(cfg.Root) {
		return nil, failure.Invalid("the build cache's directory %q is not an absolute path", cfg.Root)
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	sessions, err := session.NewManager()
	if err != nil {
		return nil, fmt.Errorf("builder: %w", err)
	}
	b := &Builder{cfg: cfg, sessions: sessions, bodies: bodies{outside: tracing.DefaultTransport}}
	b.pace.live, b.pace.forget = liveHeap, b.forget
	return b, nil
}

// warn tells of what went wrong beside a build.
func (b *Builder) warn(err error) { b.cfg.Log.Warn("builds", "error", err) }

// errClosed is the answer to whoever comes when the engine is going.
var errClosed = failure.Unavailable("the engine is shutting down")

// open gives the opened builder. An error is not remembered: the next use tries again.
func (b *Builder) open() (*solving, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, errClosed
	}
	if b.opened != nil {
		return b.opened, nil
	}
	if err := os.MkdirAll(b.cfg.Root, 0o700); err != nil {
		return nil, kernel.NoSpace(fmt.Errorf("builder: %w", err), b.cfg.Store.Root())
	}
	// These two are the library's own places, and the only ones. Without a recorder the
	// history has no traces.
	bkversion.Version = Version
	if detect.Recorder == nil {
		detect.Recorder = detect.NewTraceRecorder()
	}
	ctx, end := context.WithCancel(b.cfg.Store.Context(context.Background()))
	c, w, err := b.newControl(ctx)
	if err != nil {
		end()
		return nil, kernel.NoSpace(fmt.Errorf("open the build cache in %s: %w", b.cfg.Root, err), b.cfg.Store.Root())
	}
	// BuildKit tries out once what this machine can run, when the first step is about to:
	// earlier is sooner done.
	go archutil.SupportedPlatforms(false)
	b.opened = &solving{control: c, worker: w, server: newServer(c, w.relief), end: end}
	return b.opened, nil
}

// Close ends the builds that are under way and closes the databases. A second Close
// does nothing.
func (b *Builder) Close() error {
	b.pace.stop()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	s := b.opened
	b.opened = nil
	if s == nil {
		return nil
	}
	s.server.Stop()
	s.end()
	err := s.worker.settle()
	if cerr := s.control.Close(); cerr != nil && !errors.Is(cerr, context.Canceled) {
		err = errors.Join(err, cerr)
	}
	s.worker.settler.stop()
	if settle := s.worker.names.settle; err == nil && settle != nil {
		err = settle()
	}
	if err == nil {
		err = s.worker.settler.close()
	}
	if err != nil {
		return fmt.Errorf("close the build cache: %w", err)
	}
	return nil
}
