package command

import (
	"context"
	"errors"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/cleatlabs/cleat/client/compose/operate"
	"github.com/cleatlabs/cleat/client/compose/project"
)

func (a *app) pushCommand() *cobra.Command {
	var quiet, ignoreFailures, deps bool
	cmd := command("push [OPTIONS] [SERVICE...]", "Push service images", func(ctx context.Context, args []string) error {
		p, o, err := a.selected(ctx, args, deps)
		if err != nil {
			return err
		}
		if err := a.pushBuilt(ctx, o, p); !ignoreFailures {
			return err
		}
		return nil
	})
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "Push without printing progress information")
	cmd.Flags().BoolVar(&ignoreFailures, "ignore-push-failures", false, "Push what it can and ignores images with push failures")
	cmd.Flags().BoolVar(&deps, "include-deps", false, "Also push images of services declared as dependencies")
	a.silencedBy(cmd, &quiet)
	return cmd
}

// pushBuilt pushes the images that are built for services, under all their names. One that cannot be pushed keeps none of
// the others from it.
func (a *app) pushBuilt(ctx context.Context, o *operate.Operator, p *types.Project) error {
	var errs []error
	for _, name := range project.Names(p) {
		s := p.Services[name]
		if s.Build == nil || s.Image == "" {
			a.reporter.Report("Service", name, "Skipped")
			continue
		}
		for _, image := range append([]string{s.Image}, s.Build.Tags...) {
			a.reporter.Report("Image", image, "Pushing")
			if err := a.pushImage(ctx, o, image); err != nil {
				a.reporter.Report("Image", image, "Error "+err.Error())
				errs = append(errs, err)
				continue
			}
			a.reporter.Report("Image", image, "Pushed")
		}
	}
	return errors.Join(errs...)
}

func (a *app) pushImage(ctx context.Context, o *operate.Operator, image string) error {
	_, auth, err := a.credentials(image)
	if err != nil {
		return err
	}
	body, err := o.API.ImagePush(ctx, image, client.ImagePushOptions{RegistryAuth: auth})
	if err != nil {
		return err
	}
	defer body.Close()
	return body.Wait(ctx)
}
