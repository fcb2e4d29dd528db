package operate

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/volume"
	"github.com/moby/moby/client"
	"golang.org/x/sync/errgroup"

	"github.com/cleatlabs/cleat/client/compose/canonical"
	"github.com/cleatlabs/cleat/client/compose/label"
	"github.com/cleatlabs/cleat/client/compose/spec"
)

// EnsureObjects makes the networks and volumes that the project's services use, and checks
// that those are there which it does not own.
func (o *Operator) EnsureObjects(ctx context.Context, p *types.Project) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, key := range slices.Sorted(maps.Keys(p.Networks)) {
		n := p.Networks[key]
		group.Go(func() error { return about("networks", key, o.ensureNetwork(ctx, p, key, n)) })
	}
	for _, key := range slices.Sorted(maps.Keys(p.Volumes)) {
		v := p.Volumes[key]
		group.Go(func() error { return about("volumes", key, o.ensureVolume(ctx, p, key, v)) })
	}
	return group.Wait()
}

// findNetwork is the network of exactly that name; the engine's filter takes parts of
// names, too.
func (o *Operator) findNetwork(ctx context.Context, name string) (*network.Network, error) {
	list, err := o.API.NetworkList(ctx, client.NetworkListOptions{Filters: make(client.Filters).Add("name", name)})
	if err != nil {
		return nil, err
	}
	for _, n := range list.Items {
		if n.Name == name || n.ID == name {
			return &n.Network, nil
		}
	}
	return nil, nil
}

func (o *Operator) ensureNetwork(ctx context.Context, p *types.Project, key string, n types.NetworkConfig) error {
	found, err := o.findNetwork(ctx, n.Name)
	if err != nil {
		return err
	}
	if bool(n.External) {
		if found == nil && n.Driver != "overlay" {
			return fmt.Errorf("network %s declared as external, but could not be found: make it by `cleat network create %s`", n.Name, n.Name)
		}
		return nil
	}
	request, err := spec.Network(p, key, n)
	if err != nil {
		return err
	}
	if found != nil {
		if diverged(p, key, found, request) {
			return o.renewNetwork(ctx, p, n, found, request)
		}
		return o.checkNetwork(p, key, n, found)
	}
	kind := "Network"
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	o.Report.Report(kind, n.Name, "Creating")
	// Waited for to the end, as a container's create is.
	_, err = o.API.NetworkCreate(context.WithoutCancel(ctx), n.Name, request)
	if errdefs.IsConflict(err) {
		// Somebody else was faster: another `up` of this project.
		if found, _ = o.findNetwork(ctx, n.Name); found != nil {
			return o.checkNetwork(p, key, n, found)
		}
	}
	if err != nil {
		err = fmt.Errorf("failed to create network %s: %w", n.Name, err)
	}
	return o.ended(ctx, kind, n.Name, "Created", err)
}

// diverged says whether a network of the project's own is not as its file says.
func diverged(p *types.Project, key string, found *network.Network, request client.NetworkCreateOptions) bool {
	hash := found.Labels[label.ConfigHash]
	return found.Labels[label.Project] == p.Name && found.Labels[label.Network] == key && hash != "" && hash != request.Labels[label.ConfigHash]
}

// checkNetwork says what is wrong with a network that is there already.
func (o *Operator) checkNetwork(p *types.Project, key string, n types.NetworkConfig, found *network.Network) error {
	switch owner := found.Labels[label.Project]; {
	case owner == "":
		o.Report.Warn(fmt.Sprintf("a network with name %s exists but was not created by compose.\nSet `external: true` to use an existing network", n.Name))
	case owner != p.Name:
		o.Report.Warn(fmt.Sprintf("a network with name %s exists but was not created for project %q.\nSet `external: true` to use an existing network", n.Name, p.Name))
	case found.Labels[label.Network] != key:
		return fmt.Errorf("network %s was found but has incorrect label %s set to %q (expected: %q)", n.Name, label.Network, found.Labels[label.Network], key)
	}
	return nil
}

func (o *Operator) ensureVolume(ctx context.Context, p *types.Project, key string, v types.VolumeConfig) error {
	found, err := o.API.VolumeInspect(ctx, v.Name, client.VolumeInspectOptions{})
	switch {
	case err == nil && bool(v.External):
		return nil
	case err == nil:
		return o.checkVolume(ctx, p, key, v, found.Volume)
	case !gone(err):
		return err
	case bool(v.External):
		return fmt.Errorf("external volume %q not found: make it by `cleat volume create %s`", v.Name, v.Name)
	}
	return o.createVolume(ctx, p, key, v)
}

func (o *Operator) createVolume(ctx context.Context, p *types.Project, key string, v types.VolumeConfig) error {
	request, err := spec.Volume(p, key, v)
	if err != nil {
		return err
	}
	kind := "Volume"
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	o.Report.Report(kind, v.Name, "Creating")
	if _, err = o.API.VolumeCreate(context.WithoutCancel(ctx), request); err != nil {
		err = fmt.Errorf("failed to create volume %s: %w", v.Name, err)
	}
	return o.ended(ctx, kind, v.Name, "Created", err)
}

func (o *Operator) checkVolume(ctx context.Context, p *types.Project, key string, v types.VolumeConfig, found volume.Volume) error {
	hash, err := canonical.VolumeHash(v)
	if err != nil {
		return err
	}
	switch owner := found.Labels[label.Project]; {
	case owner == "":
		o.Report.Warn(fmt.Sprintf("volume %q already exists but was not created by Docker Compose. Use `external: true` to use an existing volume", v.Name))
	case owner != p.Name:
		o.Report.Warn(fmt.Sprintf("volume %q already exists but was created for project %q (expected %q). Use `external: true` to use an existing volume", v.Name, owner, p.Name))
	case found.Labels[label.ConfigHash] != "" && found.Labels[label.ConfigHash] != hash:
		renew, err := o.losesVolume(ctx, v.Name)
		if err != nil {
			return err
		}
		if renew {
			return o.renewVolume(ctx, p, key, v)
		}
		o.Report.Warn(fmt.Sprintf("volume %q has another configuration than the file says and stays as it is: its data would be lost. `up -y` makes it anew, with its containers", v.Name))
	}
	return nil
}

// losesVolume says whether a volume whose configuration has changed is to be made anew, without what is in it.
func (o *Operator) losesVolume(ctx context.Context, name string) (bool, error) {
	if o.Yes || o.Confirm == nil || o.DryRun {
		return o.Yes, nil
	}
	o.asking.Lock()
	defer o.asking.Unlock()
	return o.Confirm(ctx, fmt.Sprintf("Volume %q exists but doesn't match configuration in compose file. Recreate (data will be lost)?", name))
}

// removeNetworks removes those of the project's networks, by their ids, that are meant.
func (o *Operator) removeNetworks(ctx context.Context, project string, meant func(id string) bool) (found bool, err error) {
	list, err := o.API.NetworkList(ctx, client.NetworkListOptions{Filters: make(client.Filters).Add("label", label.Project+"="+project)})
	if err != nil {
		return false, err
	}
	errs := make([]error, len(list.Items))
	var group errgroup.Group
	for i, n := range list.Items {
		if !meant(n.ID) {
			continue
		}
		group.Go(func() error {
			o.Report.Report("Network", n.Name, "Removing")
			_, err := o.API.NetworkRemove(ctx, n.ID, client.NetworkRemoveOptions{})
			switch {
			case gone(err):
				err = nil
			case errdefs.IsPermissionDenied(err) || errdefs.IsConflict(err):
				// Others' containers are on it: theirs to keep.
				o.Report.Report("Network", n.Name, "Resource is still in use")
				return nil
			}
			errs[i] = o.ended(ctx, "Network", n.Name, "Removed", err)
			return nil
		})
	}
	_ = group.Wait() // its errors are in errs
	return len(list.Items) > 0, errors.Join(errs...)
}

// removeVolumes removes those of the project's volumes, by their names, that are meant.
func (o *Operator) removeVolumes(ctx context.Context, project string, meant func(name string) bool) (found bool, err error) {
	list, err := o.API.VolumeList(ctx, client.VolumeListOptions{Filters: make(client.Filters).Add("label", label.Project+"="+project)})
	if err != nil {
		return false, err
	}
	errs := make([]error, len(list.Items))
	var group errgroup.Group
	for i, v := range list.Items {
		if !meant(v.Name) {
			continue
		}
		group.Go(func() error {
			o.Report.Report("Volume", v.Name, "Removing")
			_, err := o.API.VolumeRemove(ctx, v.Name, client.VolumeRemoveOptions{})
			switch {
			case gone(err):
				err = nil
			case errdefs.IsConflict(err):
				state := "Resource is still in use"
				if strings.Contains(err.Error(), "has snapshots") {
					state = "Kept, as it has snapshots: 'cleat volume rm -f " + v.Name + "' removes it with them"
				}
				o.Report.Report("Volume", v.Name, state)
				return nil
			}
			errs[i] = o.ended(ctx, "Volume", v.Name, "Removed", err)
			return nil
		})
	}
	_ = group.Wait() // its errors are in errs
	return len(list.Items) > 0, errors.Join(errs...)
}
