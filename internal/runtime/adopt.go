package runtime

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/cleatlabs/cleat/internal/keeper"
	"golang.org/x/sys/unix"
)

// Adopt takes over a process that an earlier engine started: its streams, its terminal and its end. If the process has
// ended meanwhile, Done is closed and Status known when Adopt returns. An error means that the process exists but
// cannot be taken over.
func (r *Runtime) Adopt(ctx context.Context, rec keeper.Record) (*Process, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	p := &Process{rec: rec, done: make(chan struct{}), pidfd: -1, mounts: -1, network: -1, identified: true, adopted: true}
	if err := keeper.SameBoot(rec); err != nil {
		if !errors.Is(err, keeper.ErrGone) {
			return nil, err
		}
		p.finish(Status{Code: codeUnknown, FinishedAt: time.Now(), Reason: "the machine was restarted while it ran"})
		return p, nil
	}
	status, err := keeper.StatusOf(rec)
	if err != nil {
		if !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		p.finish(Status{Code: codeUnknown, FinishedAt: time.Now(), Reason: "its status file and its keeper are gone"})
		return p, nil
	}
	p.status = status
	err = keeper.Lock(status)
	if err == nil {
		err = p.adopt()
	}
	if err != nil {
		p.closeFiles()
		return nil, fmt.Errorf("adopting %s: %w", rec.ID, err)
	}
	return p, nil
}

// Noted lists the processes that earlier engines have left a Note of. Their start was told to a client or is about to
// be; a process without a whole note was killed together with its engine and is for Sweep.
func (r *Runtime) Noted() []keeper.Note {
	entries, err := os.ReadDir(r.c.Dir)
	if err != nil {
		return nil
	}
	var list []keeper.Note
	for _, e := range entries {
		if n, err := keeper.ReadNote(filepath.Join(r.c.Dir, e.Name())); err == nil && n.Process.BootID == r.bootID {
			list = append(list, n)
		}
	}
	return list
}

func (p *Process) adopt() error {
	pidfd, err := keeper.OpenProcess(p.rec.PID, p.rec.PIDStart)
	if err == nil {
		p.pidfd = pidfd
	} else if !errors.Is(err, keeper.ErrGone) {
		return err
	}
	keeperFD, err := keeper.Open(p.rec, p.status)
	if p.rec.PIDStart == 0 {
		// The PID alone names the process only while its keeper has not collected it.
		if s, serr := keeper.ReadStatus(p.status); err != nil || serr != nil || s.Exited {
			p.closePidfd()
		}
	}
	if errors.Is(err, keeper.ErrGone) {
		return p.adoptWithoutKeeper()
	}
	if err == nil {
		if err = p.fetchStreams(keeperFD); err == nil {
			return p.supervise(keeperFD)
		}
		gone := keeper.Exited(keeperFD)
		unix.Close(keeperFD)
		if gone {
			return p.adoptWithoutKeeper()
		}
	}
	p.closePidfd()
	return err
}

// adoptWithoutKeeper is for a process that has ended, or whose keeper was killed.
func (p *Process) adoptWithoutKeeper() error {
	s, err := keeper.ReadStatus(p.status)
	if err != nil {
		p.closePidfd()
		return err
	}
	if s.Exited {
		if err := p.restoreOutput(s); err != nil {
			return err
		}
		p.finish(p.statusOf(s))
		return nil
	}
	if p.pidfd < 0 {
		p.orphaned()
		return nil
	}
	go p.orphaned()
	return nil
}

// statusOf is how the process has ended by its status file.
func (p *Process) statusOf(s keeper.State) Status {
	code, signal := keeper.Decode(s.Wait)
	st := Status{Code: code, Signal: signal, FinishedAt: s.At}
	if p.adopted && keeper.NeverRan(p.status) {
		st.Code, st.Signal, st.Reason = codeUnknown, 0, "the engine ended while it started the container: its command was not executed"
	}
	return st
}

// restoreOutput makes streams of the output that the keeper has saved.
func (p *Process) restoreOutput(s keeper.State) (err error) {
	stdout, stderr := s.Rest(p.status)
	if p.rec.TTY {
		p.console, err = pipeOf(stdout, "console")
		return err
	}
	if p.stdout, err = pipeOf(stdout, "stdout"); err == nil {
		p.stderr, err = pipeOf(stderr, "stderr")
	}
	return err
}

// pipeOf makes a pipe that holds what r has and then ends. What a pipe held before fits into one of the same size.
func pipeOf(r *io.SectionReader, name string) (*os.File, error) {
	rd, wr, err := pipe()
	if err != nil {
		return nil, fmt.Errorf("restoring %s: %w", name, err)
	}
	w := os.NewFile(uintptr(wr), name)
	defer w.Close()
	f, err := nonblocking(rd, name)
	if err != nil {
		return nil, fmt.Errorf("restoring %s: %w", name, err)
	}
	if r.Size() > 0 {
		unix.FcntlInt(uintptr(wr), unix.F_SETPIPE_SZ, pipeSize)
		if err = unix.SetNonblock(wr, true); err == nil {
			_, err = io.Copy(onlyWriter{wr}, r)
		}
		if err != nil {
			f.Close()
			return nil, fmt.Errorf("restoring %s: %w", name, err)
		}
	}
	return f, nil
}

// onlyWriter writes to a descriptor without waiting: a pipe that is full is an error.
type onlyWriter struct{ fd int }

func (w onlyWriter) Write(b []byte) (int, error) { return unix.Write(w.fd, b) }

// fetchStreams copies the engine's ends out of the keeper.
func (p *Process) fetchStreams(keeperFD int) (err error) {
	fetch := func(fd int, name string) *os.File {
		if err != nil {
			return nil
		}
		var f *os.File
		f, err = keeper.Fetch(keeperFD, fd, name)
		return f
	}
	for i := range min(p.rec.Held, keeper.MaxHeld) {
		if f := fetch(keeper.HeldFD+i, "held"); f != nil {
			p.held = append(p.held, f)
		}
	}
	if p.rec.TTY {
		p.console = fetch(keeper.StdoutFD, "console")
		return err
	}
	p.stdout, p.stderr = fetch(keeper.StdoutFD, "stdout"), fetch(keeper.StderrFD, "stderr")
	if p.rec.StdinOpen {
		p.stdin = fetch(keeper.StdinFD, "stdin")
	}
	return err
}
