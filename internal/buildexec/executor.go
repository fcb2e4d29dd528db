package buildexec

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"sync"

	"github.com/moby/buildkit/executor"
	resourcestypes "github.com/moby/buildkit/executor/resources/types"
	"github.com/moby/buildkit/solver/pb"
	bknetwork "github.com/moby/buildkit/util/network"

	"github.com/cleatlabs/cleat/internal/apparmor"
	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/kernel"
	"github.com/cleatlabs/cleat/internal/runtime"
	"github.com/cleatlabs/cleat/internal/seccomp"
)

// Config is what an Executor works with. All of it is needed, but for Log.
type Config struct {
	Runtime  *runtime.Runtime
	Networks Networks
	Features kernel.Features
	AppArmor *apparmor.Profiles // nil where it is off
	// CgroupParent is the engine's own, "/cleat": steps that ask for no other lie below its group "build".
	CgroupParent string
	// Dir is the Executor's own, on tmpfs; it is made if missing.
	Dir string
	// Log takes what goes wrong beside a step. Nil discards it.
	Log *slog.Logger
}

// Executor runs steps. Its methods may be called concurrently.
type Executor struct {
	c       Config
	files   *files
	bridge  *bridgePool
	filters seccomp.Cache
	groups  groups

	settling settling

	mu      sync.Mutex
	running map[string]*running // by BuildKit's id
	closed  bool
	steps   sync.WaitGroup
}

var _ executor.Executor = (*Executor)(nil)

// running is a step as Exec finds it.
type running struct {
	started chan struct{} // closed when spec and process are valid
	ended   chan struct{} // closed when the step has ended or failed to start
	err     error         // valid once ended is closed

	spec    *runtime.Spec
	process *runtime.Process
}

// New makes an Executor and removes what the steps of an earlier engine have left. Call it when Runtime has been swept.
func New(c Config) (*Executor, error) {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if !path.IsAbs(c.CgroupParent) || !filepath.IsAbs(c.Dir) {
		return nil, failure.Invalid("build steps: control group %q and directory %q must be absolute paths", c.CgroupParent, c.Dir)
	}
	e := &Executor{c: c, running: map[string]*running{}, settling: settling{log: c.Log}}
	e.groups = groups{runtime: c.Runtime, own: path.Join(c.CgroupParent, groupName), notes: filepath.Join(c.Dir, "groups")}
	if err := e.groups.sweep(); err != nil {
		c.Log.Warn("control groups of build steps are left over", "error", err)
	}
	if err := os.RemoveAll(c.Dir); err != nil {
		return nil, fmt.Errorf("build steps: %w", err)
	}
	for _, dir := range []string{c.Dir, e.groups.notes, filepath.Join(c.Dir, "files")} {
		if err := os.MkdirAll(dir, 0o711); err != nil {
			return nil, fmt.Errorf("build steps: %w", err)
		}
	}
	e.files = &files{dir: filepath.Join(c.Dir, "files"), networks: c.Networks}
	e.bridge = newBridgePool(c.Networks, c.Log)
	return e, nil
}

// Networks are what BuildKit is told of networks. Steps are given theirs by the Executor itself.
func (e *Executor) Networks() map[pb.NetMode]bknetwork.Provider {
	return map[pb.NetMode]bknetwork.Provider{
		pb.NetMode_UNSET: &provider{e: e, mode: pb.NetMode_UNSET},
		pb.NetMode_HOST:  &provider{e: e, mode: pb.NetMode_HOST},
		pb.NetMode_NONE:  &provider{e: e, mode: pb.NetMode_NONE},
	}
}

// Close refuses new steps, kills those that run, waits for them and gives up what is kept ready.
func (e *Executor) Close() error {
	e.mu.Lock()
	e.closed = true
	for _, r := range e.running {
		select {
		case <-r.started:
			_ = r.process.Signal(sigKill) // it may have ended
		default:
		}
	}
	e.mu.Unlock()
	e.steps.Wait()
	e.bridge.close()
	return errors.Join(e.settling.close(), e.groups.close())
}

var errClosed = failure.Unavailable("the engine is shutting down")

// Run runs a step in the given root filesystem. started, which may be nil, is closed once its process runs, and in any
// case when Run returns. An exit code that process does not call valid is a *gatewayapi.ExitError.
func (e *Executor) Run(ctx context.Context, id string, root executor.Mount, mounts []executor.Mount, process executor.ProcessInfo, started chan<- struct{}) (resourcestypes.Recorder, error) {
	own := newID()
	if id == "" {
		id = own
	}
	r := &running{started: make(chan struct{}), ended: make(chan struct{})}
	tell := sync.OnceFunc(func() {
		if started != nil {
			close(started)
		}
	})
	defer tell()
	if err := e.enter(id, r); err != nil {
		return nil, err
	}
	err := e.run(ctx, own, r, root, mounts, process, tell)
	e.leave(id, r, err)
	return nil, err
}

func (e *Executor) enter(id string, r *running) error {
	if err := executor.ValidContainerID(id); err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return errClosed
	}
	if e.running[id] != nil {
		return failure.Conflict("build step %s is running already", id)
	}
	e.running[id] = r
	e.steps.Add(1)
	return nil
}

func (e *Executor) leave(id string, r *running, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.running, id)
	r.err = err
	close(r.ended)
	e.steps.Done()
}

// begun makes a step known to Exec. One that comes while the engine closes is killed.
func (e *Executor) begun(r *running, spec *runtime.Spec, p *runtime.Process) {
	e.mu.Lock()
	defer e.mu.Unlock()
	r.spec, r.process = spec, p
	close(r.started)
	if e.closed {
		_ = p.Signal(sigKill)
	}
}

// awaitStart gives the running step of an id.
func (e *Executor) awaitStart(ctx context.Context, id string) (*running, error) {
	e.mu.Lock()
	r := e.running[id]
	e.mu.Unlock()
	if r == nil {
		return nil, failure.NotFound("container %s not found", id)
	}
	select {
	case <-r.started:
		return r, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-r.ended:
	}
	if r.err != nil {
		return nil, fmt.Errorf("container %s has exited with error: %w", id, r.err)
	}
	return nil, failure.Conflict("container %s has stopped", id)
}

// newID names a step: BuildKit's own ids are a client's to choose.
func newID() string {
	b := make([]byte, 16)
	rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

// run is Run for a step that is registered.
func (e *Executor) run(ctx context.Context, id string, r *running, root executor.Mount, mounts []executor.Mount, process executor.ProcessInfo, tell func()) (err error) {
	if err := checkMeta(&process.Meta); err != nil {
		return err
	}
	s := &step{e: e, id: id, meta: process.Meta, rootFD: -1}
	defer func() { err = alsoFailed(err, s.close()) }()
	if err := s.prepare(ctx, root, mounts); err != nil {
		return err
	}
	spec, err := s.spec()
	if err != nil {
		return err
	}
	spec.TTY, spec.OpenStdin, spec.StdinOnce = process.Meta.Tty, process.Stdin != nil, true
	p, err := e.c.Runtime.Start(ctx, spec)
	s.group = nil // Start's, whatever has come of it
	if err != nil {
		return startFailed(ctx, err)
	}
	s.process = p
	e.begun(r, spec, p)
	tell()
	kill := context.AfterFunc(ctx, func() { s.kill() })
	defer kill()
	closed := s.closeTrees()
	attend(p, &process)
	return alsoFailed(exitError(ctx, p.Status().Code, process.Meta.ValidExitCodes, s.ranOutOfMemory()), closed)
}

// alsoFailed adds what went wrong afterwards to an error, which stays as it is if nothing has.
func alsoFailed(err, after error) error {
	if after == nil {
		return err
	}
	return errors.Join(err, after)
}
