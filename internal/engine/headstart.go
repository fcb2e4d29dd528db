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

// headStarts makes the control groups of containers while these are created: the
// create waits for the disk, the processors have nothing to do, and most creates are
// followed by a start at once, which then finds done what takes the longest of its
// preparations. What no start has come for in headStartPatience is taken down. Its
// methods may be called concurrently.
//
// A group that is ready holds no process. When the engine dies it is left over, as
// that of a start which was cut short is, and the next engine sweeps it.
type headStarts struct {
	runtime *runtime.Runtime
	specs   *specBuilder
	tasks   *supervise.Group
	log     *slog.Logger

	mu      sync.Mutex
	begun   map[string]*headStart
	expires bool // a goroutine looks after begun
}

// A headStart is what is being made for one container.
type headStart struct {
	resources cgroup.Resources
	group     *runtime.GroupInMaking
	since     time.Time
	dropped   bool
	gone      chan struct{} // closed when it is taken down
}

const (
	// headStartPatience is longer than a client takes that starts what it creates.
	headStartPatience = time.Second
	// mostHeadStarts bounds what is held: each is some twenty descriptors.
	mostHeadStarts = 64
)

func newHeadStarts(d *Deps, specs *specBuilder) *headStarts {
	return &headStarts{runtime: d.Runtime, specs: specs, tasks: d.Tasks, log: d.Log, begun: map[string]*headStart{}}
}

// begin is for a container whose record is about to be written. Of a group that lies
// elsewhere than in the engine's own parent the record must be there first, as no
// later engine finds it without; and what devices' vendors ask for is known at the
// start only.
func (h *headStarts) begin(def *container.Definition) {
	path := h.specs.cgroupPath(&container.Record{Definition: *def})
	if len(def.HostConfig.DeviceRequests) > 0 || !h.specs.ownsParent(path) {
		return
	}
	resources, err := cgroupResources(def.HostConfig)
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
	if group := h.runtime.PrepareGroup(path, resources, def.HostConfig.Privileged); group != nil {
		h.begun[def.ID] = &headStart{resources: resources, group: group, since: time.Now(), gone: make(chan struct{})}
	}
}

// take hands the group over to a start that wants it with these resources; nil is
// none at hand, nor one that is being taken down.
func (h *headStarts) take(id string, resources cgroup.Resources) *runtime.GroupInMaking {
	h.mu.Lock()
	x := h.begun[id]
	if x != nil && !x.dropped && reflect.DeepEqual(x.resources, resources) {
		delete(h.begun, id)
		h.mu.Unlock()
		return x.group
	}
	h.mu.Unlock()
	h.drop(id) // updated since, or late
	return nil
}

// drop takes down what was made for a container that is not to be started. It
// returns when that is gone, be it another's drop.
func (h *headStarts) drop(id string) {
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
	if err := x.group.Discard(); err != nil {
		h.log.Warn("control group of a container that was not started", "container", id, "error", err)
	}
	h.mu.Lock()
	delete(h.begun, id)
	h.mu.Unlock()
	close(x.gone)
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
	for id, x := range h.begun {
		if all || time.Since(x.since) >= headStartPatience {
			ids = append(ids, id)
		}
	}
	h.expires = len(h.begun) > 0
	return ids, h.expires
}
