package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/errdefs"
	api "github.com/moby/moby/api/types/container"
	apievents "github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/mount"
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/cgroup"
	"github.com/cleatlabs/cleat/internal/container"
	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/health"
	"github.com/cleatlabs/cleat/internal/image"
	"github.com/cleatlabs/cleat/internal/keeper"
	"github.com/cleatlabs/cleat/internal/kernel"
	"github.com/cleatlabs/cleat/internal/logs"
	"github.com/cleatlabs/cleat/internal/logship"
	cmount "github.com/cleatlabs/cleat/internal/mount"
	"github.com/cleatlabs/cleat/internal/network"
	"github.com/cleatlabs/cleat/internal/record"
	"github.com/cleatlabs/cleat/internal/runtime"
	"github.com/cleatlabs/cleat/internal/stdio"
	"github.com/cleatlabs/cleat/internal/volume"
)

// Starter starts containers.
type Starter struct {
	containers *container.Store
	images     *image.Service
	ground     *ground
	networks   *network.Service
	volumes    *volume.Service
	runtime    *runtime.Runtime
	features   kernel.Features
	settings   Settings
	specs      *specBuilder
	lives      *lives
	say        *announcer
	log        *slog.Logger
	exits      *exiter
	remover    *Remover
	writers    *writers
	prober     *prober
	pool       *stdio.Pool
	users      users
	heads      *headStarts
	delivery   *logship.Service
	files      *filesystems
}

// Start starts a container that was created or has exited. A running one is
// failure.ErrNotModified.
func (s *Starter) Start(ctx context.Context, name string) error {
	c, err := s.containers.Find(name)
	if err != nil {
		return err
	}
	unlock, err := s.writers.lock(ctx, c)
	if err != nil {
		return err
	}
	defer unlock()
	return s.start(ctx, c, false)
}

// startWithEngine starts what was found to start with the engine, when its record was as in seen, unless a client was
// quicker: it has started the container meanwhile, and perhaps stopped it again, or removed it, or changed its policy.
func (s *Starter) startWithEngine(ctx context.Context, c *container.Container, seen *container.Record) error {
	unlock, err := s.writers.lock(ctx, c)
	if err != nil {
		return err
	}
	defer unlock()
	if now := c.Load(); c.Gone() || now.State.Alive() || !now.State.StartedAt.Equal(seen.State.StartedAt) || !startsWithEngine(now) {
		return nil
	}
	return s.start(ctx, c, true)
}

// start starts c, whose lock the caller holds; unattended says that nobody waits for it, who could be told of an error.
func (s *Starter) start(ctx context.Context, c *container.Container, unattended bool) error {
	if err := startable(c); err != nil {
		return err
	}
	// Not before it is certain that this start takes the place of a restart that is pending: nobody else would restart
	// the container.
	s.lives.of(c).cancelRestart()
	// Once begun, a start goes on to its end: a client that leaves must not
	// get half a container.
	return s.launch(context.WithoutCancel(ctx), c, 0, unattended)
}

// startable says why c cannot be started. The caller holds its lock.
func startable(c *container.Container) error {
	if c.Gone() {
		return failure.NotFound("No such container: %s", c.ID())
	}
	switch c.Load().State.Status {
	case api.StateRunning:
		return failure.NotModified("container %s is already running", c.ID())
	case api.StatePaused:
		return failure.Conflict("cannot start a paused container, try unpause instead")
	case api.StateRemoving, api.StateDead:
		return failure.Conflict("container is marked for removal and cannot be started")
	}
	return c.Load().Whole()
}

// restart starts a container again by its policy. The caller holds its lock
// and has found its state to be restarting.
func (s *Starter) restart(ctx context.Context, c *container.Container, backoff time.Duration) error {
	return s.launch(ctx, c, backoff, true)
}

// launch starts the process and hands it to the exiter. A failure is in the
// container's state and leaves nothing else; with --rm it leaves no container. The caller holds its lock.
func (s *Starter) launch(ctx context.Context, c *container.Container, backoff time.Duration, unattended bool) error {
	life := s.lives.of(c)
	if last := life.current(); last != nil {
		last.tidy() // its ports, cgroup and keeper must be gone
	}
	a := s.attempt(c)
	a.life, a.backoff, a.unattended = life, backoff, unattended
	defer a.closeFDs()
	started, err := a.run(ctx)
	if err != nil {
		a.undo(ctx)
		life.hub.End(nil)
		err = s.failed(c, err)
		if a.r.HostConfig.AutoRemove {
			err = errors.Join(err, s.remover.discard(ctx, c))
		}
		return err
	}
	started.backoff, started.begun = backoff, a.started
	if err := c.Settle(a.ahead, a.running(started.process.Record()), func() { s.announce(a, started) }); err != nil {
		// The container runs; without its record a later engine could not
		// take it over, so it must not.
		s.log.Error("the state of a container could not be written", "container", c.ID(), "error", err)
	}
	record.Failpoint("engine.start.after-state")
	s.keepStarted(c, a.r)
	s.prober.begin(c, started)
	s.exits.watch(c, started)
	return nil
}

// announce publishes a start. Whoever sees by the state or by events that the container runs finds its run: a stop that
// did not would have nothing to end.
func (s *Starter) announce(a *attempt, started *run) {
	a.life.setRun(started)
	s.say.networks(apievents.ActionConnect, a.sandbox)
	s.say.volumes(a.r, apievents.ActionMount)
	s.say.container(a.c, apievents.ActionStart)
}

// keepStarted has the disk know soon that a container was started for the first time, if a policy is to start it again:
// after a loss of power it would be one that was only created. Nobody waits for it.
func (s *Starter) keepStarted(c *container.Container, before *container.Record) {
	if !before.State.StartedAt.IsZero() || before.HostConfig.RestartPolicy.IsNone() {
		return
	}
	s.exits.tasks.Go("sync of a first start", func(context.Context) {
		if err := c.SyncState(); err != nil && !c.Gone() {
			s.log.Warn(err.Error())
		}
	})
}

// writeAhead writes the state of the container that is about to run, while its
// process is being set up. Where that fails, as on a full disk, who waits for the
// start is told, and nothing runs that no later engine could take over. A start by
// a restart policy goes on, as it would not be tried again when there is room: its
// state is written again (see Container.Settle).
func (a *attempt) writeAhead(keeper keeper.Record) (err error) {
	a.started = time.Now()
	a.ahead, err = a.c.WriteAhead(a.running(keeper))
	record.Failpoint("engine.start.after-ahead")
	if err != nil && a.unattended {
		return nil
	}
	return err
}

// running makes a state that of the container that has been started.
func (a *attempt) running(keeper keeper.Record) func(*container.State) {
	return func(st *container.State) {
		*st = container.State{
			Status: api.StateRunning, StartedAt: a.started.UTC(), FinishedAt: st.FinishedAt, VolumesFilled: true,
			RestartCount: st.RestartCount, Keeper: &keeper, Sandbox: a.sandbox,
			Endpoints: st.Endpoints, Health: health.Started(a.r, st.Health), AppArmorProfile: a.profile,
		}
		if a.backoff == 0 {
			st.RestartCount = 0
		}
	}
}

// failed records why a start did not work and returns the error for the
// caller, with its class.
func (s *Starter) failed(c *container.Container, err error) error {
	code := 128
	var startErr *runtime.StartError
	if errors.As(err, &startErr) {
		if startErr.Code != 0 {
			code = startErr.Code
		}
		err = failure.Wrap(errdefs.ErrInvalidArgument, fmt.Errorf("failed to create task for container: %w", err))
	}
	serr := c.SetExited(func(st *container.State) {
		if st.Status == api.StateRestarting {
			st.Status = api.StateExited
			st.FinishedAt = time.Now().UTC()
		}
		st.ExitCode, st.Error = code, err.Error()
		st.Keeper, st.Sandbox = nil, nil
	}, nil)
	if serr != nil {
		s.log.Error("the state of a container could not be written", "container", c.ID(), "error", serr)
	}
	return err
}

// attempt is one try to start a container: what it has made so far.
type attempt struct {
	s       *Starter
	c       *container.Container
	r       *container.Record
	life    *life
	rootFD  int
	netFD   int
	names   []int // sockets for lookups, for the keeper
	group   *runtime.GroupInMaking
	ready   *runtime.ReadyStart // has the group; see makeReady
	sources []int               // of mounts
	sandbox *network.Sandbox
	linkEnv []string // of legacy links
	profile string   // of AppArmor

	backoff time.Duration // before this start, 0 by hand
	// unattended is a start that nobody waits for, to whom an error could be told.
	unattended bool
	started    time.Time        // when the process began to be set up
	ahead      *container.Ahead // nil until it is written, and where it could not be
}

// attempt is one that has done nothing yet.
func (s *Starter) attempt(c *container.Container) *attempt {
	return &attempt{s: s, c: c, r: c.Load(), rootFD: -1, netFD: -1}
}

// openSources opens what mounts need besides paths.
func (a *attempt) openSources(ctx context.Context, spec *runtime.Spec) error {
	fds, err := openImages(ctx, a.s.images, a.s.features, a.r, spec.Mounts)
	a.sources = append(a.sources, fds...)
	if err != nil {
		return err
	}
	fds, err = openMaps(a.r, spec.User, spec.Mounts)
	a.sources = append(a.sources, fds...)
	return err
}

func (a *attempt) closeFDs() {
	for _, fd := range a.sources {
		_ = unix.Close(fd)
	}
	a.sources = nil
	for _, fd := range append([]int{a.rootFD, a.netFD}, a.names...) {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
	a.rootFD, a.netFD, a.names = -1, -1, nil
}

// nameSockets are what the keeper holds, so that lookups outlive the engine.
func (a *attempt) nameSockets() []int {
	if a.names == nil && a.sandbox != nil {
		a.names = a.s.networks.TakeNameSockets(a.sandbox)
	}
	return a.names
}

// undo removes what outlives the file descriptors.
func (a *attempt) undo(ctx context.Context) {
	if err := a.unready(); err != nil {
		a.s.log.Warn("control group of a failed start", "container", a.c.ID(), "error", err)
	}
	if a.sandbox != nil {
		if err := a.s.networks.Detach(ctx, a.sandbox); err != nil {
			a.s.log.Warn("network of a failed start", "container", a.c.ID(), "error", err)
		}
	}
	unmountVolumes(ctx, a.s.volumes, a.r, a.s.log)
	if err := a.s.specs.removeGroup(a.s.runtime, a.s.specs.cgroupPath(a.r)); err != nil {
		a.s.log.Warn("cgroup of a failed start", "container", a.c.ID(), "error", err)
	}
}

func (a *attempt) run(ctx context.Context) (*run, error) {
	s, r := a.s, a.r
	resources, err := cgroupResources(r.HostConfig)
	if err != nil {
		return nil, err
	}
	vendors, err := requestedDevices(s.settings.CDIDirs, r.HostConfig.DeviceRequests)
	if err != nil {
		return nil, err
	}
	rules, err := vendors.rules()
	if err != nil {
		return nil, err
	}
	resources.Devices = append(resources.Devices, rules...)
	// Control group, network and rootfs do not depend on each other.
	head := s.heads.take(r, resources)
	if head != nil {
		a.group = head.group
	} else {
		if err := s.startSlice(ctx, r.HostConfig.CgroupParent); err != nil {
			return nil, err
		}
		a.group = s.runtime.PrepareGroup(s.specs.cgroupPath(r), resources, r.HostConfig.Privileged)
	}
	if err := a.prepare(ctx, head); err != nil {
		return nil, err
	}
	record.Failpoint("engine.start.after-network")
	if a.ready != nil {
		return a.startProcess(ctx, nil)
	}
	s.files.fillFirst(ctx, r)
	if err := a.mountVolumes(ctx); err != nil {
		return nil, err
	}
	r = a.r // which may say now where they are
	spec, err := a.spec(resources)
	if err != nil {
		return nil, err
	}
	if err := s.join(spec, r.HostConfig); err != nil {
		return nil, err
	}
	spec.NetNS, spec.Held = a.netNS(), a.nameSockets()
	if err := a.openSources(ctx, spec); err != nil {
		return nil, err
	}
	spec.Env = vendors.env(environment(r, a.linkEnv, spec.User.Home))
	if err := vendors.addTo(spec); err != nil {
		return nil, err
	}
	if !r.State.VolumesFilled {
		if err := fillVolumes(ctx, s.volumes, a.rootFD, a.r); err != nil {
			return nil, err
		}
	}
	return a.startProcess(ctx, spec)
}

// spec describes the process as far as the record and the mounted root filesystem tell, which is the same for a start and
// for one that was begun early.
func (a *attempt) spec(resources cgroup.Resources) (*runtime.Spec, error) {
	spec, err := a.s.specs.container(a.c, a.r)
	if err != nil {
		return nil, err
	}
	if spec.User, err = a.s.users.of(a.c, a.r, a.rootFD); err != nil {
		return nil, err
	}
	spec.RootFD, spec.Resources, a.profile = a.rootFD, resources, spec.AppArmorProfile
	return spec, nil
}

// prepare mounts the rootfs and attaches the network, at the same time where the latter is work.
func (a *attempt) prepare(ctx context.Context, head *headStart) error {
	if head != nil && head.attempt != nil {
		err := a.attach(ctx)
		a.takeReady(head)
		if err != nil || a.ready != nil {
			return err
		}
		return a.mountRootfs(ctx)
	}
	if mode := a.r.HostConfig.NetworkMode; mode.IsNone() || mode.IsHost() {
		if err := a.attach(ctx); err != nil {
			return err
		}
		return a.mountRootfs(ctx)
	}
	attached := make(chan error, 1)
	go func() { attached <- a.attach(ctx) }()
	err := a.mountRootfs(ctx)
	if aerr := <-attached; aerr != nil {
		return aerr
	}
	return err
}

func (a *attempt) netNS() int {
	switch {
	case a.netFD >= 0:
		return a.netFD
	case a.r.HostConfig.NetworkMode.IsHost():
		return runtime.HostNetwork
	default:
		return runtime.NewNetwork
	}
}

// attach gets the container its place in the network.
func (a *attempt) attach(ctx context.Context) (err error) {
	req := networkRequest(a.c, a.r)
	req.Unattended = a.unattended
	if a.r.HostConfig.NetworkMode.IsContainer() {
		return a.attachToOther(ctx, req)
	}
	if req.Links, a.linkEnv, err = a.links(); err != nil {
		return err
	}
	a.sandbox, a.netFD, err = a.s.networks.Attach(ctx, req)
	if err != nil {
		return fmt.Errorf("failed to set up container networking: %w", err)
	}
	return nil
}

// attachToOther puts the container into another one's network namespace.
func (a *attempt) attachToOther(ctx context.Context, req network.Request) error {
	name := a.r.HostConfig.NetworkMode.ConnectedContainer()
	other, err := a.s.containers.Find(name)
	if err != nil {
		return err
	}
	r := other.Load()
	if r.State.Status == api.StateRestarting {
		return restarting(other.ID())
	}
	if !r.State.Alive() {
		return failure.Conflict("cannot join network namespace of a non running container: %s", r.Name)
	}
	if a.netFD, err = openNetNS(r); err != nil {
		return err
	}
	a.sandbox, _, err = a.s.networks.Attach(ctx, req)
	return err
}

// mountRootfs lays the container's own layer over the image.
func (a *attempt) mountRootfs(ctx context.Context) error {
	lower, err := a.s.ground.lower(ctx, a.r)
	if err != nil {
		return err
	}
	upper := a.c.Path(upperDir)
	if a.r.State.StartedAt.IsZero() {
		// The root directory of an overlay has the attributes of its upper.
		if err := copyRootAttributes(lower, upper); err != nil {
			return err
		}
	}
	a.rootFD, err = cmount.Overlay{Lower: lower, Upper: upper, Work: a.c.Path(workDir)}.Mount(a.s.features)
	if err != nil {
		a.rootFD = -1
		return fmt.Errorf("root filesystem: %w", err)
	}
	return nil
}

func imageOf(r *container.Record) *image.Image {
	return asImage(&r.Image)
}

func asImage(i *container.Image) *image.Image {
	return &image.Image{ID: i.ID, Ref: i.Ref, Platform: i.Platform, Manifest: i.Manifest, ChainID: i.ChainID}
}

func copyRootAttributes(lower []string, upper string) error {
	if len(lower) == 0 {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Stat(lower[0], &st); err != nil {
		return fmt.Errorf("image layer %s: %w", lower[0], err)
	}
	if st.Uid != 0 || st.Gid != 0 {
		if err := os.Lchown(upper, int(st.Uid), int(st.Gid)); err != nil {
			return err
		}
	}
	if mode := st.Mode & 0o7777; mode != 0o755 {
		return unix.Chmod(upper, mode)
	}
	return nil
}

// fillVolumes copies what the image holds at each new volume's mount point
// into the volume, once in a container's life.
func fillVolumes(ctx context.Context, volumes *volume.Service, rootFD int, r *container.Record) error {
	for i := range r.Mounts {
		m := &r.Mounts[i]
		if m.Type != mount.TypeVolume || !m.CopyUp {
			continue
		}
		err := volumes.Fill(ctx, m.Name, func() error { return cmount.CopyUp(rootFD, m.Destination, m.Source) })
		if err != nil {
			return unfit(fmt.Errorf("filling volume %s from the image's %s: %w", m.Name, m.Destination, err))
		}
	}
	return nil
}

// startProcess starts the keeper and the process, and their output.
func (a *attempt) startProcess(ctx context.Context, spec *runtime.Spec) (*run, error) {
	s := a.s
	writer, err := s.delivery.Open(ctx, logConfig(a.r, s.pool, &a.life.bell), !a.unattended)
	if err != nil {
		return nil, err
	}
	proc, err := a.execute(ctx, spec)
	if err != nil {
		closeLog(writer)
		return nil, err
	}
	record.Failpoint("engine.start.after-process")
	started, err := a.s.follow(a.c, a.life, proc, writer)
	if err != nil {
		closeLog(writer)
		_ = proc.Signal(int(unix.SIGKILL))
		<-proc.Done()
		_ = proc.Release()
		proc.LetMountsGo()
		return nil, err
	}
	started.rootFD, a.rootFD = a.rootFD, -1
	return started, nil
}

// execute starts the process of spec, or that which is ready.
func (a *attempt) execute(ctx context.Context, spec *runtime.Spec) (*runtime.Process, error) {
	if x := a.ready; x != nil {
		a.ready = nil
		return x.Start(ctx, runtime.Late{NetNS: a.netFD, Held: a.nameSockets(), Meanwhile: a.writeAhead})
	}
	spec.Group, a.group = a.group, nil
	spec.Meanwhile = a.writeAhead
	return a.s.runtime.Start(ctx, spec)
}

// follow connects a process's output to its log and its attached clients.
func (s *Starter) follow(c *container.Container, l *life, proc *runtime.Process, writer logs.Writer) (*run, error) {
	dir := s.stdioDir(c)
	if err := unix.Mkdir(dir, 0o700); err != nil && err != unix.EEXIST {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
	}
	conf := stdio.Config{
		Dir: dir, Stdout: proc.Stdout(), Stderr: proc.Stderr(), TTY: proc.Console(), Terminal: c.Load().Config.Tty, Hub: l.hub, Pool: s.pool,
		OnError: s.outputLost(c),
	}
	if writer != nil {
		conf.Sink = writer
	}
	pump, err := stdio.Start(conf)
	if err != nil {
		return nil, fmt.Errorf("output of container %s: %w", c.Load().Name, err)
	}
	r := &run{
		process: proc, pump: pump, rootFD: -1, exited: make(chan struct{}), cleaned: make(chan struct{}), left: newLeftover(), execs: map[string]struct{}{},
	}
	if writer != nil {
		r.log = writer
		logship.Begin(writer)
	}
	return r, nil
}

// replay logs what a run that is over has left in its journals: its engine and
// its keeper died before it was in the log.
func (s *Starter) replay(c *container.Container) error {
	r := c.Load()
	writer, err := s.delivery.Open(context.Background(), logConfig(r, s.pool, &s.lives.of(c).bell), false)
	if err != nil || writer == nil {
		return err
	}
	defer closeLog(writer)
	pump, err := stdio.Start(stdio.Config{Dir: s.stdioDir(c), Terminal: r.Config.Tty, Sink: writer, Pool: s.pool, OnError: s.outputLost(c)})
	if err != nil {
		return err
	}
	<-pump.Done()
	return nil
}

func (s *Starter) stdioDir(c *container.Container) string {
	return filepath.Join(s.settings.ExecRoot, "stdio", c.ID())
}

func closeLog(w logs.Writer) {
	if w != nil {
		_ = w.Close()
	}
}
