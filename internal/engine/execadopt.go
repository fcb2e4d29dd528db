package engine

import (
	"context"
	"encoding/json"

	api "github.com/moby/moby/api/types/container"

	"github.com/cleatlabs/cleat/internal/keeper"
	"github.com/cleatlabs/cleat/internal/stdio"
)

// aboutExec is what a later engine needs to answer for an exec, besides what
// its keeper knows. The environment, which may hold secrets, is not in it.
type aboutExec struct {
	Container  string
	Request    api.ExecCreateRequest
	DetachKeys []byte
}

func (e *execution) about() aboutExec {
	req := e.req
	req.Env, req.ConsoleSize = nil, nil
	return aboutExec{Container: e.c.ID(), Request: req, DetachKeys: e.keys}
}

// adopt takes over the execs that earlier engines have left in containers that
// were adopted, and returns their keepers' records. Nobody is attached to them
// any more: what they write is read and dropped, so that none of them blocks.
// Those of other containers are over, or are for the sweep.
func (x *Execs) adopt(ctx context.Context) (keepers []keeper.Record) {
	for _, note := range x.runtime.Noted() {
		var about aboutExec
		if err := json.Unmarshal(note.About, &about); err != nil || len(about.Request.Cmd) == 0 {
			continue
		}
		c, err := x.containers.Find(about.Container)
		if err != nil || c.ID() != about.Container {
			continue
		}
		r := x.lives.of(c).current()
		if r == nil {
			continue
		}
		e := &execution{
			id: note.Process.ID, c: c, run: r, req: about.Request, keys: about.DetachKeys, hub: stdio.NewHub(), begun: true,
			started: make(chan struct{}),
		}
		if err := x.adoptOne(ctx, e, note.Process); err != nil {
			x.log.Error("an exec could not be taken over and is ended", "container", c.ID(), "exec", e.id, "error", err)
			continue
		}
		keepers = append(keepers, note.Process)
	}
	return keepers
}

func (x *Execs) adoptOne(ctx context.Context, e *execution, rec keeper.Record) error {
	proc, err := x.runtime.Adopt(ctx, rec)
	if err != nil {
		return err
	}
	pump, err := stdio.Start(stdio.Config{Stdout: proc.Stdout(), Stderr: proc.Stderr(), TTY: proc.Console(), Hub: e.hub, Pool: x.pool})
	if err != nil {
		proc.Detach()
		return err
	}
	e.runs(proc)
	e.run.mu.Lock()
	e.run.execs[e.id] = struct{}{}
	e.run.mu.Unlock()
	x.mu.Lock()
	x.byID[e.id] = e
	x.mu.Unlock()
	if isClosed(proc.Done()) {
		e.settle() // the first answers must not call running what has ended
	}
	x.tasks.Go("exec", func(ctx context.Context) { x.watch(ctx, e, pump) })
	return nil
}
