package operate

import (
	"context"
	"fmt"
	"slices"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
)

// renewNetwork makes a network anew whose configuration has changed. The project's
// containers are taken off it and put on the new one; those whose services are brought in
// line now are made anew besides, with all that their files say of the network.
func (o *Operator) renewNetwork(ctx context.Context, p *types.Project, n types.NetworkConfig, found *network.Network, request client.NetworkCreateOptions) error {
	o.lock.Lock()
	if o.renewed == nil {
		o.renewed = map[string]bool{}
	}
	o.renewed[n.Name] = true
	o.lock.Unlock()
	all, err := o.Containers(ctx, p.Name, true)
	if err != nil {
		return err
	}
	var on []Container
	for _, c := range all {
		if c.NetworkSettings == nil {
			continue
		}
		if _, ok := c.NetworkSettings.Networks[n.Name]; ok {
			on = append(on, c)
		}
	}
	if err := o.Stop(ctx, on, nil); err != nil {
		return err
	}
	err = o.Each(ctx, on, func(ctx context.Context, c Container) error {
		_, err := o.API.NetworkDisconnect(ctx, found.ID, client.NetworkDisconnectOptions{Container: c.ID, Force: true})
		if gone(err) {
			return nil
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("network %s has changed: %w", n.Name, err)
	}
	o.Report.Report("Network", n.Name, "Removing")
	if _, err := o.API.NetworkRemove(ctx, found.ID, client.NetworkRemoveOptions{}); err != nil && !gone(err) {
		return o.done("Network", n.Name, "Removed", fmt.Errorf("network %s has changed and cannot be made anew: %w", n.Name, err))
	}
	o.Report.Report("Network", n.Name, "Creating")
	if _, err = o.API.NetworkCreate(ctx, n.Name, request); err != nil {
		err = fmt.Errorf("failed to create network %s: %w", n.Name, err)
	}
	if err := o.ended(ctx, "Network", n.Name, "Created", err); err != nil {
		return err
	}
	return o.Each(ctx, on, func(ctx context.Context, c Container) error {
		_, err := o.API.NetworkConnect(ctx, n.Name, client.NetworkConnectOptions{
			Container: c.ID, EndpointConfig: &network.EndpointSettings{Aliases: []string{c.Name, c.Service}},
		})
		if gone(err) {
			return nil
		}
		return err
	})
}

// usesRenewed says whether a service is on a network that was made anew.
func (o *Operator) usesRenewed(p *types.Project, s types.ServiceConfig) bool {
	o.lock.Lock()
	defer o.lock.Unlock()
	for key := range s.Networks {
		if o.renewed[p.Networks[key].Name] {
			return true
		}
	}
	return false
}

// renewVolume makes a volume anew whose configuration has changed. The project's containers that use it are removed.
func (o *Operator) renewVolume(ctx context.Context, p *types.Project, key string, v types.VolumeConfig) error {
	all, err := o.Containers(ctx, p.Name, true)
	if err != nil {
		return err
	}
	using := slices.DeleteFunc(all, func(c Container) bool {
		return !slices.ContainsFunc(c.Mounts, func(m container.MountPoint) bool { return m.Name == v.Name })
	})
	o.lock.Lock()
	if o.removed == nil {
		o.removed = map[string]bool{}
	}
	for _, c := range using {
		o.removed[c.ID] = true
	}
	o.lock.Unlock()
	if err := o.Remove(ctx, using, RemoveOptions{Stop: true}); err != nil {
		return err
	}
	if _, err := o.API.VolumeRemove(ctx, v.Name, client.VolumeRemoveOptions{}); err != nil && !gone(err) {
		return fmt.Errorf("volume %s has changed and cannot be made anew: %w", v.Name, err)
	}
	return o.createVolume(ctx, p, key, v)
}
