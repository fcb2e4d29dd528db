package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/moby/moby/client"
	mobysignal "github.com/moby/sys/signal"
)

// Every signal that the Go runtime is asked to deliver, or no longer to deliver, costs
// two switches between threads, and all of them together as much as a container. So
// the ones in use are asked for first, the rest once the container has turned out to
// live longer than a moment, and none is given back: the process is about to end.

// lateSignals is how long a container has to live before the signals come that hardly
// anybody sends. It is far below the time in which one can learn of its start.
const lateSignals = 50 * time.Millisecond

// cancelOnSignals returns a context that ends with the first SIGINT or SIGTERM, and
// a function that says which it was. The third ends the process, after restore.
func cancelOnSignals(restore func()) (context.Context, func() syscall.Signal, func()) {
	ctx, cancel := context.WithCancelCause(context.Background())
	ch := make(chan os.Signal, 3)
	signal.Notify(ch, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		for n := 1; ; n++ {
			sig := <-ch
			cancel(signalled{sig.(syscall.Signal)})
			if n == 3 {
				restore()
				_, _ = fmt.Fprint(os.Stderr, "\ngot 3 SIGTERM/SIGINTs, forcefully exiting\n")
				os.Exit(1)
			}
		}
	}()
	interrupted := func() syscall.Signal {
		var s signalled
		if errors.As(context.Cause(ctx), &s) {
			return s.sig
		}
		return 0
	}
	return ctx, interrupted, func() { cancel(nil) }
}

type signalled struct{ sig syscall.Signal }

func (s signalled) Error() string { return "signalled: " + s.sig.String() }

// forwardSignals passes every signal on to the container, but those that are about
// this process (SIGCHLD, SIGPIPE, SIGTTIN, SIGTTOU and the Go runtime's SIGURG) and
// SIGWINCH, which is told by resizing its terminal. It returns what ends it.
func (a *app) forwardSignals(ctx context.Context, id string) (stop func()) {
	ch, done := make(chan os.Signal, 128), make(chan struct{})
	signal.Notify(ch, syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGUSR2)
	late := time.AfterFunc(lateSignals, func() { signal.Notify(ch, rareSignals()...) })
	go func() {
		for {
			select {
			case sig := <-ch:
				if name := signalName(sig); name != "" {
					// It may have exited just now: then there is no one to tell.
					_, _ = a.conn.ContainerKill(ctx, id, client.ContainerKillOptions{Signal: name})
				}
			case <-done:
				return
			}
		}
	}()
	return func() { late.Stop(); close(done) }
}

// rareSignals are those to forward that forwardSignals has not asked for at once.
func rareSignals() []os.Signal {
	var list []os.Signal
	for _, sig := range mobysignal.SignalMap {
		switch sig {
		case syscall.SIGCHLD, syscall.SIGPIPE, syscall.SIGURG, syscall.SIGWINCH, syscall.SIGTTIN, syscall.SIGTTOU, syscall.SIGKILL, syscall.SIGSTOP:
		default:
			list = append(list, sig)
		}
	}
	return list
}

func signalName(sig os.Signal) string {
	for name, n := range mobysignal.SignalMap {
		if n == sig {
			return name
		}
	}
	return ""
}
