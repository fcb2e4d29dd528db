package engine

import (
	"maps"
	"strconv"

	apievents "github.com/moby/moby/api/types/events"
	apivolume "github.com/moby/moby/api/types/volume"

	"github.com/cleatlabs/cleat/internal/container"
	"github.com/cleatlabs/cleat/internal/events"
	"github.com/cleatlabs/cleat/internal/network"
)

// announcer publishes events in Docker's words.
type announcer struct {
	bus *events.Bus
}

// container publishes an action of a container. extra are key, value pairs.
func (a *announcer) container(c *container.Container, action apievents.Action, extra ...string) {
	r := c.Load()
	attrs := make(map[string]string, len(r.Config.Labels)+2+len(extra)/2)
	maps.Copy(attrs, r.Config.Labels)
	attrs["image"] = r.Config.Image
	attrs["name"] = r.Name
	for i := 0; i+1 < len(extra); i += 2 {
		attrs[extra[i]] = extra[i+1]
	}
	a.publish(apievents.ContainerEventType, action, c.ID(), attrs)
}

// network publishes that a container was connected to or disconnected from a
// network.
func (a *announcer) network(action apievents.Action, e *network.Endpoint, containerID string) {
	a.publish(apievents.NetworkEventType, action, e.NetworkID, map[string]string{"container": containerID, "name": e.NetworkName, "type": e.Driver})
}

// networks publishes it of all networks of a container.
func (a *announcer) networks(action apievents.Action, sb *network.Sandbox) {
	if sb == nil {
		return
	}
	for _, e := range sb.Endpoints {
		a.network(action, e, sb.ContainerID)
	}
}

// volumes publishes the mount or unmount of each volume of a container.
func (a *announcer) volumes(r *container.Record, action apievents.Action) {
	for i := range r.Mounts {
		m := &r.Mounts[i]
		if m.Name == "" {
			continue
		}
		attrs := map[string]string{"driver": m.Driver, "container": r.ID}
		if action == apievents.ActionMount {
			attrs["destination"] = m.Destination
			attrs["read/write"] = strconv.FormatBool(!m.ReadOnly)
			attrs["propagation"] = string(m.Propagation)
		}
		a.publish(apievents.VolumeEventType, action, m.Name, attrs)
	}
}

func (a *announcer) volume(v *apivolume.Volume, action apievents.Action) {
	a.publish(apievents.VolumeEventType, action, v.Name, map[string]string{"driver": v.Driver})
}

func (a *announcer) publish(t apievents.Type, action apievents.Action, id string, attrs map[string]string) {
	a.bus.Publish(apievents.Message{Type: t, Action: action, Actor: apievents.Actor{ID: id, Attributes: attrs}})
}
