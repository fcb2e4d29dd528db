package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/client"
	"github.com/spf13/pflag"

	"github.com/cleatlabs/cleat/client/connect"
)

// inParallel calls op for every name, at most 50 at a time, and done with each result
// in the order of the names.
func inParallel(ctx context.Context, names []string, op func(context.Context, string) error, done func(name string, err error)) {
	const most = 50
	results := make([]chan error, len(names))
	for i := range results {
		results[i] = make(chan error, 1)
	}
	go func() {
		slots := make(chan struct{}, most)
		for i, name := range names {
			slots <- struct{}{}
			go func() {
				results[i] <- op(ctx, name)
				<-slots
			}()
		}
	}()
	for i, name := range names {
		done(name, <-results[i])
	}
}

// operation is what is done to one of the engine's objects.
type operation func(ctx context.Context, c *client.Client, name string) error

// forEach does op to every container, prints the name of each that it was done to,
// and returns what went wrong with the others.
func (a *app) forEach(ctx context.Context, names []string, op operation) error {
	c, err := a.api()
	if err != nil {
		return err
	}
	var errs []error
	inParallel(ctx, names, func(ctx context.Context, name string) error { return op(ctx, c, name) }, func(name string, err error) {
		if err != nil {
			errs = append(errs, err)
			return
		}
		_, _ = fmt.Fprintln(a.out, name)
	})
	return errors.Join(errs...)
}

// inTurn is forEach for what is done one after the other, in the order given.
func (a *app) inTurn(ctx context.Context, names []string, op operation) error {
	c, err := a.api()
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range names {
		if err := op(ctx, c, name); err != nil {
			errs = append(errs, err)
			continue
		}
		_, _ = fmt.Fprintln(a.out, name)
	}
	return errors.Join(errs...)
}

// stopFlags are the flags of stop and restart.
type stopFlags struct {
	fs      *pflag.FlagSet
	signal  string
	timeout int
}

func newStopFlags(fs *pflag.FlagSet) *stopFlags {
	f := &stopFlags{fs: fs}
	fs.StringVarP(&f.signal, "signal", "s", "", "Signal to send to the container")
	fs.IntVarP(&f.timeout, "timeout", "t", 0, "Seconds to wait before killing the container")
	fs.IntVar(&f.timeout, "time", 0, "Seconds to wait before killing the container (deprecated: use --timeout)")
	_ = fs.MarkHidden("time")
	return f
}

// then is the action that do is given the timeout for, nil if the container's own is to be used.
func (f *stopFlags) then(do func(ctx context.Context, names []string, timeout *int) error) action {
	return func(ctx context.Context, names []string) error {
		short, long := f.fs.Changed("time"), f.fs.Changed("timeout")
		switch {
		case short && long:
			return errors.New("conflicting options: cannot specify both --timeout and --time")
		case short || long:
			return do(ctx, names, &f.timeout)
		}
		return do(ctx, names, nil)
	}
}

func (a *app) stop() spec {
	return spec{
		use: "stop [OPTIONS] CONTAINER [CONTAINER...]", short: "Stop one or more running containers",
		args: a.minArgs(1), shownAs: []string{"container stop", "stop"},
		setup: func(fs *pflag.FlagSet) action {
			f := newStopFlags(fs)
			return f.then(func(ctx context.Context, names []string, timeout *int) error {
				return a.forEach(ctx, names, func(ctx context.Context, c *client.Client, name string) error {
					_, err := c.ContainerStop(ctx, name, client.ContainerStopOptions{Signal: f.signal, Timeout: timeout})
					return err
				})
			})
		},
	}
}

func (a *app) restart() spec {
	return spec{
		use: "restart [OPTIONS] CONTAINER [CONTAINER...]", short: "Restart one or more containers",
		args: a.minArgs(1), shownAs: []string{"container restart", "restart"},
		setup: func(fs *pflag.FlagSet) action {
			f := newStopFlags(fs)
			return f.then(func(ctx context.Context, names []string, timeout *int) error {
				// In turn: a database before what uses it.
				return a.inTurn(ctx, names, func(ctx context.Context, c *client.Client, name string) error {
					_, err := c.ContainerRestart(ctx, name, client.ContainerRestartOptions{Signal: f.signal, Timeout: timeout})
					return err
				})
			})
		},
	}
}

func (a *app) kill() spec {
	return spec{
		use: "kill [OPTIONS] CONTAINER [CONTAINER...]", short: "Kill one or more running containers",
		args: a.minArgs(1), shownAs: []string{"container kill", "kill"},
		setup: func(fs *pflag.FlagSet) action {
			sig := fs.StringP("signal", "s", "", "Signal to send to the container")
			return func(ctx context.Context, names []string) error {
				return a.forEach(ctx, names, func(ctx context.Context, c *client.Client, name string) error {
					_, err := c.ContainerKill(ctx, name, client.ContainerKillOptions{Signal: *sig})
					return err
				})
			}
		},
	}
}

func (a *app) rm() spec {
	return spec{
		use: "rm [OPTIONS] CONTAINER [CONTAINER...]", short: "Remove one or more containers",
		args: a.minArgs(1), shownAs: []string{"container rm", "container remove", "rm"},
		setup: func(fs *pflag.FlagSet) action {
			force := fs.BoolP("force", "f", false, "Force the removal of a running container (uses SIGKILL)")
			link := fs.BoolP("link", "l", false, "Remove the specified link")
			volumes := fs.BoolP("volumes", "v", false, "Remove anonymous volumes associated with the container")
			return func(ctx context.Context, names []string) error {
				c, err := a.api()
				if err != nil {
					return err
				}
				var errs []error
				inParallel(ctx, names, func(ctx context.Context, name string) error {
					if name = strings.Trim(name, "/"); name == "" {
						return errors.New("container name cannot be empty")
					}
					_, err := c.ContainerRemove(ctx, name, client.ContainerRemoveOptions{RemoveVolumes: *volumes, RemoveLinks: *link, Force: *force})
					return err
				}, func(name string, err error) {
					switch {
					case err == nil:
						_, _ = fmt.Fprintln(a.out, name)
					case *force && errdefs.IsNotFound(err):
						// It is gone, which is what was wanted; it is said, but no failure.
						_, _ = fmt.Fprintln(a.err, err)
					default:
						errs = append(errs, err)
					}
				})
				return errors.Join(errs...)
			}
		},
	}
}

func (a *app) rename() spec {
	return spec{
		use: "rename CONTAINER NEW_NAME", short: "Rename a container",
		args: a.exactArgs(2), shownAs: []string{"container rename", "rename"},
		setup: func(*pflag.FlagSet) action {
			return func(ctx context.Context, args []string) error {
				c, err := a.api()
				if err != nil {
					return err
				}
				oldName, newName := strings.TrimSpace(args[0]), strings.TrimSpace(args[1])
				if oldName == "" || newName == "" {
					return errors.New("error: neither old nor new names may be empty")
				}
				if _, err := c.ContainerRename(ctx, oldName, client.ContainerRenameOptions{NewName: newName}); err != nil {
					return fmt.Errorf("%w\nError: failed to rename container named %s", err, oldName)
				}
				return nil
			}
		},
	}
}

func (a *app) wait() spec {
	return spec{
		use: "wait CONTAINER [CONTAINER...]", short: "Block until one or more containers stop, then print their exit codes",
		args: a.minArgs(1), shownAs: []string{"container wait", "wait"},
		setup: func(*pflag.FlagSet) action {
			return func(ctx context.Context, names []string) error {
				c, err := a.api()
				if err != nil {
					return err
				}
				var errs []error
				for _, name := range names {
					res := c.ContainerWait(ctx, name, client.ContainerWaitOptions{})
					select {
					case r := <-res.Result:
						_, _ = fmt.Fprintln(a.out, strconv.FormatInt(r.StatusCode, 10))
					case err := <-res.Error:
						errs = append(errs, err)
					}
				}
				return errors.Join(errs...)
			}
		},
	}
}

func (a *app) logs() spec {
	return spec{
		use: "logs [OPTIONS] CONTAINER", short: "Fetch the logs of a container",
		args: a.exactArgs(1), shownAs: []string{"container logs", "logs"},
		setup: func(fs *pflag.FlagSet) action {
			o := client.ContainerLogsOptions{ShowStdout: true, ShowStderr: true}
			const when = ` (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes)`
			fs.BoolVar(&o.Details, "details", false, "Show extra details provided to logs")
			fs.BoolVarP(&o.Follow, "follow", "f", false, "Follow log output")
			fs.StringVar(&o.Since, "since", "", "Show logs since timestamp"+when)
			fs.StringVarP(&o.Tail, "tail", "n", "all", "Number of lines to show from the end of the logs")
			fs.BoolVarP(&o.Timestamps, "timestamps", "t", false, "Show timestamps")
			fs.StringVar(&o.Until, "until", "", "Show logs before a timestamp"+when)
			return func(ctx context.Context, args []string) error { return a.showLogs(ctx, args[0], o) }
		},
	}
}

func (a *app) showLogs(ctx context.Context, name string, o client.ContainerLogsOptions) error {
	c, err := a.api()
	if err != nil {
		return err
	}
	ctr, err := connect.Container(ctx, c, name)
	if err != nil {
		return err
	}
	body, err := c.ContainerLogs(ctx, ctr.ID, o)
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	if ctr.Config.Tty {
		_, err = io.Copy(a.out, body)
		return err
	}
	return demultiplex(a.out, a.err, bufio.NewReaderSize(body, 64<<10))
}
