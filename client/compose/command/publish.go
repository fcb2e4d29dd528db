package command

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/spf13/cobra"

	"github.com/cleatlabs/cleat/client/compose/artifact"
	"github.com/cleatlabs/cleat/client/compose/project"
)

// publishing are the flags of `publish`.
type publishing struct {
	digests, environment, yes bool
	version                   string
}

func (a *app) publishCommand() *cobra.Command {
	var o publishing
	cmd := command("publish [OPTIONS] REPOSITORY[:TAG]", "Publish compose application", func(ctx context.Context, args []string) error {
		if len(args) != 1 {
			return errors.New("requires 1 argument: REPOSITORY[:TAG]")
		}
		return a.publish(ctx, args[0], o)
	})
	f := cmd.Flags()
	formerly(f, map[string]string{"y": "yes"})
	f.BoolVar(&o.digests, "resolve-image-digests", false, "Pin image tags to digests")
	f.StringVar(&o.version, "oci-version", "", "OCI image/artifact specification version (automatically determined by default)")
	f.BoolVar(&o.environment, "with-env", false, "Include environment variables in the published OCI artifact")
	f.BoolVarP(&o.yes, "yes", "y", false, `Assume "yes" as answer to all prompts`)
	a.refusal(cmd, "app", "images stay where they are: push them by `compose push`, and pin them by --resolve-image-digests")
	return cmd
}

// publish pushes the project's files, after the images that its services build.
func (a *app) publish(ctx context.Context, repository string, o publishing) error {
	p, err := a.load(ctx)
	if err != nil {
		return err
	}
	if p, err = p.WithProfiles([]string{"*"}); err != nil {
		return err
	}
	files, err := artifact.Collect(p.ComposeFiles, p.WorkingDir)
	if err != nil {
		return err
	}
	if err := publishable(p, files, o); err != nil {
		return err
	}
	if warning := exposes(p); warning != "" && !o.yes {
		if ok, err := a.confirm(ctx, warning+"Are you ok to publish these?"); !ok || err != nil {
			return err
		}
	}
	op, err := a.operator(ctx)
	if err != nil {
		return err
	}
	_ = a.pushBuilt(ctx, op, p) // as docker compose has it, one that cannot be pushed is the reader's to build
	if o.digests {
		text, err := a.render(ctx, nil, configFlags{lock: true})
		if err != nil {
			return err
		}
		files = append(files, artifact.File{Name: "image-digests.yaml", Content: text})
	}
	a.reporter.Report("Artifact", repository, "publishing")
	if a.dryRun {
		a.reporter.Report("Artifact", repository, "published")
		return nil
	}
	pushed, err := artifact.Push(ctx, repository, files, o.version, a.config())
	if err != nil {
		a.reporter.Report("Artifact", repository, "Error "+err.Error())
		return err
	}
	a.reporter.Report("Artifact", repository, "published "+pushed)
	return nil
}

// publishable says what keeps a project from being published.
func publishable(p *types.Project, files []artifact.File, o publishing) error {
	var built, environment []string
	for _, name := range project.Names(p) {
		s := p.Services[name]
		if s.Image == "" && s.Build != nil {
			built = append(built, fmt.Sprintf("- %q\n", name))
		}
		if len(s.Environment) > 0 {
			environment = append(environment, fmt.Sprintf("service %q has environment variable(s) declared.\n", name))
		}
	}
	for _, key := range slices.Sorted(maps.Keys(p.Configs)) {
		if p.Configs[key].Environment != "" {
			environment = append(environment, fmt.Sprintf("config %q is declare as an environment variable.\n", key))
		}
	}
	if slices.ContainsFunc(files, func(f artifact.File) bool { return f.Environment }) {
		environment = append(environment, "services have env_file declared.\n")
	}
	switch {
	case len(built) > 0:
		return errors.New("your Compose stack cannot be published as it only contains a build section for service(s):\n" + strings.Join(built, ""))
	case len(environment) > 0 && !o.environment:
		return errors.New(strings.Join(environment, "") + "To avoid leaking sensitive data, you must either explicitly allow the sending of environment variables by using the --with-env flag,\n" +
			"or remove sensitive data from your Compose configuration")
	}
	return nil
}

// exposes tells what a reader of the artifact learns, "" if that is nothing to ask about.
func exposes(p *types.Project) string {
	var b strings.Builder
	for _, name := range project.Names(p) {
		s := p.Services[name]
		for _, v := range s.Volumes {
			if v.Type == types.VolumeTypeBind {
				fmt.Fprintf(&b, "service %s: bind mount %s\n", name, v.String())
			}
		}
		for _, key := range slices.Sorted(maps.Keys(s.Environment)) {
			if value := s.Environment[key]; value != nil {
				fmt.Fprintf(&b, "service %s: %s=%s\n", name, key, *value)
			}
		}
	}
	if b.Len() == 0 {
		return ""
	}
	return "you are about to publish bind mount declarations and environment variables within your OCI artifact.\nplease double check that you are not leaking sensitive data\n" + b.String()
}
