// Package command is `cleat compose`: its flags, its commands and what they print. It is
// a plugin of cleat and of Docker's client, and a program of its own under the name
// docker-compose.
//
// It promises:
//   - docker compose's commands, flags, output and exit codes. A flag that has no effect
//     is refused by its name.
//   - SIGINT and SIGTERM end what is under way; what was made carries the project's labels,
//     so that `down` finds it.
package command

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/docker/cli/cli/config/configfile"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/cleatlabs/cleat/client/clientplugin"
	"github.com/cleatlabs/cleat/client/compose/operate"
	"github.com/cleatlabs/cleat/client/compose/project"
	"github.com/cleatlabs/cleat/client/compose/show"
	"github.com/cleatlabs/cleat/client/connect"
	"github.com/cleatlabs/cleat/client/dockerconfig"
	"github.com/cleatlabs/cleat/client/term"
	"github.com/cleatlabs/cleat/client/usage"
)

// Process is what the command is run with.
type Process struct {
	Args    []string // including the program's name
	Version string   // of this build
	In      io.Reader
	Out     io.Writer
	Err     io.Writer
}

// app is one run of the command.
type app struct {
	program string // what the user types: "cleat", or "docker"
	version string
	in      io.Reader
	out     *term.Output
	err     *term.Output

	globals  connect.Options
	options  project.Options
	parallel int
	progress string
	ansi     string
	dryRun   bool
	noANSI   bool
	verbose  bool

	cfgOnce  sync.Once // the project may be loaded while the engine is reached
	cfg      *configfile.ConfigFile
	api      *client.Client
	host     string // what it is connected to, as the user wrote it
	reporter *show.Progress
	project  *types.Project // once it was loaded
}

// Run executes the command and returns its exit code.
func Run(p Process) int {
	a := &app{program: clientplugin.Caller(p.Args[0]), version: p.Version, in: p.In, out: term.NewOutput(p.Out), err: term.NewOutput(p.Err)}
	args := p.Args[1:]
	if asked, err := clientplugin.Describe(p.Out, args, "Run whole applications from a Compose file", p.Version); asked {
		if err != nil {
			return 1
		}
		return 0
	}
	// Most runs are over before there is garbage that is worth collecting; one that goes on keeps its memory small.
	debug.SetGCPercent(1600)
	later := time.AfterFunc(time.Second, func() { debug.SetGCPercent(400) })
	defer later.Stop()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // the second one ends what the first does not
	// A plugin is given its own name as the first word after the client's flags.
	if os.Getenv(clientplugin.OriginalCommand) == "" && (len(args) == 0 || args[0] != "compose") {
		args = append([]string{"compose"}, args...)
	}
	root := a.root()
	root.SetArgs(args)
	root.SetIn(p.In)
	root.SetOut(p.Out)
	root.SetErr(p.Err)
	err := root.ExecuteContext(ctx)
	if a.api != nil {
		_ = a.api.Close()
	}
	return a.exitCode(ctx, err)
}

// exitError ends the command with a code, and a message unless it is nil.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return ""
	}
	return e.err.Error()
}

func (a *app) exitCode(ctx context.Context, err error) int {
	if err == nil {
		return 0
	}
	var exit *exitError
	if errors.As(err, &exit) {
		if exit.err != nil {
			_, _ = fmt.Fprintln(a.err, exit.err)
		}
		return exit.code
	}
	if ctx.Err() != nil {
		_, _ = fmt.Fprintln(a.err, "canceled")
		return 130
	}
	if connect.IsUnreachable(err) {
		err = &connect.UnreachableError{Host: a.host, Program: a.program, Cause: err}
	}
	if a.project != nil {
		err = locate(err, a.project.ComposeFiles)
	}
	_, _ = fmt.Fprintln(a.err, err)
	if errors.Is(err, project.ErrNone) {
		return 14
	}
	return 1
}

// locate adds the place in the project's files that an error comes from, if it has none: what it names of the object that
// it is about, or what its text tells of, or else that object.
func locate(err error, files []string) error {
	placed := new(project.PlacedError)
	if errors.As(err, &placed) {
		return err
	}
	about := new(operate.AboutError)
	if errors.As(err, &about) {
		if err = project.LocateWithin(err, files, about.Kind, about.Key); errors.As(err, &placed) {
			return err
		}
	}
	if err = project.Locate(err, files); errors.As(err, &placed) {
		return err
	}
	if about.Key != "" {
		return project.LocateAt(err, files, about.Kind, about.Key, about.Attribute)
	}
	return err
}

// root is the command that holds all others.
func (a *app) root() *cobra.Command {
	compose := &cobra.Command{
		Use: "compose", Short: "Define and run multi-container applications", SilenceErrors: true, SilenceUsage: true,
		TraverseChildren:  true,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error { return a.prepare() },
		Args:              cobra.ArbitraryArgs,
	}
	f := compose.Flags()
	f.StringArrayVarP(&a.options.Files, "file", "f", nil, "Compose configuration files")
	f.StringVarP(&a.options.Name, "project-name", "p", "", "Project name")
	f.StringVar(&a.options.Directory, "project-directory", "", "Specify an alternate working directory\n(default: the path of the, first specified, Compose file)")
	f.StringArrayVar(&a.options.Profiles, "profile", nil, "Specify a profile to enable")
	f.StringArrayVar(&a.options.EnvFiles, "env-file", listed(os.Getenv("COMPOSE_ENV_FILES")), "Specify an alternate environment file")
	f.BoolVar(&a.options.AllResources, "all-resources", false, "Include all resources, even those not used by services")
	f.BoolVar(&a.options.Compatibility, "compatibility", false, "Run compose in backward compatibility mode")
	f.IntVar(&a.parallel, "parallel", -1, "Control max parallelism, -1 for unlimited")
	f.StringVar(&a.progress, "progress", "", "Set type of progress output (auto, tty, plain, json, quiet)")
	f.StringVar(&a.ansi, "ansi", "", `Control when to print ANSI control characters ("never"|"always"|"auto")`)
	compose.PersistentFlags().BoolVar(&a.dryRun, "dry-run", false, "Execute command in dry run mode")
	f.BoolVar(&a.noANSI, "no-ansi", false, `Do not print ANSI control characters (DEPRECATED)`)
	f.BoolVar(&a.verbose, "verbose", false, "Show more output")
	f.StringVar(&a.options.Directory, "workdir", "", "DEPRECATED! USE --project-directory INSTEAD.\nSpecify an alternate working directory")
	compose.PersistentFlags().BoolP("help", "h", false, "Print usage")
	compose.PersistentFlags().Lookup("help").Hidden = true
	compose.SetHelpFunc(func(cmd *cobra.Command, _ []string) { usage.Write(a.out, a.err, cmd, usage.Page{Program: a.program}) })
	version := f.BoolP("version", "v", false, "Show the Docker Compose version information")
	for _, hidden := range []string{"no-ansi", "verbose", "workdir"} {
		_ = f.MarkHidden(hidden)
	}
	compose.RunE = func(cmd *cobra.Command, args []string) error {
		switch {
		case *version:
			return a.versionCommand().RunE(cmd, nil)
		case len(args) > 0:
			return fmt.Errorf("unknown %s command: %q%s", a.program, "compose "+args[0], usage.Suggest(cmd, args[0]))
		}
		return cmd.Help()
	}
	compose.AddCommand(a.commands()...)
	a.completed(compose)
	// As a plugin the first word is this program's name; by itself there is none.
	root := &cobra.Command{Use: a.program, SilenceErrors: true, SilenceUsage: true, TraverseChildren: true, CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true}}
	a.globals.Install(root.Flags())
	root.AddCommand(compose)
	return root
}

// listed are the words of a variable that holds a list.
func listed(value string) []string {
	return strings.FieldsFunc(value, func(r rune) bool { return r == ',' })
}

// config reads the user's config.json, once.
func (a *app) config() *configfile.ConfigFile {
	a.cfgOnce.Do(func() { a.cfg = dockerconfig.Load(a.globals.Dir(), a.err) })
	return a.cfg
}

// connect makes the connection to the engine and settles the API's version.
func (a *app) connect(ctx context.Context) (*client.Client, error) {
	if a.api != nil {
		return a.api, nil
	}
	var options []client.Opt
	if version := os.Getenv("DOCKER_API_VERSION"); version != "" {
		options = append(options, client.WithAPIVersion(version))
	}
	var err error
	if a.api, a.host, err = a.globals.Client(a.config, "cleat-compose/"+a.version+" (linux)", options...); err != nil {
		return nil, err
	}
	// What is sent depends on the version.
	if _, err := a.api.Ping(ctx, client.PingOptions{NegotiateAPIVersion: true}); err != nil {
		return nil, err
	}
	if a.dryRun {
		if a.api, err = rehearse(a.api, client.WithAPIVersion(a.api.ClientVersion())); err != nil {
			return nil, err
		}
	}
	return a.api, nil
}

// environ is the environment of the programs that this one runs, which are to speak to the same engine.
func (a *app) environ() ([]string, error) { return a.globals.Environ(a.config, clientplugin.Environ()) }

// separator stands between the parts of names.
func (a *app) separator() string {
	if a.options.Compatibility {
		return "_"
	}
	return "-"
}

// operator works on the project that was loaded.
func (a *app) operator(ctx context.Context) (*operate.Operator, error) {
	o, err := a.reach(ctx)
	if err == nil {
		o.Project = a.project
	}
	return o, err
}

// reach connects to the engine, while the project may just be loaded.
func (a *app) reach(ctx context.Context) (*operate.Operator, error) {
	api, err := a.connect(ctx)
	if err != nil {
		return nil, err
	}
	headers, err := connect.Headers(a.config())
	if err != nil {
		return nil, err
	}
	return &operate.Operator{
		API: api, Report: a.reporter, Separator: a.separator(), Parallel: a.parallel, Proxies: a.config().ParseProxyConfig(api.DaemonHost(), nil),
		Pull: a.pullImage, Build: a.buildServices, Headers: headers,
		Provider: a.provider, DryRun: a.dryRun,
	}, nil
}

// load is the project with the services that are named, or all enabled ones.
func (a *app) load(ctx context.Context, services ...string) (*types.Project, error) {
	return a.loadRaw(ctx, project.Raw{}, services...)
}

// outline is load without what the services' environment files say: who makes no containers needs none of it, and a
// project whose files have gone is still to be built and taken down.
func (a *app) outline(ctx context.Context, services ...string) (*types.Project, error) {
	return a.loadRaw(ctx, project.Raw{NoEnvironment: true}, services...)
}

func (a *app) loadRaw(ctx context.Context, raw project.Raw, services ...string) (*types.Project, error) {
	p, err := project.Load(ctx, a.options, raw, services...)
	if err != nil {
		return nil, err
	}
	for name, s := range p.Services {
		if s.Deploy != nil && s.Deploy.Replicas != nil && s.Scale == nil {
			s.Scale = s.Deploy.Replicas
			p.Services[name] = s
		}
	}
	a.project = p
	return p, nil
}

// begin loads the project while the connection to the engine is made. What is wrong with
// the files comes first.
func (a *app) begin(ctx context.Context, load func() error) (*operate.Operator, error) {
	type connected struct {
		o   *operate.Operator
		err error
	}
	there := make(chan connected, 1)
	reaching, giveUp := context.WithCancel(ctx)
	defer giveUp()
	go func() {
		o, err := a.reach(reaching)
		there <- connected{o, err}
	}()
	err := load()
	if err != nil {
		giveUp() // an engine that does not answer is no reason to wait
	}
	engine := <-there
	if engine.o != nil {
		engine.o.Project = a.project
	}
	return engine.o, cmp.Or(err, engine.err)
}

// known is the project if there are files, else only its name, for commands that need no
// more than what the engine has. Files that cannot be read do not keep a project that is named from being looked at and
// taken down.
func (a *app) known(ctx context.Context) (string, *types.Project, error) {
	p, err := a.outline(ctx)
	if err == nil {
		return p.Name, p, nil
	}
	name := a.options.Name
	if name == "" {
		name = os.Getenv("COMPOSE_PROJECT_NAME")
	}
	switch {
	case name == "", ctx.Err() != nil:
		return "", nil, err
	case errors.Is(err, project.ErrNone):
		return name, nil, nil
	case len(a.options.Files) == 0 || os.Getenv("COMPOSE_PROJECT_NAME") != "":
		a.reporter.Warn(fmt.Sprintf("the project %s is known by its name alone, as its files cannot be read: %v",
			name, err))
		return name, nil, nil
	}
	return "", nil, err
}

// containers are those of the project, of the services that are named, which must exist.
func (a *app) containers(ctx context.Context, services []string, oneOffs bool) (*operate.Operator, []operate.Container, error) {
	var name string
	var p *types.Project
	o, err := a.begin(ctx, func() (err error) {
		name, p, err = a.known(ctx)
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	list, err := o.Containers(ctx, name, oneOffs)
	if err != nil {
		return nil, nil, err
	}
	if unknown := unknownOf(p, list, services); len(unknown) > 0 {
		return nil, nil, noService(p, unknown[0])
	}
	a.own(o, p, list)
	return o, operate.OfServices(list, services), nil
}

// within are those of a project's containers that a verb without the names of services is about: of the services that
// the project has enabled.
func (a *app) within(o *operate.Operator, list []operate.Container) []operate.Container {
	if o.Project == nil || a.byName() {
		return list
	}
	return slices.DeleteFunc(slices.Clone(list), func(c operate.Container) bool { _, ok := o.Project.Services[c.Service]; return !ok })
}

// acted are the containers that a verb is about: those of the services that are named, or else within.
func (a *app) acted(ctx context.Context, services []string, oneOffs bool) (*operate.Operator, []operate.Container, error) {
	o, list, err := a.containers(ctx, services, oneOffs)
	if err != nil || len(services) > 0 {
		return o, list, err
	}
	return o, a.within(o, list), nil
}

// noService is the error for a service that the project, which may be nil, has not: it names those that there are.
func noService(p *types.Project, name string) error {
	if p == nil || len(p.Services)+len(p.DisabledServices) == 0 {
		return fmt.Errorf("no such service: %s", name)
	}
	all := slices.Sorted(slices.Values(append(project.Names(p), p.DisabledServiceNames()...)))
	return fmt.Errorf("no such service: %s: the project has %s", name, strings.Join(all, ", "))
}

// unknownOf are those services that neither the project, which may be nil, nor a container knows.
func unknownOf(p *types.Project, list []operate.Container, services []string) []string {
	return slices.DeleteFunc(slices.Clone(services), func(s string) bool {
		known := slices.ContainsFunc(list, func(c operate.Container) bool { return c.Service == s })
		if p != nil && !known {
			_, enabled := p.Services[s]
			_, disabled := p.DisabledServices[s]
			known = enabled || disabled
		}
		return known
	})
}
