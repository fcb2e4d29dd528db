package engine

import (
	"context"
	"fmt"
	"slices"

	"github.com/containerd/errdefs"
	api "github.com/moby/moby/api/types/container"

	"github.com/cleatlabs/cleat/internal/container"
	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/runtime"
)

const containerMode = "container:"

// ownPIDs says whether the end of a container's first process is the end of all
// of them, as it is in a PID namespace of its own.
func ownPIDs(h *api.HostConfig) bool { return !h.PidMode.IsHost() && !h.PidMode.IsContainer() }

// nameJoined replaces the names of the containers whose namespaces are to be
// joined by their ids, which no rename changes.
func nameJoined(containers *container.Store, h *api.HostConfig) error {
	find := func(ref string) (string, error) {
		c, err := containers.Find(ref)
		if err != nil {
			return "", notTheImage(err)
		}
		return containerMode + c.ID(), nil
	}
	if h.PidMode.IsContainer() {
		mode, err := find(h.PidMode.Container())
		if err != nil {
			return fmt.Errorf("cannot join the PID namespace of another container: %w", err)
		}
		h.PidMode = api.PidMode(mode)
	}
	if h.IpcMode.IsContainer() {
		mode, err := find(h.IpcMode.Container())
		if err != nil {
			return fmt.Errorf("cannot join the IPC namespace of another container: %w", err)
		}
		h.IpcMode = api.IpcMode(mode)
	}
	return nil
}

// join gives the spec the processes whose namespaces the container is to be in.
// They must run: a namespace ends with its container.
func (s *Starter) join(spec *runtime.Spec, h *api.HostConfig) error {
	if h.PidMode.IsContainer() {
		_, r, err := s.donor("PID", h.PidMode.Container())
		if err != nil {
			return err
		}
		spec.JoinPID = r.process
	}
	if !h.IpcMode.IsContainer() {
		return nil
	}
	c, r, err := s.donor("IPC", h.IpcMode.Container())
	if err != nil {
		return err
	}
	switch mode := c.Load().HostConfig.IpcMode; {
	case mode.IsHost():
		spec.HostIPC = true
	case mode.IsShareable(), mode.IsContainer():
		spec.JoinIPC = r.process
	default:
		return failure.Invalid("cannot join the IPC namespace of container %s: non-shareable IPC (hint: use IpcMode:shareable for the donor container)", c.ID())
	}
	return nil
}

// donor finds a running container to join a namespace of.
func (s *Starter) donor(kind, ref string) (*container.Container, *run, error) {
	c, err := s.containers.Find(ref)
	if err != nil {
		return nil, nil, failure.Wrap(errdefs.ErrInvalidArgument, fmt.Errorf("cannot join the %s namespace of another container: %w", kind, err))
	}
	if c.Load().State.Status == api.StateRestarting {
		return nil, nil, failure.Conflict("cannot join the %s namespace: container %s is restarting, wait until the container is running", kind, c.ID())
	}
	r := s.lives.of(c).live()
	if r == nil || isClosed(r.process.Done()) {
		return nil, nil, failure.Conflict("cannot join the %s namespace: container %s is not running", kind, c.ID())
	}
	return c, r, nil
}

// awaitDonors waits until the containers whose namespaces c joins run, as far as
// they are about to be started again: with their end c has ended, too.
func (s *Starter) awaitDonors(ctx context.Context, c *container.Container) {
	for _, ref := range donors(c.Load().HostConfig) {
		d, err := s.containers.Find(ref)
		if err != nil {
			continue
		}
		r := s.lives.of(d).live()
		ending := r != nil && isClosed(r.process.Done()) && !r.wasStoppedByHand() && !d.Load().HostConfig.RestartPolicy.IsNone()
		if ending || d.Load().State.Status == api.StateRestarting {
			s.lives.of(d).awaitRun(ctx)
		}
	}
}

// donors names the containers whose namespaces are joined.
func donors(h *api.HostConfig) []string {
	var out []string
	for _, ref := range []string{h.PidMode.Container(), h.IpcMode.Container(), h.NetworkMode.ConnectedContainer()} {
		if ref != "" {
			out = append(out, ref)
		}
	}
	return out
}

// endOthers kills what is left of a container whose first process has ended, where
// the kernel does not.
func (x *exiter) endOthers(rec *container.Record) {
	if ownPIDs(rec.HostConfig) {
		return
	}
	group, err := x.runtime.Group(x.specs.cgroupPath(rec))
	if err == nil {
		err = group.Kill()
	}
	if ignoreNotFound(err) != nil {
		x.log.Warn("processes of an exited container", "container", rec.ID, "error", err)
	}
}

// afterDonors puts containers behind those whose namespaces they join, so that
// they can be started in this order.
func afterDonors(all []*container.Container) []*container.Container {
	byID := map[string]*container.Container{}
	for _, c := range all {
		byID[c.ID()] = c
	}
	out := make([]*container.Container, 0, len(all))
	added := map[*container.Container]bool{}
	var add func(c *container.Container, path []*container.Container)
	add = func(c *container.Container, path []*container.Container) {
		if c == nil || added[c] || slices.Contains(path, c) {
			return
		}
		for _, donor := range donors(c.Load().HostConfig) {
			add(byID[donor], append(path, c))
		}
		out, added[c] = append(out, c), true
	}
	for _, c := range all {
		add(c, nil)
	}
	return out
}
