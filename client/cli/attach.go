package cli

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/docker/cli/opts"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"github.com/spf13/pflag"

	"github.com/cleatlabs/cleat/client/connect"
)

const detachHelp = "Override the key sequence for detaching a container"

func (a *app) attach() spec {
	return spec{
		use: "attach [OPTIONS] CONTAINER", short: "Attach local standard input, output, and error streams to a running container",
		args: a.exactArgs(1), shownAs: []string{"container attach", "attach"},
		setup: func(fs *pflag.FlagSet) action {
			noStdin := fs.Bool("no-stdin", false, "Do not attach STDIN")
			sigProxy := fs.Bool("sig-proxy", true, "Proxy all received signals to the process")
			keys := fs.String("detach-keys", "", detachHelp)
			return func(ctx context.Context, args []string) error {
				return a.attachTo(ctx, args[0], *noStdin, *sigProxy, *keys)
			}
		},
	}
}

func (a *app) attachTo(ctx context.Context, name string, noStdin, sigProxy bool, keyFlag string) error {
	keys, spec, err := a.detachKeys(keyFlag)
	if err != nil {
		return err
	}
	c, err := a.api()
	if err != nil {
		return err
	}
	// Asked first: it may exit, and with --rm be gone, before the streams are there.
	waitCtx, endWait := context.WithCancel(context.WithoutCancel(ctx))
	defer endWait()
	waited := c.ContainerWait(waitCtx, name, client.ContainerWaitOptions{})
	ctr, err := connect.Container(ctx, c, name)
	if err != nil {
		return err
	}
	if err := attachable(ctr.State); err != nil {
		return err
	}
	if err := a.in.CheckTTY(!noStdin, ctr.Config.Tty); err != nil {
		return err
	}
	if sigProxy && !ctr.Config.Tty {
		ctx = context.WithoutCancel(ctx)
		defer a.forwardSignals(ctx, ctr.ID)()
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := a.attachStream(ctx, ctr.ID, attachment{
		stdin: !noStdin && ctr.Config.OpenStdin, stdout: true, stderr: true, tty: ctr.Config.Tty, keys: keys, keySpec: spec,
	})
	if err != nil {
		return err
	}
	if ctr.Config.Tty && a.out.IsTerminal() {
		// A program that draws the whole screen does so again when the size changes: it
		// is first told a wrong one, or a second attach would show nothing.
		if rows, cols := a.out.Size(); rows > 0 && cols > 0 {
			_ = a.resizeContainer(ctr.ID)(ctx, rows+1, cols+1)
		}
		a.followSize(ctx, a.resizeContainer(ctr.ID))
	}
	if err := s.run(ctx); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return exitOf(waited)
}

// exitOf is how the container ended that is waited for: nil where its code is 0.
func exitOf(waited client.ContainerWaitResult) error {
	select {
	case r := <-waited.Result:
		if r.Error != nil {
			return errors.New(r.Error.Message)
		}
		if r.StatusCode != 0 {
			return &statusError{code: int(r.StatusCode)}
		}
		return nil
	case err := <-waited.Error:
		return err
	}
}

func attachable(s *container.State) error {
	switch {
	case !s.Running:
		return errors.New("cannot attach to a stopped container, start it first")
	case s.Paused:
		return errors.New("cannot attach to a paused container, unpause it first")
	case s.Restarting:
		return errors.New("cannot attach to a restarting container, wait until it is running")
	}
	return nil
}

func (a *app) start() spec {
	return spec{
		use: "start [OPTIONS] CONTAINER [CONTAINER...]", short: "Start one or more stopped containers",
		args: a.minArgs(1), shownAs: []string{"container start", "start"},
		setup: func(fs *pflag.FlagSet) action {
			attach := fs.BoolP("attach", "a", false, "Attach STDOUT/STDERR and forward signals")
			stdin := fs.BoolP("interactive", "i", false, "Attach container's STDIN")
			keys := fs.String("detach-keys", "", detachHelp)
			checkpoint := fs.String("checkpoint", "", "Restore from this checkpoint")
			checkpointDir := fs.String("checkpoint-dir", "", "Use a custom checkpoint storage directory")
			_ = fs.MarkHidden("checkpoint")
			_ = fs.MarkHidden("checkpoint-dir")
			return func(ctx context.Context, args []string) error {
				if *checkpoint != "" || *checkpointDir != "" {
					return errors.New("--checkpoint is not supported yet")
				}
				if *attach || *stdin {
					if len(args) > 1 {
						return errors.New("you cannot start and attach multiple containers at once")
					}
					return a.startAndAttach(ctx, args[0], *stdin, *keys)
				}
				return a.startAll(ctx, args)
			}
		},
	}
}

func (a *app) startAll(ctx context.Context, names []string) error {
	c, err := a.api()
	if err != nil {
		return err
	}
	var failed []string
	for _, name := range names {
		if _, err := c.ContainerStart(ctx, name, client.ContainerStartOptions{}); err != nil {
			if isTooNew(err) {
				return err
			}
			_, _ = fmt.Fprintln(a.err, a.explain(err))
			failed = append(failed, name)
			continue
		}
		_, _ = fmt.Fprintln(a.out, name)
	}
	if len(failed) > 0 {
		return fmt.Errorf("Error: failed to start containers: %s", strings.Join(failed, ", ")) //nolint:staticcheck // Docker's text
	}
	return nil
}

func (a *app) startAndAttach(ctx context.Context, name string, stdin bool, keyFlag string) error {
	keys, spec, err := a.detachKeys(keyFlag)
	if err != nil {
		return err
	}
	c, err := a.api()
	if err != nil {
		return err
	}
	ctr, err := connect.Container(ctx, c, name)
	if err != nil {
		return err
	}
	if !ctr.Config.Tty {
		ctx = context.WithoutCancel(ctx)
		defer a.forwardSignals(ctx, ctr.ID)()
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	err = a.startAttached(ctx, ctr.ID, ctr.HostConfig.AutoRemove, attachment{
		stdin: stdin && ctr.Config.OpenStdin, stdout: true, stderr: true, tty: ctr.Config.Tty, keys: keys, keySpec: spec,
	}, func(string) string { return "" })
	if status := (*statusError)(nil); errors.As(err, &status) && status.cause != nil && status.code >= 125 {
		return status.cause // `start` says what went wrong without run's advice, and exits 1
	}
	return err
}

func (a *app) exec() spec {
	return spec{
		use: "exec [OPTIONS] CONTAINER COMMAND [ARG...]", short: "Execute a command in a running container",
		args: a.minArgs(2), top: 2, shownAs: []string{"container exec", "exec"},
		setup: func(fs *pflag.FlagSet) action {
			fs.SetInterspersed(false)
			var o execOptions
			fs.BoolVarP(&o.detach, "detach", "d", false, "Detached mode: run command in the background")
			fs.StringVar(&o.detachKeys, "detach-keys", "", detachHelp)
			fs.VarP(opts.NewListOptsRef(&o.env, opts.ValidateEnv), "env", "e", "Set environment variables")
			fs.Var(opts.NewListOptsRef(&o.envFile, nil), "env-file", "Read in a file of environment variables")
			fs.BoolVarP(&o.interactive, "interactive", "i", false, "Keep STDIN open even if not attached")
			fs.BoolVar(&o.privileged, "privileged", false, "Give extended privileges to the command")
			fs.BoolVarP(&o.tty, "tty", "t", false, "Allocate a pseudo-TTY")
			fs.StringVarP(&o.user, "user", "u", "", `Username or UID (format: "<name|uid>[:<group|gid>]")`)
			fs.StringVarP(&o.workdir, "workdir", "w", "", "Working directory inside the container")
			return func(ctx context.Context, args []string) error { return a.execIn(ctx, args[0], args[1:], o) }
		},
	}
}

type execOptions struct {
	detach, interactive, privileged, tty bool
	detachKeys, user, workdir            string
	env, envFile                         []string
}

func (a *app) execIn(ctx context.Context, name string, argv []string, o execOptions) error {
	keys, spec, err := a.detachKeys(o.detachKeys)
	if err != nil {
		return err
	}
	env, err := opts.ReadKVEnvStrings(o.envFile, o.env)
	if err != nil {
		return err
	}
	c, err := a.api()
	if err != nil {
		return err
	}
	if stdin := o.interactive && !o.detach; a.in.CheckTTY(stdin, o.tty) != nil {
		// Which of two errors is told is Docker's choice: that there is no such container comes first.
		if _, err := c.ContainerInspect(ctx, name, client.ContainerInspectOptions{}); err != nil {
			return err
		}
		return a.in.CheckTTY(stdin, o.tty)
	}
	var size client.ConsoleSize
	if o.tty {
		size.Height, size.Width = a.out.Size()
	}
	created, err := c.ExecCreate(ctx, name, client.ExecCreateOptions{
		User: o.user, Privileged: o.privileged, TTY: o.tty, ConsoleSize: size, DetachKeys: spec, Env: env, WorkingDir: o.workdir, Cmd: argv,
		AttachStdin: o.interactive && !o.detach, AttachStdout: !o.detach, AttachStderr: !o.detach,
	})
	if errdefs.IsConflict(err) && strings.Contains(err.Error(), "is not running") {
		return fmt.Errorf("%w: start it first, with '%s start %s'", err, a.name, name)
	}
	if err != nil {
		return err
	}
	if created.ID == "" {
		return errors.New("exec ID empty")
	}
	if o.detach {
		_, err := c.ExecStart(ctx, created.ID, client.ExecStartOptions{Detach: true, TTY: o.tty, ConsoleSize: size})
		return err
	}
	body := container.ExecStartRequest{Tty: o.tty}
	if o.tty && (size.Height > 0 || size.Width > 0) {
		body.ConsoleSize = &[2]uint{size.Height, size.Width}
	}
	h, err := a.hijack(ctx, "/exec/"+url.PathEscape(created.ID)+"/start", nil, body)
	if err != nil {
		return err
	}
	s := &stream{app: a, h: h, a: attachment{stdin: o.interactive, stdout: true, stderr: true, tty: o.tty, keys: keys}}
	sizeCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	if o.tty && a.in.IsTerminal() {
		a.followSize(sizeCtx, a.resizeExec(created.ID))
	}
	if err := s.run(ctx); err != nil {
		return err
	}
	return a.execStatus(ctx, created.ID)
}

// execStatus is the exit code of a process whose output has ended.
func (a *app) execStatus(ctx context.Context, id string) error {
	r, err := a.conn.ExecInspect(ctx, id, client.ExecInspectOptions{})
	if err != nil && connect.IsUnreachable(err) {
		return &statusError{code: 255, msg: a.explain(err).Error(), cause: err}
	}
	if err != nil {
		return err
	}
	if r.ExitCode != 0 {
		return &statusError{code: r.ExitCode}
	}
	return nil
}
