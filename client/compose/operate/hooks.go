package operate

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/client"

	"github.com/cleatlabs/cleat/client/compose/spec"
)

// Service is what the files say of a container's service. Those of `run` have no hooks: they are not the service.
func (o *Operator) Service(c Container) (s types.ServiceConfig, known bool) {
	if o.Project == nil || c.OneOff {
		return s, false
	}
	if s, known = o.Project.Services[c.Service]; !known {
		s, known = o.Project.DisabledServices[c.Service]
	}
	return s, known
}

// beforeStop runs what is to be run in a container before it is stopped.
func (o *Operator) beforeStop(ctx context.Context, c Container) error {
	s, _ := o.Service(c)
	err := o.Hooks(ctx, c, s.PreStop)
	// One that has ended meanwhile, or is paused, cannot run anything, and is stopped all the same.
	if gone(err) || errdefs.IsConflict(err) {
		return nil
	}
	return err
}

// restart restarts a container, with the hooks of its service.
func (o *Operator) restart(ctx context.Context, c Container, timeout *int) error {
	s, known := o.Service(c)
	var err error
	switch {
	case c.Running():
		err = o.beforeStop(ctx, c)
	case known:
		err = o.fill(ctx, o.Project, s, c.ID)
	}
	if err != nil {
		return err
	}
	if _, err := o.API.ContainerRestart(ctx, c.ID, client.ContainerRestartOptions{Timeout: timeout}); err != nil {
		return err
	}
	return o.Hooks(ctx, c, s.PostStart)
}

// Hooks runs commands in a container, one after the other. The first that fails is the last.
func (o *Operator) Hooks(ctx context.Context, c Container, hooks []types.ServiceHook) error {
	if o.DryRun {
		return nil
	}
	for _, h := range hooks {
		if err := o.hook(ctx, c, h); err != nil {
			return err
		}
	}
	return nil
}

// hook runs a command in a container that must succeed.
func (o *Operator) hook(ctx context.Context, c Container, h types.ServiceHook) error {
	made, err := o.API.ExecCreate(ctx, c.ID, client.ExecCreateOptions{
		User: h.User, Privileged: h.Privileged, WorkingDir: h.WorkingDir, Env: spec.Environment(h.Environment), Cmd: h.Command,
		AttachStdout: true, AttachStderr: true,
	})
	if err != nil {
		return err
	}
	session, err := o.API.ExecAttach(ctx, made.ID, client.ExecAttachOptions{})
	if err != nil {
		return err
	}
	defer session.Close()
	stop := context.AfterFunc(ctx, session.Close)
	defer stop()
	said, err := o.said(c, session.Reader)
	if err != nil {
		return err
	}
	ended, err := o.API.ExecInspect(ctx, made.ID, client.ExecInspectOptions{})
	if err != nil {
		return err
	}
	if ended.ExitCode == 0 {
		return nil
	}
	return fmt.Errorf("%s hook exited with status %d (%q)%s", c.Service, ended.ExitCode, strings.Join(h.Command, " "), said)
}

// said shows what a hook of a container writes, to its end, and gives the last line of it with a colon before it; "" if
// it wrote nothing.
func (o *Operator) said(c Container, output io.Reader) (string, error) {
	var last tail
	var out io.Writer = &last
	if o.HookOutput != nil {
		shown := o.HookOutput(c)
		defer shown.Close()
		out = io.MultiWriter(&last, shown)
	}
	_, err := stdcopy.StdCopy(out, out, output)
	if line := last.line(); line != "" {
		return ": " + line, err
	}
	return "", err
}

// tail keeps the end of what is written to it.
type tail struct{ kept []byte }

// Write implements io.Writer.
func (t *tail) Write(p []byte) (int, error) {
	const most = 4 << 10
	t.kept = append(t.kept, p...)
	t.kept = t.kept[max(0, len(t.kept)-most):]
	return len(p), nil
}

// line is the last one.
func (t *tail) line() string {
	lines := strings.Split(strings.TrimRight(string(t.kept), "\n"), "\n")
	return lines[len(lines)-1]
}
