// Package runtime turns a container's specification into running processes. Skeleton of the API; see spec.go.
package runtime

import (
	"context"
	"errors"
	"os"
	"syscall"
	"time"

	"github.com/cleatlabs/cleat/internal/cgroup"
	"github.com/cleatlabs/cleat/internal/keeper"
	"github.com/cleatlabs/cleat/internal/kernel"
)

// Config says where a Runtime keeps its files.
type Config struct {
	Dir         string // on tmpfs
	FallbackDir string // on a filesystem that allows execution, for vm.memfd_noexec=2
	Cgroups     *cgroup.Hierarchy
	Features    kernel.Features
}

// Runtime starts and adopts processes.
type Runtime struct{}

var errSkeleton = errors.New("runtime: not available")

// ErrNotRunning is answered for a process that has exited.
var ErrNotRunning = errors.New("process is not running")

func New(c Config) (*Runtime, error)                                       { return nil, errSkeleton }
func (r *Runtime) Start(ctx context.Context, s *Spec) (*Process, error)    { return nil, errSkeleton }
func (r *Runtime) Exec(ctx context.Context, s *ExecSpec) (*Process, error) { return nil, errSkeleton }
func (r *Runtime) RootFD(p *Process) (int, error)                          { return -1, errSkeleton }
func (r *Runtime) Adopt(ctx context.Context, rec keeper.Record) (*Process, error) {
	return nil, errSkeleton
}
func (r *Runtime) Dump(s *Spec) (string, error)             { return "", errSkeleton }
func (r *Runtime) Sweep(keep []keeper.Record)               {}
func (r *Runtime) Group(path string) (*cgroup.Group, error) { return nil, errSkeleton }
func (r *Runtime) RemoveCgroup(path string) error           { return errSkeleton }

// StartError says why a process could not be started.
type StartError struct {
	Op, Path string
	Errno    syscall.Errno
	Code     int // exit code of the container: 126, 127 or 128
}

func (e *StartError) Error() string { return e.Op + " " + e.Path + ": " + e.Errno.Error() }
func (e *StartError) Unwrap() error { return e.Errno }

// Status is how a process ended.
type Status struct {
	Code       int // 128+signal for signals
	Signal     int
	FinishedAt time.Time
	Reason     string // why the code is not the real one
}

// Process is a started process.
type Process struct{}

func (p *Process) ID() string                     { return "" }
func (p *Process) PID() int                       { return 0 }
func (p *Process) Record() keeper.Record          { return keeper.Record{} }
func (p *Process) Stdin() *os.File                { return nil }
func (p *Process) CloseStdin() error              { return nil }
func (p *Process) Stdout() *os.File               { return nil }
func (p *Process) Stderr() *os.File               { return nil }
func (p *Process) Console() *os.File              { return nil }
func (p *Process) Done() <-chan struct{}          { return nil }
func (p *Process) Status() Status                 { return Status{} }
func (p *Process) Signal(sig int) error           { return errSkeleton }
func (p *Process) Resize(rows, cols uint16) error { return errSkeleton }
func (p *Process) Release() error                 { return errSkeleton }
func (p *Process) Detach()                        {}

// StopHint says whether PID 1 may react to signal sig.
func (p *Process) StopHint(sig int) (canWake bool) { return true }
