package runtime

import (
	"context"
	"fmt"

	"github.com/cleatlabs/cleat/internal/launch"
	"golang.org/x/sys/unix"
)

// A PreparedExec is an exec's process before its command: it is in the container, confined as its command will be, and
// waits for one byte. It ends with the engine, with the container, and by Discard. Exactly one of Run and Discard must
// be called, once.
type PreparedExec struct {
	s      *ExecSpec
	l      *starting
	child  *launch.Child
	gate   int // write end of a pipe; the read end is the process's
	target int // pidfd of the container's process
}

// Prepare does what Exec does, as far as it can be done before it is wanted; its errors are Exec's. It does not wait
// for the process: what fails in there is Run's to find. The spec must not be changed any more.
func (r *Runtime) Prepare(s *ExecSpec) (*PreparedExec, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	target, err := s.Target.dupPidfd()
	if err != nil {
		return nil, err
	}
	x := &PreparedExec{s: s, target: target}
	if err := x.begin(r); err != nil {
		unix.Close(target)
		return nil, err
	}
	return x, nil
}

func (x *PreparedExec) begin(r *Runtime) error {
	in, out, err := pipe()
	if err != nil {
		return fmt.Errorf("making the gate: %w", err)
	}
	defer unix.Close(in)
	x.gate = out
	if x.l, err = r.arrangeExec(x.s, x.target, in, false); err == nil {
		if x.child, err = x.l.begin(); err == nil {
			x.l.plan.closeGroup()
			return nil
		}
		x.l.plan.close()
	}
	unix.Close(x.gate)
	return err
}

// Run lets the process execute its command, and returns when it has. One that has not come to that, for whatever
// reason, is made anew: the result is what Exec's would be. rows and cols are the terminal's size if they are not 0.
func (x *PreparedExec) Run(ctx context.Context, rows, cols uint16) (*Process, error) {
	if rows != 0 || cols != 0 {
		x.s.Rows, x.s.Cols = rows, cols
	}
	r := x.l.r
	if !x.Waits() {
		x.Discard()
		return r.Exec(ctx, x.s)
	}
	if err := x.l.begun(); err != nil {
		x.Discard()
		return nil, err
	}
	if !x.open() {
		x.Discard()
		return r.Exec(ctx, x.s)
	}
	unix.Close(x.gate)
	p, err := x.l.finish(ctx, x.child)
	if err != nil && x.l.reached && ending(x.s.Target.PID(), x.target, err) {
		err = fmt.Errorf("%w: %v", ErrNotRunning, err)
	}
	x.l.plan.close()
	unix.Close(x.target)
	if err != nil && !x.l.reached && ctx.Err() == nil {
		return r.Exec(ctx, x.s)
	}
	return p, err
}

// Note writes what the next engine is to know of the process, if it is to outlive this one. It is for when nobody waits,
// before Run; after an error there must be a Discard.
func (x *PreparedExec) Note() error { return x.l.note() }

// Waits says whether the process is there, or will be. It must not be called after Run or Discard.
func (x *PreparedExec) Waits() bool { return x.child.Waits() }

// open gives the process its terminal's size and its byte; false if it has ended.
func (x *PreparedExec) open() bool {
	if con := x.l.std.console; con != nil && (x.s.Rows != 0 || x.s.Cols != 0) {
		if resize(con, x.s.Rows, x.s.Cols) != nil {
			return false
		}
	}
	return pass(x.gate) == nil
}

// pass lets the process at a gate go on. It fails if that has ended.
func pass(gate int) error {
	for {
		if _, err := unix.Write(gate, []byte{1}); err != unix.EINTR {
			return err
		}
	}
}

// Discard ends the process and leaves nothing of it. It waits for that, for a few seconds at most: one that stands
// still ends with the thaw.
func (x *PreparedExec) Discard() {
	unix.Close(x.gate)
	x.child.Forget()
	x.l.abandon(x.child)
	_ = x.l.giveUp(nil) // what is left of its directory the next engine removes
	x.l.plan.close()
	unix.Close(x.target)
}
