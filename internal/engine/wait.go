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
// once and is then closed. It is registered on return: no exit after that is
// missed. When ctx ends first the channel is closed without a value.
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
	out := make(chan WaitResult, 1)
	go func() {
		defer close(out)
		select {
		case e := <-exit:
			out <- WaitResult(e)
		case <-ctx.Done():
			cancel()
		}
	}()
	return out, nil
}
