package solve

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	bkclient "github.com/moby/buildkit/client"
	gateway "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/solver/pb"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatlabs/cleat/client/term"
)

// Invoke is a program to run where a build ends: in the container of the step that has
// failed, as that has left it, or in the result.
type Invoke struct {
	Command []string // a shell if empty
	OnError bool     // only if a step fails
	In      *term.Input
	Out     *term.Output
	Err     io.Writer
}

// shell is what every image that has a shell has.
const shell = "/bin/sh"

// failurePatience is how long the last lines of a failed step may take to arrive, after
// the failure itself.
const failurePatience = 2 * time.Second

// invoked runs the program in what the build has made, or in what its failed step has left.
func (t *Target) invoked(ctx context.Context, c *bkclient.Client, so *bkclient.SolveOpt, ch chan *bkclient.SolveStatus, p *Progress) (*Result, error) {
	return evaluated(ctx, c, so, ch, func(ctx context.Context, g gateway.Client, res *gateway.Result, err error) error {
		if err == nil && t.Invoke.OnError {
			return nil
		}
		if err != nil {
			p.awaitFailure(ctx, failurePatience)
		}
		if perr := p.Wait(); perr != nil {
			return errors.Join(err, perr)
		}
		if ierr := t.Invoke.run(ctx, g, res, err); ierr != nil {
			return errors.Join(err, ierr)
		}
		return err
	})
}

// run starts the program and waits for its end.
func (i *Invoke) run(ctx context.Context, g gateway.Client, res *gateway.Result, failure error) error {
	req, start, err := i.where(res, failure)
	if err != nil {
		return err
	}
	ctr, err := g.NewContainer(ctx, req)
	if err != nil {
		return fmt.Errorf("--invoke: %w", err)
	}
	defer func() { _ = ctr.Release(context.WithoutCancel(ctx)) }()
	start.Args = i.Command
	if len(start.Args) == 0 {
		start.Args = []string{shell}
	}
	start.Tty = i.In.IsTerminal() && i.Out.IsTerminal()
	start.Stdin, start.Stdout, start.Stderr = io.NopCloser(i.In), unclosed{i.Out}, unclosed{i.Err}
	_, _ = fmt.Fprintf(i.Err, "\nRunning %s where the build has stopped; the build goes on to its end when it exits.\n", strings.Join(start.Args, " "))
	if start.Tty {
		restore, err := i.In.Raw()
		if err != nil {
			return err
		}
		defer restore()
	}
	proc, err := ctr.Start(ctx, start)
	if err != nil {
		return fmt.Errorf("--invoke: %w", err)
	}
	if start.Tty {
		defer i.follow(ctx, proc)()
	}
	err = proc.Wait()
	if exit := (interface{ ExitCode() int })(nil); errors.As(err, &exit) || err != nil && strings.Contains(err.Error(), "exit code") {
		return nil // how the program ended is its user's affair
	}
	return err
}

// where is the container, and what its process has in common with the step's.
func (i *Invoke) where(res *gateway.Result, failure error) (gateway.NewContainerRequest, gateway.StartRequest, error) {
	var none gateway.StartRequest
	if failure == nil {
		return resultContainer(res)
	}
	var failed *errdefs.SolveError
	if !errors.As(failure, &failed) {
		return gateway.NewContainerRequest{}, none, errors.New("--invoke: no step has failed, so there is no container to be in")
	}
	op, ok := failed.Op.GetOp().(*pb.Op_Exec)
	if !ok {
		return gateway.NewContainerRequest{}, none, errors.New("--invoke: what has failed is not a RUN, so there is no container to be in")
	}
	if len(failed.MountIDs) < len(op.Exec.Mounts) {
		return gateway.NewContainerRequest{}, none, errors.New("--invoke: the step had not got its files yet, so there is no container to be in")
	}
	req := gateway.NewContainerRequest{NetMode: op.Exec.Network}
	for n, m := range op.Exec.Mounts {
		req.Mounts = append(req.Mounts, gateway.Mount{
			Selector: m.Selector, Dest: m.Dest, ResultID: failed.MountIDs[n], Readonly: m.Readonly, MountType: m.MountType,
			CacheOpt: m.CacheOpt, SecretOpt: m.SecretOpt, SSHOpt: m.SSHOpt,
		})
	}
	meta := op.Exec.Meta
	return req, gateway.StartRequest{Env: meta.Env, User: meta.User, Cwd: meta.Cwd, SecretEnv: op.Exec.Secretenv, SecurityMode: op.Exec.Security}, nil
}

// resultContainer is one with the root of the image that was built.
func resultContainer(res *gateway.Result) (gateway.NewContainerRequest, gateway.StartRequest, error) {
	ref, err := res.SingleRef()
	if err != nil {
		return gateway.NewContainerRequest{}, gateway.StartRequest{}, fmt.Errorf("--invoke: build for one platform: %w", err)
	}
	var img ocispec.Image
	if data := res.Metadata["containerimage.config"]; len(data) > 0 {
		if err := json.Unmarshal(data, &img); err != nil {
			return gateway.NewContainerRequest{}, gateway.StartRequest{}, fmt.Errorf("--invoke: the image's configuration cannot be read: %w", err)
		}
	}
	root := gateway.Mount{Dest: "/", MountType: pb.MountType_BIND, Ref: ref}
	return gateway.NewContainerRequest{Mounts: []gateway.Mount{root}}, gateway.StartRequest{Env: img.Config.Env, User: img.Config.User, Cwd: img.Config.WorkingDir}, nil
}

// follow gives the process the terminal's size, now and when it changes.
func (i *Invoke) follow(ctx context.Context, proc gateway.ContainerProcess) (stop func()) {
	resize := func() {
		if rows, cols := i.Out.Size(); rows > 0 && cols > 0 {
			_ = proc.Resize(ctx, gateway.WinSize{Rows: uint32(rows), Cols: uint32(cols)})
		}
	}
	resize()
	ch, done := make(chan os.Signal, 1), make(chan struct{})
	signal.Notify(ch, syscall.SIGWINCH)
	go func() {
		for {
			select {
			case <-ch:
				resize()
			case <-done:
				return
			}
		}
	}()
	return func() { signal.Stop(ch); close(done) }
}

// unclosed stays open when the process that it is the output of ends.
type unclosed struct{ io.Writer }

func (unclosed) Close() error { return nil }
