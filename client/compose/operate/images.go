package operate

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/containerd/platforms"
	"github.com/moby/moby/client"
	"github.com/moby/moby/client/pkg/versions"
	"golang.org/x/sync/errgroup"

	"github.com/cleatlabs/cleat/client/compose/spec"
)

// ImageOptions say which images are fetched and built.
type ImageOptions struct {
	Pull    string // "", "always", "missing", "never", "build": over the services' own policies
	Build   bool   // services with a build section are built though their image is there
	NoBuild bool
}

// EnsureImages pulls and builds what the services run, as their pull policies and opts say.
func (o *Operator) EnsureImages(ctx context.Context, p *types.Project, opts ImageOptions) error {
	if err := spec.Check(p); err != nil {
		return err
	}
	for _, said := range spec.Unheeded(p) {
		o.Report.Warn(said)
	}
	images, existing, err := o.state(ctx, p)
	if err != nil {
		return err
	}
	needed := &needs{Operator: o, project: p, opts: opts, images: images, toPull: map[wanted]types.ServiceConfig{}, provided: map[wanted]bool{}}
	for _, s := range p.Services {
		if err := needed.add(ctx, s); err != nil {
			return err
		}
	}
	if len(needed.toBuild) == 0 && len(needed.toPull) == 0 {
		o.images, o.seen = images, existing
		return nil
	}
	if err := o.pull(ctx, needed.toPull); err != nil {
		return err
	}
	if len(needed.toBuild) == 0 {
		return nil
	}
	slices.Sort(needed.toBuild)
	return o.Build(ctx, p, needed.toBuild)
}

// needs are what the services need that is not there.
type needs struct {
	*Operator
	project  *types.Project
	opts     ImageOptions
	images   map[string]string // ids of those that are there, "" of others
	provided map[wanted]bool   // what is known of their platforms

	toBuild []string // services
	toPull  map[wanted]types.ServiceConfig
}

// add looks what a service needs.
func (n *needs) add(ctx context.Context, s types.ServiceConfig) error {
	for _, v := range s.Volumes {
		if v.Type == types.VolumeTypeImage && n.images[v.Source] == "" {
			n.toPull[wanted{v.Source, spec.Platform(n.project, "")}] = types.ServiceConfig{Name: s.Name}
		}
	}
	of := wanted{spec.ImageName(n.project, s, n.Separator), spec.Platform(n.project, s.Platform)}
	there := n.images[of.image] != ""
	if there && of.platform != "" && s.Build == nil {
		var err error
		if there, err = n.provides(ctx, of, n.provided); err != nil {
			return err
		}
	}
	policy, refresh, err := policyOf(s, n.opts.Pull)
	if err != nil {
		return err
	}
	if policy == types.PullPolicyRefresh {
		if policy, err = n.refreshed(ctx, of.image, there, refresh); err != nil {
			return err
		}
	}
	switch {
	case s.Build != nil && !n.opts.NoBuild && (n.opts.Build || policy == types.PullPolicyBuild || !there && policy != types.PullPolicyAlways):
		n.toBuild = append(n.toBuild, s.Name)
	case policy == types.PullPolicyNever || there && policy != types.PullPolicyAlways:
	case s.Build != nil && s.Image == "":
		if !there {
			return fmt.Errorf("service %q has no image, and is not to be built: leave out --no-build", s.Name)
		}
	default:
		n.toPull[of] = s
	}
	return nil
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

// wanted is an image as a service runs it.
type wanted struct{ image, platform string } // "" is the engine's own

// provides says whether an image that is there is so for a platform, too; known is what was found out before.
func (o *Operator) provides(ctx context.Context, w wanted, known map[wanted]bool) (bool, error) {
	if there, ok := known[w]; ok {
		return there, nil
	}
	there, err := o.HasImage(ctx, w.image, w.platform)
	known[w] = there
	return there, err
}

// HasImage says whether the engine has an image, for a platform unless that is "". An engine before API 1.49 is not
// asked for the platform: it says at the create that it has it not.
func (o *Operator) HasImage(ctx context.Context, image, platform string) (bool, error) {
	var options []client.ImageInspectOption
	if platform != "" && !versions.LessThan(o.API.ClientVersion(), "1.49") {
		p, err := platforms.Parse(platform)
		if err != nil {
			return false, fmt.Errorf("platform: %w", err)
		}
		options = append(options, client.ImageInspectWithPlatform(&p))
	}
	_, err := o.API.ImageInspect(ctx, image, options...)
	if gone(err) {
		return false, nil
	}
	return err == nil, err
}

func (o *Operator) pull(ctx context.Context, images map[wanted]types.ServiceConfig) error {
	group, ctx := errgroup.WithContext(ctx)
	for w, s := range images {
		image := w.image
		group.Go(func() error {
			free, err := o.slot(ctx)
			if err != nil {
				return err
			}
			defer free()
			o.Report.Report("Image", image, "Pulling")
			err = o.Pull(ctx, image, w.platform)
			if err != nil {
				err = fmt.Errorf("service %q: %w", s.Name, err)
			}
			return o.ended(ctx, "Image", image, "Pulled", err)
		})
	}
	return group.Wait()
}
