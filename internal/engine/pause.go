package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/containerd/errdefs"
	api "github.com/moby/moby/api/types/container"
	apievents "github.com/moby/moby/api/types/events"

	"github.com/cleatlabs/cleat/internal/cgroup"
	"github.com/cleatlabs/cleat/internal/container"
	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/record"
	"github.com/cleatlabs/cleat/internal/runtime"
)

// Pauser makes containers stand still and go on. What holds them is the freezer
// of their control group, which outlives the engine; that they are paused is
// in their record as well.
type Pauser struct {
	containers *container.Store
	runtime    *runtime.Runtime
	lives      *lives
	specs      *specBuilder
	still      *stillness
	say        *announcer
	log        *slog.Logger
}

// Pause freezes all processes of a running container. It returns when they
// stand still.
func (p *Pauser) Pause(ctx context.Context, name string) error {
	c, unlock, err := p.holdMoving(ctx, name)
	if err != nil {
		return err
	}
	defer unlock()
	switch c.Load().State.Status {
	case api.StatePaused:
		return failure.Conflict("container %s is already paused", c.ID())
	case api.StateRestarting:
		return restarting(c.ID())
	}
	r := p.lives.of(c).live()
	if r == nil {
		return notRunning(c)
	}
	if r.isEnding() {
		return failure.Conflict("cannot pause container %s: it is being stopped", c.ID())
	}
	group, err := p.group(c)
	if err != nil {
		return err
	}
	if err := group.Freeze(); err != nil {
		if errdefs.IsNotFound(err) {
			return notRunning(c)
		}
		return fmt.Errorf("cannot pause container %s: %w", c.ID(), err)
	}
	record.Failpoint("engine.pause.after-freeze")
	// A stop thaws before it waits. If it came between, it must not wait for what
	// stands still again.
	if r.isEnding() {
		return errors.Join(failure.Conflict("cannot pause container %s: it is being stopped", c.ID()), ignoreNotFound(group.Thaw()))
	}
	paused := false
	err = c.SetState(func(st *container.State) {
		if st.Status == api.StateRunning {
			st.Status, paused = api.StatePaused, true
		}
	})
	switch {
	case err != nil:
		return errors.Join(err, p.release(c))
	case !paused:
		return notRunning(c)
	}
	r.pauses.Add(1)
	p.say.container(c, apievents.ActionPause)
	return nil
}

// holdMoving holds a container that does not stand still for a copy: the end of that would thaw it while it is being
// paused. No other copy begins until unlock.
func (p *Pauser) holdMoving(ctx context.Context, name string) (c *container.Container, unlock func(), err error) {
	for {
		if c, unlock, err = p.containers.Hold(ctx, name); err != nil || !p.still.stands(c.ID()) {
			return c, unlock, err
		}
		unlock() // who waits for a copy must not keep others from the container
		if !p.still.await(ctx, c.ID()) && ctx.Err() != nil {
			return nil, nil, context.Cause(ctx)
		}
	}
}

// Unpause lets a paused container go on; ErrInternal, as with Docker, if it is not paused.
func (p *Pauser) Unpause(ctx context.Context, name string) error {
	c, unlock, err := p.containers.Hold(ctx, name)
	if err != nil {
		return err
	}
	defer unlock()
	if c.Load().State.Status != api.StatePaused {
		// Docker's class, odd as it is: clients know it.
		return failure.New(errdefs.ErrInternal, "Container %s is not paused", c.ID())
	}
	return p.release(c)
}

// release thaws a container, whoever froze it: nothing that is frozen takes a
// signal, not even SIGKILL. One that does not run is none's business.
func (p *Pauser) release(c *container.Container) error {
	group, err := p.group(c)
	if err != nil {
		return ignoreNotFound(err) // it has just ended
	}
	told := false
	tell := sync.OnceFunc(func() { told = true; p.say.container(c, apievents.ActionUnPause) })
	frozen, err := group.Frozen()
	if err == nil && frozen {
		// Told first: what is let go may end at once, and its end is told as it happens.
		if c.Load().State.Status == api.StatePaused {
			tell()
		}
		err = group.Thaw()
	}
	if err != nil {
		if err = ignoreNotFound(err); err != nil && told {
			p.say.container(c, apievents.ActionPause) // it is still so
		}
		return err
	}
	if c.Load().State.Status != api.StatePaused {
		return nil
	}
	record.Failpoint("engine.unpause.after-thaw")
	released := false
	err = c.SetState(func(st *container.State) {
		if st.Status == api.StatePaused {
			st.Status, released = api.StateRunning, true
		}
	})
	if released {
		tell()
	}
	return err
}

// adopt makes the state of an adopted container say what its group does: an
// engine may have died between the two.
func (p *Pauser) adopt(c *container.Container) {
	group, err := p.group(c)
	if err != nil {
		return
	}
	frozen, err := group.Frozen()
	if err != nil || frozen == (c.Load().State.Status == api.StatePaused) {
		return
	}
	err = c.SetState(func(st *container.State) {
		switch {
		case frozen && st.Status == api.StateRunning:
			st.Status = api.StatePaused
		case !frozen && st.Status == api.StatePaused:
			st.Status = api.StateRunning
		}
	})
	if err != nil {
		p.log.Error("the state of a container could not be written", "container", c.ID(), "error", err)
	}
}

func (p *Pauser) group(c *container.Container) (*cgroup.Group, error) {
	return p.runtime.Group(p.specs.cgroupPath(c.Load()))
}

func notRunning(c *container.Container) error {
	return failure.Conflict("container %s is not running", c.ID())
}

func restarting(ref string) error {
	return failure.Conflict("container %s is restarting, wait until the container is running", ref)
}

func paused(ref, verb string) error {
	return failure.Conflict("container %s is paused, unpause the container before %s", ref, verb)
}

func ignoreNotFound(err error) error {
	if errdefs.IsNotFound(err) {
		return nil
	}
	return err
}
