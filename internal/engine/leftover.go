package engine

import (
	"context"
	"sync"

	"golang.org/x/sync/errgroup"
)

// A leftover is what a run that is over has left, and nobody waits for: its control group, its keeper's directory, its
// journals. To take a control group down is some work in each hierarchy, with more behind it in the kernel, so it is
// done when the engine has a moment, or when the container is wanted again. The next engine takes away what this one
// has not come to. Its methods may be called concurrently.
type leftover struct {
	known chan struct{} // closed when the exit is dealt with: clean is what is still to be done

	mu    sync.Mutex // held over the work: who comes second needs it done
	clean func()     // nil is nothing
}

func newLeftover() *leftover { return &leftover{known: make(chan struct{})} }

func (l *leftover) isKnown() bool {
	select {
	case <-l.known:
		return true
	default:
		return false
	}
}

// tidy takes away what there is, and returns when it is gone, be it another's doing.
func (l *leftover) tidy() {
	<-l.known
	l.now()
}

func (l *leftover) now() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.clean != nil {
		l.clean()
		l.clean = nil
	}
}

// leftoverBatch bounds how many control groups and filesystems of ended containers the kernel keeps.
const leftoverBatch = 32

const unmountsAtOnce = 4

// tidyAll ends the mounts, too. To take an overlay down has the kernel write all of the filesystem below it that is not
// on the disk yet: they go together, so that the first writes it and the others find it written. Each waits for the disk
// and for the other processors: a few at a time share these waits.
func tidyAll(_ context.Context, runs []*run) {
	for _, r := range runs {
		r.left.tidy()
	}
	var g errgroup.Group
	g.SetLimit(unmountsAtOnce)
	for _, r := range runs {
		g.Go(func() error {
			r.unmount()
			return nil
		})
	}
	_ = g.Wait()
}

// tidy has nothing of a run that is over be left.
func (r *run) tidy() {
	r.left.tidy()
	r.unmount()
}
