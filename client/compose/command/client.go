package command

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/cleatlabs/cleat/client/clientplugin"
	"github.com/cleatlabs/cleat/client/compose/operate"
)

// become replaces this process by the client, which knows all about terminals, streams
// and files: `cleat exec …`. It returns only if that fails.
func (a *app) become(args ...string) error {
	program, err := clientplugin.Sibling("this is done", "cleat", "docker")
	if err != nil {
		return err
	}
	if a.dryRun {
		_, _ = fmt.Fprintf(a.err, "DRY-RUN MODE -  %s %s\n", program, strings.Join(args, " "))
		return nil
	}
	env, err := a.environ()
	if err != nil {
		return err
	}
	if err := syscall.Exec(program, append([]string{program}, args...), env); err != nil {
		return fmt.Errorf("%s cannot be run: %w", program, err)
	}
	return nil
}

// one is the container of a service that a command is about: one that runs, unless still is set, and of those that run
// has made only where there is no other.
func (a *app) one(ctx context.Context, service string, index int, still bool) (operate.Container, error) {
	_, list, err := a.containers(ctx, nil, true)
	if err != nil {
		return operate.Container{}, err
	}
	list = slices.DeleteFunc(list, func(c operate.Container) bool { return !still && !c.Running() })
	slices.SortStableFunc(list, func(x, y operate.Container) int {
		switch {
		case x.OneOff == y.OneOff:
			return 0
		case x.OneOff:
			return 1
		}
		return -1
	})
	return operate.Single(list, service, index) // one that there is not does not run either
}

func (a *app) execCommand() *cobra.Command {
	var detach, noTTY, privileged, interactive, tty bool
	var env []string
	var user, workdir string
	var index int
	cmd := command("exec [OPTIONS] SERVICE COMMAND [ARGS...]", "Execute a command in a running container", func(ctx context.Context, args []string) error {
		if len(args) < 2 {
			return errors.New("requires at least 2 arguments: SERVICE COMMAND")
		}
		c, err := a.one(ctx, args[0], index, false)
		if err != nil {
			return err
		}
		line := []string{"exec"}
		switch {
		case detach:
			line = append(line, "--detach")
		case interactive:
			line = append(line, "--interactive")
		}
		if !detach && !noTTY && tty && a.terminal() {
			line = append(line, "--tty")
		}
		for _, e := range env {
			line = append(line, "--env", e)
		}
		if privileged {
			line = append(line, "--privileged")
		}
		if user != "" {
			line = append(line, "--user", user)
		}
		if workdir != "" {
			line = append(line, "--workdir", workdir)
		}
		return a.become(append(append(line, c.ID), args[1:]...)...)
	})
	f := cmd.Flags()
	f.SetInterspersed(false)
	formerly(f, map[string]string{"no-TTY": "no-tty"})
	f.BoolVarP(&detach, "detach", "d", false, "Detached mode: Run command in the background")
	f.BoolVarP(&noTTY, "no-tty", "T", false, "Disable pseudo-TTY allocation. By default '"+a.program+" compose exec' allocates a TTY.")
	f.BoolVar(&privileged, "privileged", false, "Give extended privileges to the process")
	f.BoolVarP(&interactive, "interactive", "i", true, "Keep STDIN open even if not attached")
	f.BoolVarP(&tty, "tty", "t", true, "Allocate a pseudo-TTY")
	_ = f.MarkHidden("interactive")
	_ = f.MarkHidden("tty")
	f.StringArrayVarP(&env, "env", "e", nil, "Set environment variables")
	f.StringVarP(&user, "user", "u", "", "Run the command as this user")
	f.StringVarP(&workdir, "workdir", "w", "", "Path to workdir directory for this command")
	f.IntVar(&index, "index", 0, "Index of the container if service has multiple replicas")
	return cmd
}

// terminal says whether somebody can type.
func (a *app) terminal() bool {
	return isTerminal(a.in) && a.out.IsTerminal()
}

func (a *app) attachCommand() *cobra.Command {
	var keys string
	var noStdin, proxy bool
	var index int
	cmd := command("attach [OPTIONS] SERVICE", "Attach local standard input, output, and error streams to a service's running container", func(ctx context.Context, args []string) error {
		if len(args) != 1 {
			return errors.New("requires 1 argument: SERVICE")
		}
		c, err := a.one(ctx, args[0], index, false)
		if err != nil {
			return err
		}
		line := []string{"attach", "--sig-proxy=" + strconv.FormatBool(proxy), "--no-stdin=" + strconv.FormatBool(noStdin)}
		if keys != "" {
			line = append(line, "--detach-keys", keys)
		}
		return a.become(append(line, c.ID)...)
	})
	cmd.Flags().StringVar(&keys, "detach-keys", "", "Override the key sequence for detaching from a container.")
	cmd.Flags().BoolVar(&noStdin, "no-stdin", false, "Do not attach STDIN")
	cmd.Flags().BoolVar(&proxy, "sig-proxy", true, "Proxy all received signals to the process")
	cmd.Flags().IntVar(&index, "index", 0, "index of the container if service has multiple replicas.")
	return cmd
}

func (a *app) statsCommand() *cobra.Command {
	var all, noStream, noTrunc bool
	var format string
	cmd := command("stats [OPTIONS] [SERVICE]", "Display a live stream of container(s) resource usage statistics", func(ctx context.Context, args []string) error {
		_, list, err := a.containers(ctx, args, false)
		if err != nil {
			return err
		}
		list = slices.DeleteFunc(list, func(c operate.Container) bool { return !all && c.State != "running" && c.State != "paused" })
		if len(list) == 0 { // naming none would show those of other projects
			a.reporter.Warn("no containers of the project run: start the services first")
			return nil
		}
		line := []string{"stats"}
		for flag, set := range map[string]bool{"--all": all, "--no-stream": noStream, "--no-trunc": noTrunc} {
			if set {
				line = append(line, flag)
			}
		}
		if format != "" {
			line = append(line, "--format", format)
		}
		for _, c := range list {
			line = append(line, c.ID)
		}
		return a.become(line...)
	})
	cmd.Flags().BoolVarP(&all, "all", "a", false, "Show all containers (default shows just running)")
	cmd.Flags().BoolVar(&noStream, "no-stream", false, "Disable streaming stats and only pull the first result")
	cmd.Flags().BoolVar(&noTrunc, "no-trunc", false, "Do not truncate output")
	cmd.Flags().StringVar(&format, "format", "", "Format output using a custom template")
	return cmd
}

func (a *app) exportCommand() *cobra.Command {
	var output string
	var index int
	cmd := command("export [OPTIONS] SERVICE", "Export a service container's filesystem as a tar archive", func(ctx context.Context, args []string) error {
		if len(args) != 1 {
			return errors.New("requires 1 argument: SERVICE")
		}
		c, err := a.one(ctx, args[0], index, true)
		if err != nil {
			return err
		}
		line := []string{"export"}
		if output != "" {
			line = append(line, "--output", output)
		}
		return a.become(append(line, c.ID)...)
	})
	cmd.Flags().StringVarP(&output, "output", "o", "", "Write to a file, instead of STDOUT")
	cmd.Flags().IntVar(&index, "index", 0, "index of the container if service has multiple replicas.")
	return cmd
}

func (a *app) commitCommand() *cobra.Command {
	var author, message string
	var changes []string
	var pause bool
	var index int
	cmd := command("commit [OPTIONS] SERVICE [REPOSITORY[:TAG]]", "Create a new image from a service container's changes", func(ctx context.Context, args []string) error {
		if len(args) == 0 || len(args) > 2 {
			return errors.New("requires 1 or 2 arguments: SERVICE [REPOSITORY[:TAG]]")
		}
		c, err := a.one(ctx, args[0], index, true)
		if err != nil {
			return err
		}
		line := []string{"commit", "--pause=" + strconv.FormatBool(pause)}
		for _, ch := range changes {
			line = append(line, "--change", ch)
		}
		if author != "" {
			line = append(line, "--author", author)
		}
		if message != "" {
			line = append(line, "--message", message)
		}
		return a.become(append(append(line, c.ID), args[1:]...)...)
	})
	cmd.Flags().StringVarP(&author, "author", "a", "", `Author (e.g., "John Hannibal Smith <hannibal@a-team.com>")`)
	cmd.Flags().StringVarP(&message, "message", "m", "", "Commit message")
	cmd.Flags().StringArrayVarP(&changes, "change", "c", nil, "Apply Dockerfile instruction to the created image")
	cmd.Flags().BoolVarP(&pause, "pause", "p", true, "Pause container during commit")
	cmd.Flags().IntVar(&index, "index", 0, "index of the container if service has multiple replicas.")
	return cmd
}
