package engine

import (
	"context"
	"errors"
	"log/slog"
	"os"
	goruntime "runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	api "github.com/moby/moby/api/types/container"
	apievents "github.com/moby/moby/api/types/events"
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/container"
	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/kernel"
	"github.com/cleatlabs/cleat/internal/record"
	"github.com/cleatlabs/cleat/internal/rootpath"
	"github.com/cleatlabs/cleat/internal/runtime"
	"github.com/cleatlabs/cleat/internal/stdio"
	"github.com/cleatlabs/cleat/internal/supervise"
)

// execKept is how long an exec can be inspected after its end.
const execKept = 6 * time.Minute

// Execs runs further processes in running containers.
type Execs struct {
	containers *container.Store
	runtime    *runtime.Runtime
	lives      *lives
	say        *announcer
	specs      *specBuilder
	tasks      *supervise.Group
	pool       *stdio.Pool
	log        *slog.Logger
	still      *stillness
	preparing  chan struct{} // of execs that are prepared and not started; full is no more

	mu     sync.Mutex
	byID   map[string]*execution
	purged time.Time
}

// execution is one exec, from its create until it is forgotten.
type execution struct {
	id   string
	c    *container.Container
	run  *run // of the container, at create
	req  api.ExecCreateRequest
	user rootpath.User
	keys []byte
	hub  *stdio.Hub
	// refused is why there is no such user: as from dockerd its start fails of it, with the exit code of a command that
	// cannot be started.
	refused error
	// probe marks those of health checks, which end with their engine: the next
	// one probes again.
	probe bool
	// prepared hands over the process that waits for the start; see prepare.
	prepared <-chan *runtime.PreparedExec

	// started is closed when there is a process, or will be none as the start has failed.
	started chan struct{}

	mu       sync.Mutex
	begun    bool // a start was asked for
	process  *runtime.Process
	exitCode *int
	finished time.Time
}

// ExecCreate prepares a process in a running container and returns the exec's id (64 hex digits). ErrConflict if the
// container does not run or is paused.
func (x *Execs) ExecCreate(ctx context.Context, name string, req api.ExecCreateRequest) (string, error) {
	c, err := x.containers.Find(name)
	if err == nil {
		err = c.Load().Whole()
	}
	if err != nil {
		return "", err
	}
	if len(req.Cmd) == 0 || req.Cmd[0] == "" {
		return "", failure.Invalid("No exec command specified")
	}
	if req.WorkingDir != "" && !strings.HasPrefix(req.WorkingDir, "/") {
		return "", failure.Invalid("the working directory '%s' is invalid, it needs to be an absolute path", req.WorkingDir)
	}
	if err := checkArguments(req.Env, req.Cmd); err != nil {
		return "", err
	}
	for _, e := range req.Env {
		if e == "" || e[0] == '=' {
			return "", failure.Invalid("invalid environment variable: %s", e)
		}
	}
	for _, s := range slices.Concat(req.Cmd, req.Env, []string{req.WorkingDir}) {
		if strings.ContainsRune(s, 0) {
			return "", failure.Invalid("invalid exec: %q holds a zero byte", s)
		}
	}
	keys, err := detachKeys(req.DetachKeys, req.Tty)
	if err != nil {
		return "", err
	}
	r, err := x.runningRun(ctx, c)
	if err != nil {
		return "", err
	}
	user, err := x.lookupUser(c, r, req.User)
	if err != nil && !errdefs.IsInvalidArgument(err) {
		return "", err
	}
	e := newExecution(c, r, req, user, keys)
	if e.refused = err; err == nil {
		x.prepare(e)
	}
	x.register(e)
	return e.id, nil
}

func newExecution(c *container.Container, r *run, req api.ExecCreateRequest, user rootpath.User, keys []byte) *execution {
	return &execution{id: container.NewID(), c: c, run: r, req: req, user: user, keys: keys, hub: stdio.NewHub(), started: make(chan struct{})}
}

// register makes an exec known.
func (x *Execs) register(e *execution) {
	e.run.mu.Lock()
	e.run.execs[e.id] = struct{}{}
	e.run.mu.Unlock()
	x.mu.Lock()
	x.purge(time.Now())
	x.byID[e.id] = e
	x.mu.Unlock()
	x.announce(e, apievents.ActionExecCreate)
}

// announce publishes "exec_create: command" and the like.
func (x *Execs) announce(e *execution, action apievents.Action) {
	x.say.container(e.c, action+apievents.Action(": "+strings.Join(e.req.Cmd, " ")), "execID", e.id)
}

// runningRun returns the live run of a container that can take an exec. One that
// stands still for a copy is waited for.
func (x *Execs) runningRun(ctx context.Context, c *container.Container) (*run, error) {
	switch c.Load().State.Status {
	case api.StatePaused:
		return nil, paused(c.ID(), "exec")
	case api.StateRestarting:
		return nil, restarting(c.ID())
	}
	r := x.lives.of(c).live()
	if r == nil {
		return nil, notRunning(c)
	}
	// A process that joins a frozen group never gets on, whoever froze it.
	if !x.isFrozen(c) {
		return r, nil
	}
	if x.still.await(ctx, c.ID()) {
		return x.runningRun(ctx, c)
	}
	if x.isFrozen(c) {
		return nil, paused(c.ID(), "exec")
	}
	return r, nil
}

func (x *Execs) isFrozen(c *container.Container) bool {
	frozen, err := x.runtime.Frozen(x.specs.cgroupPath(c.Load()))
	return err == nil && frozen
}

// lookupUser finds the exec's user, by default the container's, in the
// container's own files.
func (x *Execs) lookupUser(c *container.Container, r *run, user string) (rootpath.User, error) {
	rec := c.Load()
	if user == "" {
		user = rec.Config.User
	}
	root, err := x.runtime.RootFD(r.process)
	if err != nil {
		if errors.Is(err, runtime.ErrNotRunning) {
			return rootpath.User{}, notRunning(c)
		}
		return rootpath.User{}, err
	}
	defer unix.Close(root)
	return lookupUser(root, user, rec.HostConfig.GroupAdd)
}

// purge forgets execs whose time is over. The caller holds mu.
func (x *Execs) purge(now time.Time) {
	if now.Sub(x.purged) < time.Minute {
		return
	}
	x.purged = now
	for id, e := range x.byID {
		e.mu.Lock()
		old := e.exitCode != nil && now.Sub(e.finished) > execKept
		never := !e.begun && isClosed(e.run.cleaned)
		e.mu.Unlock()
		if old || never || e.c.Gone() {
			delete(x.byID, id)
			e.run.mu.Lock()
			delete(e.run.execs, id)
			e.run.mu.Unlock()
		}
	}
}

func (x *Execs) find(id string) (*execution, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if e := x.byID[id]; e != nil && !e.c.Gone() {
		return e, nil
	}
	return nil, failure.NotFound("No such exec instance: %s", id)
}

// ExecStart starts a detached exec and returns nil, or prepares the session of
// an attached one, which is started by its Run.
func (x *Execs) ExecStart(ctx context.Context, id string, opts ExecStartOptions) (*ExecSession, error) {
	e, err := x.find(id)
	if err != nil {
		return nil, err
	}
	r, err := x.runningRun(ctx, e.c)
	if err != nil {
		return nil, err
	}
	if r != e.run {
		return nil, failure.Conflict("container %s was restarted since exec %s was created", e.c.ID(), id)
	}
	if err := e.begin(); err != nil {
		return nil, err
	}
	size := opts.ConsoleSize
	if size == nil {
		size = e.req.ConsoleSize
	}
	if opts.Detach {
		return nil, x.start(context.WithoutCancel(ctx), e, size, false)
	}
	return NewExecSession(func(ctx context.Context, client StreamIO) error { return x.attend(ctx, e, size, client) }, e.unbegin), nil
}

func (e *execution) begin() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.exitCode != nil:
		return failure.Conflict("exec %s has already run", e.id)
	case e.begun:
		return failure.Conflict("exec %s is already running", e.id)
	}
	e.begun = true
	return nil
}

// unbegin is for a start that does not come, as its client cannot be served.
func (e *execution) unbegin() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.begun = false
}

// attend starts an exec and serves its client.
func (x *Execs) attend(ctx context.Context, e *execution, size *[2]uint, client StreamIO) error {
	sub := e.hub.Subscribe(e.req.AttachStdout, e.req.AttachStderr)
	defer sub.Close()
	if err := x.start(context.WithoutCancel(ctx), e, size, e.req.AttachStdin); err != nil {
		// The connection is taken over: the client reads the reason in the
		// stream and the code from inspect.
		if client.Stdout != nil {
			_, _ = client.Stdout.Write([]byte(err.Error() + "\r\n"))
		}
		return nil
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if e.req.AttachStdin && client.Stdin != nil {
		go func() {
			stdin := stdinOf(e.process)
			if stdin == nil {
				return
			}
			err := stdio.CopyStdin(stdin, client.Stdin, e.keys)
			if errors.Is(err, stdio.ErrDetached) {
				cancel(err)
				return
			}
			if !e.req.Tty {
				_ = e.process.CloseStdin()
			}
		}()
	}
	err := copyOutput(ctx, sub, client)
	if errors.Is(context.Cause(ctx), stdio.ErrDetached) {
		x.say.container(e.c, apievents.ActionExecDetach, "execID", e.id)
		return nil
	}
	if err == nil {
		// Clients ask for the exit code as soon as the stream has ended.
		x.awaitExit(ctx, e)
	}
	return err
}

func (x *Execs) awaitExit(ctx context.Context, e *execution) {
	select {
	case <-e.process.Done():
		e.settle()
	case <-ctx.Done():
	}
}

// start runs the process. stdin says whether somebody will write to it.
func (x *Execs) start(ctx context.Context, e *execution, size *[2]uint, stdin bool) error {
	proc, err := x.startProcess(ctx, e, size, stdin)
	if err != nil {
		e.hub.Close()
		return e.failed(err)
	}
	record.Failpoint("engine.exec.after-process")
	pump, err := stdio.Start(stdio.Config{Stdout: proc.Stdout(), Stderr: proc.Stderr(), TTY: proc.Console(), Hub: e.hub, Pool: x.pool})
	if err != nil {
		_ = proc.Signal(int(unix.SIGKILL))
		<-proc.Done()
		_ = proc.Release()
		e.hub.Close()
		return e.failed(err)
	}
	e.runs(proc)
	x.announce(e, apievents.ActionExecStart)
	x.tasks.Go("exec", func(ctx context.Context) { x.watch(ctx, e, pump) })
	return nil
}

func (x *Execs) startProcess(ctx context.Context, e *execution, size *[2]uint, stdin bool) (*runtime.Process, error) {
	if e.refused != nil {
		return nil, e.refused
	}
	if p := e.takePrepared(stdin); p != nil {
		rows, cols := uint16(0), uint16(0)
		if size != nil {
			rows, cols = size16(size[0]), size16(size[1])
		}
		return p.Run(ctx, rows, cols)
	}
	spec, err := x.spec(e, size, stdin)
	if err != nil {
		return nil, err
	}
	return x.runtime.Exec(ctx, spec)
}

// spec is what the runtime needs to know.
func (x *Execs) spec(e *execution, size *[2]uint, stdin bool) (*runtime.ExecSpec, error) {
	rec := e.c.Load()
	spec := &runtime.ExecSpec{
		ID: e.id, ContainerID: e.c.ID(), Target: e.run.process, Args: e.req.Cmd, Cwd: e.req.WorkingDir, User: e.user,
		Umask: rec.HostConfig.Umask, TTY: e.req.Tty, OpenStdin: stdin,
		CgroupPath: x.specs.cgroupPath(rec), OOMScoreAdj: rec.HostConfig.OomScoreAdj,
		AppArmorProfile: rec.State.AppArmorProfile,
	}
	if !e.probe {
		spec.About = e.about()
	}
	if spec.Cwd == "" {
		spec.Cwd = rec.Config.WorkingDir
	}
	if size != nil {
		spec.Rows, spec.Cols = size16(size[0]), size16(size[1])
	}
	env := []string{defaultPath, "HOSTNAME=" + rec.Config.Hostname}
	if e.req.Tty {
		env = append(env, "TERM=xterm")
	}
	spec.Env = withHome(overrideEnv(overrideEnv(env, rec.Config.Env), e.req.Env), e.user.Home)
	var err error
	if spec.Rlimits, err = rlimits(x.specs.settings.Containers.ulimits(rec.HostConfig.Ulimits)); err != nil {
		return nil, err
	}
	opts, err := parseSecurityOpts(rec.HostConfig.SecurityOpt, x.specs.features)
	if err != nil {
		return nil, err
	}
	privileged := rec.HostConfig.Privileged || e.req.Privileged
	spec.Capabilities, err = kernel.EffectiveCaps(rec.HostConfig.CapAdd, rec.HostConfig.CapDrop, privileged, x.specs.features.LastCap)
	if err != nil {
		return nil, err
	}
	opts = x.specs.settings.Containers.security(opts, privileged)
	spec.NoNewPrivs = opts.noNewPrivs
	if spec.Seccomp, err = x.specs.filter(opts, privileged, spec.Capabilities); err != nil {
		return nil, err
	}
	return spec, nil
}

// failed notes why an exec could not start and returns the error for the
// caller.
func (e *execution) failed(err error) error {
	code := 126
	var startErr *runtime.StartError
	if errors.As(err, &startErr) {
		if startErr.Code != 0 {
			code = startErr.Code
		}
		err = failure.New(errdefs.ErrInvalidArgument, "OCI runtime exec failed: exec failed: unable to start container process: %w", err)
	} else if errors.Is(err, runtime.ErrNotRunning) {
		err = notRunning(e.c)
	}
	e.end(code)
	return err
}

// runs notes the process of an exec that has started.
func (e *execution) runs(process *runtime.Process) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.process = process
	close(e.started)
}

func (e *execution) end(code int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.exitCode == nil {
		if e.process == nil {
			close(e.started)
		}
		e.exitCode, e.finished = &code, time.Now()
		e.run.mu.Lock()
		delete(e.run.execs, e.id)
		e.run.mu.Unlock()
	}
}

// settle notes the exit of a process whose Done is closed.
func (e *execution) settle() { e.end(e.process.Status().Code) }

// watch owns a started exec until its end, or the engine's: then it goes on by
// itself, unobserved.
func (x *Execs) watch(ctx context.Context, e *execution, pump *stdio.Pump) {
	select {
	case <-e.process.Done():
	case <-ctx.Done():
		if !isClosed(e.process.Done()) {
			pump.Stop()
			e.process.Detach()
			return
		}
	}
	e.settle()
	pump.Drain()
	e.hub.Close()
	x.say.container(e.c, apievents.ActionExecDie, "execID", e.id, "exitCode", strconv.Itoa(e.process.Status().Code))
	goruntime.Gosched() // its client is told first, by this processor; nobody waits for what follows
	_ = e.process.Release()
}

// ExecInspect describes an exec, by its id alone; ErrNotFound once it is forgotten.
func (x *Execs) ExecInspect(_ context.Context, id string) (*api.ExecInspectResponse, error) {
	e, err := x.find(id)
	if err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	res := &api.ExecInspectResponse{
		ID: e.id, Running: e.process != nil && e.exitCode == nil, ExitCode: e.exitCode, ContainerID: e.c.ID(),
		OpenStdin: e.req.AttachStdin, OpenStdout: e.req.AttachStdout, OpenStderr: e.req.AttachStderr, DetachKeys: e.keys,
		ProcessConfig: &api.ExecProcessConfig{
			Tty: e.req.Tty, Entrypoint: e.req.Cmd[0], Arguments: e.req.Cmd[1:], User: e.req.User, Privileged: &e.req.Privileged,
		},
	}
	if e.process != nil {
		res.Pid = e.process.PID()
	}
	return res, nil
}

// stdinOf is where a process's input is written to: its pipe, or its terminal.
func stdinOf(p *runtime.Process) *os.File {
	if c := p.Console(); c != nil {
		return c
	}
	return p.Stdin()
}
