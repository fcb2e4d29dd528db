package engine

import (
	"context"

	api "github.com/moby/moby/api/types/container"
	apievents "github.com/moby/moby/api/types/events"

	"github.com/cleatlabs/cleat/internal/container"
	"github.com/cleatlabs/cleat/internal/proctable"
	"github.com/cleatlabs/cleat/internal/runtime"
)

// Tops lists the processes of containers.
type Tops struct {
	containers *container.Store
	runtime    *runtime.Runtime
	specs      *specBuilder
	say        *announcer
}

// Top lists the processes of a running container as ps would with args, "" being
// -ef. They are those of its control group, so it works whatever namespaces they
// are in, and their ids are the host's.
func (t *Tops) Top(_ context.Context, name, args string) (*api.TopResponse, error) {
	c, err := t.containers.Find(name)
	if err != nil {
		return nil, err
	}
	rec := c.Load()
	switch {
	case !rec.State.Running():
		return nil, notRunning(c)
	case rec.State.Status == api.StateRestarting:
		return nil, restarting(c.ID())
	}
	format, err := proctable.Parse(args)
	if err != nil {
		return nil, err
	}
	group, err := t.runtime.Group(t.specs.cgroupPath(rec))
	if err != nil {
		return nil, notRunning(c) // it has just ended
	}
	pids, err := group.Procs()
	if err != nil {
		return nil, err
	}
	rows, err := format.Rows(pids)
	if err != nil {
		return nil, err
	}
	t.say.container(c, apievents.ActionTop)
	return &api.TopResponse{Titles: format.Titles(), Processes: rows}, nil
}
