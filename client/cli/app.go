package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"path/filepath"
	"strings"

	"github.com/docker/cli/cli/config/configfile"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/cleatlabs/cleat/client/connect"
	"github.com/cleatlabs/cleat/client/dockerconfig"
	"github.com/cleatlabs/cleat/client/term"
)

// Process is what the command is run with.
type Process struct {
	Args    []string // including the program's name, which may be "docker"
	Version string   // of this build
	In      io.Reader
	Out     io.Writer
	Err     io.Writer
}

// app is one run of the command: its streams, the user's configuration, and the
// connection to the engine, which is made when first needed.
type app struct {
	name    string // "cleat", or "docker" if installed under that name
	version string
	args    []string
	in      *term.Input
	out     *term.Output
	err     *term.Output

	globals   connect.Options
	cfg       *configfile.ConfigFile
	conn      *client.Client
	host      string // what it is connected to, as the user wrote it
	negotiate bool   // ask the engine for its API version before the first request
	prepare   map[*cobra.Command]func()
}

// Run executes the command and returns its exit code. SIGINT and SIGTERM cancel
// what it does, and the third of them ends it at once.
func Run(p Process) int {
	a := &app{
		name: "cleat", version: p.Version, args: p.Args[1:],
		in: term.NewInput(p.In), out: term.NewOutput(p.Out), err: term.NewOutput(p.Err),
	}
	if filepath.Base(p.Args[0]) == "docker" {
		a.name = "docker"
	}
	if p := pluginFor(a.args); p != nil {
		_, _ = fmt.Fprintln(a.err, a.execPlugin(p))
		return 1
	}
	ctx, interrupted, stop := cancelOnSignals(a.in.Restore)
	defer stop()

	err := a.execute(ctx)
	if a.conn != nil && !a.negotiate && isTooNew(err) {
		// The newest API version is assumed, which saves a round trip. An engine that
		// does not know it has refused the first request, so nothing was done yet.
		a.negotiate = true
		_ = a.conn.Close()
		a.conn = nil
		err = a.execute(ctx)
	}
	if a.conn != nil {
		_ = a.conn.Close()
	}
	if err == nil {
		return 0
	}
	if sig := interrupted(); sig != 0 && (isStopped(err) || isClosedHere(err)) {
		return 128 + int(sig)
	}
	if isStopped(err) {
		return 1
	}
	if text := a.explain(err).Error(); text != "" {
		_, _ = fmt.Fprintln(a.err, text)
	}
	return exitCode(err)
}

// execute finds the command, gives it its flags, and runs it.
func (a *app) execute(ctx context.Context) error {
	a.globals, a.prepare = connect.Options{}, map[*cobra.Command]func(){}
	only := ""
	if len(a.args) > 0 {
		only = a.args[0]
	}
	root := a.root(only)
	rest, err := a.parseGlobals(root)
	if errors.Is(err, errHelped) {
		return nil
	}
	if err != nil {
		return err
	}
	if a.globals.Version {
		return a.printVersionLine()
	}
	if err := a.globals.Check(); err != nil {
		return err
	}
	if len(rest) == 0 {
		a.usage(root, a.err)
		return nil
	}
	if p := pluginFor(rest); p != nil {
		return a.execPlugin(p)
	}
	if isCompletion(rest) {
		return a.complete(ctx, root, rest)
	}
	cmd, _, findErr := root.Find(rest)
	if findErr != nil {
		if err := a.execDockerPlugin(rest[0]); err != nil {
			return err
		}
		return a.unknownCommand(root, rest[0])
	}
	a.ready(cmd)
	root.SetArgs(rest)
	return root.ExecuteContext(ctx)
}

// ready installs the flags of the one command that is to be run or described:
// building those of all commands would cost more than most commands do.
func (a *app) ready(cmd *cobra.Command) {
	if install := a.prepare[cmd]; install != nil {
		delete(a.prepare, cmd)
		install()
	}
}

// configDir is where the user's configuration lies.
func (a *app) configDir() string { return a.globals.Dir() }

// config reads the user's config.json, once.
func (a *app) config() *configfile.ConfigFile {
	if a.cfg == nil {
		a.cfg = dockerconfig.Load(a.configDir(), a.err)
	}
	return a.cfg
}

// warn shows a warning.
func (a *app) warn(text string) { _, _ = fmt.Fprintln(a.err, "WARNING: "+text) }

// statusError ends the command with a code of its own and, unless it is empty, a message.
type statusError struct {
	code  int
	msg   string
	cause error
}

func (e *statusError) Error() string { return e.msg }
func (e *statusError) Unwrap() error { return e.cause }

func exitCode(err error) int {
	var s *statusError
	if errors.As(err, &s) && s.code != 0 {
		return s.code
	}
	return 1
}

// withHelp is how run and create report what went wrong before the program started.
func (a *app) withHelp(err error, command string) error {
	return fmt.Errorf("%s: %w\n\nRun '%s %s --help' for more information", a.name, a.explain(err), a.name, command)
}

// isCutOff says whether a connection has ended before the engine's answer, of which the error says nothing but that.
func isCutOff(err error) bool {
	return err != nil && (err.Error() == io.EOF.Error() || err.Error() == io.ErrUnexpectedEOF.Error())
}

// isStopped reports that a signal has ended what was asked for.
func isStopped(err error) bool {
	stopped := signalled{}
	return errors.Is(err, context.Canceled) || errors.As(err, &stopped)
}

// isClosedHere reports an answer that was closed on this side while it was read: the API's client does so with the
// streams of logs, save and the like as soon as their context ends, and whether the reader is then told of the
// context or of that is a matter of moments.
func isClosedHere(err error) bool {
	return errors.Is(err, net.ErrClosed) || strings.Contains(err.Error(), "http: read on closed response body")
}

// explain says what to do about an engine that cannot be reached, or has gone in the middle; other errors are
// for the user to read as they are.
func (a *app) explain(err error) error {
	if isCutOff(err) && a.conn != nil {
		return fmt.Errorf("the connection to the engine at %s has broken, which ends when the engine does: what was asked for may be done, or not (%w)", a.host, err)
	}
	var s *statusError
	if errors.As(err, &s) {
		return err
	}
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		var out []error
		seen := map[string]bool{}
		for _, e := range many.Unwrap() {
			e = a.explain(e)
			if unreachable := (*connect.UnreachableError)(nil); errors.As(e, &unreachable) && seen[e.Error()] {
				continue
			}
			seen[e.Error()] = true
			out = append(out, e)
		}
		return errors.Join(out...)
	}
	// What is sent to the engine could not be read here, which looks like a connection that fails.
	if local := (*fs.PathError)(nil); connect.IsUnreachable(err) && errors.As(err, &local) && local.Op == "read" {
		return local
	}
	var explained *connect.UnreachableError
	if said := connect.BrokenSSH(err); said != "" && a.conn != nil && !connect.IsUnreachable(err) {
		return fmt.Errorf("the connection to the engine at %s has broken: what was asked for may be done, or not (%s)", a.host, said)
	}
	if !connect.IsUnreachable(err) || errors.As(err, &explained) {
		return err
	}
	return &connect.UnreachableError{Host: a.host, Program: a.name, Cause: err}
}

func isTooNew(err error) bool {
	return err != nil && strings.Contains(err.Error(), "is too new. Maximum supported API version is")
}
