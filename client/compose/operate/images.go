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
	missing, err := o.imageIDs(ctx, p)
	if err != nil {
		return err
	}
	var build []string
	pull := map[string]types.ServiceConfig{}
	for name, s := range p.Services {
		image := spec.ImageName(p, s, o.Separator)
		there := missing[image] != ""
		policy, err := policyOf(s, opts.Pull)
		if err != nil {
			return err
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
		o.images = missing
		return nil
	}
	if err := o.pull(ctx, pull); err != nil {
		return err
	}
	if len(build) == 0 {
		return nil
	}
	slices.Sort(build)
	return o.Build(ctx, p, build)
}

// policyOf is the policy of a service, over which that of the command wins.
func policyOf(s types.ServiceConfig, of string) (string, error) {
	if of != "" && of != "policy" {
		switch of {
		case types.PullPolicyAlways, types.PullPolicyMissing, types.PullPolicyNever, types.PullPolicyBuild:
			return of, nil
		}
		return "", fmt.Errorf("invalid --pull option %q: choose always, missing, never or build", of)
	}
	policy, refresh, err := s.GetPullPolicy()
	if err != nil {
		return "", fmt.Errorf("service %q: %w", s.Name, err)
	}
	if policy == types.PullPolicyRefresh && refresh > time.Duration(0) {
		return types.PullPolicyAlways, nil
	}
	return policy, nil
}

func (o *Operator) pull(ctx context.Context, images map[string]types.ServiceConfig) error {
	group, ctx := errgroup.WithContext(ctx)
	for image, s := range images {
		group.Go(func() error {
			free, err := o.slot(ctx)
			if err != nil {
				return err
			}
			defer free()
			o.Report.Report("Image", image, "Pulling")
			err = o.Pull(ctx, image, s.Platform)
			if err != nil {
				err = fmt.Errorf("service %q: %w", s.Name, err)
			}
			return o.done("Image", image, "Pulled", err)
		})
	}
	return group.Wait()
}
