// Package stats measures what containers use, in the records that Docker's clients know.
//
// It promises that as long as nobody asks nothing runs, that each container is read once a second however many clients
// follow it, and that a client which is slow gets the newest record instead of holding the others up.
package stats

import (
	"context"
	"sync"
	"time"

	api "github.com/moby/moby/api/types/container"

	"github.com/cleatlabs/cleat/internal/cgroup"
	"github.com/cleatlabs/cleat/internal/container"
	"github.com/cleatlabs/cleat/internal/supervise"
)

const (
	// interval is how often a stream brings a record.
	interval = time.Second
	// window is the time between the two samples of a request without a
	// stream: fifty ticks of each CPU, the unit of the host's CPU time.
	window = 500 * time.Millisecond
)

// Options are those of GET /containers/{id}/stats.
type Options struct {
	Stream  bool
	OneShot bool // without a stream: one sample, no earlier one to compare with
}

// Runs finds the run of a container.
type Runs interface {
	// Run returns the present run of c, nil if there is none.
	Run(c *container.Container) Run
}

// Run is one run of a container, as far as it can be measured.
type Run interface {
	Group() (*cgroup.Group, error)
	// Links is the table of its network namespace's links, as /proc/PID/net/dev has it; nil if those are the host's.
	Links() ([]byte, error)
	// Ended is closed when its end is known.
	Ended() <-chan struct{}
}

// Meter measures what containers use. As long as anyone follows a container, one
// goroutine samples all those that are followed, each once; otherwise nothing runs.
type Meter struct {
	containers *container.Store
	runs       Runs
	cgroupV2   bool
	tasks      *supervise.Group

	mu         sync.Mutex
	gauges     map[string]*gauge // by container id: those that are followed
	collecting bool
}

// gauge is a container that is followed.
type gauge struct {
	c *container.Container
	// Guarded by the Meter's mu.
	last      *api.StatsResponse
	taken     time.Time // last was; not its Read, which goes by the host's clock and back when that is set back
	followers map[*follower]struct{}
}

// follower is one client's stream. Its channel holds the newest record that it has
// not taken yet, and is closed when the container was removed.
type follower struct {
	records chan *api.StatsResponse
}

// NewMeter makes a meter whose collector is one of the tasks. cgroupV2 says whether the host's control groups are those of
// version 2, whose records differ.
func NewMeter(containers *container.Store, runs Runs, cgroupV2 bool, tasks *supervise.Group) *Meter {
	return &Meter{containers: containers, runs: runs, cgroupV2: cgroupV2, tasks: tasks, gauges: map[string]*gauge{}}
}

// Stats calls emit with each record: without a stream once, else about every
// second until the client leaves, the container is removed or emit fails. A
// container that does not run gives records that hold its names only.
func (m *Meter) Stats(ctx context.Context, name string, opts Options, emit func(*api.StatsResponse) error) error {
	c, err := m.containers.Find(name)
	if err != nil {
		return err
	}
	if !opts.Stream {
		return emit(m.once(ctx, c, opts.OneShot))
	}
	first := m.sample(c, readHostCPU())
	if err := emit(first); err != nil {
		return err
	}
	f := m.follow(c, first)
	defer m.unfollow(c, f)
	for {
		select {
		case record, open := <-f.records:
			if !open {
				return nil
			}
			if err := emit(record); err != nil {
				return err
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// once takes one sample, or two with some time between them.
func (m *Meter) once(ctx context.Context, c *container.Container, oneShot bool) *api.StatsResponse {
	first := m.sample(c, readHostCPU())
	r := m.runs.Run(c)
	if oneShot || first.Read.IsZero() || r == nil {
		return first
	}
	timer := time.NewTimer(window)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-r.Ended():
	case <-ctx.Done():
		return first
	}
	return after(first, m.sample(c, readHostCPU()))
}

// follow registers a stream whose first record is out, and starts the collector
// if it is the first of all.
func (m *Meter) follow(c *container.Container, first *api.StatsResponse) *follower {
	f := &follower{records: make(chan *api.StatsResponse, 1)}
	m.mu.Lock()
	defer m.mu.Unlock()
	g := m.gauges[c.ID()]
	if g == nil {
		g = &gauge{c: c, last: first, taken: time.Now(), followers: map[*follower]struct{}{}}
		m.gauges[c.ID()] = g
	}
	g.followers[f] = struct{}{}
	if !m.collecting {
		m.collecting = m.tasks.Go("stats", m.collect)
	}
	return f
}

func (m *Meter) unfollow(c *container.Container, f *follower) {
	m.mu.Lock()
	defer m.mu.Unlock()
	g := m.gauges[c.ID()]
	if g == nil {
		return
	}
	delete(g.followers, f)
	if len(g.followers) == 0 {
		delete(m.gauges, c.ID())
	}
}

// collect samples until nobody follows any container.
func (m *Meter) collect(ctx context.Context) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		gauges := m.due()
		if gauges == nil {
			return
		}
		host := readHostCPU()
		for _, g := range gauges {
			m.publish(g, m.sample(g.c, host))
		}
	}
}

// due lists the gauges to be read, nil if there are none at all. The collector
// that gets nil has ended: the next follower starts another.
func (m *Meter) due() []*gauge {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.gauges) == 0 {
		m.collecting = false
		return nil
	}
	out := make([]*gauge, 0, len(m.gauges))
	for _, g := range m.gauges {
		// A stream that has just begun waits for the next tick: between two
		// samples close to each other there is not much to be seen.
		if g.last.Read.IsZero() || time.Since(g.taken) > interval/2 {
			out = append(out, g)
		}
	}
	return out
}

// publish gives a sample to those who follow.
func (m *Meter) publish(g *gauge, record *api.StatsResponse) {
	gone := g.c.Gone()
	m.mu.Lock()
	defer m.mu.Unlock()
	record = after(g.last, record)
	g.last, g.taken = record, time.Now()
	for f := range g.followers {
		if gone {
			delete(g.followers, f)
			close(f.records)
			continue
		}
		select {
		case <-f.records: // it is slow: the newest counts
		default:
		}
		f.records <- record
	}
	if gone && m.gauges[g.c.ID()] == g {
		delete(m.gauges, g.c.ID())
	}
}

// after completes a sample by the CPU times of the one before. Both are shared
// and not changed.
func after(before, record *api.StatsResponse) *api.StatsResponse {
	if record.Read.IsZero() || before.Read.IsZero() {
		return record
	}
	out := *record
	out.PreRead, out.PreCPUStats = before.Read, before.CPUStats
	return &out
}
