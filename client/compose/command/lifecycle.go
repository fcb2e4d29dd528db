package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/cleatlabs/cleat/client/compose/label"
	"github.com/cleatlabs/cleat/client/compose/operate"
	"github.com/cleatlabs/cleat/client/compose/project"
	"github.com/cleatlabs/cleat/client/term"
)

func (a *app) downCommand() *cobra.Command {
	var opts operate.DownOptions
	var timeout func() *int
	var removeOrphans func() bool
	cmd := command("down [OPTIONS] [SERVICES]", "Stop and remove containers, networks", func(ctx context.Context, args []string) error {
		switch opts.Images {
		case "", "local", "all":
		default:
			return fmt.Errorf("invalid value for --rmi: %q: choose local or all", opts.Images)
		}
		var name string
		var p *types.Project
		o, err := a.begin(ctx, func() (err error) {
			name, p, err = a.known(ctx)
			return err
		})
		if err != nil {
			return err
		}
		if p, err = a.ownOf(ctx, o, name, p); err != nil {
			return err
		}
		for _, s := range args {
			if p != nil && !slices.Contains(append(project.Names(p), p.DisabledServiceNames()...), s) {
				return noService(p, s)
			}
		}
		opts.Services, opts.Timeout, opts.RemoveOrphans, opts.All, opts.Named = args, timeout(), removeOrphans(), a.byName(), a.named()
		return o.Down(ctx, name, p, opts)
	})
	f := cmd.Flags()
	formerly(f, map[string]string{"volume": "volumes"})
	removeOrphans = orphansFlag(f)
	f.BoolVarP(&opts.Volumes, "volumes", "v", false, "Remove named volumes declared in the \"volumes\" section of the Compose file and anonymous volumes attached to containers")
	f.StringVar(&opts.Images, "rmi", "", `Remove images used by services. "local" remove only images that don't have a custom tag ("local"|"all")`)
	timeout = timeoutFlag(cmd, "Specify a shutdown timeout in seconds")
	return cmd
}

func (a *app) startCommand() *cobra.Command {
	var opts operate.StartOptions
	var seconds int
	cmd := command("start [SERVICE...]", "Start services", func(ctx context.Context, args []string) error {
		o, p, err := a.outlineOrContainers(ctx, args)
		if err != nil {
			return err
		}
		if p, err = project.Select(p, args, false); err != nil {
			return err
		}
		opts.WaitTimeout = time.Duration(seconds) * time.Second
		return o.Start(ctx, p, opts)
	})
	cmd.Flags().BoolVar(&opts.Wait, "wait", false, "Wait for services to be running|healthy. Implies detached mode.")
	cmd.Flags().IntVar(&seconds, "wait-timeout", 0, "Maximum duration in seconds to wait for the project to be running|healthy")
	return cmd
}

func (a *app) stopCommand() *cobra.Command {
	var timeout func() *int
	cmd := command("stop [OPTIONS] [SERVICE...]", "Stop services", func(ctx context.Context, args []string) error {
		o, list, err := a.acted(ctx, args, false)
		if err != nil {
			return err
		}
		return o.Stop(ctx, list, timeout())
	})
	timeout = timeoutFlag(cmd, "Specify a shutdown timeout in seconds")
	return cmd
}

func (a *app) restartCommand() *cobra.Command {
	var timeout func() *int
	var noDeps bool
	cmd := command("restart [OPTIONS] [SERVICE...]", "Restart service containers", func(ctx context.Context, args []string) error {
		o, list, err := a.containers(ctx, nil, false)
		if err != nil {
			return err
		}
		if unknown := unknownOf(o.Project, list, args); len(unknown) > 0 {
			return noService(o.Project, unknown[0])
		}
		if len(args) == 0 {
			list = a.within(o, list)
		}
		return o.Restart(ctx, list, args, noDeps, timeout())
	})
	cmd.Flags().BoolVar(&noDeps, "no-deps", false, "Don't restart dependent services")
	timeout = timeoutFlag(cmd, "Specify a shutdown timeout in seconds")
	return cmd
}

func (a *app) killCommand() *cobra.Command {
	var signal string
	var orphans func() bool
	cmd := command("kill [OPTIONS] [SERVICE...]", "Force stop service containers", func(ctx context.Context, args []string) error {
		o, list, err := a.containers(ctx, args, true) // those of run, too
		if err != nil {
			return err
		}
		if len(args) == 0 && !orphans() {
			list = a.within(o, list)
		}
		list = slices.DeleteFunc(list, func(c operate.Container) bool {
			return c.State != container.StateRunning && c.State != container.StatePaused
		})
		if len(list) == 0 {
			_, _ = fmt.Fprintln(a.err, "no container to kill")
			return nil
		}
		return a.onEach(ctx, o, list, "Killing", "Killed", func(ctx context.Context, o *operate.Operator, c operate.Container) error {
			_, err := o.API.ContainerKill(ctx, c.ID, client.ContainerKillOptions{Signal: signal})
			return err
		})
	})
	cmd.Flags().StringVarP(&signal, "signal", "s", "SIGKILL", "SIGNAL to send to the container")
	orphans = orphansFlag(cmd.Flags())
	return cmd
}

func (a *app) rmCommand() *cobra.Command {
	var opts operate.RemoveOptions
	var force, all bool
	cmd := command("rm [OPTIONS] [SERVICE...]", "Removes stopped service containers", func(ctx context.Context, args []string) error {
		o, list, err := a.acted(ctx, args, false)
		if err != nil {
			return err
		}
		if !opts.Stop {
			list = slices.DeleteFunc(list, func(c operate.Container) bool {
				return c.State == container.StateRunning || c.State == container.StatePaused
			})
		}
		if len(list) == 0 {
			_, _ = fmt.Fprintln(a.err, "No stopped containers")
			return nil
		}
		if !force {
			if ok, err := a.confirm(ctx, fmt.Sprintf("Going to remove %s\nAre you sure?", names(list))); !ok || err != nil {
				return err
			}
		} else {
			_, _ = fmt.Fprintf(a.out, "Going to remove %s\n", names(list))
		}
		return o.Remove(ctx, list, opts)
	})
	f := cmd.Flags()
	f.BoolVarP(&force, "force", "f", false, "Don't ask to confirm removal")
	f.BoolVarP(&opts.Stop, "stop", "s", false, "Stop the containers, if required, before removing")
	f.BoolVarP(&opts.Volumes, "volumes", "v", false, "Remove any anonymous volumes attached to containers")
	f.BoolVarP(&all, "all", "a", false, "Deprecated - no effect")
	_ = f.MarkHidden("all")
	return cmd
}

func names(list []operate.Container) string {
	text := ""
	for i, c := range list {
		if i > 0 {
			text += ", "
		}
		text += c.Name
	}
	return text
}

// confirm asks the user.
func (a *app) confirm(ctx context.Context, question string) (bool, error) {
	return term.Confirm(ctx, a.in, a.err, question+" [yN]", "y", "yes")
}

func (a *app) pauseCommand() *cobra.Command {
	return command("pause [SERVICE...]", "Pause services", func(ctx context.Context, args []string) error {
		return a.onThose(ctx, args, container.StateRunning, "Pausing", "Paused", func(ctx context.Context, o *operate.Operator, c operate.Container) error {
			_, err := o.API.ContainerPause(ctx, c.ID, client.ContainerPauseOptions{})
			return err
		})
	})
}

func (a *app) unpauseCommand() *cobra.Command {
	return command("unpause [SERVICE...]", "Unpause services", func(ctx context.Context, args []string) error {
		return a.onThose(ctx, args, container.StatePaused, "Unpausing", "Unpaused", func(ctx context.Context, o *operate.Operator, c operate.Container) error {
			_, err := o.API.ContainerUnpause(ctx, c.ID, client.ContainerUnpauseOptions{})
			return err
		})
	})
}

// onThose does one thing to all containers of the services that are in a state.
func (a *app) onThose(ctx context.Context, services []string, state container.ContainerState, doing, done string, do func(context.Context, *operate.Operator, operate.Container) error) error {
	o, list, err := a.acted(ctx, services, false)
	if err != nil {
		return err
	}
	list = slices.DeleteFunc(list, func(c operate.Container) bool { return c.State != state })
	return a.onEach(ctx, o, list, doing, done, do)
}

// onEach does something to containers, and tells.
func (a *app) onEach(ctx context.Context, o *operate.Operator, list []operate.Container, doing, done string, do func(context.Context, *operate.Operator, operate.Container) error) error {
	return o.Each(ctx, list, func(ctx context.Context, c operate.Container) error {
		a.reporter.Report("Container", c.Name, doing)
		if err := do(ctx, o, c); err != nil {
			a.reporter.Report("Container", c.Name, "Error "+err.Error())
			return err
		}
		a.reporter.Report("Container", c.Name, done)
		return nil
	})
}

func (a *app) waitCommand() *cobra.Command {
	var down bool
	cmd := command("wait SERVICE [SERVICE...] [OPTIONS]", "Block until containers of all (or specified) services stop.", func(ctx context.Context, args []string) error {
		if len(args) == 0 {
			return errors.New("requires at least 1 argument: SERVICE")
		}
		o, list, err := a.containers(ctx, args, false)
		if err != nil {
			return err
		}
		if len(list) == 0 {
			return fmt.Errorf("no containers for project: %s: start the services first", strings.Join(args, ", "))
		}
		count := len(list)
		if down {
			count = 1
		}
		code, err := a.exits(ctx, o, list, count)
		if err != nil {
			return err
		}
		if down {
			if err := o.Down(ctx, list[0].Labels[label.Project], o.Project, operate.DownOptions{All: true, RemoveOrphans: true}); err != nil {
				return err
			}
		}
		if code != 0 {
			return &exitError{code: int(code)}
		}
		return nil
	})
	cmd.Flags().BoolVar(&down, "down-project", false, "Drops project when the first container stops")
	return cmd
}

// exits waits for the first count of containers to end, says how each did, and gives the exit code of the last of them.
func (a *app) exits(ctx context.Context, o *operate.Operator, list []operate.Container, count int) (code int64, err error) {
	type ending struct {
		id   string
		code int64
		err  error
	}
	endings := make(chan ending, len(list))
	for _, c := range list {
		go func() {
			wait := o.API.ContainerWait(ctx, c.ID, client.ContainerWaitOptions{Condition: container.WaitConditionNotRunning})
			select {
			case r := <-wait.Result:
				endings <- ending{c.ID, r.StatusCode, nil}
			case err := <-wait.Error:
				endings <- ending{c.ID, 0, err}
			}
		}()
	}
	for range count {
		e := <-endings
		switch {
		case errors.Is(e.err, io.ErrUnexpectedEOF):
			return 0, a.lost(e.err, "wait")
		case e.err != nil:
			return 0, e.err
		}
		_, _ = fmt.Fprintf(a.out, "container %q exited with status code %d\n", e.id, e.code)
		code = e.code
	}
	return code, nil
}
