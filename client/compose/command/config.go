package command

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/spf13/cobra"

	"github.com/cleatlabs/cleat/client/compose/canonical"
	"github.com/cleatlabs/cleat/client/compose/label"
	"github.com/cleatlabs/cleat/client/compose/project"
	"github.com/cleatlabs/cleat/client/compose/spec"
)

// configFlags are those of `config`.
type configFlags struct {
	raw                                                                     project.Raw
	services, volumes, networks, profiles, images, models, variables, quiet bool
	environment                                                             bool
	hash, format, output                                                    string
}

func (a *app) configCommand() *cobra.Command {
	var o configFlags
	cmd := command("config [OPTIONS] [SERVICE...]", "Parse, resolve and render compose file in canonical format", func(ctx context.Context, args []string) error {
		return a.showConfig(ctx, args, o)
	})
	cmd.Aliases = []string{"convert"}
	f := cmd.Flags()
	f.StringVar(&o.format, "format", "", "Format the output. Values: [yaml | json]")
	f.StringVar(&o.hash, "hash", "", "Print the service config hash, one per line.")
	f.BoolVar(&o.services, "services", false, "Print the service names, one per line.")
	f.BoolVar(&o.volumes, "volumes", false, "Print the volume names, one per line.")
	f.BoolVar(&o.networks, "networks", false, "Print the network names, one per line.")
	f.BoolVar(&o.profiles, "profiles", false, "Print the profile names, one per line.")
	f.BoolVar(&o.images, "images", false, "Print the image names, one per line.")
	f.BoolVar(&o.models, "models", false, "Print the model names, one per line.")
	f.BoolVar(&o.environment, "environment", false, "Print environment used for interpolation.")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "Only validate the configuration, don't print anything")
	f.BoolVar(&o.raw.NoInterpolation, "no-interpolate", false, "Don't interpolate environment variables")
	f.BoolVar(&o.raw.NoNormalization, "no-normalize", false, "Don't normalize compose model")
	f.BoolVar(&o.raw.NoPaths, "no-path-resolution", false, "Don't resolve file paths")
	f.BoolVar(&o.raw.NoConsistency, "no-consistency", false, "Don't check model consistency - warning: may produce invalid Compose output")
	f.BoolVar(&o.raw.NoEnvironment, "no-env-resolution", false, "Don't resolve service env files")
	f.StringVarP(&o.output, "output", "o", "", "Save to file (default to stdout)")
	a.refusal(cmd, "resolve-image-digests", "the digests of images are not asked for")
	a.refusal(cmd, "lock-image-digests", "the digests of images are not asked for")
	a.refusal(cmd, "variables", "the variables of the file are not listed")
	return cmd
}

func (a *app) showConfig(ctx context.Context, services []string, o configFlags) error {
	p, err := project.Load(ctx, a.options, o.raw, services...)
	if err != nil {
		return err
	}
	if p, err = project.Select(p, services, false); err != nil {
		return err
	}
	if lines, asked, err := o.list(p, a.separator()); asked || err != nil {
		for _, l := range lines {
			_, _ = fmt.Fprintln(a.out, l)
		}
		return err
	}
	var text []byte
	switch o.format {
	case "", "yaml":
		text, err = p.MarshalYAML()
	case "json":
		if text, err = p.MarshalJSON(); err == nil {
			text = append(text, '\n')
		}
	default:
		return fmt.Errorf("unsupported format %q: choose yaml or json", o.format)
	}
	if err != nil || o.quiet {
		return err
	}
	if !o.raw.NoInterpolation {
		// As it would be read again: a dollar is no variable.
		text = []byte(strings.ReplaceAll(string(text), "$", "$$"))
	}
	if o.output != "" {
		return os.WriteFile(o.output, text, 0o666)
	}
	_, err = a.out.Write(text)
	return err
}

// list answers the questions that are about a part of the project.
func (o *configFlags) list(p *types.Project, separator string) (lines []string, asked bool, err error) {
	switch {
	case o.services:
		return project.Names(p), true, nil
	case o.volumes:
		return slices.Sorted(maps.Keys(p.Volumes)), true, nil
	case o.networks:
		return slices.Sorted(maps.Keys(p.Networks)), true, nil
	case o.models:
		return slices.Sorted(maps.Keys(p.Models)), true, nil
	case o.profiles:
		found := map[string]bool{}
		for _, s := range p.AllServices() {
			for _, name := range s.Profiles {
				found[name] = true
			}
		}
		return slices.Sorted(maps.Keys(found)), true, nil
	case o.images:
		for _, name := range project.Names(p) {
			lines = append(lines, spec.ImageName(p, p.Services[name], separator))
		}
		return lines, true, nil
	case o.environment:
		for _, key := range slices.Sorted(maps.Keys(p.Environment)) {
			lines = append(lines, key+"="+p.Environment[key])
		}
		return lines, true, nil
	case o.hash != "":
		lines, err := hashes(p, o.hash)
		return lines, true, err
	}
	return nil, false, nil
}

func hashes(p *types.Project, which string) ([]string, error) {
	names := project.Names(p)
	if which != "*" {
		names = strings.Split(which, ",")
	}
	var lines []string
	for _, name := range names {
		s, ok := p.Services[name]
		if !ok {
			return nil, fmt.Errorf("no such service: %s", name)
		}
		hash, err := canonical.ServiceHash(s)
		if err != nil {
			return nil, err
		}
		lines = append(lines, name+" "+hash)
	}
	return lines, nil
}

func (a *app) versionCommand() *cobra.Command {
	var short bool
	var format string
	cmd := command("version [OPTIONS]", "Show the Docker Compose version information", func(context.Context, []string) error {
		switch {
		case short:
			_, _ = fmt.Fprintln(a.out, label.Compatible)
		case format == "json":
			return json.NewEncoder(a.out).Encode(map[string]string{"version": "v" + label.Compatible})
		case format != "" && format != "pretty":
			return errors.New("unsupported format: choose pretty or json")
		default:
			_, _ = fmt.Fprintf(a.out, "Docker Compose version v%s (cleat %s)\n", label.Compatible, a.version)
		}
		return nil
	})
	cmd.Flags().BoolVar(&short, "short", false, "Shows only Compose's version number")
	cmd.Flags().StringVarP(&format, "format", "f", "", "Format the output. Values: [pretty | json]. (Default: pretty)")
	return cmd
}
