package engine

import (
	"context"
	"time"

	"github.com/cleatlabs/cleat/internal/record"
	"github.com/cleatlabs/cleat/internal/runtime"
)

const (
	// preparedFor is how long the process of an exec that was created waits for its start. Clients ask for that at
	// once; who comes later waits for a process to be made, as long as everybody would without this.
	preparedFor = 2 * time.Second
	// preparedMost bounds how many wait at one time, whatever clients create and never start.
	preparedMost = 16
)

// prepare has the process of an exec made while its client is told that there is one, and asks for its start. It is an
// attempt: a start that finds none prepared, be it that this has failed, makes one and reports what is wrong. Nobody
// else must know the exec yet.
func (x *Execs) prepare(e *execution) {
	select {
	case x.preparing <- struct{}{}:
	default:
		return
	}
	spec, err := x.spec(e, e.req.ConsoleSize, e.req.AttachStdin)
	var p *runtime.PreparedExec
	if err == nil {
		p, err = x.runtime.Prepare(spec)
	}
	if err != nil {
		<-x.preparing
		return
	}
	record.Failpoint("engine.exec.after-prepare")
	ready := make(chan *runtime.PreparedExec)
	e.prepared = ready
	if !x.tasks.Go("prepared exec", func(ctx context.Context) { x.hold(ctx, e, p, ready) }) {
		e.prepared = nil
		p.Discard()
		<-x.preparing
	}
}

// hold keeps a prepared process until its start takes it from ready, which is closed when it is gone: a start may use
// its names then.
func (x *Execs) hold(ctx context.Context, e *execution, p *runtime.PreparedExec, ready chan<- *runtime.PreparedExec) {
	defer func() { <-x.preparing }()
	defer close(ready)
	if err := p.Note(); err != nil { // the start meets the same and reports it
		p.Discard()
		return
	}
	timer := time.NewTimer(preparedFor)
	defer timer.Stop()
	select {
	case ready <- p:
		return
	case <-timer.C:
	case <-e.run.process.Done():
	case <-ctx.Done():
	}
	p.Discard()
}

// takePrepared returns the process that waits for the exec's start, nil if there is none. One that was made for another
// stdin than the start wants is given up.
func (e *execution) takePrepared(stdin bool) *runtime.PreparedExec {
	if e.prepared == nil {
		return nil
	}
	p := <-e.prepared
	if p != nil && stdin != e.req.AttachStdin {
		p.Discard()
		return nil
	}
	return p
}
