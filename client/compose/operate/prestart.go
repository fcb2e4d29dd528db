package operate

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/cleatlabs/cleat/client/compose/label"
	"github.com/cleatlabs/cleat/client/compose/spec"
)

// preStart runs the containers that have to come to a good end before a service's own are started, one after the other:
// each once, or once for each of the service's containers that is to be started.
func (o *Operator) preStart(ctx context.Context, p *types.Project, s types.ServiceConfig, list []Container) error {
	due := slices.DeleteFunc(slices.Clone(list), func(c Container) bool { return c.State == container.StateRunning })
	if len(s.PreStart) == 0 || len(due) == 0 || o.DryRun {
		return nil
	}
	left, err := o.Containers(ctx, p.Name, true)
	if err != nil {
		return err
	}
	for i, h := range s.PreStart {
		replicas := due[:1]
		if h.PerReplica {
			replicas = due
		}
		for _, c := range replicas {
			name := fmt.Sprintf("%s%spre_start%s%d", c.Name, o.Separator, o.Separator, i+1)
			for _, old := range left {
				if old.Name == name && old.OneOff { // of a client that was killed
					if err := o.discard(ctx, old.ID, true); err != nil {
						return err
					}
				}
			}
			o.Report.Report("Container", name, "Starting")
			if err := o.ended(ctx, "Container", name, "Exited", o.initialise(ctx, p, s, h, c, name)); err != nil {
				return err
			}
		}
	}
	return nil
}

// initialise runs one container of a pre_start hook, with the mounts of the service's container c, and removes it.
func (o *Operator) initialise(ctx context.Context, p *types.Project, s types.ServiceConfig, h types.PreStartHook, c Container, name string) (err error) {
	hook := types.ServiceConfig{Name: s.Name, ContainerSpec: h.ContainerSpec}
	hook.CustomLabels = s.CustomLabels
	hook.VolumesFrom = append([]string{types.ContainerPrefix + c.ID}, hook.VolumesFrom...)
	if len(hook.Networks) == 0 && hook.NetworkMode == "" {
		hook.Networks, hook.NetworkMode = s.Networks, s.NetworkMode
	}
	image := spec.ImageName(p, hook, o.Separator)
	if _, err := o.API.ImageInspect(ctx, image); gone(err) {
		if err := o.Pull(ctx, image, spec.Platform(p, hook.Platform)); err != nil {
			return fmt.Errorf("service %q: pre_start: %w", s.Name, err)
		}
	}
	r := &spec.Replica{
		Project: p, Service: hook, Number: c.Number, Name: name, Image: image, OneOff: true, Alone: true, API: o.API.ClientVersion(),
		Labels: map[string]string{label.Slug: name}, Separator: o.Separator, Proxies: o.Proxies,
		Others: func(service string) (string, error) {
			list, err := o.Containers(ctx, p.Name, false)
			if err != nil {
				return "", err
			}
			other, err := Single(list, service, 0)
			return other.ID, err
		},
		Linked: func(string) []string { return nil },
	}
	made, err := o.make(ctx, r, name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, o.discard(ctx, made.ID, true)) }()
	if err := o.fill(ctx, p, hook, made.ID); err != nil {
		return err
	}
	return o.completes(ctx, s.Name, c, made.ID)
}

// completes runs a container to its end, which must be a good one.
func (o *Operator) completes(ctx context.Context, service string, c Container, id string) error {
	stream, err := o.API.ContainerAttach(ctx, id, client.ContainerAttachOptions{Stream: true, Stdout: true, Stderr: true})
	if err != nil {
		return err
	}
	defer stream.Close()
	stop := context.AfterFunc(ctx, stream.Close)
	defer stop()
	wait := o.API.ContainerWait(ctx, id, client.ContainerWaitOptions{Condition: container.WaitConditionNextExit})
	if err := o.StartOne(ctx, id); err != nil {
		return err
	}
	said, err := o.said(c, stream.Reader)
	if err != nil && ctx.Err() == nil {
		return err
	}
	select {
	case r := <-wait.Result:
		if r.StatusCode == 0 {
			return nil
		}
		return fmt.Errorf("%s pre_start hook exited with status %d%s", service, r.StatusCode, said)
	case err := <-wait.Error:
		return err
	}
}
