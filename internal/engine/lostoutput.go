package engine

import (
	"log/slog"
	"sync"
	"time"

	"github.com/cleatlabs/cleat/internal/container"
	"github.com/cleatlabs/cleat/internal/stdio"
)

// lostOutput tells the engine's log of output that could not be logged, on a full disk above all. The container goes on,
// and the log with what comes when there is space again. A container that writes without end must not fill the engine's
// log with that, which mostly is on the same disk: it is told at once, and then of what has come together.
type lostOutput struct {
	log *slog.Logger
	id  string

	mu      sync.Mutex
	missing map[stdio.Stream]int // bytes that nobody was told of yet
	last    error
	told    bool // within the last lostPause: a timer runs
}

// lostPause is how long at least lies between two messages about one run of a container.
const lostPause = 10 * time.Second

// outputLost reports what could not be logged.
func (s *Starter) outputLost(c *container.Container) func(stdio.Stream, int, error) {
	l := &lostOutput{log: s.log, id: c.ID(), missing: map[stdio.Stream]int{}}
	return l.report
}

func (l *lostOutput) report(st stdio.Stream, dropped int, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.missing[st] += dropped
	l.last = err
	if !l.told {
		l.tell()
	}
}

// tell says what is missing, if something is. The caller holds l.mu.
func (l *lostOutput) tell() {
	l.told = len(l.missing) > 0
	for st, n := range l.missing {
		l.log.Error("output of a container is missing in its log", "container", l.id, "stream", st, "bytes", n, "error", l.last)
	}
	clear(l.missing)
	if l.told {
		time.AfterFunc(lostPause, func() {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.tell()
		})
	}
}
