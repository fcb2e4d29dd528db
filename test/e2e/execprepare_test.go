package e2e

import (
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/client"

	"github.com/cleatlabs/cleat/test/harness"
)

// attached starts an exec and returns what it writes.
func (x *execs) attached(id string) (string, error) {
	x.t.Helper()
	s, err := x.ExecAttach(x.t.Context(), id, client.ExecAttachOptions{})
	if err != nil {
		return "", err
	}
	defer s.Close()
	b, err := io.ReadAll(s.Reader)
	if len(b) >= 8 { // the frame's head
		b = b[8:]
	}
	return string(b), err
}

// TestExecsThatAreNotStarted: the process that is made ahead for an exec does not
// outlast the wait for its start, nor its container, and is no obstacle.
func TestExecsThatAreNotStarted(t *testing.T) {
	t.Parallel()
	e := harness.Start(t, harness.Options{})
	e.Load(t, "busybox")
	id := e.OK(t, "docker", "run", "-d", "--name", "box", "busybox", "sleep", "600")
	x := &execs{t, e.Client(t)}
	const most = 16
	var ids []string
	for range 2 * most {
		ids = append(ids, x.create("box", false, "echo", "late"))
		if n := processes(t, e, id); n > 1+2*most { // with the helpers that make them
			t.Fatalf("%d processes for %d execs", n, len(ids))
		}
	}
	if got := x.inspect(ids[0]); got.Running || got.PID != 0 {
		t.Errorf("before its start: %+v", got)
	}
	alone := func() {
		t.Helper()
		harness.Eventually(t, func() (bool, string) {
			n := processes(t, e, id)
			return n == 1 && keepers(e) == 1, fmt.Sprintf("%d processes, %d keepers", n, keepers(e))
		})
	}
	alone()
	for _, late := range []string{ids[0], ids[2*most-1]} {
		if out, err := x.attached(late); err != nil || out != "late\n" {
			t.Errorf("%q, %v", out, err)
		}
	}

	// Paused between the two calls, and not any more.
	paused := x.create("box", false, "echo", "thawed")
	e.OK(t, "docker", "pause", "box")
	if _, err := x.ExecStart(t.Context(), paused, client.ExecStartOptions{Detach: true}); !errdefs.IsConflict(err) || !strings.Contains(err.Error(), "paused") {
		t.Errorf("start in a paused container: %v", err)
	}
	e.OK(t, "docker", "unpause", "box")
	if out, err := x.attached(paused); err != nil || out != "thawed\n" {
		t.Errorf("%q, %v", out, err)
	}

	// Made with an input, started without.
	created, err := x.ExecCreate(t.Context(), "box", client.ExecCreateOptions{Cmd: []string{"sh", "-c", "cat; exit 9"}, AttachStdin: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := x.ExecStart(t.Context(), created.ID, client.ExecStartOptions{Detach: true}); err != nil {
		t.Fatal(err)
	}
	if code := x.ends(created.ID); code != 9 {
		t.Errorf("exit code %d", code)
	}

	// A working directory that is there by the time of the start.
	created, err = x.ExecCreate(t.Context(), "box", client.ExecCreateOptions{Cmd: []string{"pwd"}, WorkingDir: "/tmp/soon", AttachStdout: true})
	if err != nil {
		t.Fatal(err)
	}
	e.OK(t, "docker", "exec", "box", "mkdir", "-p", "/tmp/soon")
	if out, err := x.attached(created.ID); err != nil || out != "/tmp/soon\n" {
		t.Errorf("%q, %v", out, err)
	}

	x.create("box", false, "echo", "never")
	e.OK(t, "docker", "rm", "-f", "box")
	nothingLeft(t, e)
	e.OK(t, "docker", "run", "-d", "--name", "box", "--pid", "host", "busybox", "sleep", "600")
	x.create("box", false, "echo", "never")
	e.OK(t, "docker", "rm", "-f", "box")
	nothingLeft(t, e)
	e.OK(t, "docker", "run", "-d", "--name", "box", "busybox", "sleep", "600")
	x.create("box", false, "echo", "never")
	e.Stop(t)
	e.Run(t)
	id = e.OK(t, "docker", "inspect", "-f", "{{.Id}}", "box")
	alone()
	e.OK(t, "docker", "rm", "-f", "box")
}
