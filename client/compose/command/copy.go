package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cleatlabs/cleat/client/clientplugin"
	"github.com/cleatlabs/cleat/client/compose/operate"
)

// copying is what `compose cp` was told.
type copying struct {
	archive, follow, all bool
	index                int // of the one container that is meant; 0 is none in particular
}

func (a *app) cpCommand() *cobra.Command {
	var c copying
	cmd := command("cp [OPTIONS] SERVICE:SRC_PATH DEST_PATH|-\n\t"+a.program+" compose cp [OPTIONS] SRC_PATH|- SERVICE:DEST_PATH", "Copy files/folders between a service container and the local filesystem", func(ctx context.Context, args []string) error {
		if len(args) != 2 {
			return errors.New("requires 2 arguments: a source and a destination, one of which is SERVICE:PATH")
		}
		return a.copyFiles(ctx, c, args[0], args[1])
	})
	cmd.Flags().BoolVar(&c.all, "all", false, "Include containers created by the run command")
	cmd.Flags().BoolVarP(&c.archive, "archive", "a", false, "Archive mode (copy all uid/gid information)")
	cmd.Flags().BoolVarP(&c.follow, "follow-link", "L", false, "Always follow symbol link in SRC_PATH")
	cmd.Flags().IntVar(&c.index, "index", 0, "Index of the container if service has multiple replicas")
	return cmd
}

// copyFiles copies out of a service's first container, or into all that it has.
func (a *app) copyFiles(ctx context.Context, c copying, source, destination string) error {
	from, fromPath := serviceOf(source)
	to, toPath := serviceOf(destination)
	switch {
	case from != "" && to != "":
		return errors.New("copying between services is not supported")
	case from == "" && to == "":
		return errors.New("unknown copy direction: one of the two is SERVICE:PATH")
	}
	list, err := a.copied(ctx, c, from+to)
	if err != nil {
		return err
	}
	line := []string{"cp"}
	if c.archive {
		line = append(line, "--archive")
	}
	if c.follow {
		line = append(line, "--follow-link")
	}
	if from != "" {
		return a.become(append(line, list[0].ID+":"+fromPath, destination)...)
	}
	if len(list) == 1 {
		return a.become(append(line, source, list[0].ID+":"+toPath)...)
	}
	return a.copyToEach(ctx, list, append(line, source), toPath)
}

// serviceOf splits SERVICE:PATH; a path of this machine has no service.
func serviceOf(arg string) (service, path string) {
	service, path, ok := strings.Cut(arg, ":")
	if !ok || strings.Contains(service, "/") || strings.HasPrefix(service, ".") {
		return "", arg
	}
	return service, path
}

// copied are the containers that are meant, in the order of their numbers: at least one.
func (a *app) copied(ctx context.Context, c copying, service string) ([]operate.Container, error) {
	_, list, err := a.containers(ctx, nil, c.all)
	if err != nil {
		return nil, err
	}
	if c.index > 0 {
		one, err := operate.Single(list, service, c.index)
		return []operate.Container{one}, err
	}
	if list = operate.OfServices(list, []string{service}); len(list) == 0 {
		return nil, fmt.Errorf("no container found for service %q", service)
	}
	return list, nil
}

// copyToEach has the client copy into one container after the other. One that fails does not keep the others from it.
func (a *app) copyToEach(ctx context.Context, list []operate.Container, line []string, path string) error {
	program, err := clientplugin.Sibling("this is done", "cleat", "docker")
	if err != nil {
		return err
	}
	env, err := a.environ()
	if err != nil {
		return err
	}
	var archive *os.File // what comes once and is needed several times
	if line[len(line)-1] == "-" && !a.dryRun {
		if archive, err = spooled(a.in); err != nil {
			return err
		}
		defer func() { _ = archive.Close() }()
	}
	failed := false
	for _, c := range list {
		args := append(line[:len(line):len(line)], c.ID+":"+path)
		if a.dryRun {
			_, _ = fmt.Fprintf(a.err, "DRY-RUN MODE -  %s %s\n", program, strings.Join(args, " "))
			continue
		}
		cmd := exec.CommandContext(ctx, program, args...)
		cmd.Env, cmd.Stdout, cmd.Stderr = env, a.out, a.err
		if archive != nil {
			if _, err := archive.Seek(0, io.SeekStart); err != nil {
				return err
			}
			cmd.Stdin = archive
		}
		if err := cmd.Run(); ctx.Err() != nil {
			return ctx.Err()
		} else if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
			return fmt.Errorf("%s cannot be run: %w", program, err)
		}
		failed = failed || !cmd.ProcessState.Success() // and has said why
	}
	if failed {
		return &exitError{1, nil}
	}
	return nil
}

// spooled keeps what is read in a file without a name.
func spooled(in io.Reader) (*os.File, error) {
	f, err := os.CreateTemp("", "cleat-compose-cp-")
	if err != nil {
		return nil, err
	}
	if err = os.Remove(f.Name()); err == nil {
		_, err = io.Copy(f, in)
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}
