package engine

import (
	"context"
	"errors"
	"time"

	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/runtime"
)

// startPatience bounds the wait for the start of an exec whose terminal is given a size.
const startPatience = 10 * time.Second

// ExecResize sets the size of an exec's terminal, in characters; ErrConflict if it does not run. Clients ask for it as
// soon as they have sent the start, or have been given its connection, when the process is still being made: it is waited
// for.
func (x *Execs) ExecResize(ctx context.Context, id string, rows, cols uint16) error {
	e, err := x.find(id)
	if err != nil {
		return err
	}
	timer := time.NewTimer(startPatience)
	defer timer.Stop()
	select {
	case <-e.started:
	case <-e.run.exited:
	case <-timer.C:
	case <-ctx.Done():
		return ctx.Err()
	}
	e.mu.Lock()
	proc, over := e.process, e.exitCode != nil
	e.mu.Unlock()
	if proc == nil || over {
		return failure.Conflict("exec %s is not running", id)
	}
	err = proc.Resize(rows, cols)
	if errors.Is(err, runtime.ErrNotRunning) {
		return failure.Conflict("exec %s is not running", id)
	}
	return err
}
