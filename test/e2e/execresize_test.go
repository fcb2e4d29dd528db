package e2e

import (
	"io"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/client"

	"github.com/cleatlabs/cleat/test/harness"
)

// A size that is asked for beside the start, as clients do for a terminal, waits for the process.
func TestExecsTakeASizeBesideTheirStart(t *testing.T) {
	t.Parallel()
	e := harness.Start(t, harness.Options{})
	e.Load(t, "busybox")
	e.OK(t, "docker", "run", "-d", "--name", "box", "busybox", "sleep", "600")
	x := &execs{t, e.Client(t)}
	size := client.ExecResizeOptions{Height: 33, Width: 44}
	for _, detach := range []bool{false, true} {
		id := x.create("box", true, "sh", "-c", `until [ "$(stty size 2>/dev/null)" = "33 44" ]; do sleep 0.01; done; echo sized`)
		resized := make(chan error, 1)
		go func() {
			_, err := x.ExecResize(t.Context(), id, size)
			resized <- err
		}()
		if detach {
			if _, err := x.ExecStart(t.Context(), id, client.ExecStartOptions{Detach: true, TTY: true}); err != nil {
				t.Fatal(err)
			}
			if err := <-resized; err != nil {
				t.Fatalf("a size for one that is detached: %v", err)
			}
			if code := x.ends(id); code != 0 {
				t.Errorf("exit code %d", code)
			}
			continue
		}
		s, err := x.ExecAttach(t.Context(), id, client.ExecAttachOptions{TTY: true})
		if err != nil {
			t.Fatal(err)
		}
		if err := <-resized; err != nil {
			s.Close()
			t.Fatalf("a size beside the start: %v", err)
		}
		b, err := io.ReadAll(s.Reader)
		s.Close()
		if err != nil || strings.TrimSpace(string(b)) != "sized" {
			t.Errorf("%q, %v", b, err)
		}
	}

	// There is nothing to wait for where the command cannot be started, has ended, or the container has.
	id := x.create("box", true, "/nothing")
	if _, err := x.ExecStart(t.Context(), id, client.ExecStartOptions{Detach: true, TTY: true}); err == nil {
		t.Fatal("a command that there is not has started")
	}
	if _, err := x.ExecResize(t.Context(), id, size); !errdefs.IsConflict(err) {
		t.Errorf("a size for what could not be started: %v", err)
	}
	id = x.detached("box", true, "true")
	x.ends(id)
	if _, err := x.ExecResize(t.Context(), id, size); !errdefs.IsConflict(err) {
		t.Errorf("a size for what has ended: %v", err)
	}
	id = x.create("box", true, "true")
	resized := make(chan error, 1)
	go func() {
		_, err := x.ExecResize(t.Context(), id, size)
		resized <- err
	}()
	e.OK(t, "docker", "kill", "box")
	if err := <-resized; !errdefs.IsConflict(err) {
		t.Errorf("a size for what will not be started any more: %v", err)
	}
}
