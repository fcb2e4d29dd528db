package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/docker/cli/cli/config/configfile"
	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/util/grpcerrors"
	"github.com/sirupsen/logrus"
	"google.golang.org/grpc/codes"

	"github.com/cleatlabs/cleat/client/build/mend"
	"github.com/cleatlabs/cleat/client/build/solve"
	"github.com/cleatlabs/cleat/client/clientplugin"
	"github.com/cleatlabs/cleat/client/connect"
	"github.com/cleatlabs/cleat/client/dockerconfig"
	"github.com/cleatlabs/cleat/client/term"
)

// Process is what the command is run with.
type Process struct {
	Args    []string // including the program's name
	Version string   // of this build
	In      io.Reader
	Out     io.Writer
	Err     io.Writer
	// Bake reads bake files. Without it the program that has it is run.
	Bake func(BakeQuery) (*BakePlan, error)
}

// app is one run of the command.
type app struct {
	program string // what the user types: "cleat", or "docker"
	version string
	stdin   io.Reader
	stdout  io.Writer
	stderr  io.Writer
	out     *term.Output

	readBake func(BakeQuery) (*BakePlan, error)
	args     []string

	globals connect.Options
	builder string // --builder
	cfg     *configfile.ConfigFile
	engine  *solve.Engine
	host    string // what it is connected to, as the user wrote it
}

// Exit codes, as buildx has them.
const (
	exitFailed    = 1
	exitInternal  = 100
	exitExhausted = 102
	exitCancelled = 130
)

// Run executes the command and returns its exit code. The first SIGINT or SIGTERM cancels
// the build, the second ends the command at once.
func Run(p Process) int {
	a := &app{program: clientplugin.Caller(p.Args[0]), version: p.Version, stdin: p.In, stdout: p.Out, stderr: p.Err, out: term.NewOutput(p.Out), readBake: p.Bake, args: p.Args}
	args := p.Args[1:]
	if asked, err := clientplugin.Describe(p.Out, args, "Build images", p.Version); asked {
		return a.fail(err)
	}
	logrus.SetOutput(p.Err)
	logrus.SetFormatter(warnings{})
	// Most runs are over before there is garbage that is worth collecting.
	debug.SetGCPercent(400)
	ctx, stop := cancelOnSignals()
	defer stop()
	err := a.execute(ctx, args)
	if a.engine != nil {
		a.engine.Close()
		_ = a.engine.API.Close()
	}
	return a.fail(err)
}

// cancelOnSignals returns a context that ends with the first signal. A client that runs
// this as its plugin may ask for the same by closing the socket that it names.
func cancelOnSignals() (context.Context, func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ch := make(chan os.Signal, 2)
	signal.Notify(ch, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		<-ch
		cancel()
		<-ch
		os.Exit(exitCancelled)
	}()
	if path := os.Getenv("DOCKER_CLI_PLUGIN_SOCKET"); path != "" {
		go func() {
			conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
			if err != nil {
				return
			}
			_, _ = conn.Read(make([]byte, 1))
			cancel()
		}()
	}
	return ctx, cancel
}

// exitError ends the command with a code, and a message unless it is empty.
type exitError struct {
	code int
	msg  string
}

func (e *exitError) Error() string { return e.msg }

// fail tells of err and returns the exit code.
func (a *app) fail(err error) int {
	if err == nil {
		return 0
	}
	var exit *exitError
	if errors.As(err, &exit) {
		if exit.msg != "" {
			_, _ = fmt.Fprintln(a.stderr, exit.msg)
		}
		return exit.code
	}
	err = a.explain(err)
	for _, s := range errdefs.Sources(err) {
		_ = s.Print(a.stderr)
	}
	_, _ = fmt.Fprintf(a.stderr, "ERROR: %v\n", err)
	if hint := mend.Hint(err); hint != "" {
		_, _ = fmt.Fprintf(a.stderr, "\nHint: %s\n", hint)
	}
	switch grpcerrors.Code(err) {
	case codes.Internal:
		return exitInternal
	case codes.ResourceExhausted:
		return exitExhausted
	case codes.Canceled:
		return exitCancelled
	}
	if errors.Is(err, context.Canceled) {
		return exitCancelled
	}
	return exitFailed
}

// explain says what to do about an engine that cannot be reached, or that cannot build.
func (a *app) explain(err error) error {
	switch text := err.Error(); {
	case strings.Contains(text, "unable to upgrade to h2c, received 404"):
		return fmt.Errorf("the engine at %s cannot build with BuildKit: it is another than Cleat, or an older one", a.host)
	case connect.IsUnreachable(err), strings.Contains(text, "dial unix") && strings.Contains(text, "/grpc"),
		strings.HasPrefix(a.host, "ssh://") && strings.Contains(text, "has exited with"):
		return &connect.UnreachableError{Host: a.host, Program: a.program, Cause: err}
	}
	return err
}

// config reads the user's config.json, once.
func (a *app) config() *configfile.ConfigFile {
	if a.cfg == nil {
		a.cfg = dockerconfig.Load(a.globals.Dir(), a.stderr)
	}
	return a.cfg
}

// connect makes the connection to the engine. Nothing is sent yet.
func (a *app) connect() (*solve.Engine, error) {
	if a.engine != nil {
		return a.engine, nil
	}
	if err := a.checkBuilder(a.builder); err != nil {
		return nil, err
	}
	// What is called has no version, so none is asked for.
	c, host, err := a.globals.Client(a.config, "cleat-client/"+a.version+" (linux)")
	a.host = host
	if err != nil {
		return nil, err
	}
	a.engine = &solve.Engine{API: c, Config: a.config()}
	return a.engine, nil
}

// theBuilder is the only builder that there is: the engine's own.
const theBuilder = "default"

func (a *app) checkBuilder(name string) error {
	if name == "" {
		name = os.Getenv("BUILDX_BUILDER")
	}
	if name == "" || name == theBuilder || name == a.globals.ContextName(a.config) {
		return nil
	}
	return fmt.Errorf("no builder %q found: this engine builds itself and has one builder, %q", name, theBuilder)
}
