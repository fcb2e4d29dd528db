package command

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"

	"github.com/cleatlabs/cleat/client/compose/artifact"
	"github.com/cleatlabs/cleat/client/compose/operate"
	"github.com/cleatlabs/cleat/client/compose/project"
	"github.com/cleatlabs/cleat/client/compose/repository"
	"github.com/cleatlabs/cleat/client/compose/show"
)

// prepare checks what all commands share, from flags and, where there is none, from the environment.
func (a *app) prepare() error {
	if err := a.globals.Check(); err != nil {
		return err
	}
	if a.verbose {
		return errors.New("--verbose is not supported: `cleat -D` and the engine's --debug say more")
	}
	for i, file := range a.options.EnvFiles {
		path, err := filepath.Abs(file)
		if err != nil {
			return err
		}
		a.options.EnvFiles[i] = path
	}
	for key, value := range project.Settings(a.options) {
		if err := os.Setenv(key, value); err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
	}
	a.options.Remote = []loader.ResourceLoader{
		remote{&repository.Loader{}, "COMPOSE_EXPERIMENTAL_GIT_REMOTE"}, remote{&artifact.Loader{Config: a.config}, "COMPOSE_EXPERIMENTAL_OCI_REMOTE"},
	}
	if enabled("COMPOSE_COMPATIBILITY", false) {
		a.options.Compatibility = true
	}
	if text, set := os.LookupEnv("COMPOSE_PARALLEL_LIMIT"); set && a.parallel < 0 {
		n, err := strconv.Atoi(text)
		if err != nil {
			return fmt.Errorf("COMPOSE_PARALLEL_LIMIT must be an integer (found: %q)", text)
		}
		a.parallel = n
	}
	if err := a.chooseANSI(); err != nil {
		return err
	}
	out := a.err
	if enabled("COMPOSE_STATUS_STDOUT", false) {
		out = a.out
	}
	terminal := out.IsTerminal() && a.ansi != "never" || a.ansi == "always"
	var err error
	if a.reporter, err = show.NewProgress(out, show.Form(a.progress), terminal); err != nil {
		return err
	}
	a.reporter.DryRun, a.reporter.Size, a.reporter.Monochrome = a.dryRun, out.Size, os.Getenv("NO_COLOR") != ""
	return nil
}

// remote is a loader of projects that a variable of the environment turns off.
type remote struct {
	loader.ResourceLoader
	variable string
}

// Load implements loader.ResourceLoader.
func (r remote) Load(ctx context.Context, path string) (string, error) {
	if text := os.Getenv(r.variable); text != "" {
		on, err := strconv.ParseBool(text)
		if err != nil {
			return "", fmt.Errorf("%s environment variable expects boolean value: %w", r.variable, err)
		}
		if !on {
			return "", fmt.Errorf("%s: such projects are disabled by %s", path, r.variable)
		}
	}
	return r.ResourceLoader.Load(ctx, path)
}

// chooseANSI settles how the output may look.
func (a *app) chooseANSI() error {
	if a.noANSI {
		if a.ansi != "" {
			return errors.New(`cannot specify DEPRECATED "--no-ansi" and "--ansi". Please use only "--ansi"`)
		}
		a.ansi = "never"
		_, _ = fmt.Fprintln(a.err, "option '--no-ansi' is DEPRECATED ! Please use '--ansi' instead.")
	}
	if a.ansi == "" {
		a.ansi = first(os.Getenv("COMPOSE_ANSI"), "auto")
	}
	switch a.ansi {
	case "auto", "never", "always":
	default:
		return fmt.Errorf("unsupported --ansi value %q: choose never, always or auto", a.ansi)
	}
	a.progress = first(a.progress, os.Getenv("COMPOSE_PROGRESS"))
	switch {
	case a.progress == "none":
		a.progress = string(show.Quiet)
	case a.progress == string(show.TTY) && a.ansi == "never":
		return errors.New("can't use --progress tty while ANSI support is disabled")
	case a.progress == string(show.Plain) && a.ansi == "always":
		return errors.New("can't use --progress plain while ANSI support is forced")
	}
	return nil
}

// coloured says whether the output of containers has colours.
func (a *app) coloured(none bool) bool {
	return !none && os.Getenv("NO_COLOR") == "" && a.ansi != "never" && (a.ansi == "always" || a.out.IsTerminal())
}

// orphans completes what is done about containers of services that the project no longer has.
func orphans(p *types.Project, o *operate.CreateOptions, remove bool) error {
	o.RemoveOrphans = remove
	if ignore, _ := strconv.ParseBool(p.Environment["COMPOSE_IGNORE_ORPHANS"]); ignore {
		if remove {
			return errors.New("cannot combine COMPOSE_IGNORE_ORPHANS and --remove-orphans")
		}
		o.IgnoreOrphans = true
	}
	return nil
}

// mute makes the steps of some kinds of objects silent.
type mute struct {
	operate.Reporter
	kind string
}

// Report implements operate.Reporter.
func (m mute) Report(kind, name, state string) {
	if kind != m.kind {
		m.Reporter.Report(kind, name, state)
	}
}

// quieter says nothing but warnings.
type quieter struct{ operate.Reporter }

// Report implements operate.Reporter.
func (quieter) Report(string, string, string) {}
