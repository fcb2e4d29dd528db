package buildexec

import (
	"context"
	"path"

	"github.com/moby/buildkit/executor"
	"github.com/moby/buildkit/solver/pb"
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/rootpath"
	"github.com/cleatlabs/cleat/internal/runtime"
)

// Exec runs a further process in the step that Run has started, or is about to start, as id. What process leaves open
// (user, directory, environment) is as in the step. The process is killed with the step, or when ctx ends.
func (e *Executor) Exec(ctx context.Context, id string, process executor.ProcessInfo) (err error) {
	if err := checkMeta(&process.Meta); err != nil {
		return err
	}
	r, err := e.awaitStart(ctx, id)
	if err != nil {
		return err
	}
	spec, err := e.execSpec(r, &process)
	if err != nil {
		return err
	}
	p, err := e.c.Runtime.Exec(ctx, spec)
	if err != nil {
		return startFailed(ctx, err)
	}
	defer func() { err = alsoFailed(err, p.Release()) }()
	kill := context.AfterFunc(ctx, func() { _ = p.KillGroup() }) // it may have ended
	defer kill()
	attend(p, &process)
	return exitError(ctx, p.Status().Code, process.Meta.ValidExitCodes, false)
}

func (e *Executor) execSpec(r *running, process *executor.ProcessInfo) (*runtime.ExecSpec, error) {
	m, of := &process.Meta, r.spec
	if m.SecurityMode == pb.SecurityMode_INSECURE && !of.Privileged {
		return nil, failure.Forbidden("a process without confinement cannot be started in a step that is confined")
	}
	s := &runtime.ExecSpec{
		ID: "build-" + newID(), ContainerID: of.ID, Target: r.process, Args: m.Args, Env: of.Env, Cwd: of.Cwd, User: of.User,
		TTY: m.Tty, OpenStdin: process.Stdin != nil, Capabilities: of.Capabilities, Seccomp: of.Seccomp,
		CgroupPath: of.CgroupPath, Rlimits: of.Rlimits, AppArmorProfile: of.AppArmorProfile,
	}
	if m.Cwd != "" {
		s.Cwd = path.Clean("/" + m.Cwd)
	}
	if m.User != "" {
		root, err := e.c.Runtime.RootFD(r.process)
		if err != nil {
			return nil, err
		}
		defer unix.Close(root)
		if s.User, err = rootpath.LookupUser(root, m.User, nil); err != nil {
			return nil, err
		}
	}
	if len(m.Env) > 0 {
		s.Env = withHome(m.Env, s.User)
	}
	return s, nil
}
