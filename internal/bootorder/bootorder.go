// Package bootorder gives the containers that start with the engine their turns: after a reboot those of a Compose
// project start in the order that its file asks for, as its labels tell.
//
// It promises that nobody waits for ever, nor in a circle: a policy that says that a container runs is worth more than
// the order.
package bootorder

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"

	api "github.com/moby/moby/api/types/container"

	"github.com/cleatlabs/cleat/internal/container"
	"github.com/cleatlabs/cleat/internal/events"
)

// The labels by which Compose says what a container belongs to and what it needs.
const (
	composeProject   = "com.docker.compose.project"
	composeService   = "com.docker.compose.service"
	composeOneOff    = "com.docker.compose.oneoff"
	composeDependsOn = "com.docker.compose.depends_on"
)

// patience bounds how long a container that starts with the engine waits for what it
// depends on.
const patience = 2 * time.Minute

// Queue holds the containers that start with the engine: each comes after what it depends on
// has started, is healthy or has done its work. Who joins another's namespaces, or is linked to
// it, comes after that one. Whatever else waits for nothing. Its methods may be called concurrently.
type Queue struct {
	bus      *events.Bus
	log      *slog.Logger
	before   func(*api.HostConfig) []string
	patience time.Duration

	mu    sync.Mutex
	turns map[string]*turn // by container, until it has had its turn
}

// New makes an empty queue. bus tells it how containers do; before are the ids of those without
// which a container cannot be started.
func New(bus *events.Bus, log *slog.Logger, before func(*api.HostConfig) []string) *Queue {
	return &Queue{bus: bus, log: log, before: before, patience: patience}
}

// turn is one container's.
type turn struct {
	after []need
	taken bool          // it is being started
	had   chan struct{} // closed when the start has been tried, or given up
}

// need is something that a container's start waits for.
type need struct {
	on        *container.Container
	condition string
	turn      *turn // nil if it does not start with the engine
}

// Plan gives turns to the containers that are about to start. all are those there are. What
// labels make a circle of is started in any order.
func (q *Queue) Plan(all, starting []*container.Container) {
	byID := make(map[string]*container.Container, len(all))
	services := map[[2]string][]*container.Container{}
	for _, c := range all {
		byID[c.ID()] = c
		if l := c.Load().Config.Labels; l[composeProject] != "" && l[composeOneOff] != "True" {
			key := [2]string{l[composeProject], l[composeService]}
			services[key] = append(services[key], c)
		}
	}
	needs := func(c *container.Container) []need {
		r := c.Load()
		var found []need
		for _, id := range q.before(r.HostConfig) {
			if d := byID[id]; d != nil {
				found = append(found, need{on: d})
			}
		}
		for service, condition := range composeNeeds(r.Config.Labels[composeDependsOn]) {
			for _, d := range services[[2]string{r.Config.Labels[composeProject], service}] {
				found = append(found, need{on: d, condition: condition})
			}
		}
		return found
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.turns = order(starting, needs)
}

// order makes turns that wait for no circle.
func order(starting []*container.Container, needs func(*container.Container) []need) map[string]*turn {
	turns := make(map[string]*turn, len(starting))
	waiting := make(map[string]bool, len(starting)) // to be ordered, or being so
	for _, c := range starting {
		waiting[c.ID()] = true
	}
	visiting := map[string]bool{}
	var add func(c *container.Container)
	add = func(c *container.Container) {
		if turns[c.ID()] != nil || visiting[c.ID()] {
			return
		}
		visiting[c.ID()] = true
		t := &turn{had: make(chan struct{})}
		for _, n := range needs(c) {
			if n.on == c {
				continue
			}
			if waiting[n.on.ID()] {
				add(n.on)
				if n.turn = turns[n.on.ID()]; n.turn == nil {
					continue // it waits for this one
				}
			}
			t.after = append(t.after, n)
		}
		turns[c.ID()] = t
	}
	for _, c := range starting {
		add(c)
	}
	return turns
}

// composeNeeds reads the label "db:service_healthy:false,…": services and their conditions.
// What cannot be read is left out.
func composeNeeds(label string) map[string]string {
	found := map[string]string{}
	for part := range strings.SplitSeq(label, ",") {
		service, rest, _ := strings.Cut(part, ":")
		condition, _, _ := strings.Cut(rest, ":")
		if service != "" {
			found[service] = condition
		}
	}
	return found
}

// Await waits for a container's turn: at most patience, and not at all for one that has
// had it. It returns at once when ctx ends.
func (q *Queue) Await(ctx context.Context, c *container.Container) {
	q.mu.Lock()
	t := q.turns[c.ID()]
	q.mu.Unlock()
	if t == nil {
		return
	}
	limit, cancel := context.WithTimeout(ctx, q.patience)
	defer cancel()
	for _, n := range t.after {
		if n.turn != nil {
			select {
			case <-n.turn.had:
			case <-limit.Done():
			}
		}
		if !q.ready(limit, n) && ctx.Err() == nil {
			q.log.Warn("a container is started though what it depends on is not as it should be", "container", c.ID(), "depends on", n.on.ID(), "condition", n.condition)
		}
	}
}

// Take is called by whoever is to start a container whose turn has come; false is that it has left the queue.
func (q *Queue) Take(c *container.Container) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	t := q.turns[c.ID()]
	if t != nil {
		t.taken = true
	}
	return t != nil
}

// Leave takes a container that waits for its turn out of the queue: nobody starts it any more. It reports false for one
// that does not wait.
func (q *Queue) Leave(c *container.Container) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	t := q.turns[c.ID()]
	if t == nil || t.taken {
		return false
	}
	delete(q.turns, c.ID())
	close(t.had)
	return true
}

// Had notes that a container's start has been tried, or will not be.
func (q *Queue) Had(c *container.Container) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if t := q.turns[c.ID()]; t != nil {
		delete(q.turns, c.ID())
		close(t.had)
	}
}

// ready waits until a container is as it is needed, and reports false once it cannot become
// so, or ctx has ended.
func (q *Queue) ready(ctx context.Context, n need) bool {
	if ok, final := met(&n.on.Load().State, n.condition); final {
		return ok
	}
	_, news, cancel := q.bus.Subscribe(time.Time{}, time.Time{}, func(m events.Message) bool { return m.Actor.ID == n.on.ID() })
	defer cancel()
	for {
		if ok, final := met(&n.on.Load().State, n.condition); final || n.on.Gone() {
			return ok
		}
		select {
		case _, open := <-news:
			if !open {
				return false
			}
		case <-ctx.Done():
			return false
		}
	}
}

// met says whether a state is what a condition of Compose asks for, and whether that is final.
func met(s *container.State, condition string) (ok, final bool) {
	switch condition {
	case "service_healthy":
		switch {
		case !s.Running():
			return false, true
		case s.Health == nil || s.Health.Status == api.NoHealthcheck:
			return true, true // there is none to wait for
		case s.Health.Status == api.Starting:
			return false, false
		}
		return s.Health.Status == api.Healthy, true
	case "service_completed_successfully":
		return !s.Running() && s.ExitCode == 0, !s.Running()
	}
	return s.Running(), s.Status != api.StateRestarting
}
