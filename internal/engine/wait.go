package engine

import (
	"context"
	"time"

	api "github.com/moby/moby/api/types/container"

	"github.com/cleatlabs/cleat/internal/container"
	"github.com/cleatlabs/cleat/internal/failure"
)

// Waiter waits for containers.
type Waiter struct {
	containers *container.Store
	lives      *lives
}

// Wait returns a channel that yields the result of cond ("" is not-running)
// once. It is registered on return: no exit after that is missed. When ctx ends,
// which it must do in the end, the channel yields nothing any more.
func (w *Waiter) Wait(ctx context.Context, name string, cond api.WaitCondition) (<-chan WaitResult, error) {
	switch cond {
	case "":
		cond = api.WaitConditionNotRunning
	case api.WaitConditionNotRunning, api.WaitConditionNextExit, api.WaitConditionRemoved:
	default:
		return nil, failure.Invalid("invalid condition: %q: want not-running, next-exit or removed", string(cond))
	}
	c, err := w.containers.Find(name)
	if err != nil {
		return nil, err
	}
	exit, cancel := c.Wait(cond)
	context.AfterFunc(ctx, cancel)
	return exit, nil
}

// deliveryPatience bounds the wait for an attached client that does not read.
const deliveryPatience = time.Second

// Delivery returns what waits, after an exit, until attached clients have been sent the
// container's output. Programs that attach, wait for the end and then use what has come
// find it all there, as they do with an engine that takes its time over an exit.
func (w *Waiter) Delivery(name string) func(context.Context) {
	c, err := w.containers.Find(name)
	if err != nil {
		return func(context.Context) {} // it has gone meanwhile
	}
	hub := w.lives.of(c).hub
	return func(ctx context.Context) { hub.Delivered(ctx, deliveryPatience) }
}
