package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"

	"github.com/containerd/errdefs"
	api "github.com/moby/moby/api/types/container"
	apievents "github.com/moby/moby/api/types/events"

	"github.com/cleatlabs/cleat/internal/cgroup"
	"github.com/cleatlabs/cleat/internal/container"
	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/kernel"
	"github.com/cleatlabs/cleat/internal/record"
	"github.com/cleatlabs/cleat/internal/runtime"
)

// Updater changes the limits and the restart policy of containers. What runs feels
// it at once; the record keeps it for the next start.
type Updater struct {
	containers *container.Store
	runtime    *runtime.Runtime
	lives      *lives
	specs      *specBuilder
	features   kernel.Features
	limits     cgroup.Support
	say        *announcer
	log        *slog.Logger
}

// updatable are the fields of container.Resources that an update may change. Any
// other must be left out or be as it is.
var updatable = map[string]bool{
	"CPUShares": true, "Memory": true, "NanoCPUs": true, "BlkioWeight": true, "BlkioWeightDevice": true, "BlkioDeviceReadBps": true,
	"BlkioDeviceWriteBps": true, "BlkioDeviceReadIOps": true, "BlkioDeviceWriteIOps": true, "CPUPeriod": true, "CPUQuota": true,
	"CPURealtimePeriod": true, "CPURealtimeRuntime": true, "CpusetCpus": true, "CpusetMems": true, "MemoryReservation": true,
	"MemorySwap": true, "MemorySwappiness": true, "PidsLimit": true,
}

// Update changes what is set in req. A limit that cannot be had, as one below what
// is in use, leaves everything as it was.
func (u *Updater) Update(ctx context.Context, name string, req api.UpdateConfig) (warnings []string, err error) {
	c, unlock, err := u.containers.Hold(ctx, name)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := c.Load().Whole(); err != nil {
		return nil, err
	}
	host := *c.Load().HostConfig
	discarded, err := adaptLimits(&req.Resources, u.limits)
	var delta *api.Resources
	if err == nil {
		delta, err = merge(&host, &req)
	}
	if err == nil {
		warnings, err = checkHostConfig(&host, u.features)
	}
	if err == nil {
		err = u.apply(c, &host, delta)
	}
	if err != nil {
		return nil, fmt.Errorf("Cannot update container %s: %w", c.ID(), err)
	}
	u.say.container(c, apievents.ActionUpdate)
	return append(warnings, discarded...), nil
}

// merge writes the request into host, a copy of the container's, and returns what
// is new to the control group.
func merge(host *api.HostConfig, req *api.UpdateConfig) (delta *api.Resources, err error) {
	if p := req.RestartPolicy; p.Name != "" || p.MaximumRetryCount != 0 {
		if err := api.ValidateRestartPolicy(p); err != nil {
			return nil, failure.Wrap(errdefs.ErrInvalidArgument, err)
		}
		if host.AutoRemove && !p.IsNone() {
			return nil, failure.Conflict("Restart policy cannot be updated because AutoRemove is enabled for the container")
		}
		host.RestartPolicy = p
	}
	if err := checkConflicts(&host.Resources, &req.Resources); err != nil {
		return nil, err
	}
	delta = &api.Resources{}
	from, to, changed := reflect.ValueOf(&req.Resources).Elem(), reflect.ValueOf(&host.Resources).Elem(), reflect.ValueOf(delta).Elem()
	for i := range from.NumField() {
		field := from.Type().Field(i)
		if empty(from.Field(i)) || reflect.DeepEqual(from.Field(i).Interface(), to.Field(i).Interface()) {
			continue
		}
		if !updatable[field.Name] {
			if field.Type.Kind() == reflect.Pointer && from.Field(i).Elem().IsZero() {
				continue // false, where nothing is the same
			}
			return nil, failure.NotImplemented("%s cannot be changed by an update: leave it out, or make the container anew", field.Name)
		}
		to.Field(i).Set(from.Field(i))
		changed.Field(i).Set(from.Field(i))
	}
	settle(&host.Resources, delta)
	return delta, nil
}

// checkConflicts compares the request with what is set already, in Docker's words.
func checkConflicts(now, req *api.Resources) error {
	switch {
	case req.NanoCPUs > 0 && now.CPUPeriod > 0:
		return failure.Conflict("Conflicting options: Nano CPUs cannot be updated as CPU Period has already been set")
	case req.NanoCPUs > 0 && now.CPUQuota > 0:
		return failure.Conflict("Conflicting options: Nano CPUs cannot be updated as CPU Quota has already been set")
	case req.CPUPeriod > 0 && now.NanoCPUs > 0 && req.NanoCPUs == 0:
		return failure.Conflict("Conflicting options: CPU Period cannot be updated as NanoCPUs has already been set")
	case req.CPUQuota > 0 && now.NanoCPUs > 0 && req.NanoCPUs == 0:
		return failure.Conflict("Conflicting options: CPU Quota cannot be updated as NanoCPUs has already been set")
	case req.MemorySwap == 0 && now.MemorySwap > 0 && req.Memory > now.MemorySwap:
		return failure.Conflict("Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time")
	}
	return nil
}

// settle completes both as a create does, and makes "no limit" what the record and
// the kernel mean by it.
func settle(host, delta *api.Resources) {
	if delta.Memory > 0 && host.MemorySwap == 0 {
		host.MemorySwap = withSwap(delta.Memory)
	}
	if delta.Memory > 0 && delta.MemorySwap == 0 {
		delta.MemorySwap = host.MemorySwap // version 2 keeps what is left of it beside the memory, which is now another number
	}
	if host.PidsLimit != nil && *host.PidsLimit <= 0 {
		host.PidsLimit = nil
	}
	if delta.PidsLimit != nil && *delta.PidsLimit <= 0 {
		delta.PidsLimit = new(int64(-1))
	}
	for _, r := range []*api.Resources{host, delta} {
		if r.CPUShares > 0 {
			r.CPUShares = min(max(r.CPUShares, 2), 262144)
		}
		if r.MemorySwappiness != nil && *r.MemorySwappiness == -1 {
			r.MemorySwappiness = nil
		}
	}
}

// apply writes the new definition and sets the limits. An engine that dies between
// the two leaves a mark: the next one sets what is in the record.
func (u *Updater) apply(c *container.Container, host *api.HostConfig, delta *api.Resources) error {
	before := c.Load().HostConfig
	limits, err := limitsOf(delta)
	if err != nil {
		return err
	}
	live := u.lives.of(c).live() != nil && !reflect.ValueOf(*delta).IsZero()
	if live {
		if err := c.SetState(func(st *container.State) { st.LimitsPending = true }); err != nil {
			return err
		}
	}
	err = u.containers.Redefine(c, func(d *container.Definition) { d.HostConfig = host })
	if err != nil || !live {
		return err
	}
	record.Failpoint("engine.update.after-config")
	group, err := u.runtime.Group(u.specs.cgroupPath(c.Load()))
	if err == nil {
		err = group.Update(limits)
	}
	if err = ignoreNotFound(err); err != nil { // not found: it has just ended
		err = errors.Join(err, u.containers.Redefine(c, func(d *container.Definition) { d.HostConfig = before }))
		u.restore(c)
		return err
	}
	return c.SetState(func(st *container.State) { st.LimitsPending = false })
}

// restore sets the limits of the record, after an update that did not get to its
// end or did not work.
func (u *Updater) restore(c *container.Container) {
	rec := c.Load()
	if !rec.State.LimitsPending || rec.Damage != "" {
		return
	}
	limits, err := limitsOf(&rec.HostConfig.Resources)
	if err == nil {
		var group *cgroup.Group
		if group, err = u.runtime.Group(u.specs.cgroupPath(rec)); err == nil {
			err = group.Restore(limits)
		}
	}
	if ignoreNotFound(err) != nil {
		u.log.Warn("limits of a container are not those of its record", "container", c.ID(), "error", err)
	}
	if err := c.SetState(func(st *container.State) { st.LimitsPending = false }); err != nil {
		u.log.Error("the state of a container could not be written", "container", c.ID(), "error", err)
	}
}

// limitsOf are the limits of a control group that exists, whose devices stay.
func limitsOf(r *api.Resources) (cgroup.Resources, error) {
	h := &api.HostConfig{Resources: *r, Privileged: true}
	limits, err := cgroupResources(h)
	limits.AllowAllDevices = false
	return limits, err
}
