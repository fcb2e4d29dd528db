package engine

import (
	"context"
	"log/slog"
	"reflect"
	"sync"
	"time"

	"github.com/cleatlabs/cleat/internal/cgroup"
	"github.com/cleatlabs/cleat/internal/container"
	"github.com/cleatlabs/cleat/internal/runtime"
	"github.com/cleatlabs/cleat/internal/supervise"
)

// headStarts begins the starts of containers while these are created: the create waits
// for the disk, the processors have nothing to do, and most creates are followed by a
// start at once, which then finds done what takes the longest of its preparations. What
// no start has come for in headStartPatience is taken down. Its methods may be called
// concurrently.
//
// Always it is the control group. Where nothing can change until the start (see
// readiable), it is also the mount of the root filesystem and the launch program.
//
// A group that is ready holds no process. When the engine dies it is left over, as
// that of a start which was cut short is, and the next engine sweeps it. The rest
// consists of descriptors.
type headStarts struct {
	runtime *runtime.Runtime
	specs   *specBuilder
	starter *Starter
	tasks   *supervise.Group
	log     *slog.Logger

	mu      sync.Mutex
	begun   map[string]*headStart
	latest  time.Time // when something was begun, or taken
	expires bool      // a goroutine looks after begun
}

// A headStart is what is being made for one container.
type headStart struct {
	resources cgroup.Resources
	since     time.Time
	dropped   bool
	gone      chan struct{} // closed when it is taken down

	// group is nil where attempt has it.
	group *runtime.GroupInMaking
	// attempt is nil where there is the group only. It is ready, or as far as it
	// could get, when readied is closed.
	attempt *attempt
	readied chan struct{}
}

const (
	// headStartPatience is longer than a client takes that starts what it creates. It counts from the last of them that
	// came: a client of many, as Compose, creates all before it starts the first.
	headStartPatience = time.Second
	// longestHeadStart is what others' coming can make of it.
	longestHeadStart = 10 * time.Second
	// mostHeadStarts bounds what is held: each is some forty descriptors.
	mostHeadStarts = 64
)

func newHeadStarts(d *Deps, specs *specBuilder) *headStarts {
	return &headStarts{runtime: d.Runtime, specs: specs, tasks: d.Tasks, log: d.Log, begun: map[string]*headStart{}}
}

// begin is for a container whose record is about to be written. Of a group that lies
// elsewhere than in the engine's own parent the record must be there first, as no
// later engine finds it without; and what devices' vendors ask for is known at the
// start only.
func (h *headStarts) begin(c *container.Container) {
	r := c.Load()
	path := h.specs.cgroupPath(r)
	if len(r.HostConfig.DeviceRequests) > 0 || !h.specs.ownsParent(path) {
		return
	}
	resources, err := cgroupResources(r.HostConfig)
	if err != nil {
		return // the start meets the same and reports it
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.expires {
		h.expires = h.tasks.Go("head starts", h.expire)
	}
	if len(h.begun) >= mostHeadStarts || !h.expires {
		return
	}
	group := h.runtime.PrepareGroup(path, resources, r.HostConfig.Privileged)
	if group == nil {
		return
	}
	x := &headStart{resources: resources, group: group, since: time.Now(), gone: make(chan struct{})}
	h.latest = x.since
	if readiable(r) {
		a := h.starter.attempt(c)
		x.group, a.group, x.attempt, x.readied = nil, group, a, make(chan struct{})
		if !h.tasks.Go("head start", func(ctx context.Context) {
			defer close(x.readied)
			a.makeReady(context.WithoutCancel(ctx), resources)
		}) {
			close(x.readied)
		}
	}
	h.begun[r.ID] = x
}

// take hands over what was begun to a start of r that wants it with these resources;
// nil is nothing at hand, nor what is being taken down.
func (h *headStarts) take(r *container.Record, resources cgroup.Resources) *headStart {
	h.mu.Lock()
	x := h.begun[r.ID]
	if x != nil && !x.dropped && reflect.DeepEqual(x.resources, resources) && (x.attempt == nil || x.attempt.r == r) {
		delete(h.begun, r.ID)
		h.latest = time.Now()
		h.mu.Unlock()
		return x
	}
	h.mu.Unlock()
	h.drop(r.ID) // updated since, or late
	return nil
}

// takeRoot hands over the mount of a container's root filesystem, which can be mounted
// once at a time, to somebody who wants to write there before the container is started;
// -1 is none. What else was begun is taken down.
func (h *headStarts) takeRoot(id string) int {
	h.mu.Lock()
	x := h.begun[id]
	if x != nil && !x.dropped {
		delete(h.begun, id)
	}
	h.mu.Unlock()
	if x == nil {
		return -1
	}
	if x.dropped {
		<-x.gone
		return -1
	}
	fd := -1
	if x.attempt != nil {
		<-x.readied
		fd, x.attempt.rootFD = x.attempt.rootFD, -1
	}
	h.discard(id, x)
	h.unmount(x)
	return fd
}

// drop takes down what was made for a container that is not to be started. It
// returns when that is gone, be it another's drop.
func (h *headStarts) drop(id string) { h.end(id, h.unmount) }

// forget is drop for a container that has been removed: what is mounted of its files
// hinders nobody, and goes when it likes (see run.rootFD).
func (h *headStarts) forget(id string) {
	h.end(id, func(x *headStart) {
		if !h.tasks.Go("unmount", func(context.Context) { h.unmount(x) }) {
			h.unmount(x)
		}
	})
}

func (h *headStarts) end(id string, unmount func(*headStart)) {
	h.mu.Lock()
	x := h.begun[id]
	if x == nil || x.dropped {
		h.mu.Unlock()
		if x != nil {
			<-x.gone
		}
		return
	}
	x.dropped = true
	h.mu.Unlock()
	h.discard(id, x)
	unmount(x)
	h.mu.Lock()
	delete(h.begun, id)
	h.mu.Unlock()
	close(x.gone)
}

func (h *headStarts) unmount(x *headStart) {
	if x.attempt != nil {
		x.attempt.closeFDs()
	}
}

// discard undoes what is in x, but for the mount of the root filesystem.
func (h *headStarts) discard(id string, x *headStart) {
	err := x.group.Discard()
	if a := x.attempt; a != nil {
		<-x.readied
		err = a.unready()
	}
	if err != nil {
		h.log.Warn("control group of a container that was not started", "container", id, "error", err)
	}
}

// expire goes on until nothing is left, which is soon when the engine ends.
func (h *headStarts) expire(ctx context.Context) {
	for {
		select {
		case <-time.After(headStartPatience):
		case <-ctx.Done():
		}
		late, more := h.late(ctx.Err() != nil)
		for _, id := range late {
			h.drop(id)
		}
		if !more {
			return
		}
	}
}

// late lists those that nobody has come for. When there are none at all the caller
// must end.
func (h *headStarts) late(all bool) (ids []string, more bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	stalled := time.Since(h.latest) >= headStartPatience
	for id, x := range h.begun {
		if all || stalled || time.Since(x.since) >= longestHeadStart {
			ids = append(ids, id)
		}
	}
	h.expires = len(h.begun) > 0
	return ids, h.expires
}
