package engine_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	api "github.com/moby/moby/api/types/container"

	"github.com/cleatlabs/cleat/internal/engine"
	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/logs"
	"github.com/cleatlabs/cleat/internal/stdio"
	"github.com/cleatlabs/cleat/test/expect"
)

func TestLifeOfAContainer(t *testing.T) {
	l := newLab(t)
	ctx := t.Context()
	id := l.create(spec{name: "life", cmd: []string{"sh", "-c", "echo out; echo err >&2; exit 3"}})
	if got := l.inspect("life").State.Status; got != api.StateCreated {
		t.Errorf("status after create: %s", got)
	}
	next, err := l.Wait(ctx, id, api.WaitConditionNextExit)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Start(ctx, id[:10]); err != nil {
		t.Fatal(err)
	}
	if code := l.result(next); code != 3 {
		t.Errorf("exit code %d, want 3", code)
	}
	st := l.inspect(id).State
	if st.Status != api.StateExited || st.ExitCode != 3 || st.Running || st.Pid != 0 {
		t.Errorf("state after exit: %+v", st)
	}
	if code := l.wait(id, ""); code != 3 {
		t.Errorf("not-running answers %d", code)
	}
	var out []string
	session, err := l.Logs(ctx, id, logs.ReadOptions{Tail: -1, Stdout: true, Stderr: true})
	if err != nil {
		t.Fatal(err)
	}
	err = session.Run(ctx, func(s stdio.Stream, line []byte) error { out = append(out, s.String()+" "+string(line)); return nil })
	slices.Sort(out)
	if err != nil || !slices.Equal(out, []string{"stderr err\n", "stdout out\n"}) {
		t.Errorf("logs: %q, %v", out, err)
	}
	removed, err := l.Wait(ctx, id, api.WaitConditionRemoved)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Remove(ctx, "/life", engine.RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	if code := l.result(removed); code != 3 {
		t.Errorf("removed answers %d", code)
	}
	if _, err := l.Inspect(ctx, id, false); !errdefs.IsNotFound(err) || err.Error() != "No such container: "+id {
		t.Errorf("after rm: %v", err)
	}
	if got := l.actions(id); !sequence(got, []string{"create", "start", "die", "destroy"}) {
		t.Errorf("events: %q", got)
	}
}

func TestAutoRemoveAnswersTheExitCodeAndFreesTheName(t *testing.T) {
	l := newLab(t)
	id := l.create(spec{name: "gone", cmd: []string{"sh", "-c", "exit 7"}, host: func(h *api.HostConfig) { h.AutoRemove = true }})
	removed, err := l.Wait(t.Context(), id, api.WaitConditionRemoved)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Start(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if code := l.result(removed); code != 7 {
		t.Errorf("removed answers %d, want 7", code)
	}
	l.create(spec{name: "gone", cmd: []string{"true"}})
}

func TestStartTellsWhyItFailed(t *testing.T) {
	l := newLab(t)
	for _, c := range []struct {
		cmd  string
		code int
		text string
	}{
		{"nosuch", 127, `exec: "nosuch": executable file not found in $PATH`},
		{"/nosuch", 127, "no such file or directory"},
		{"/etc/passwd", 126, "permission denied"},
	} {
		id := l.create(spec{cmd: []string{c.cmd}})
		err := l.Start(t.Context(), id)
		if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v", c.cmd, err)
		}
		st := l.inspect(id).State
		if st.Status != api.StateCreated || st.ExitCode != c.code || !strings.Contains(st.Error, c.text) {
			t.Errorf("%s: state %+v", c.cmd, st)
		}
	}
}

func TestSameStateIsNotModified(t *testing.T) {
	l := newLab(t)
	id := l.start(spec{cmd: []string{"sleep", "1000"}})
	if err := l.Start(t.Context(), id); !errors.Is(err, failure.ErrNotModified) {
		t.Errorf("start of a running one: %v", err)
	}
	if err := l.Remove(t.Context(), id, engine.RemoveOptions{}); !errdefs.IsConflict(err) {
		t.Errorf("rm of a running one: %v", err)
	}
	if err := l.Kill(t.Context(), id, ""); err != nil {
		t.Fatal(err)
	}
	if st := l.inspect(id).State; st.Running || st.ExitCode != 137 {
		t.Errorf("kill answered before the exit was seen: %+v", st)
	}
	if err := l.Kill(t.Context(), id, ""); !errdefs.IsConflict(err) {
		t.Errorf("kill of a stopped one: %v", err)
	}
	if err := l.Stop(t.Context(), id, engine.StopOptions{}); !errors.Is(err, failure.ErrNotModified) {
		t.Errorf("stop of a stopped one: %v", err)
	}
	if err := l.Kill(t.Context(), id, "NOSIG"); !errdefs.IsInvalidArgument(err) {
		t.Errorf("bad signal: %v", err)
	}
}

func TestStopLetsATrapRunAndKillsAfterAnExplicitTimeout(t *testing.T) {
	l := newLab(t)
	trap := l.start(spec{cmd: []string{"sh", "-c", "trap 'exit 5' TERM; echo ready; while :; do sleep 0.05; done"}})
	l.awaitLog(trap, "ready")
	if err := l.Stop(t.Context(), trap, engine.StopOptions{}); err != nil {
		t.Fatal(err)
	}
	if st := l.inspect(trap).State; st.ExitCode != 5 {
		t.Errorf("the trap did not run: %+v", st)
	}
	if got := l.actions(trap); !sequence(got, []string{"kill", "die", "stop"}) {
		t.Errorf("events: %q", got)
	}
	deaf := l.start(spec{cmd: []string{"sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.05; done"}})
	l.awaitLog(deaf, "ready")
	one := 1
	begin := time.Now()
	if err := l.Stop(t.Context(), deaf, engine.StopOptions{Timeout: &one}); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begin); took < time.Second {
		t.Errorf("an explicit timeout of 1 s was cut to %s", took)
	}
	if st := l.inspect(deaf).State; st.ExitCode != 137 {
		t.Errorf("state: %+v", st)
	}
}

func (l *lab) awaitLog(id, text string) {
	l.tb.Helper()
	l.eventually("the output "+text, func() bool {
		session, err := l.Logs(context.Background(), id, logs.ReadOptions{Tail: -1, Stdout: true})
		if err != nil {
			l.tb.Fatal(err)
		}
		found := false
		err = session.Run(context.Background(), func(_ stdio.Stream, line []byte) error {
			found = found || strings.Contains(string(line), text)
			return nil
		})
		return err == nil && found
	})
}

func TestRestartPolicies(t *testing.T) {
	l := newLab(t)
	id := l.start(spec{cmd: []string{"sh", "-c", "exit 4"}, host: func(h *api.HostConfig) {
		h.RestartPolicy = api.RestartPolicy{Name: "on-failure", MaximumRetryCount: 2}
	}})
	l.eventually("two restarts", func() bool {
		r := l.inspect(id)
		return r.RestartCount == 2 && r.State.Status == api.StateExited
	})
	always := l.start(spec{cmd: []string{"sleep", "1000"}, host: func(h *api.HostConfig) { h.RestartPolicy.Name = "always" }})
	first := l.inspect(always).State.Pid
	if err := syscall.Kill(first, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	l.eventually("another process", func() bool {
		st := l.inspect(always).State
		return st.Status == api.StateRunning && st.Pid != first && st.Pid != 0
	})
	next, err := l.Wait(t.Context(), always, api.WaitConditionNextExit)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Stop(t.Context(), always, engine.StopOptions{}); err != nil {
		t.Fatal(err)
	}
	l.result(next)
	if st := l.inspect(always).State; st.Running || st.Restarting {
		t.Errorf("stopped by hand, but: %+v", st)
	}
}

// run runs a command in a container and returns its output and exit code.
func (l *lab) run(id string, cmd ...string) (string, int) {
	l.tb.Helper()
	return l.execAs(id, api.ExecCreateRequest{Cmd: cmd, AttachStdout: true, AttachStderr: true}, "")
}

func (l *lab) execAs(id string, req api.ExecCreateRequest, stdin string) (string, int) {
	l.tb.Helper()
	ctx := context.Background()
	eid, err := l.ExecCreate(ctx, id, req)
	if err != nil {
		l.tb.Fatal(err)
	}
	s, err := l.ExecStart(ctx, eid, engine.ExecStartOptions{})
	if err != nil {
		l.tb.Fatal(err)
	}
	var out expect.Output
	io := engine.StreamIO{Stdout: &out, Stderr: &out}
	if req.AttachStdin {
		io.Stdin = strings.NewReader(stdin)
	}
	if err := s.Run(ctx, io); err != nil {
		l.tb.Fatal(err)
	}
	r, err := l.ExecInspect(ctx, eid)
	if err != nil {
		l.tb.Fatal(err)
	}
	if r.ExitCode == nil {
		l.tb.Fatalf("the stream of exec %q has ended, but its exit code is not known", req.Cmd)
	}
	return out.String(), *r.ExitCode
}

func TestExec(t *testing.T) {
	l := newLab(t)
	id := l.start(spec{cmd: []string{"sleep", "1000"}, cfg: func(c *api.Config) { c.Env = []string{"A=container"}; c.WorkingDir = "/tmp" }})
	all := api.ExecCreateRequest{AttachStdout: true, AttachStderr: true}
	for _, c := range []struct {
		name  string
		req   func(*api.ExecCreateRequest)
		stdin string
		out   string
		code  int
	}{
		{"output of both streams", func(r *api.ExecCreateRequest) { r.Cmd = []string{"sh", "-c", "echo a; exit 9"} }, "", "a\n", 9},
		{"environment", func(r *api.ExecCreateRequest) {
			r.Cmd, r.Env = []string{"sh", "-c", "echo $A $B $FROM $HOME"}, []string{"B=exec"}
		}, "", "container exec image /root\n", 0},
		{"user", func(r *api.ExecCreateRequest) { r.Cmd, r.User = []string{"sh", "-c", "id -u; echo $HOME"}, "nobody" }, "", "65534\n/\n", 0},
		{"workdir of the container", func(r *api.ExecCreateRequest) { r.Cmd = []string{"pwd"} }, "", "/tmp\n", 0},
		{"workdir", func(r *api.ExecCreateRequest) { r.Cmd, r.WorkingDir = []string{"pwd"}, "/bin" }, "", "/bin\n", 0},
		{"stdin to its end", func(r *api.ExecCreateRequest) { r.Cmd, r.AttachStdin = []string{"cat"}, true }, "typed\n", "typed\n", 0},
		{"missing program", func(r *api.ExecCreateRequest) { r.Cmd = []string{"nosuch"} }, "",
			"OCI runtime exec failed: exec failed: unable to start container process: exec: \"nosuch\": executable file not found in $PATH\r\n", 127},
		{"killed", func(r *api.ExecCreateRequest) { r.Cmd = []string{"sh", "-c", "kill -9 $$"} }, "", "", 137},
	} {
		t.Run(c.name, func(t *testing.T) {
			req := all
			c.req(&req)
			out, code := l.execAs(id, req, c.stdin)
			if out != c.out || code != c.code {
				t.Errorf("got %q, %d; want %q, %d", out, code, c.out, c.code)
			}
		})
	}
	if _, err := l.ExecCreate(t.Context(), id, api.ExecCreateRequest{}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("no command: %v", err)
	}
	nobody, err := l.ExecCreate(t.Context(), id, api.ExecCreateRequest{Cmd: []string{"id"}, User: "nosuch"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.ExecStart(t.Context(), nobody, engine.ExecStartOptions{Detach: true}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("unknown user: %v", err)
	}
	eid, err := l.ExecCreate(t.Context(), id, api.ExecCreateRequest{Cmd: []string{"true"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.ExecStart(t.Context(), eid, engine.ExecStartOptions{Detach: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := l.ExecStart(t.Context(), eid, engine.ExecStartOptions{Detach: true}); !errdefs.IsConflict(err) {
		t.Errorf("second start: %v", err)
	}
	never, err := l.ExecCreate(t.Context(), id, api.ExecCreateRequest{Cmd: []string{"true"}})
	if err != nil {
		t.Fatal(err)
	}
	session, err := l.ExecStart(t.Context(), never, engine.ExecStartOptions{})
	if err != nil {
		t.Fatal(err)
	}
	session.Close()
	if session, err = l.ExecStart(t.Context(), never, engine.ExecStartOptions{}); err != nil {
		t.Fatalf("a start after one that was given up: %v", err)
	}
	session.Close()
	if err := l.Kill(t.Context(), id, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := l.ExecStart(t.Context(), never, engine.ExecStartOptions{}); !errdefs.IsConflict(err) {
		t.Errorf("exec start in a stopped container: %v", err)
	}
	if _, err := l.ExecCreate(t.Context(), id, api.ExecCreateRequest{Cmd: []string{"true"}}); !errdefs.IsConflict(err) {
		t.Errorf("exec create in a stopped container: %v", err)
	}
	if _, err := l.ExecInspect(t.Context(), eid); err != nil {
		t.Errorf("an exec must stay readable after its end: %v", err)
	}
}

func TestAttachBeforeStartGetsTheFirstByteAndHalfCloseEndsStdinOnly(t *testing.T) {
	l := newLab(t)
	id := l.create(spec{cmd: []string{"sh", "-c", "echo first; cat; echo last >&2"}, cfg: func(c *api.Config) { c.OpenStdin, c.StdinOnce = true, true }})
	a, err := l.Attach(t.Context(), id, engine.AttachOptions{Stdin: true, Stdout: true, Stderr: true, Stream: true})
	if err != nil {
		t.Fatal(err)
	}
	var out, errs expect.Output
	done := make(chan error, 1)
	go func() {
		done <- a.Run(context.Background(), engine.StreamIO{Stdin: strings.NewReader("middle\n"), Stdout: &out, Stderr: &errs})
	}()
	if err := l.Start(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Fatal("the attachment does not end")
	}
	if out.String() != "first\nmiddle\n" || errs.String() != "last\n" {
		t.Errorf("stdout %q, stderr %q", out.String(), errs.String())
	}
}

func TestAdoptionAndWhatHappenedMeanwhile(t *testing.T) {
	l := newLab(t)
	runs := l.start(spec{name: "runs", cmd: []string{"sh", "-c", "i=0; while :; do echo $i; i=$((i+1)); sleep 0.01; done"}})
	ends := l.start(spec{name: "ends", cmd: []string{"sh", "-c", "sleep 0.3; exit 6"}})
	gone := l.start(spec{name: "gone", cmd: []string{"sleep", "0.3"}, host: func(h *api.HostConfig) { h.AutoRemove = true }})
	pid := l.inspect(runs).State.Pid
	l.awaitLog(runs, "3")
	l.close()
	time.Sleep(500 * time.Millisecond) // both exits fall into the engine's absence
	l.open()
	if got := l.inspect(runs).State; got.Pid != pid || !got.Running {
		t.Errorf("adopted: %+v, want PID %d", got, pid)
	}
	if code := l.wait(ends, ""); code != 6 {
		t.Errorf("the exit code of meanwhile is %d, want 6", code)
	}
	l.eventually("removal of the one with --rm", func() bool {
		_, err := l.Inspect(context.Background(), gone, false)
		return errdefs.IsNotFound(err)
	})
	l.awaitLog(runs, "50")
	if out, code := l.run(runs, "echo", "inside"); out != "inside\n" || code != 0 {
		t.Errorf("exec into an adopted container: %q, %d", out, code)
	}
	if err := l.Kill(t.Context(), runs, ""); err != nil {
		t.Fatal(err)
	}
	// Every number stands in the log once.
	want := 0
	session, err := l.Logs(t.Context(), runs, logs.ReadOptions{Tail: -1, Stdout: true})
	if err != nil {
		t.Fatal(err)
	}
	err = session.Run(t.Context(), func(_ stdio.Stream, line []byte) error {
		if got := strings.TrimSpace(string(line)); got != itoa(want) {
			t.Errorf("line %d is %q", want, got)
		}
		want++
		return nil
	})
	if err != nil || want < 50 {
		t.Errorf("%d lines, %v", want, err)
	}
}

func itoa(n int) string {
	if n < 10 {
		return string(rune('0' + n))
	}
	return itoa(n/10) + string(rune('0'+n%10))
}

func TestPoliciesAfterARestartOfTheEngine(t *testing.T) {
	l := newLab(t)
	policy := func(name api.RestartPolicyMode) func(*api.HostConfig) {
		return func(h *api.HostConfig) { h.RestartPolicy.Name = name }
	}
	ids := map[string]string{}
	for name, p := range map[string]api.RestartPolicyMode{"always": "always", "unless": "unless-stopped", "stopped": "unless-stopped", "no": "no"} {
		ids[name] = l.start(spec{name: "p-" + name, cmd: []string{"sleep", "1000"}, host: policy(p)})
	}
	for _, name := range []string{"always", "stopped"} {
		if err := l.Kill(t.Context(), ids[name], ""); err != nil {
			t.Fatal(err)
		}
	}
	l.close()
	l.open()
	l.eventually("the start of always", func() bool { return l.inspect(ids["always"]).State.Running })
	if !l.inspect(ids["unless"]).State.Running || !l.inspect(ids["no"]).State.Running {
		t.Error("a running container did not outlive the engine")
	}
	if l.inspect(ids["stopped"]).State.Running {
		t.Error("unless-stopped was stopped by hand, yet started")
	}
}
