package engine

import (
	"context"

	api "github.com/moby/moby/api/types/container"

	"github.com/cleatlabs/cleat/internal/container"
	"github.com/cleatlabs/cleat/internal/failure"
)

// Waiter waits for containers.
type Waiter struct {
	containers *container.Store
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
		return nil, failure.Invalid("invalid condition: %q", string(cond))
	}
	c, err := w.containers.Find(name)
	if err != nil {
		return nil, err
	}
	exit, cancel := c.Wait(cond)
	context.AfterFunc(ctx, cancel)
	return exit, nil
}
