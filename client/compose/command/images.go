package command

import (
	"context"
	"fmt"
	"io"
	"slices"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/moby/moby/client"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/cleatlabs/cleat/client/compose/operate"
	"github.com/cleatlabs/cleat/client/compose/project"
	"github.com/cleatlabs/cleat/client/compose/show"
	"github.com/cleatlabs/cleat/client/compose/spec"
	"github.com/cleatlabs/cleat/client/dockerconfig"
)

// credentials are what the user has for an image's registry, as the engine takes them.
func (a *app) credentials(image string) (named reference.Named, auth string, err error) {
	if named, err = reference.ParseNormalizedNamed(image); err == nil {
		auth, err = dockerconfig.RegistryAuth(a.config(), reference.Domain(named), a.reporter.Warn)
	}
	return named, auth, err
}

// pullImage pulls one image with the user's credentials for its registry.
func (a *app) pullImage(ctx context.Context, image, platform string) error {
	named, auth, err := a.credentials(image)
	if err != nil {
		return err
	}
	o := client.ImagePullOptions{RegistryAuth: auth}
	if platform != "" {
		p, err := platforms.Parse(platform)
		if err != nil {
			return fmt.Errorf("platform: %w", err)
		}
		o.Platforms = []ocispec.Platform{p}
	}
	body, err := a.api.ImagePull(ctx, reference.FamiliarString(reference.TagNameOnly(named)), o)
	if err != nil {
		return err
	}
	defer body.Close()
	return body.Wait(ctx)
}

// selected is the project with the services that are named and, with deps, what they
// depend on.
func (a *app) selected(ctx context.Context, services []string, deps bool) (*types.Project, *operate.Operator, error) {
	p, err := a.outline(ctx, services...)
	if err != nil {
		return nil, nil, err
	}
	if p, err = project.Select(p, services, !deps); err != nil {
		return nil, nil, err
	}
	o, err := a.operator(ctx)
	return p, o, err
}

func (a *app) pullCommand() *cobra.Command {
	var quiet, ignoreFailures, ignoreBuildable, deps bool
	var policy string
	cmd := command("pull [OPTIONS] [SERVICE...]", "Pull service images", func(ctx context.Context, args []string) error {
		switch policy {
		case "", types.PullPolicyAlways, types.PullPolicyMissing:
		default:
			return fmt.Errorf("invalid --policy %q: choose missing or always", policy)
		}
		p, o, err := a.selected(ctx, args, deps)
		if err != nil {
			return err
		}
		return a.pullServices(ctx, p, o, policy, ignoreFailures, ignoreBuildable)
	})
	f := cmd.Flags()
	f.BoolVarP(&quiet, "quiet", "q", false, "Pull without printing progress information")
	f.BoolVar(&ignoreFailures, "ignore-pull-failures", false, "Pull what it can and ignores images with pull failures")
	f.BoolVar(&ignoreBuildable, "ignore-buildable", false, "Ignore images that can be built")
	f.BoolVar(&deps, "include-deps", false, "Also pull services declared as dependencies")
	f.Bool("parallel", true, "DEPRECATED pull multiple images in parallel")
	_ = f.MarkHidden("parallel")
	a.refusal(cmd, "no-parallel", "bound the calls by `--parallel 1` before the command")
	f.StringVar(&policy, "policy", "", `Apply pull policy ("missing"|"always")`)
	a.silencedBy(cmd, &quiet)
	return cmd
}

// silencedBy has a command print no progress where its flag says so.
func (a *app) silencedBy(cmd *cobra.Command, quiet *bool) {
	before := cmd.PreRunE
	cmd.PreRunE = func(cmd *cobra.Command, args []string) error {
		if before != nil {
			if err := before(cmd, args); err != nil {
				return err
			}
		}
		if !*quiet {
			return nil
		}
		var err error
		a.reporter, err = show.NewProgress(a.err, show.Quiet, false)
		return err
	}
}

// pullServices pulls the images of services by their policies, over which one of the command wins.
func (a *app) pullServices(ctx context.Context, p *types.Project, o *operate.Operator, policy string, ignoreFailures, ignoreBuildable bool) error {
	type wanted struct{ image, platform string }
	images := map[wanted]bool{} // whether one is pulled though it is there
	for name, s := range p.Services {
		if policy != "" {
			s.PullPolicy = policy
		}
		switch {
		case s.Image == "" || s.Build != nil && ignoreBuildable || s.PullPolicy == types.PullPolicyNever || s.PullPolicy == types.PullPolicyBuild:
			a.reporter.Report("Service", name, "Skipped")
		default:
			of := wanted{s.Image, spec.Platform(p, s.Platform)}
			images[of] = images[of] || !onceOnly(s)
		}
	}
	var group errgroup.Group
	for w, anew := range images {
		image, platform := w.image, w.platform
		group.Go(func() error {
			if !anew {
				if there, err := o.HasImage(ctx, image, platform); err == nil && there {
					a.reporter.Report("Image", image, "Skipped Image is already present locally")
					return nil
				}
			}
			a.reporter.Report("Image", image, "Pulling")
			err := a.pullImage(ctx, image, platform)
			if err != nil {
				a.reporter.Report("Image", image, "Error "+err.Error())
				if ignoreFailures {
					return nil
				}
				return err
			}
			a.reporter.Report("Image", image, "Pulled")
			return nil
		})
	}
	return group.Wait()
}

// onceOnly tells whether a service's image is pulled only where there is none. One that is called latest is pulled anew
// all the same, as by docker compose: who asks for it wants what is the latest now.
func onceOnly(s types.ServiceConfig) bool {
	if s.PullPolicy != types.PullPolicyMissing && s.PullPolicy != types.PullPolicyIfNotPresent {
		return false
	}
	named, err := reference.ParseDockerRef(s.Image)
	tagged, ok := named.(reference.Tagged)
	return err == nil && (!ok || tagged.Tag() != "latest")
}

// building are the flags of `build`, which are those of the plugin that builds.
type building struct {
	args                              []string
	noCache, pull, push, quiet, check bool
	builder, provenance, sbom, ssh    string
	lines                             func(service string) io.WriteCloser // takes the output; nil: standard error
}

func (a *app) buildCommand() *cobra.Command {
	var b building
	var deps, printed bool
	cmd := command("build [OPTIONS] [SERVICE...]", "Build or rebuild services", func(ctx context.Context, args []string) error {
		if printed {
			return a.printBuild(ctx, args, deps, b)
		}
		p, _, err := a.selected(ctx, args, deps)
		if err != nil {
			return err
		}
		if err := spec.Platforms(p, false); err != nil {
			return err
		}
		services := built(p)
		if len(services) == 0 {
			_, _ = fmt.Fprintln(a.err, "No services to build")
			return nil
		}
		return a.build(ctx, p, services, b)
	})
	f := cmd.Flags()
	f.StringArrayVar(&b.args, "build-arg", nil, "Set build-time variables for services")
	f.BoolVar(&b.noCache, "no-cache", false, "Do not use cache when building the image")
	f.BoolVar(&b.pull, "pull", false, "Always attempt to pull a newer version of the image")
	f.BoolVar(&b.push, "push", false, "Push service images")
	f.BoolVarP(&b.quiet, "quiet", "q", false, "Suppress the build output")
	f.BoolVar(&b.check, "check", false, "Check build configuration")
	f.StringVar(&b.builder, "builder", "", "Set builder to use")
	f.StringVar(&b.provenance, "provenance", "", "Add a provenance attestation")
	f.StringVar(&b.sbom, "sbom", "", "Add a SBOM attestation")
	f.StringVar(&b.ssh, "ssh", "", "Set SSH authentications used when building service images. (use 'default' for using your default SSH Agent)")
	f.BoolVar(&deps, "with-dependencies", false, "Also build dependencies (transitively)")
	a.refusal(cmd, "memory", "BuildKit's steps have no limit of their own")
	f.BoolVar(&printed, "print", false, "Print equivalent bake file")
	for _, old := range []string{"compress", "force-rm", "no-rm"} {
		a.refusal(cmd, old, "BuildKit has no such thing")
	}
	f.Bool("parallel", true, "Build images in parallel. DEPRECATED")
	_ = f.MarkHidden("parallel")
	f.StringVar(&a.progress, "progress", "", "Set type of progress output: a flag of compose itself that was this command's")
	_ = f.MarkHidden("progress")
	return cmd
}

// built are the services of a project that are built.
func built(p *types.Project) []string {
	return slices.DeleteFunc(project.Names(p), func(name string) bool { return p.Services[name].Build == nil })
}

// printBuild shows, as a file of bake, what is built for services. It has what they depend on, too, which is among what
// is to be built where it was asked for, or they build upon it.
func (a *app) printBuild(ctx context.Context, services []string, deps bool, b building) error {
	p, err := a.outline(ctx, services...)
	if err != nil {
		return err
	}
	if p, err = project.Select(p, services, false); err != nil {
		return err
	}
	wanted := built(p)
	if len(services) > 0 && !deps {
		wanted = slices.DeleteFunc(wanted, func(name string) bool { return !slices.Contains(services, name) })
	}
	if p, wanted, err = withContexts(p, wanted); err != nil {
		return err
	}
	if p, err = p.WithSelectedServices(wanted); err != nil {
		return err
	}
	if err := spec.Platforms(p, false); err != nil {
		return err
	}
	engine, err := a.globals.Endpoint(a.config) // which is not asked
	if err != nil {
		return err
	}
	text, err := b.bakeFile(p, wanted, a.separator(), a.config().ParseProxyConfig(engine.Host, nil))
	if err == nil && len(wanted) > 0 {
		_, err = fmt.Fprintln(a.out, text)
	}
	return err
}

// buildServices implements operate.Operator's Build.
func (a *app) buildServices(ctx context.Context, p *types.Project, services []string) error {
	return a.build(ctx, p, services, building{})
}
