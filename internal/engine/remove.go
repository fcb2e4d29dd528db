package engine

import (
	"context"
	"errors"
	"log/slog"
	"slices"

	"github.com/containerd/errdefs"
	api "github.com/moby/moby/api/types/container"
	apievents "github.com/moby/moby/api/types/events"
	apivolume "github.com/moby/moby/api/types/volume"

	"github.com/cleatlabs/cleat/internal/container"
	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/network"
	"github.com/cleatlabs/cleat/internal/record"
	"github.com/cleatlabs/cleat/internal/volume"
)

// Remover removes containers.
type Remover struct {
	containers *container.Store
	volumes    *volume.Service
	networks   *network.Service
	lives      *lives
	say        *announcer
	log        *slog.Logger
	stopper    *Stopper
	sweeper    *sweeper
	writers    *writers
	layers     *layerQuota
	settings   *Settings
	files      *filesystems
}

// Remove removes a container with its writable layer, its log and, if asked,
// its anonymous volumes. A running one needs Force.
func (rm *Remover) Remove(ctx context.Context, name string, opts RemoveOptions) error {
	c, err := rm.containers.Find(name)
	if err != nil {
		return err
	}
	if opts.Link {
		return failure.NotImplemented("link %s is not removed: this engine has links only as a part of the container that was made with them, and they go with it", name)
	}
	state := c.Load().State
	if state.Status == api.StateRemoving {
		return removalInProgress(c)
	}
	if !opts.Force {
		if err := removable(c, &state); err != nil {
			return err
		}
	}
	ctx = context.WithoutCancel(ctx)
	if opts.Force && state.Running() {
		if err := rm.end(c); err != nil {
			return err
		}
	}
	if opts.Force {
		defer rm.writers.evict(c.ID())()
	}
	rm.files.fillLast(ctx, c)
	unlock, err := rm.writers.lock(ctx, c)
	if err != nil {
		return err
	}
	defer unlock()
	if c.Gone() {
		// It was --rm, or another rm, that was quicker: what the caller wanted
		// has happened.
		return nil
	}
	if state := c.Load().State; state.Running() {
		if !opts.Force {
			return removable(c, &state)
		}
		if err := rm.end(c); err != nil {
			return err
		}
	}
	return rm.remove(ctx, c, opts.Volumes)
}

// end kills whatever runs of c and gives up a pending restart.
func (rm *Remover) end(c *container.Container) error {
	rm.stopper.noteByHand(c)
	l := rm.lives.of(c)
	if l.cancelRestart() {
		settleRestart(c)
	}
	if r := l.live(); r != nil {
		r.stopByHand()
		return rm.stopper.kill(c, r)
	}
	return nil
}

func removable(c *container.Container, st *container.State) error {
	name := "/" + c.Load().Name
	switch st.Status {
	case api.StateRunning, api.StateRestarting:
		return failure.Conflict("cannot remove container %q: container is %s: stop the container before removing or force remove", name, st.Status)
	case api.StatePaused:
		return failure.Conflict("cannot remove container %q: container is paused and must be unpaused first", name)
	}
	return nil
}

func removalInProgress(c *container.Container) error {
	return failure.Conflict("removal of container %s is already in progress", c.ID())
}

// discard removes a container that asked for it with --rm. The caller holds
// its lock.
func (rm *Remover) discard(ctx context.Context, c *container.Container) error {
	return rm.remove(ctx, c, true)
}

// remove makes c disappear. The caller holds its lock and has made sure that
// nothing of it runs. Its files go in the background: their names are gone at
// once.
func (rm *Remover) remove(ctx context.Context, c *container.Container, volumes bool) error {
	rec := c.Load()
	if cleanedFirst(rm.stopper.starter.specs, rec) {
		if r := rm.lives.of(c).current(); r != nil {
			<-r.cleaned
		}
	}
	c.SetStateInMemory(func(st *container.State) { st.Status = api.StateRemoving })
	rm.keepUnsent(rec)
	trash, err := rm.containers.Remove(c, volumes)
	if err != nil {
		c.SetStateInMemory(func(st *container.State) { *st = rec.State })
		return err
	}
	left := removed{dir: trash}
	if rec.Project == 0 {
		left.last = rm.lives.of(c).current()
	}
	rm.stopper.starter.heads.forget(rec.ID)
	rm.networks.Forget(rec.ID)
	rm.releaseVolumes(ctx, rec, volumes)
	record.Failpoint("engine.rm.after-volumes")
	rm.say.container(c, apievents.ActionDestroy)
	c.Removed()
	rm.lives.drop(c)
	rm.stopper.starter.prober.monitors.Forget(rec)
	rm.sweeper.add(left)
	if err := dropOwnFiles(rm.settings, rec); err != nil {
		rm.log.Warn("files of a removed container", "container", rec.ID, "error", err)
	}
	if err := rm.layers.release(rec.Project); err != nil {
		rm.log.Warn("quota of a removed container", "container", rec.ID, "error", err)
	}
	return nil
}

func (rm *Remover) releaseVolumes(ctx context.Context, rec *container.Record, remove bool) {
	for i := range rec.Mounts {
		m := &rec.Mounts[i]
		if m.Name == "" {
			continue
		}
		rm.volumes.Release(m.Name, rec.ID)
		if !remove || !m.Anonymous || len(rm.volumes.References(m.Name)) > 0 {
			continue
		}
		if err := checkWhole(rm.containers); err != nil {
			rm.log.Warn("anonymous volume of a removed container stays, for volume prune", "volume", m.Name, "error", err)
			continue
		}
		err := rm.volumes.Remove(ctx, m.Name, false)
		switch {
		case err == nil:
			rm.say.volume(&apivolume.Volume{Name: m.Name, Driver: m.Driver}, apievents.ActionDestroy)
		case errors.Is(err, errdefs.ErrNotFound), errors.Is(err, errdefs.ErrConflict):
			// Someone else removed it, or has begun to use it.
		default:
			rm.log.Warn("anonymous volume of a removed container", "volume", m.Name, "error", err)
		}
	}
}

func imageInUse(s *container.Store, id string) bool {
	for _, c := range s.All() {
		// A container of unknown definition may be of any.
		if r := c.Load(); r.Damage != "" || slices.Contains(imagesOf(r), id) {
			return true
		}
	}
	return false
}
