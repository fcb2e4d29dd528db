package command

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/cleatlabs/cleat/client/compose/operate"
	"github.com/cleatlabs/cleat/client/compose/project"
	"github.com/cleatlabs/cleat/client/compose/spec"
	"github.com/cleatlabs/cleat/client/compose/watch"
)

// making are the flags that up, create, run and scale share.
type making struct {
	build, noBuild, force, noRecreate, always, renew, noDeps, quietPull, quietBuild, watched, yes bool
	pull                                                                                          string
	scale                                                                                         []string
	exitCodeFrom                                                                                  string      // a service that there must be
	attach                                                                                        []string    // others
	removeOrphans                                                                                 func() bool // as orphansFlag gives it
}

func (m *making) install(f *pflag.FlagSet) {
	formerly(f, map[string]string{"y": "yes"})
	f.BoolVar(&m.build, "build", false, "Build images before starting containers")
	f.BoolVar(&m.noBuild, "no-build", false, "Don't build an image, even if it's policy")
	f.StringVar(&m.pull, "pull", "policy", `Pull image before running ("always"|"missing"|"never"|"build")`)
	f.BoolVar(&m.quietPull, "quiet-pull", false, "Pull without printing progress information")
	f.BoolVar(&m.force, "force-recreate", false, "Recreate containers even if their configuration and image haven't changed")
	f.BoolVar(&m.noRecreate, "no-recreate", false, "If containers already exist, don't recreate them. Incompatible with --force-recreate.")
	m.removeOrphans = orphansFlag(f)
	f.StringArrayVar(&m.scale, "scale", nil, "Scale SERVICE to NUM instances. Overrides the `scale` setting in the Compose file if present.")
	f.BoolVarP(&m.yes, "yes", "y", false, `Assume "yes" as answer to all prompts and run non-interactively`)
}

func (m *making) check() error {
	switch {
	case m.force && m.noRecreate:
		return errors.New("--force-recreate and --no-recreate are incompatible")
	case m.build && m.noBuild:
		return errors.New("--build and --no-build are incompatible")
	case m.renew && m.noRecreate:
		return errors.New("--no-recreate and --renew-anon-volumes are incompatible")
	case m.always && m.noRecreate:
		return errors.New("--always-recreate-deps and --no-recreate are incompatible")
	}
	return nil
}

// options are those of the create.
func (m *making) options(services []string, timeout *int) operate.CreateOptions {
	o := operate.CreateOptions{Services: services, RenewVolumes: m.renew, Timeout: timeout}
	switch {
	case m.force, m.renew: // without new containers there would be no new volumes
		o.Recreate = operate.Always
	case m.noRecreate:
		o.Recreate, o.Dependencies = operate.Never, operate.Never
	}
	if m.always {
		o.Dependencies = operate.Always
	}
	return o
}

// applyScale sets how many containers the services have.
func applyScale(p *types.Project, scale []string) error {
	for _, text := range scale {
		name, count, ok := strings.Cut(text, "=")
		n, err := strconv.Atoi(count)
		if !ok || err != nil || n < 0 {
			return fmt.Errorf("invalid --scale option %q. Should be SERVICE=NUM", text)
		}
		s, known := p.Services[name]
		if !known {
			return noService(p, name)
		}
		s.Scale = &n
		p.Services[name] = s
	}
	return nil
}

// wanted is the project with what the flags choose of it.
func (a *app) wanted(ctx context.Context, services []string, m *making) (*types.Project, error) {
	p, err := a.load(ctx, services...)
	if err != nil {
		return nil, err
	}
	if err := applyScale(p, m.scale); err != nil {
		return nil, err
	}
	if p, err = project.Select(p, services, m.noDeps); err != nil {
		return nil, err
	}
	if len(p.Services) == 0 {
		return nil, errors.New("no service selected")
	}
	if m.exitCodeFrom != "" && !slices.Contains(project.Names(p), m.exitCodeFrom) {
		return nil, noService(p, m.exitCodeFrom)
	}
	if i := slices.IndexFunc(m.attach, func(name string) bool { return !slices.Contains(project.Names(p), name) }); i >= 0 {
		return nil, fmt.Errorf("cannot attach to services not included in up: %s", m.attach[i])
	}
	if err := spec.Platforms(p, true); err != nil {
		return nil, err
	}
	if m.watched {
		if _, err := watch.Rules(p, func(string) {}); err != nil {
			return nil, err
		}
	}
	if m.noDeps {
		for name, s := range p.Services {
			s.DependsOn = nil
			p.Services[name] = s
		}
	}
	return p, nil
}

// made loads the project and makes its containers.
func (a *app) made(ctx context.Context, services []string, m *making, timeout *int) (*operate.Operator, *types.Project, error) {
	if err := m.check(); err != nil {
		return nil, nil, err
	}
	var p *types.Project
	o, err := a.begin(ctx, func() (err error) {
		p, err = a.wanted(ctx, services, m)
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	if p, err = a.supplied(ctx, o, p); err != nil {
		return nil, nil, err
	}
	if err := a.images(ctx, o, p, m); err != nil {
		return nil, nil, err
	}
	if o.Yes = m.yes; isTerminal(a.in) && a.err.IsTerminal() {
		o.Confirm = func(ctx context.Context, question string) (bool, error) {
			defer a.reporter.Hold()()
			return a.confirm(ctx, question)
		}
	}
	options := m.options(services, timeout)
	if err := orphans(p, &options, m.removeOrphans()); err != nil {
		return nil, nil, err
	}
	return o, p, o.Create(ctx, p, options)
}

// images pulls and builds what is needed, as loudly as the flags say.
func (a *app) images(ctx context.Context, o *operate.Operator, p *types.Project, m *making) error {
	if m.quietPull {
		loud := o.Report
		o.Report = mute{loud, "Image"}
		defer func() { o.Report = loud }()
	}
	if m.quietBuild {
		o.Build = func(ctx context.Context, p *types.Project, services []string) error {
			return a.build(ctx, p, services, building{quiet: true})
		}
	}
	return o.EnsureImages(ctx, p, operate.ImageOptions{Pull: m.pull, Build: m.build, NoBuild: m.noBuild})
}

func (a *app) upCommand() *cobra.Command {
	var m making
	var u up
	cmd := command("up [OPTIONS] [SERVICE...]", "Create and start containers", nil)
	f := cmd.Flags()
	m.install(f)
	f.BoolVar(&m.noDeps, "no-deps", false, "Don't start linked services")
	f.BoolVar(&m.always, "always-recreate-deps", false, "Recreate dependent containers. Incompatible with --no-recreate.")
	f.BoolVarP(&m.renew, "renew-anon-volumes", "V", false, "Recreate anonymous volumes instead of retrieving data from the previous containers")
	f.BoolVarP(&u.detach, "detach", "d", false, "Detached mode: Run containers in the background")
	f.BoolVar(&u.noStart, "no-start", false, "Don't start the services after creating them")
	f.BoolVar(&u.wait, "wait", false, "Wait for services to be running|healthy. Implies detached mode.")
	f.IntVar(&u.waitTimeout, "wait-timeout", 0, "Maximum duration in seconds to wait for the project to be running|healthy")
	f.BoolVar(&u.abort, "abort-on-container-exit", false, "Stops all containers if any container was stopped. Incompatible with -d")
	f.BoolVar(&u.abortFailure, "abort-on-container-failure", false, "Stops all containers if any container exited with failure. Incompatible with -d")
	f.StringVar(&u.exitCodeFrom, "exit-code-from", "", "Return the exit code of the selected service container. Implies --abort-on-container-exit")
	f.StringArrayVar(&u.attach, "attach", nil, "Restrict attaching to the specified services. Incompatible with --attach-dependencies.")
	f.StringArrayVar(&u.noAttach, "no-attach", nil, "Do not attach (stream logs) to the specified services")
	f.BoolVar(&u.attachDependencies, "attach-dependencies", false, "Automatically attach to log output of dependent services")
	f.BoolVar(&u.noColour, "no-color", false, "Produce monochrome output")
	f.BoolVar(&u.noPrefix, "no-log-prefix", false, "Don't print prefix in logs")
	f.BoolVar(&u.timestamps, "timestamps", false, "Show timestamps")
	timeout := timeoutFlag(cmd, "Use this timeout in seconds for container shutdown when attached or when containers are already running")
	f.BoolVarP(&u.watch, "watch", "w", false, "Watch source code and rebuild/refresh containers when files are updated.")
	f.BoolVar(&m.quietBuild, "quiet-build", false, "Suppress the build output")
	menu := f.Bool("menu", false, "Enable interactive shortcuts when running attached. Incompatible with --detach. Can also be enable/disable by setting COMPOSE_MENU environment var.")
	cmd.PreRunE = func(*cobra.Command, []string) error {
		u.menu = *menu
		if !f.Changed("menu") {
			u.menu = enabled("COMPOSE_MENU", true)
		}
		return nil
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := u.check(); err != nil {
			return err
		}
		if m.noBuild && u.watch {
			return errors.New("--no-build and --watch are incompatible")
		}
		m.watched, u.quietBuild = u.watch, m.quietBuild
		return a.up(cmd.Context(), args, &m, &u, timeout())
	}
	return cmd
}

// up are the flags of up alone.
type up struct {
	detach, noStart, wait, abort, abortFailure, noColour, noPrefix, timestamps, attachDependencies, watch, quietBuild, menu bool
	waitTimeout                                                                                                             int
	exitCodeFrom                                                                                                            string
	attach, noAttach                                                                                                        []string
}

func (u *up) check() error {
	if u.exitCodeFrom != "" && !u.abortFailure {
		u.abort = true
	}
	if u.wait {
		u.detach = true
	}
	switch {
	case u.abort && u.abortFailure:
		return errors.New("cannot combine --abort-on-container-failure and --abort-on-container-exit")
	case u.detach && u.watch:
		return errors.New("--detach cannot be combined with --watch")
	case u.detach && (u.abort || u.abortFailure):
		return errors.New("--detach cannot be combined with --abort-on-container-exit or --abort-on-container-failure")
	case u.detach && (len(u.attach) > 0 || u.attachDependencies):
		return errors.New("--detach cannot be combined with --attach or --attach-dependencies")
	case len(u.attach) > 0 && u.attachDependencies:
		return errors.New("cannot combine --attach and --attach-dependencies")
	}
	return nil
}

func (a *app) up(ctx context.Context, services []string, m *making, u *up, timeout *int) error {
	m.exitCodeFrom, m.attach = u.exitCodeFrom, u.attach
	o, p, err := a.made(ctx, services, m, timeout)
	if err != nil || u.noStart {
		return err
	}
	if !u.detach && !a.dryRun {
		return a.attached(ctx, o, p, services, u, timeout)
	}
	return o.Start(ctx, p, operate.StartOptions{Wait: u.wait, WaitTimeout: time.Duration(u.waitTimeout) * time.Second})
}

func (a *app) createCommand() *cobra.Command {
	var m making
	cmd := command("create [OPTIONS] [SERVICE...]", "Creates containers for a service", func(ctx context.Context, args []string) error {
		_, _, err := a.made(ctx, args, &m, nil)
		return err
	})
	m.install(cmd.Flags())
	return cmd
}

func (a *app) scaleCommand() *cobra.Command {
	m := making{removeOrphans: func() bool { return enabled("COMPOSE_REMOVE_ORPHANS", false) }}
	cmd := command("scale [SERVICE=REPLICAS...]", "Scale services", func(ctx context.Context, args []string) error {
		if len(args) == 0 {
			return errors.New("requires at least 1 argument: SERVICE=REPLICAS")
		}
		var services []string
		for _, text := range args {
			name, count, ok := strings.Cut(text, "=")
			if !ok || name == "" || count == "" {
				return fmt.Errorf("invalid scale specifier: %s", text)
			}
			if _, err := strconv.Atoi(count); err != nil {
				return fmt.Errorf("invalid scale specifier: can't parse replica value as int: %s", text)
			}
			services = append(services, name)
		}
		m.scale, m.noRecreate = args, true
		o, p, err := a.made(ctx, services, &m, nil)
		if err != nil {
			return err
		}
		return o.Start(ctx, p, operate.StartOptions{})
	})
	cmd.Flags().BoolVar(&m.noDeps, "no-deps", false, "Don't start linked services")
	return cmd
}
