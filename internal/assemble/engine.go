package assemble

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	apievents "github.com/moby/moby/api/types/events"

	"github.com/cleatlabs/cleat/internal/api"
	"github.com/cleatlabs/cleat/internal/apparmor"
	"github.com/cleatlabs/cleat/internal/build"
	"github.com/cleatlabs/cleat/internal/buildexec"
	"github.com/cleatlabs/cleat/internal/cgroup"
	"github.com/cleatlabs/cleat/internal/classic"
	"github.com/cleatlabs/cleat/internal/container"
	"github.com/cleatlabs/cleat/internal/engine"
	"github.com/cleatlabs/cleat/internal/events"
	"github.com/cleatlabs/cleat/internal/image"
	"github.com/cleatlabs/cleat/internal/kernel"
	"github.com/cleatlabs/cleat/internal/network"
	"github.com/cleatlabs/cleat/internal/plugin"
	"github.com/cleatlabs/cleat/internal/registryclient"
	"github.com/cleatlabs/cleat/internal/runtime"
	"github.com/cleatlabs/cleat/internal/store"
	"github.com/cleatlabs/cleat/internal/supervise"
	"github.com/cleatlabs/cleat/internal/systemd"
	"github.com/cleatlabs/cleat/internal/volume"
)

const (
	// DockerVersion is the version that clients see: the release of Docker whose
	// behaviour is followed.
	DockerVersion = "29.9.3"

	defaultStopTimeout = 10 * time.Second
)

// services are all parts of one engine.
type services struct {
	config    Config
	logLevel  *slog.LevelVar
	registry  *registryclient.Client
	base      engine.Settings // as the engine was started with
	log       *slog.Logger
	locks     []*os.File
	listeners []net.Listener
	features  kernel.Features
	profiles  *apparmor.Profiles
	cgroups   *cgroup.Hierarchy
	tasks     *supervise.Group
	bus       *events.Bus

	store      *store.Store
	images     *image.Service
	networks   *network.Service
	volumes    *volume.Service
	containers *container.Store
	runtime    *runtime.Runtime
	claimed    bool // the control group is this engine's
	steps      *buildexec.Executor
	builder    *build.Builder
	engine     *engine.Engine
	handler    *api.Handler
}

// open brings up the services, those that do not need each other at the same
// time. What was opened before an error is closed again. Of an engine that only stops containers nothing is reached from
// outside, and nothing is started.
func open(ctx context.Context, c Config, log *slog.Logger, level *slog.LevelVar) (s *services, err error) {
	s = &services{config: c, log: log, logLevel: level, bus: events.NewBus(), tasks: supervise.New(context.WithoutCancel(ctx))}
	defer func() {
		if err != nil {
			s.close()
			s.unclaimGroup()
			s = nil
		}
	}()
	if s.features, err = kernel.Probe(); err != nil {
		return s, err
	}
	s.profiles = apparmor.Open(s.features.AppArmor)
	space := reserve{filepath.Join(c.DataRoot, "reserve"), log}
	if err := s.claim(ctx, space); err != nil {
		return s, err
	}
	s.sweepBuilds()
	if err := inParallel(
		func() error { return s.openImages(ctx) },
		func() error { return s.openNetworks(ctx) },
		s.openContainers,
	); err != nil {
		return s, err
	}
	if err := s.openBuilder(); err != nil {
		return s, err
	}
	s.tasks.Go("reserve", func(context.Context) { space.fill() })
	s.base = s.settings()
	s.engine = engine.New(engine.Deps{
		Containers: s.containers, Images: s.images, Networks: s.networks, Volumes: s.volumes, Events: s.bus, Runtime: s.runtime,
		Cgroups: s.cgroups, Features: s.features, AppArmor: s.profiles, Tasks: s.tasks, Log: log, Settings: s.base, BuildCache: s.builder,
	})
	if c.onlyStops {
		s.engine.RestartNothing()
	}
	if err := s.engine.Recovery.Run(ctx); err != nil {
		return s, err
	}
	if err := s.openSteps(); err != nil {
		return s, err
	}
	s.handler, err = s.newHandler()
	return s, err
}

// claim takes what one engine alone can have: its directories, its control group and its sockets. On a full disk it has
// the space that is kept for that.
func (s *services) claim(ctx context.Context, space reserve) (err error) {
	if err := s.lockRoots(); err != nil {
		return err
	}
	space.lend()
	if err := s.prepareRoots(); err != nil {
		return err
	}
	if s.cgroups, err = cgroup.Detect(); err != nil {
		return err
	}
	if err := s.startSlice(ctx); err != nil {
		return err
	}
	if err := s.claimGroup(); err != nil {
		return err
	}
	if s.config.onlyStops {
		return nil
	}
	// The sockets come before all that would have to be taken down again if one
	// is not to be had. A client that calls already waits until it is answered.
	s.listeners, err = s.listen()
	return err
}

// newHandler opens the doors to the verbs.
func (s *services) newHandler() (*api.Handler, error) {
	return api.New(api.Deps{
		Lifecycle: s.engine, Upkeep: s.engine, Queries: s.engine, Stats: s.engine, Streams: s.engine, Execs: s.engine, System: s.engine, Files: s.engine, Events: s.bus,
		Images: s.engine.Images, Transfer: s.engine.Images, Attested: s.engine.Images, Volumes: s.engine.Volumes, VolumeCopies: s.engine.Volumes, OwnFiles: s.engine,
		Networks: s.engine.Networks, Connections: s.engine.Networks, Committer: s.engine, Pruning: s.engine, DiskUsage: s.engine, Registries: s.engine.Images,
		NetworkChecks: s.engine, Builds: s.builder, ClassicBuilds: &classic.Builder{Solver: s.builder, Dir: s.config.temporary()},
		DataRoot: s.config.DataRoot, ServerVersion: DockerVersion, CgroupV1: s.cgroups.Version() == 1, Log: s.log,
	})
}

// startSlice has systemd start the slice that everything is to lie in, if there is one.
func (s *services) startSlice(ctx context.Context) error {
	if s.config.slice == "" || s.config.onlyStops { // a machine that goes down starts none
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 25*time.Second) // as calls on D-Bus usually have
	defer cancel()
	return systemd.StartSlice(ctx, s.config.slice)
}

func inParallel(fs ...func() error) error {
	errs := make(chan error, len(fs))
	for _, f := range fs {
		go func() { errs <- f() }()
	}
	var err error
	for range fs {
		err = errors.Join(err, <-errs)
	}
	return err
}

// settings are what the verbs need to know of the flags.
func (s *services) settings() engine.Settings {
	c := &s.config
	return engine.Settings{
		DataRoot: c.DataRoot, ExecRoot: c.ExecRoot, CgroupParent: c.CgroupParent, Slices: systemd.Booted(),
		Version: DockerVersion, Build: c.Version, GitCommit: c.Commit, BuildTime: c.BuildTime, APIVersion: api.MaxVersion, MinAPI: api.MinVersion,
		CDIDirs: c.CDIDirs, Containers: c.defaults, Adjustable: c.adjustable(),
	}
}

// lockRoots makes and locks the directories.
func (s *services) lockRoots() error {
	for _, r := range []struct {
		path string
		mode os.FileMode
	}{
		// Others must not get at set-uid programs and secrets in images.
		{s.config.DataRoot, 0o710}, {s.config.ExecRoot, 0o711},
	} {
		if err := os.MkdirAll(r.path, r.mode); err != nil {
			return fmt.Errorf("make the engine's directory: %w", err)
		}
		lock, err := lockDir(r.path)
		if err != nil {
			return err
		}
		s.locks = append(s.locks, lock)
		if err := closeToOthers(r.path, r.mode); err != nil {
			return fmt.Errorf("close the engine's directory to others: %w", err)
		}
	}
	return takePidfile(s.config.Pidfile)
}

// prepareRoots checks that the data root can carry what is to lie in it, and makes what all else needs there.
func (s *services) prepareRoots() error {
	if err := kernel.CheckOverlay(s.config.DataRoot); err != nil {
		return err
	}
	if err := s.useTemporary(); err != nil {
		return err
	}
	return s.config.makeID(s.log)
}

// closeToOthers takes the rights away that a directory which was there before gives beyond mode: a disk's own, mostly.
func closeToOthers(dir string, mode os.FileMode) error {
	st, err := os.Stat(dir)
	if err != nil || st.Mode().Perm()&^mode == 0 {
		return err
	}
	return os.Chmod(dir, st.Mode()&^(os.ModePerm&^mode))
}

func (s *services) openImages(ctx context.Context) (err error) {
	s.store, err = store.Open(ctx, store.Config{
		Root: filepath.Join(s.config.DataRoot, "images"),
		Warn: func(err error) { s.log.Warn("image store", "error", err) },
	})
	if err != nil {
		return err
	}
	s.registry, err = registryclient.New(registryclient.Config{
		Mirrors: s.config.Mirrors, Insecure: s.config.Insecure, UserAgent: "cleat/" + s.config.Version,
		Proxy: registryclient.Proxy{HTTP: s.config.HTTPProxy, HTTPS: s.config.HTTPSProxy, No: s.config.NoProxy},
	})
	if err != nil {
		return err
	}
	s.images, err = image.New(ctx, image.Config{
		Store: s.store, Registry: s.registry, Events: s.imageEvent, MaxDownloads: s.config.MaxDownloads, MaxDownloadAttempts: s.config.MaxAttempts, MaxUploads: s.config.MaxUploads,
	})
	return err
}

func (s *services) imageEvent(action, id, name string) {
	s.bus.Publish(apievents.Message{
		Type: apievents.ImageEventType, Action: apievents.Action(action),
		Actor: apievents.Actor{ID: id, Attributes: map[string]string{"name": name}},
	})
}

func (s *services) openNetworks(ctx context.Context) (err error) {
	s.networks, err = network.Open(ctx, s.config.network())
	return err
}

// network is the network service's part of the config, whose values Check has
// found to be good.
func (c *Config) network() network.Config {
	n := network.Config{
		StateFile: filepath.Join(c.DataRoot, "network.json"), Bridge: c.Bridge, FirewallIntegrate: c.FirewallIntegrate, MTU: c.MTU,
		DNS: c.DNS, DNSSearch: c.DNSSearch, DNSOptions: c.DNSOpts,
	}
	// Check has found them to be good.
	n.AddressPools, _ = addressPools(c.AddressPools)
	n.NetworkOptions, _ = networkOptions(c.NetworkOpts)
	n.Default, _ = c.DefaultNetwork.read(c.spell)
	n.NoForwarding, n.DirectRouting = !c.DefaultNetwork.forward, c.DefaultNetwork.direct
	n.NoProxy = !c.UserlandProxy
	n.AcceptMark, _ = c.DefaultNetwork.mark()
	if c.BIP != "" {
		n.BIP = netip.MustParsePrefix(c.BIP)
	}
	if c.PublishIP != "" {
		n.BindIP = netip.MustParseAddr(c.PublishIP)
	}
	if c.HostGateway != "" {
		n.HostGateway = netip.MustParseAddr(c.HostGateway)
	}
	return n
}

// plugins finds volume plugins where Docker does, or where the flag says.
func (c *Config) plugins() *plugin.Registry {
	conf := plugin.Default()
	if c.PluginDir != "" {
		conf.Sockets, conf.Specs = c.PluginDir, []string{c.PluginDir}
	}
	return plugin.New(conf)
}

// slice is what the engine and the keepers get of a processor at a time: a start is a dozen short steps of several
// processes, each of which had to wait, on a machine whose containers keep it busy, until one of those had used up a
// slice of the usual length, some milliseconds.
const slice = 200 * time.Microsecond

func (s *services) openContainers() (err error) {
	if s.containers, err = container.Open(filepath.Join(s.config.DataRoot, "containers")); err != nil {
		return err
	}
	if s.volumes, err = volume.Open(volume.Config{Root: filepath.Join(s.config.DataRoot, "volumes"), Plugins: s.config.plugins()}); err != nil {
		return err
	}
	usual, err := kernel.ShortenSlices(slice)
	if err != nil {
		s.log.Debug("the engine is scheduled as its containers are", "error", err)
	}
	s.runtime, err = runtime.New(runtime.Config{
		Dir: filepath.Join(s.config.ExecRoot, "runtime"), FallbackDir: filepath.Join(s.config.DataRoot, "runtime"),
		Cgroups: s.cgroups, KeeperGroup: filepath.Join(s.config.CgroupParent, "keepers"), Features: s.features, Usual: usual,
	})
	return err
}

// close takes the services down in reverse. Containers stay.
func (s *services) close() {
	warn := func(what string, err error) {
		if err != nil {
			s.log.Warn("shutdown: "+what, "error", err)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	closeAll(s.listeners)
	if s.steps != nil {
		warn("build steps", s.steps.Close())
	}
	if s.builder != nil {
		warn("builder", s.builder.Close())
	}
	warn("tasks", s.tasks.Stop(ctx))
	if s.runtime != nil {
		warn("runtime", s.runtime.Close())
	}
	if s.store != nil {
		warn("image store", s.store.Close())
	}
	if s.networks != nil {
		warn("network", s.networks.Close())
	}
	if len(s.locks) == 2 { // the pidfile is ours only after both locks
		dropPidfile(s.config.Pidfile)
	}
	for _, l := range s.locks {
		_ = l.Close()
	}
}
