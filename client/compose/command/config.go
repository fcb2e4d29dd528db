package command

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/template"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/distribution/reference"
	"github.com/moby/moby/client"
	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/cleatlabs/cleat/client/compose/canonical"
	"github.com/cleatlabs/cleat/client/compose/label"
	"github.com/cleatlabs/cleat/client/compose/project"
	"github.com/cleatlabs/cleat/client/compose/spec"
	"github.com/cleatlabs/cleat/client/dockerconfig"
	"github.com/cleatlabs/cleat/client/term"
)

// configFlags are those of `config`.
type configFlags struct {
	raw                                                                     project.Raw
	services, volumes, networks, profiles, images, models, variables, quiet bool
	environment, digests, lock                                              bool
	hash, format, output                                                    string
}

func (a *app) configCommand() *cobra.Command {
	var o configFlags
	cmd := command("config [OPTIONS] [SERVICE...]", "Parse, resolve and render compose file in canonical format", func(ctx context.Context, args []string) error {
		if a.options.Compatibility {
			o.raw.NoNormalization = true
		}
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
	f.BoolVar(&o.variables, "variables", false, "Print model variables and default values.")
	f.BoolVar(&o.environment, "environment", false, "Print environment used for interpolation.")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "Only validate the configuration, don't print anything")
	f.BoolVar(&o.raw.NoInterpolation, "no-interpolate", false, "Don't interpolate environment variables")
	f.BoolVar(&o.raw.NoNormalization, "no-normalize", false, "Don't normalize compose model")
	f.BoolVar(&o.raw.NoPaths, "no-path-resolution", false, "Don't resolve file paths")
	f.BoolVar(&o.raw.NoConsistency, "no-consistency", false, "Don't check model consistency - warning: may produce invalid Compose output")
	f.BoolVar(&o.raw.NoEnvironment, "no-env-resolution", false, "Don't resolve service env files")
	f.BoolVar(&o.digests, "resolve-image-digests", false, "Pin image tags to digests")
	f.BoolVar(&o.lock, "lock-image-digests", false, "Produces an override file with image digests")
	f.StringVarP(&o.output, "output", "o", "", "Save to file (default to stdout)")
	return cmd
}

func (a *app) showConfig(ctx context.Context, services []string, o configFlags) error {
	switch {
	case o.variables:
		return a.showVariables(ctx, o)
	case o.services && o.raw.NoInterpolation:
		model, err := project.Model(ctx, a.options, o.raw)
		if err != nil {
			return err
		}
		a.printLines(slices.Sorted(maps.Keys(section(model, "services"))), o)
		return nil
	}
	if lines, asked, err := a.list(ctx, services, o); asked || err != nil {
		a.printLines(lines, o)
		return err
	}
	text, err := a.render(ctx, services, o)
	if err != nil || o.quiet {
		return err
	}
	if o.output != "" {
		return os.WriteFile(o.output, text, 0o666)
	}
	_, err = a.out.Write(text)
	return err
}

func (a *app) printLines(lines []string, o configFlags) {
	for _, l := range lines {
		if !o.quiet {
			_, _ = fmt.Fprintln(a.out, l)
		}
	}
}

// render is the whole project.
func (a *app) render(ctx context.Context, services []string, o configFlags) ([]byte, error) {
	if o.raw.NoInterpolation {
		return a.renderModel(ctx, o)
	}
	p, err := project.Load(ctx, a.options, o.raw, services...)
	if err != nil {
		return nil, err
	}
	if o.digests || o.lock {
		if _, err := a.connect(ctx); err != nil {
			return nil, err
		}
		if p, err = p.WithImagesResolved(a.digest(ctx)); err != nil {
			return nil, err
		}
	}
	if !o.raw.NoConsistency {
		if err := p.CheckContainerNameUnicity(); err != nil {
			return nil, err
		}
	}
	if o.lock {
		p = imagesOnly(p)
	}
	for name, s := range p.Services {
		s.LabelFiles = nil // what they say is among the labels
		p.Services[name] = s
	}
	var text []byte
	switch o.format {
	case "", "yaml":
		text, err = canonical.YAML(p)
	case "json":
		text, err = canonical.JSON(p)
	default:
		return nil, fmt.Errorf("unsupported format %q", o.format)
	}
	// As it would be read again: a dollar is no variable.
	return bytes.ReplaceAll(text, []byte("$"), []byte("$$")), err
}

// imagesOnly is what an override file needs to pin the images.
func imagesOnly(p *types.Project) *types.Project {
	pinned := types.Services{}
	for name, s := range p.Services {
		var only types.ServiceConfig
		only.Image = s.Image
		pinned[name] = only
	}
	return &types.Project{Services: pinned}
}

// renderModel is the project with its variables, which cannot be typed.
func (a *app) renderModel(ctx context.Context, o configFlags) ([]byte, error) {
	model, err := project.Model(ctx, a.options, o.raw)
	if err != nil {
		return nil, err
	}
	if o.digests || o.lock {
		if err := a.pinModel(ctx, model); err != nil {
			return nil, err
		}
	}
	if o.lock {
		maps.DeleteFunc(model, func(key string, _ any) bool { return key != "services" })
		for name := range section(model, "services") {
			maps.DeleteFunc(section(section(model, "services"), name), func(key string, _ any) bool { return key != "image" })
		}
	}
	switch o.format {
	case "", "yaml":
		return canonical.EncodeYAML(model)
	case "json":
		return json.MarshalIndent(model, "", "  ")
	}
	return nil, fmt.Errorf("unsupported format %q", o.format)
}

// pinModel puts digests into the images of a model.
func (a *app) pinModel(ctx context.Context, model map[string]any) error {
	if _, err := a.connect(ctx); err != nil {
		return err
	}
	resolve := a.digest(ctx)
	for name := range section(model, "services") {
		s := section(section(model, "services"), name)
		image, ok := s["image"].(string)
		if !ok {
			continue
		}
		named, err := reference.ParseDockerRef(image)
		if err != nil {
			return fmt.Errorf("service %q: %w", name, err)
		}
		if _, pinned := named.(reference.Canonical); !pinned {
			found, err := resolve(named)
			if err != nil {
				return err
			}
			if named, err = reference.WithDigest(named, found); err != nil {
				return err
			}
		}
		s["image"] = named.String()
	}
	return nil
}

// section is a part of a model that has parts, nil if it is not there.
func section(model map[string]any, key string) map[string]any {
	part, _ := model[key].(map[string]any)
	return part
}

// digest asks the registry of an image what its name means there.
func (a *app) digest(ctx context.Context) func(reference.Named) (digest.Digest, error) {
	return func(named reference.Named) (digest.Digest, error) {
		auth, err := dockerconfig.RegistryAuth(a.config(), reference.Domain(named), a.reporter.Warn)
		if err != nil {
			return "", err
		}
		found, err := a.api.DistributionInspect(ctx, named.String(), client.DistributionInspectOptions{EncodedRegistryAuth: auth})
		if err != nil {
			return "", fmt.Errorf("failed to resolve digest for %s: %w", named.String(), err)
		}
		return found.Descriptor.Digest, nil
	}
}

// showVariables lists the variables that the files have.
func (a *app) showVariables(ctx context.Context, o configFlags) error {
	o.raw.NoInterpolation = true
	model, err := project.Model(ctx, a.options, o.raw)
	if err != nil || o.quiet {
		return err
	}
	variables := template.ExtractVariables(model, template.DefaultPattern)
	switch o.format {
	case "yaml":
		text, err := yaml.Marshal(variables) // indented by four, as docker compose does here
		if err != nil {
			return err
		}
		_, err = a.out.Write(text)
		return err
	case "json":
		e := json.NewEncoder(a.out)
		e.SetEscapeHTML(false)
		e.SetIndent("", "    ")
		err := e.Encode(variables)
		_, _ = fmt.Fprintln(a.out)
		return err
	case "", "table", "pretty":
	default:
		return fmt.Errorf("format value %q could not be parsed: choose table, json or yaml", o.format)
	}
	t := term.NewTable(a.out, 20, 3)
	_, _ = fmt.Fprintln(t, "NAME\tREQUIRED\tDEFAULT VALUE\tALTERNATE VALUE")
	for _, name := range slices.Sorted(maps.Keys(variables)) {
		v := variables[name]
		_, _ = fmt.Fprintf(t, "%s\t%t\t%s\t%s\n", name, v.Required, v.DefaultValue, v.PresenceValue)
	}
	return t.Flush()
}

// list answers the questions that are about a part of the project.
func (a *app) list(ctx context.Context, services []string, o configFlags) (lines []string, asked bool, err error) {
	if !(o.services || o.volumes || o.networks || o.models || o.profiles || o.images || o.environment || o.hash != "") {
		return nil, false, nil
	}
	if o.services || o.volumes || o.networks || o.models {
		services = nil
	}
	if o.hash != "" {
		services = nil
	}
	raw := o.raw
	raw.NoEnvironment = raw.NoEnvironment || o.hash == "" // the hash is that by which containers are compared
	p, err := project.Load(ctx, a.options, raw, services...)
	if err != nil {
		return nil, true, err
	}
	switch {
	case o.services:
		return project.Names(p), true, nil
	case o.volumes:
		return slices.Sorted(maps.Keys(p.Volumes)), true, nil
	case o.networks:
		return slices.Sorted(maps.Keys(p.Networks)), true, nil
	case o.models:
		for _, name := range slices.Sorted(maps.Keys(p.Models)) {
			if model := p.Models[name].Model; model != "" {
				lines = append(lines, model)
			}
		}
	case o.hash != "":
		lines, err = hashes(p, o.hash)
	case o.profiles:
		lines = profiles(p)
	case o.images:
		for _, name := range project.Names(p) {
			lines = append(lines, spec.ImageName(p, p.Services[name], a.separator()))
		}
	case o.environment:
		for _, key := range slices.Sorted(maps.Keys(p.Environment)) {
			lines = append(lines, key+"="+p.Environment[key])
		}
	}
	return lines, true, err
}

// profiles are those that any service has.
func profiles(p *types.Project) []string {
	found := map[string]bool{}
	for _, s := range p.AllServices() {
		for _, name := range s.Profiles {
			found[name] = true
		}
	}
	return slices.Sorted(maps.Keys(found))
}

func hashes(p *types.Project, which string) ([]string, error) {
	if err := spec.Platforms(p, true); err != nil {
		return nil, err
	}
	names := project.Names(p)
	if which != "*" {
		names = strings.Split(which, ",")
		slices.Sort(names)
	}
	var lines []string
	for _, name := range names {
		s, ok := p.Services[name]
		if !ok {
			return nil, noService(p, name)
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
		default: // also of a format that there is not, as docker compose has it
			_, _ = fmt.Fprintf(a.out, "Docker Compose version v%s (cleat %s)\n", label.Compatible, a.version)
		}
		return nil
	})
	cmd.Flags().BoolVar(&short, "short", false, "Shows only Compose's version number")
	cmd.Flags().StringVarP(&format, "format", "f", "", "Format the output. Values: [pretty | json]. (Default: pretty)")
	return cmd
}
