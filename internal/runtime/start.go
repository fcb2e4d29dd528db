package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/keeper"
	"github.com/cleatlabs/cleat/internal/kernel"
	"github.com/cleatlabs/cleat/internal/launch"
	"github.com/cleatlabs/cleat/internal/record"
	"golang.org/x/sys/unix"
)

// Start makes the container's control group and starts its first process. It returns when the command has been
// executed; if that fails the error is a *StartError where a step of the program failed, and nothing is left behind.
func (r *Runtime) Start(ctx context.Context, s *Spec) (*Process, error) {
	x, err := r.Ready(s)
	if err != nil {
		return nil, err
	}
	return x.Start(ctx, Late{NetNS: -1, Held: s.Held, Meanwhile: s.Meanwhile})
}

// meanwhile is done while the keeper has its program and the process is being set up. The process executes its command
// when late is done: what an engine that dies before has not written down has not run. It is told, too, that it never did.
func (b *builder) meanwhile(rec keeper.Record) error {
	b.letGo()
	if b.late != nil {
		if err := b.late(rec); err != nil {
			return err
		}
	}
	if err := keeper.LetGo(rec); err != nil {
		return err
	}
	_ = pass(b.opener) // a process that has ended is known by its report
	b.closeGate()
	return nil
}

// starting is a built program on its way to becoming a Process.
type starting struct {
	r       *Runtime
	plan    *plan
	std     *streams
	rec     keeper.Record
	command string
	root    int            // for error messages; −1 is none
	mounts  []Mount        // over it, for the same
	group   *GroupInMaking // for error messages; nil is none
	held    []int          // the caller's, for the keeper
	status  *os.File       // locked while this engine lives
	reached bool           // nothing was left but to execute the command
	kept    *os.File       // the same file, the keeper's
	// ownMounts is set for a container's first process.
	ownMounts bool
	meanwhile func(keeper.Record) error // nil is nothing; see Spec.Meanwhile
	about     any                       // as ExecSpec's
	gated     bool                      // the process waits before its command, and is noted then
}

func (l *starting) run(ctx context.Context) (*Process, error) {
	child, err := l.begin()
	if err != nil {
		return nil, err
	}
	return l.finish(ctx, child)
}

// begin hands a keeper the program. After an error nothing is left.
func (l *starting) begin() (*launch.Child, error) {
	child, err := l.launch()
	l.closeGiven()
	if err != nil {
		return nil, l.giveUp(err)
	}
	return child, nil
}

// finish waits until the command has been executed. After an error nothing is left.
func (l *starting) finish(ctx context.Context, child *launch.Child) (*Process, error) {
	p, err := l.await(ctx, child)
	if err != nil {
		return nil, l.giveUp(err)
	}
	return p, nil
}

// closeGiven closes what only the keeper and its process need. It is done before the wait: a container that ends at
// once must end its streams.
func (l *starting) closeGiven() {
	l.std.closeChild()
	if l.kept != nil {
		l.kept.Close()
		l.kept = nil
	}
}

// giveUp closes what the engine has of a process that there is not, or not any more, and adds to err what goes wrong
// with it.
func (l *starting) giveUp(err error) error {
	l.std.closeAll()
	if l.status != nil {
		l.status.Close()
		err = errors.Join(err, removeDir(l.rec.Dir))
	}
	return err
}

func (l *starting) launch() (*launch.Child, error) {
	if err := l.makeDir(); err != nil {
		return nil, err
	}
	if !l.gated {
		if err := errors.Join(l.note(), l.begun()); err != nil {
			return nil, err
		}
	}
	l.plan.hold(keeper.StatusFD, int(l.kept.Fd()))
	if err := l.std.holdIn(l.plan, l.rec.StdinOpen); err != nil {
		return nil, err
	}
	for i, fd := range l.held {
		l.plan.hold(keeper.HeldFD+i, fd)
	}
	spare, _ := l.r.keepers.Take()
	defer l.r.keepers.Refill()
	child, err := l.r.stub.StartIn(spare.Parked, l.plan.p, "cleat-keeper "+l.rec.ID, l.std.child, l.plan.files)
	if err == nil && spare.Parked != nil && child.PID == spare.PID() {
		l.rec.KeeperStart = spare.start
	}
	return child, err
}

func (l *starting) await(ctx context.Context, child *launch.Child) (*Process, error) {
	record.Failpoint("runtime.start.after-fork")
	if l.rec.KeeperStart == 0 {
		// Read now, while the child is busy. One that cannot be read is tried again when the record is wanted.
		l.rec.KeeperStart, _ = kernel.StartTime(child.PID)
	}
	l.rec.Layout, l.rec.BootID, l.rec.KeeperPID = keeper.LayoutVersion, l.r.bootID, child.PID
	if l.meanwhile != nil {
		if err := l.meanwhile(keeper.Unmade(l.rec)); err != nil {
			child.Forget()
			l.abandon(child)
			return nil, err
		}
	}
	report, err := child.Await(ctx)
	l.reached = report.Reached
	if err == nil && !report.Reached {
		err = l.endedEarly(child)
	}
	if err != nil {
		l.abandon(child)
		return nil, startError(err, l.command, func(path string) (program, bool) { return lookIn(l.root, l.mounts, path) })
	}
	return l.process(child, report)
}

// note writes what makes the process known to the next engine, if it is to outlive this one.
func (l *starting) note() error {
	if l.about == nil {
		return nil
	}
	r := l.rec
	r.Layout, r.BootID = keeper.LayoutVersion, l.r.bootID
	return keeper.WriteNote(l.status, r, l.about)
}

// begun makes the note count, just before the process may execute its command.
func (l *starting) begun() error {
	if l.about == nil {
		return nil
	}
	if err := keeper.Begun(l.status); err != nil {
		return err
	}
	record.Failpoint("runtime.exec.after-note")
	return nil
}

// makeDir makes the keeper's directory and status file. What an earlier engine left there, and did not adopt, is removed.
func (l *starting) makeDir() error {
	dir := filepath.Join(l.r.c.Dir, l.rec.ID)
	err := os.Mkdir(dir, 0o700)
	if errors.Is(err, os.ErrExist) {
		if err := l.r.clearStale(dir); err != nil {
			return err
		}
		err = os.Mkdir(dir, 0o700)
	}
	if err != nil {
		return fmt.Errorf("keeper's directory: %w", err)
	}
	l.rec.Dir = dir
	if l.kept, err = keeper.CreateStatus(dir); err == nil {
		if err = keeper.Occupy(l.kept); err == nil {
			if l.status, err = keeper.OpenStatus(dir); err == nil {
				return keeper.Lock(l.status)
			}
		}
	}
	return errors.Join(err, removeDir(dir))
}

// process makes the Process of a child that has been executed.
func (l *starting) process(child *launch.Child, report launch.Report) (*Process, error) {
	l.rec.PID = report.PID
	p := &Process{status: l.status, done: make(chan struct{}), pidfd: -1, mounts: -1, network: -1, stdin: l.std.stdin, stdout: l.std.stdout, stderr: l.std.stderr, console: l.std.console}
	s, err := keeper.ReadStatus(l.status)
	if err == nil {
		if l.rec.PID == 0 {
			l.rec.PID = s.PID
		}
		p.pidfd, err = l.openProcess(child.PID, report.PID != 0)
	}
	if err != nil {
		l.abandon(child)
		return nil, err
	}
	if l.about != nil {
		_ = keeper.WritePID(l.status, l.rec.PID) // the next engine finds it without, while there is a keeper
	}
	p.rec = l.rec
	if l.ownMounts {
		p.holdMounts()
	}
	if err := p.supervise(child.PIDFD); err != nil {
		l.abandon(child)
		p.letMounts()
		p.closePidfd()
		return nil, err
	}
	return p, nil
}

// openProcess opens the process of the record; -1 is one that has ended. A PID that was reported is believed if it is that
// of a child of the keeper: who may trace processes in a container (CAP_SYS_PTRACE) can get at what one that comes to it
// reports by, and would have the engine take any other process of the machine for it.
func (l *starting) openProcess(keeperPID int, reported bool) (int, error) {
	pidfd, err := unix.PidfdOpen(l.rec.PID, 0)
	foreign := false
	if err == nil && reported {
		st, serr := kernel.StatOf(l.rec.PID)
		foreign = (serr != nil || st.Parent != keeperPID) && !keeper.Exited(pidfd)
	}
	// The number may have become another process's, unless the keeper had not collected ours by now.
	s, serr := keeper.ReadStatus(l.status)
	over := serr != nil || s.Exited
	switch {
	case err != nil && reported && !over: // it has just ended, or there never was such a one
		l.rec.PID = 0
	case err != nil:
	case over:
		unix.Close(pidfd)
	case foreign:
		unix.Close(pidfd)
		return -1, fmt.Errorf("%s: process %d, which it is said to be, is another one: something in the container has interfered with its start", l.rec.ID, l.rec.PID)
	default:
		return pidfd, nil
	}
	return -1, nil
}

// endedEarly says what became of a program that neither failed nor reached its end.
func (l *starting) endedEarly(child *launch.Child) error {
	awaitExit(child.PIDFD, abandonPatience)
	s, err := keeper.ReadStatus(l.status)
	if err != nil || !s.Exited || !s.Wait.Signaled() {
		return fmt.Errorf("the keeper of %s ended before the container was set up", l.rec.ID)
	}
	if l.group.oomKills() > 0 {
		return failure.Invalid("the container was killed while it was being set up: its memory limit is too small to start a process")
	}
	return fmt.Errorf("%w (signal %d)", errKilled, int(s.Wait.Signal()))
}

var errKilled = errors.New("the process was killed while it was being set up")

const abandonPatience = 2 * time.Second

// abandon makes sure that nothing of a failed start runs on.
func (l *starting) abandon(child *launch.Child) {
	killKeeper(child.PIDFD, l.status)
	unix.Close(child.PIDFD)
}
