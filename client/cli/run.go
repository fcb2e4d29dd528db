package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"github.com/spf13/pflag"

	"github.com/cleatlabs/cleat/client/connect"
	"github.com/cleatlabs/cleat/client/term"
)

func (a *app) run() spec {
	return spec{
		use: "run [OPTIONS] IMAGE [COMMAND] [ARG...]", short: "Create and run a new container from an image",
		args: a.minArgs(1), ownHelp: true, top: 1, shownAs: []string{"container run", "run"},
		setup: func(fs *pflag.FlagSet) action {
			f := newContainerFlags(fs, "running")
			var o runOptions
			fs.BoolVarP(&o.detach, "detach", "d", false, "Run container in background and print container ID")
			fs.BoolVar(&o.sigProxy, "sig-proxy", true, "Proxy received signals to the process")
			fs.StringVar(&o.detachKeys, "detach-keys", "", "Override the key sequence for detaching a container")
			return func(ctx context.Context, args []string) error {
				req, err := a.prepareRequest(f, args)
				if err != nil {
					return &statusError{code: 125, msg: a.withHelp(err, "run").Error(), cause: err}
				}
				return a.runContainer(ctx, f, o, req)
			}
		},
	}
}

type runOptions struct {
	detach, sigProxy bool
	detachKeys       string
}

func (a *app) runContainer(ctx context.Context, f *containerFlags, o runOptions, req *request) error {
	cfg := req.config
	if o.detach {
		if len(f.attach) > 0 {
			return errors.New("conflicting options: cannot specify both --attach and --detach")
		}
		cfg.AttachStdin, cfg.AttachStdout, cfg.AttachStderr, cfg.StdinOnce = false, false, false, false
	} else if err := a.in.CheckTTY(cfg.AttachStdin, cfg.Tty); err != nil {
		return err
	}
	var keys []byte
	var spec string
	if !o.detach { // nobody types them otherwise
		var err error
		if keys, spec, err = a.detachKeys(o.detachKeys); err != nil {
			return err
		}
	}
	if _, err := a.api(); err != nil {
		return err // which may name a file that is not there, and is nothing that the container was to run
	}
	hint := func(text string) string { return a.commandHint(text, "run", "the image "+cfg.Image, cfg.Cmd) }
	id, err := a.createContainer(ctx, f, req)
	if err != nil {
		return a.startFailure(err, hint)
	}
	c := a.conn
	if o.sigProxy {
		// From here on signals are the container's, not ours: its program decides whether it ends.
		ctx = context.WithoutCancel(ctx)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if o.sigProxy {
		defer a.forwardSignals(ctx, id)()
	}
	if !cfg.AttachStdin && !cfg.AttachStdout && !cfg.AttachStderr {
		if _, err := c.ContainerStart(ctx, id, client.ContainerStartOptions{}); err != nil {
			_, _ = fmt.Fprintln(a.out, id)
			return a.startFailure(err, hint)
		}
		_, _ = fmt.Fprintln(a.out, id)
		return nil
	}
	return a.startAttached(ctx, id, req.host.AutoRemove, attachment{
		stdin: cfg.AttachStdin, stdout: cfg.AttachStdout, stderr: cfg.AttachStderr, tty: cfg.Tty, keys: keys, keySpec: spec,
	}, hint)
}

// startAttached attaches to a container and asks for its exit code, and only then starts
// it, so that nothing is missed. It returns when the container has exited or the user
// has detached. To an error of the start hint adds what it has to say.
func (a *app) startAttached(ctx context.Context, id string, autoRemove bool, at attachment, hint func(text string) string) error {
	waiting := make(chan (<-chan exitStatus), 1)
	go func() { waiting <- a.waitExit(ctx, id, autoRemove) }()
	s, err := a.attachStream(ctx, id, at)
	if err != nil {
		return err
	}
	streamCtx, endStream := context.WithCancel(ctx)
	defer endStream()
	done := make(chan error, 1)
	go func() { done <- s.run(streamCtx) }()

	status, began := <-waiting, time.Now()
	if _, err := a.conn.ContainerStart(ctx, id, client.ContainerStartOptions{}); err != nil {
		endStream()
		<-done // the terminal is itself again
		if autoRemove {
			<-status
		}
		return a.startFailure(err, hint)
	}
	if at.tty {
		a.followSize(ctx, a.resizeContainer(id))
	}
	var exit exitStatus
	var unshown error
	select {
	case err := <-done:
		if errors.Is(err, term.ErrDetached) {
			return nil
		}
		if err != nil {
			return err
		}
		exit = <-status
	case exit = <-status:
		if !at.stdout && !at.stderr {
			endStream()
			<-done
			break
		}
		if unshown = <-done; errors.Is(unshown, term.ErrDetached) { // until everything it wrote has been read
			unshown = nil
		}
	}
	if exit.err != nil {
		return exit.err
	}
	if exit.code != 0 {
		return &statusError{code: exit.code, msg: a.whyKilled(ctx, id, exit.code, began)}
	}
	return unshown
}

type exitStatus struct {
	code int
	err  error
}

// waitExit returns when the engine has noted that the exit code is wanted, and later
// tells it. With autoRemove it comes when the container is gone.
func (a *app) waitExit(ctx context.Context, id string, autoRemove bool) <-chan exitStatus {
	condition := container.WaitConditionNextExit
	if autoRemove {
		condition = container.WaitConditionRemoved
	}
	res := a.conn.ContainerWait(ctx, id, client.ContainerWaitOptions{Condition: condition})
	out := make(chan exitStatus, 1)
	go func() {
		select {
		case r := <-res.Result:
			if r.Error != nil {
				out <- exitStatus{125, &statusError{code: 125, msg: "Error waiting for container: " + r.Error.Message}}
				return
			}
			out <- exitStatus{code: int(r.StatusCode)}
		case err := <-res.Error:
			msg := "error waiting for container: "
			if isCutOff(err) {
				msg += err.Error() + " (the engine has ended; the container goes on, and '" + a.name + " attach' joins it again once the engine is back)"
			} else {
				msg += a.explain(err).Error()
			}
			out <- exitStatus{125, &statusError{code: 125, msg: msg, cause: err}}
		}
	}()
	return out
}

// startFailure gives an error of create or start the exit code of a shell: 127 for
// a program that is not there, 126 for one that cannot be executed, 125 for the rest.
func (a *app) startFailure(err error, hint func(text string) string) error {
	if isStopped(err) {
		return err
	}
	code, msg := 125, err.Error()
	switch {
	case isTooNew(err):
		return err
	case strings.Contains(msg, "executable file not found"), strings.Contains(msg, "no such file or directory") && !connect.IsUnreachable(err):
		code = 127
	case strings.Contains(msg, "permission denied") && !connect.IsUnreachable(err), strings.Contains(msg, "is a directory"):
		code = 126
	}
	return &statusError{code: code, msg: a.withHelp(hinted(a.explain(err), hint(msg)), "run").Error(), cause: err}
}
