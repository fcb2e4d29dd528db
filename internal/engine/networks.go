package engine

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/containerd/errdefs"
	apievents "github.com/moby/moby/api/types/events"
	apinetwork "github.com/moby/moby/api/types/network"
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/container"
	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/kernel"
	"github.com/cleatlabs/cleat/internal/network"
	"github.com/cleatlabs/cleat/internal/record"
)

// Networks is the network service with its events, and with what it does to
// containers.
type Networks struct {
	service    *network.Service
	containers *container.Store
	say        *announcer
}

// List returns the networks that filters select, sorted by name; never nil.
func (n *Networks) List(ctx context.Context, filters map[string][]string) ([]apinetwork.Summary, error) {
	return n.service.List(ctx, filters)
}

// Inspect returns one network, found by full id, name or unique id prefix.
func (n *Networks) Inspect(ctx context.Context, nameOrID string) (apinetwork.Inspect, error) {
	return n.service.Inspect(ctx, nameOrID)
}

// Create makes a network, as network.Service.Create says, and tells of it.
func (n *Networks) Create(ctx context.Context, req apinetwork.CreateRequest) (id string, warnings []string, err error) {
	rec, warnings, err := n.service.Create(ctx, req)
	if err != nil {
		return "", nil, err
	}
	n.announce(rec, apievents.ActionCreate)
	return rec.ID, warnings, nil
}

// Remove removes a network by its name, id or the start of its id; ErrPermissionDenied for the predefined ones and for
// one that a running container is on.
func (n *Networks) Remove(ctx context.Context, nameOrID string) error {
	rec, err := n.service.Remove(ctx, nameOrID)
	if err == nil {
		n.announce(rec, apievents.ActionDestroy)
	}
	return err
}

func (n *Networks) announce(rec *network.Record, action apievents.Action) {
	n.say.publish(apievents.NetworkEventType, action, rec.ID, map[string]string{"name": rec.Name, "type": rec.Driver})
}

// Prune removes the networks that no container refers to, running or not, and returns
// their names; configurations that networks are made from stay. filters are Docker's: label, label! and until.
func (n *Networks) Prune(ctx context.Context, filters map[string][]string) ([]string, error) {
	chosen, err := newPruneChoice(filters)
	if err != nil {
		return nil, err
	}
	used := map[string]bool{}
	for _, c := range n.containers.All() {
		for name, e := range c.Load().Networks() {
			used[name] = true
			if e != nil && e.NetworkID != "" {
				used[e.NetworkID] = true
			}
		}
	}
	removed := []string{}
	for _, rec := range n.service.Records() {
		if rec.ConfigOnly || used[rec.Name] || used[rec.ID] || !chosen.match(rec.Created, rec.Labels) {
			continue
		}
		switch err := n.Remove(ctx, rec.ID); {
		case err == nil:
			removed = append(removed, rec.Name)
		case errdefs.IsPermissionDenied(err), errdefs.IsNotFound(err):
			// Predefined, taken into use just now, or removed by somebody else.
		default:
			return removed, err
		}
		if ctx.Err() != nil {
			return removed, ctx.Err()
		}
	}
	slices.Sort(removed)
	n.say.publish(apievents.NetworkEventType, apievents.ActionPrune, "", map[string]string{"reclaimed": "0"})
	return removed, nil
}

// Connect adds a network to a container. A container that does not run is connected
// when it starts.
func (n *Networks) Connect(ctx context.Context, nameOrID, containerName string, asked *apinetwork.EndpointSettings) error {
	c, unlock, err := n.containers.Hold(ctx, containerName)
	if err != nil {
		return err
	}
	defer unlock()
	r := c.Load()
	if err := connectable(r); err != nil {
		return err
	}
	if _, err := n.service.Find(nameOrID); err != nil && r.State.Alive() {
		return err
	}
	name, e, err := checkEndpoint(nameOrID, asked, n.service.Find)
	if err != nil {
		return err
	}
	switch name {
	case network.ModeHost:
		return errConnectHost
	case network.ModeNone:
		return errConnectNone
	}
	_, has := r.Networks()[name]
	if !r.State.Alive() {
		if has && asked == nil {
			return nil
		}
		return n.note(c, func(st *container.State, networks map[string]*apinetwork.EndpointSettings) { networks[name] = e })
	}
	if has && r.State.Sandbox.On(e.NetworkID) != nil {
		return failure.Forbidden("endpoint with name %s already exists in network %s", r.Name, name)
	}
	return n.connectRunning(ctx, c, name, e)
}

// What cannot be had beside other networks; programs match on dockerd's words.
var (
	errConnectHost = failure.Invalid("cannot connect container to host network - container must be created in host network mode")
	errLeaveHost   = failure.Invalid("cannot disconnect container from host network - container was created in host network mode")
	errConnectNone = failure.Invalid("container cannot be connected to multiple networks with one of the networks in private (none) mode")
	errShared      = failure.Invalid("container sharing network namespace with another container or host cannot be connected to any other network")
)

// connectable says why a container's networks cannot be changed.
func connectable(r *container.Record) error {
	if err := r.Whole(); err != nil {
		return err
	}
	switch mode := r.HostConfig.NetworkMode; {
	case mode.IsContainer(), mode.IsHost():
		return errShared
	case mode.IsNone():
		return errConnectNone
	}
	return nil
}

// note writes a changed set of networks down, and what else change does, in one.
func (n *Networks) note(c *container.Container, change func(*container.State, map[string]*apinetwork.EndpointSettings)) error {
	next := maps.Clone(c.Load().Networks())
	if next == nil {
		next = map[string]*apinetwork.EndpointSettings{}
	}
	err := c.SetState(func(st *container.State) {
		change(st, next)
		st.Endpoints = next
	})
	n.service.Expect(c.ID(), endpointRequests(c.Load().HostConfig.NetworkMode, c.Load().Networks()))
	return err
}

func (n *Networks) connectRunning(ctx context.Context, c *container.Container, name string, e *apinetwork.EndpointSettings) error {
	// Once begun, it goes on to its end, whether the client waits or not.
	ctx = context.WithoutCancel(ctx)
	r := c.Load()
	ns, err := openNetNS(r)
	if err != nil {
		return err
	}
	defer unix.Close(ns)
	now, err := n.service.Connect(ctx, networkRequest(c, r), endpointRequest(name, e), ns, func(sb *network.Sandbox) error {
		defer record.Failpoint("engine.connect.after-state")
		return n.note(c, func(st *container.State, networks map[string]*apinetwork.EndpointSettings) {
			if networks[name] = e; sb.On(e.NetworkID) == nil {
				delete(networks, name) // taken back
			}
			if st.Sandbox != nil {
				st.Sandbox = sb
			}
		})
	})
	if err != nil {
		return err
	}
	n.say.network(apievents.ActionConnect, now, c.ID())
	return nil
}

// Disconnect takes a network from a container, running or not. force takes what the container knows of a network away
// though there is no such network.
func (n *Networks) Disconnect(ctx context.Context, nameOrID, containerName string, force bool) error {
	rec, err := n.service.Find(nameOrID)
	if err != nil && !force {
		return err
	}
	name := nameOrID
	if rec != nil {
		name = rec.Name
	}
	c, unlock, err := n.containers.Hold(ctx, containerName)
	if err != nil {
		return err
	}
	defer unlock()
	r := c.Load()
	if err := r.Whole(); err != nil {
		return err
	}
	if r.HostConfig.NetworkMode.IsHost() && name == network.ModeHost {
		return errLeaveHost
	}
	e, has := r.Networks()[name]
	if !has {
		return failure.New(errdefs.ErrUnknown, "container %s is not connected to network %s", r.ID, name)
	}
	var now *network.Endpoint
	if r.State.Sandbox != nil && e != nil {
		id := e.NetworkID
		if rec != nil {
			id = rec.ID
		}
		now = r.State.Sandbox.On(id)
	}
	if !r.State.Alive() || now == nil {
		return n.note(c, func(_ *container.State, networks map[string]*apinetwork.EndpointSettings) { delete(networks, name) })
	}
	return n.disconnectRunning(ctx, c, name, now)
}

func (n *Networks) disconnectRunning(ctx context.Context, c *container.Container, name string, now *network.Endpoint) error {
	ctx = context.WithoutCancel(ctx)
	r := c.Load()
	ns, err := openNetNS(r)
	if err != nil {
		return err
	}
	defer unix.Close(ns)
	gone, err := n.service.Disconnect(ctx, networkRequest(c, r), now.NetworkID, ns, func(sb *network.Sandbox) error {
		defer record.Failpoint("engine.disconnect.after-state")
		return n.note(c, func(st *container.State, networks map[string]*apinetwork.EndpointSettings) {
			delete(networks, name)
			if st.Sandbox != nil {
				st.Sandbox = sb
			}
		})
	})
	if gone != nil {
		n.say.network(apievents.ActionDisconnect, gone, c.ID())
	}
	return err
}

// openNetNS opens the network namespace of a running container.
func openNetNS(r *container.Record) (int, error) {
	k := r.State.Keeper
	if !r.State.Alive() || k == nil {
		return -1, failure.Conflict("container %s is not running", r.Name)
	}
	fd, err := unix.Open(fmt.Sprintf("/proc/%d/ns/net", k.PID), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, failure.Conflict("container %s is not running", r.Name)
	}
	// Only now is it sure that the number has not become another process's.
	if start, err := kernel.StartTime(k.PID); err != nil || start != k.PIDStart {
		unix.Close(fd)
		return -1, failure.Conflict("container %s is not running", r.Name)
	}
	return fd, nil
}
