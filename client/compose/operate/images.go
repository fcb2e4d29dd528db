package operate

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/compose-spec/compose-go/v2/types"
	"golang.org/x/sync/errgroup"

	"github.com/cleatlabs/cleat/client/compose/spec"
)

// ImageOptions say which images are fetched and built.
type ImageOptions struct {
	Pull    string // "", "always", "missing", "never", "build": over the services' own policies
	Build   bool   // services with a build section are built though their image is there
	NoBuild bool
}

// EnsureImages pulls and builds what the services run.
func (o *Operator) EnsureImages(ctx context.Context, p *types.Project, opts ImageOptions) error {
	if err := spec.Check(p); err != nil {
		return err
	}
	for _, said := range spec.Unheeded(p) {
		o.Report.Warn(said)
	}
	missing, existing, err := o.state(ctx, p)
	if err != nil {
		return err
	}
	var build []string
	pull := map[string]types.ServiceConfig{}
	for name, s := range p.Services {
		image := spec.ImageName(p, s, o.Separator)
		there := missing[image] != ""
		policy, refresh, err := policyOf(s, opts.Pull)
		if err != nil {
			return err
		}
		if policy == types.PullPolicyRefresh {
			if policy, err = o.refreshed(ctx, image, there, refresh); err != nil {
				return err
			}
		}
		for _, v := range s.Volumes {
			if v.Type == types.VolumeTypeImage && missing[v.Source] == "" {
				pull[v.Source] = types.ServiceConfig{Name: name}
			}
		}
		switch {
		case s.Build != nil && !opts.NoBuild && (opts.Build || policy == types.PullPolicyBuild || !there && policy != types.PullPolicyAlways):
			build = append(build, name)
		case policy == types.PullPolicyNever || there && policy != types.PullPolicyAlways:
		case s.Build != nil && s.Image == "":
			if !there {
				return fmt.Errorf("service %q has no image, and is not to be built: leave out --no-build", name)
			}
		default:
			pull[image] = s
		}
	}
	if len(build) == 0 && len(pull) == 0 {
		o.images, o.seen = missing, existing
		return nil
	}
	if err := o.pull(ctx, p, pull); err != nil {
		return err
	}
	if len(build) == 0 {
		return nil
	}
	slices.Sort(build)
	return o.Build(ctx, p, build)
}

// state is what there is of a project: the ids of its images, and its containers.
func (o *Operator) state(ctx context.Context, p *types.Project) (images map[string]string, existing []Container, err error) {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() (err error) {
		images, err = o.imageIDs(ctx, p)
		return err
	})
	group.Go(func() (err error) {
		existing, err = o.Containers(ctx, p.Name, false)
		return err
	})
	return images, existing, group.Wait()
}

// policyOf is the policy of a service, over which that of the command wins; a refresh has
// the time after which it is due.
func policyOf(s types.ServiceConfig, of string) (string, time.Duration, error) {
	if of != "" && of != "policy" {
		switch of {
		case types.PullPolicyAlways, types.PullPolicyMissing, types.PullPolicyNever, types.PullPolicyBuild:
			return of, 0, nil
		case types.PullPolicyIfNotPresent:
			return types.PullPolicyMissing, 0, nil
		}
		return "", 0, fmt.Errorf("invalid --pull option %q: choose always, missing, never or build", of)
	}
	policy, refresh, err := s.GetPullPolicy()
	if err != nil {
		return "", 0, fmt.Errorf("service %q: %w", s.Name, err)
	}
	if policy == types.PullPolicyRefresh && refresh == 0 && s.PullRefreshAfter != "" {
		var after types.Duration
		if err := after.DecodeMapstructure(s.PullRefreshAfter); err != nil {
			return "", 0, fmt.Errorf("service %q: pull_refresh_after: %w", s.Name, err)
		}
		refresh = time.Duration(after)
	} else if s.PullRefreshAfter != "" {
		return "", 0, fmt.Errorf("service %q: pull_refresh_after goes with `pull_policy: refresh` alone", s.Name)
	}
	return policy, refresh, nil
}

// refreshed is the policy that `refresh` comes to now.
func (o *Operator) refreshed(ctx context.Context, image string, there bool, after time.Duration) (string, error) {
	if !there {
		return types.PullPolicyMissing, nil
	}
	found, err := o.API.ImageInspect(ctx, image)
	if err != nil {
		return "", err
	}
	if time.Since(found.Metadata.LastTagTime) > after {
		return types.PullPolicyAlways, nil
	}
	return types.PullPolicyMissing, nil
}

func (o *Operator) pull(ctx context.Context, p *types.Project, images map[string]types.ServiceConfig) error {
	group, ctx := errgroup.WithContext(ctx)
	for image, s := range images {
		group.Go(func() error {
			free, err := o.slot(ctx)
			if err != nil {
				return err
			}
			defer free()
			o.Report.Report("Image", image, "Pulling")
			err = o.Pull(ctx, image, spec.Platform(p, s.Platform))
			if err != nil {
				err = fmt.Errorf("service %q: %w", s.Name, err)
			}
			return o.ended(ctx, "Image", image, "Pulled", err)
		})
	}
	return group.Wait()
}
