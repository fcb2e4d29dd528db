// Package follow stays with an engine that goes away for a while, as at a restart or an upgrade: containers go on
// meanwhile, and so does who looks at them.
//
// It promises:
//   - Of a container's log each line is shown once, whatever connections break in between.
//   - Whoever misses the engine waits for it together with all others, for a bounded time.
package follow

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/moby/moby/client"

	"github.com/cleatlabs/cleat/client/connect"
)

// Patience is how long an engine that has gone away is waited for: longer than any restart or upgrade takes.
const Patience = 2 * time.Minute

// ErrGone says that the engine has not returned in time.
var ErrGone = errors.New("it has not returned")

// pace is the longest time between two questions whether the engine is there, and the shortest between two connections
// of the same caller.
const pace = time.Second

// Engine is an engine that may go away and come back.
type Engine struct {
	API      *client.Client
	Patience time.Duration // how long it is waited for
	Say      func(text string)

	mu   sync.Mutex
	away *absence // nil while nobody misses it
}

// absence is what all share who miss the engine at the same time.
type absence struct {
	over chan struct{}
	err  error // why it is not waited for any more
}

// Broken says that a connection to the engine has broken, or that there is none: nothing that the engine has answered.
func Broken(err error) bool {
	if errors.As(err, new(*OutputError)) {
		return false
	}
	// What the kernel says of a file counts as an error of networks, too; a connection may be written to as one.
	var file *fs.PathError
	if errors.As(err, &file) && file.Op != "write" {
		return false
	}
	var network net.Error
	return err != nil && !errors.Is(err, context.Canceled) && (errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.As(err, &network) || connect.IsUnreachable(err))
}

// Back returns once the engine answers. joined is when the connection was made that has broken: one that does not last
// is not made again at once. The error is that of an engine that does not return, or the context's.
func (e *Engine) Back(ctx context.Context, joined time.Time) error {
	e.mu.Lock()
	a := e.away
	if a != nil {
		e.mu.Unlock()
		select {
		case <-a.over:
			return a.err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	a = &absence{over: make(chan struct{})}
	e.away = a
	e.mu.Unlock()
	a.err = e.await(ctx, max(0, pace-time.Since(joined)))
	e.mu.Lock()
	e.away = nil
	e.mu.Unlock()
	close(a.over)
	return a.err
}

// await asks again and again, as nothing tells of an engine that returns at the other end of a network.
func (e *Engine) await(ctx context.Context, pause time.Duration) error {
	bounded, cancel := context.WithTimeout(ctx, e.Patience)
	defer cancel()
	said := false
	for {
		select {
		case <-time.After(pause):
		case <-bounded.Done():
		}
		_, err := e.API.Ping(bounded, client.PingOptions{})
		switch {
		case err == nil && said:
			e.Say("The engine is back")
			return nil
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case bounded.Err() != nil:
			return fmt.Errorf("%w within %s", ErrGone, e.Patience)
		case !said:
			e.Say(fmt.Sprintf("The engine is away: what runs goes on. It is waited for, for up to %s (Ctrl+C ends this)", e.Patience))
			said = true
		}
		pause = min(max(2*pause, pace/20), pace)
	}
}
