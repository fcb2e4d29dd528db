package command

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/dotenv"
	"github.com/compose-spec/compose-go/v2/format"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/spf13/cobra"

	"github.com/cleatlabs/cleat/client/compose/operate"
	"github.com/cleatlabs/cleat/client/compose/project"
	"github.com/cleatlabs/cleat/client/compose/spec"
	"github.com/cleatlabs/cleat/client/term"
)

// oneOff are the flags of `run`.
type oneOff struct {
	making
	detach, noTTY, rm, servicePorts, useAliases, quiet, interactive, tty bool
	name, user, workdir, entrypoint                                      string
	env, envFiles, labels, publish, volumes, capAdd, capDrop             []string
}

func isTerminal(r io.Reader) bool { return term.NewInput(r).IsTerminal() }

func (a *app) runCommand() *cobra.Command {
	var o oneOff
	cmd := command("run [OPTIONS] SERVICE [COMMAND] [ARGS...]", "Run a one-off command on a service", nil)
	f := cmd.Flags()
	f.SetInterspersed(false)
	f.BoolVar(&o.build, "build", false, "Build image before starting container")
	f.StringVar(&o.pull, "pull", "policy", `Pull image before running ("always"|"missing"|"never")`)
	f.BoolVar(&o.quietPull, "quiet-pull", false, "Pull without printing progress information")
	f.BoolVar(&o.quietBuild, "quiet-build", false, "Suppress progress output from the build process")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "Don't print anything to STDOUT")
	o.removeOrphans = orphansFlag(f)
	f.BoolVar(&o.noDeps, "no-deps", false, "Don't start linked services")
	f.BoolVarP(&o.detach, "detach", "d", false, "Run container in background and print container ID")
	f.BoolVarP(&o.noTTY, "no-TTY", "T", false, "Disable pseudo-TTY allocation (default: auto-detected)")
	f.BoolVarP(&o.interactive, "interactive", "i", true, "Keep STDIN open even if not attached")
	f.BoolVarP(&o.tty, "tty", "t", true, "Allocate a pseudo-TTY")
	_ = f.MarkHidden("tty")
	f.BoolVar(&o.rm, "rm", false, "Automatically remove the container when it exits")
	f.BoolVarP(&o.servicePorts, "service-ports", "P", false, "Run command with all service's ports enabled and mapped to the host")
	f.BoolVar(&o.useAliases, "use-aliases", false, "Use the service's network useAliases in the network(s) the container connects to")
	f.StringVar(&o.name, "name", "", "Assign a name to the container")
	f.StringVarP(&o.user, "user", "u", "", "Run as specified username or uid")
	f.StringVarP(&o.workdir, "workdir", "w", "", "Working directory inside the container")
	f.StringVar(&o.entrypoint, "entrypoint", "", "Override the entrypoint of the image")
	f.StringArrayVarP(&o.env, "env", "e", nil, "Set environment variables")
	f.StringArrayVarP(&o.labels, "label", "l", nil, "Add or override a label")
	f.StringArrayVarP(&o.publish, "publish", "p", nil, "Publish a container's port(s) to the host")
	f.StringArrayVarP(&o.volumes, "volume", "v", nil, "Bind mount a volume")
	f.StringArrayVar(&o.capAdd, "cap-add", nil, "Add Linux capabilities")
	f.StringArrayVar(&o.capDrop, "cap-drop", nil, "Drop Linux capabilities")
	f.StringArrayVar(&o.envFiles, "env-from-file", nil, "Set environment variables from file")
	formerly(f, map[string]string{"no-tty": "no-TTY", "volumes": "volume", "labels": "label"})
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) == 0:
			return errors.New("requires at least 1 argument: SERVICE")
		case o.servicePorts && len(o.publish) > 0:
			return errors.New("--service-ports and --publish are incompatible")
		case f.Changed("tty") && f.Changed("no-TTY"):
			return errors.New("--tty and --no-TTY can't be used together")
		}
		o.noTTY = o.noTTY || !o.tty
		return a.run(cmd.Context(), args[0], args[1:], &o, cmd.Flags().Changed("entrypoint"))
	}
	return cmd
}

func (a *app) run(ctx context.Context, name string, args []string, o *oneOff, entrypoint bool) error {
	p, err := a.load(ctx, name)
	if err != nil {
		return err
	}
	if p, err = project.Select(p, []string{name}, o.noDeps); err != nil {
		return err
	}
	if err := spec.Platforms(p, true); err != nil {
		return err
	}
	op, err := a.operator(ctx)
	if err != nil {
		return err
	}
	if p, err = a.supplied(ctx, op, p); err != nil {
		return err
	}
	if o.quiet {
		op.Report = quieter{op.Report}
		o.quietPull, o.quietBuild = true, true
	}
	if err := a.images(ctx, op, p, &o.making); err != nil {
		return err
	}
	s, err := o.service(p, name, args, entrypoint)
	if err != nil {
		return err
	}
	if err := a.startDependencies(ctx, op, p, s, o); err != nil {
		return err
	}
	slug := make([]byte, 32)
	if _, err := rand.Read(slug); err != nil {
		return err
	}
	tty := !o.noTTY && !o.detach && a.terminal()
	s.Tty, s.StdinOpen = tty || s.Tty && o.detach, o.interactive
	made, err := op.OneOff(ctx, p, s, operate.OneOffOptions{
		Name: o.name, Slug: hex.EncodeToString(slug), AutoRemove: o.rm, UseAliases: o.useAliases, Attached: !o.detach,
	})
	if err != nil {
		return err
	}
	a.reporter.End()
	if !o.detach {
		return a.become("start", "--attach", "--interactive="+fmt.Sprint(o.interactive), made)
	}
	if err := op.StartOne(ctx, made); err != nil {
		return err
	}
	_, _ = fmt.Fprintln(a.out, made)
	return nil
}

// service is the service as the flags change it.
func (o *oneOff) service(p *types.Project, name string, args []string, entrypoint bool) (types.ServiceConfig, error) {
	s, err := p.GetService(name)
	if err != nil {
		return s, err
	}
	if len(args) > 0 {
		s.Command = args
	}
	if entrypoint {
		if err := s.Entrypoint.DecodeMapstructure(o.entrypoint); err != nil {
			return s, fmt.Errorf("--entrypoint: %w", err)
		}
		if len(args) == 0 {
			s.Command = types.ShellCommand{}
		}
	}
	if o.user != "" {
		s.User = o.user
	}
	if o.workdir != "" {
		s.WorkingDir = o.workdir
	}
	if s.Environment, err = o.environment(p, s.Environment); err != nil {
		return s, err
	}
	if s.Labels, err = o.labelled(s.Labels); err != nil {
		return s, err
	}
	s.CapAdd, s.CapDrop = o.capabilities(s.CapAdd, s.CapDrop)
	if s.Ports, err = o.ports(s.Ports); err != nil {
		return s, err
	}
	s.Volumes, err = o.mounts(p, s.Volumes)
	return s, err
}

// capabilities are a service's with those of the flags, which win: what is added and dropped the engine adds.
func (o *oneOff) capabilities(add, drop []string) (added, dropped []string) {
	with := func(of, more, less []string) []string {
		kept := slices.DeleteFunc(slices.Clone(of), func(c string) bool { return slices.Contains(less, c) })
		return append(kept, more...)
	}
	return with(add, o.capAdd, o.capDrop), with(drop, o.capDrop, o.capAdd)
}

// environment are a service's variables, over which those of --env-from-file win, and over these those of -e, of which one
// without a value has that of the project, and says nothing where that has none.
func (o *oneOff) environment(p *types.Project, of types.MappingWithEquals) (types.MappingWithEquals, error) {
	all := types.MappingWithEquals{}.OverrideBy(of)
	for _, file := range o.envFiles {
		variables, err := dotenv.GetEnvFromFile(p.Environment, []string{file})
		if err != nil {
			return nil, err
		}
		for key, value := range variables {
			all[key] = &value
		}
	}
	return all.OverrideBy(types.NewMappingWithEquals(o.env).Resolve(p.Environment.Resolve).RemoveEmpty()), nil
}

// labelled are a service's labels with those of -l.
func (o *oneOff) labelled(of types.Labels) (types.Labels, error) {
	if len(o.labels) == 0 {
		return of, nil
	}
	all := types.Labels{}
	maps.Copy(all, of)
	for _, l := range o.labels {
		k, v, ok := strings.Cut(l, "=")
		if !ok {
			return nil, fmt.Errorf("label must be set as KEY=VALUE: %q is not", l)
		}
		all[k] = v
	}
	return all, nil
}

// ports are those of -p, after a service's own where they are asked for.
func (o *oneOff) ports(of []types.ServicePortConfig) ([]types.ServicePortConfig, error) {
	var all []types.ServicePortConfig
	if o.servicePorts {
		all = slices.Clone(of)
	}
	for _, text := range o.publish {
		ports, err := types.ParsePortConfig(text)
		if err != nil {
			return nil, err
		}
		all = append(all, ports...)
	}
	return all, nil
}

// mounts are a service's volumes and those of -v, whose paths are relative to the project's directory.
func (o *oneOff) mounts(p *types.Project, of []types.ServiceVolumeConfig) ([]types.ServiceVolumeConfig, error) {
	all := slices.Clone(of)
	for _, text := range o.volumes {
		v, err := format.ParseVolume(text)
		if err != nil {
			return nil, err
		}
		if v.Type == types.VolumeTypeBind {
			v.Source = p.RelativePath(v.Source)
		}
		all = append(all, v)
	}
	return all, nil
}

// startDependencies brings up what the service needs, without the service itself.
func (a *app) startDependencies(ctx context.Context, op *operate.Operator, p *types.Project, s types.ServiceConfig, o *oneOff) error {
	others, remove := p.WithServicesDisabled(s.Name), o.removeOrphans()
	if o.noDeps {
		others = p.WithServicesDisabled(project.Names(p)...)
	}
	if len(others.Services) == 0 && !remove {
		return op.EnsureObjects(ctx, p)
	}
	if err := op.Create(ctx, others, operate.CreateOptions{IgnoreOrphans: !remove, RemoveOrphans: remove}); err != nil {
		return err
	}
	if err := op.Start(ctx, others, operate.StartOptions{}); err != nil {
		return err
	}
	if err := op.EnsureObjects(ctx, p); err != nil || o.noDeps {
		return err
	}
	return op.AwaitDependencies(ctx, p, s)
}
