package engine_test

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	api "github.com/moby/moby/api/types/container"

	"github.com/cleatlabs/cleat/internal/engine"
)

// rounds is how often a test tries to come in between.
const rounds = 30

// A stop that comes while an exit is being dealt with, whose restart is decided on and not yet planned, ends the
// container all the same.
func TestStopWhileARestartIsBeingPlanned(t *testing.T) {
	l := newLab(t)
	crashed(l, func(id string, i int) {
		if err := l.Stop(t.Context(), id, engine.StopOptions{}); err != nil {
			t.Fatal(err)
		}
		if st := l.inspect(id).State; st.Running || st.Restarting {
			t.Fatalf("stopped in round %d, but %s", i, st.Status)
		}
	})
}

// So does a kill by the signal of a stop, which waits for nothing.
func TestTermWhileARestartIsBeingPlanned(t *testing.T) {
	l := newLab(t)
	crashed(l, func(id string, i int) {
		if err := l.Kill(t.Context(), id, "TERM"); err != nil {
			t.Fatal(err)
		}
		l.eventually(fmt.Sprintf("the end in round %d", i), func() bool { st := l.inspect(id).State; return !st.Running && !st.Restarting })
	})
}

// crashed has a container that is to be restarted end again and again, and calls then a little later each time.
func crashed(l *lab, then func(id string, round int)) {
	l.tb.Helper()
	id := l.create(spec{cmd: []string{"sleep", "1000"}, host: func(h *api.HostConfig) { h.RestartPolicy.Name = "always" }})
	for i := range 4 * rounds {
		if err := l.Start(l.tb.Context(), id); err != nil {
			l.tb.Fatal(err)
		}
		if err := syscall.Kill(l.inspect(id).State.Pid, syscall.SIGKILL); err != nil {
			l.tb.Fatal(err)
		}
		for end := time.Now().Add(time.Duration(i) * 3 * time.Microsecond); time.Now().Before(end); {
		}
		then(id, i)
	}
}

// Who sees that a container runs can stop it.
func TestStopOfWhatHasJustBeenSeenToRun(t *testing.T) {
	l := newLab(t)
	for range rounds {
		id := l.create(spec{cmd: []string{"sleep", "1000"}})
		var started sync.WaitGroup
		started.Go(func() {
			if err := l.Start(context.Background(), id); err != nil {
				t.Error(err)
			}
		})
		for !l.inspect(id).State.Running {
		}
		err := l.Kill(t.Context(), id, "")
		started.Wait()
		if st := l.inspect(id).State; err != nil || st.Running {
			t.Fatalf("killed: %v, but %s", err, st.Status)
		}
	}
}

// A start whose client leaves while it waits for its turn does not take away the restart that the policy has planned.
func TestRestartOutlivesAStartThatIsGivenUp(t *testing.T) {
	l := newLab(t)
	id := l.start(spec{cmd: []string{"false"}, host: func(h *api.HostConfig) { h.RestartPolicy.Name = "always" }})
	l.eventually("a restart that takes its time", func() bool { return l.inspect(id).RestartCount >= 3 })
	l.eventually("a planned restart", func() bool { return l.inspect(id).State.Restarting })
	ctx, cancel := context.WithCancel(t.Context())
	sent, client := io.Pipe()
	copied := make(chan error, 1)
	go func() { copied <- l.Copier.ExtractTo(context.Background(), id, "/", sent, engine.CopyOptions{}) }()
	if _, err := client.Write(make([]byte, 10)); err != nil { // it has the container's turn now
		t.Fatal(err)
	}
	given := make(chan error, 1)
	go func() { given <- l.Start(ctx, id) }()
	select {
	case err := <-given:
		t.Fatalf("the start did not wait: %v", err)
	case <-time.After(20 * time.Millisecond):
	}
	cancel()
	<-given
	count := l.inspect(id).RestartCount
	client.CloseWithError(io.ErrUnexpectedEOF)
	<-copied
	l.eventually("another restart", func() bool { return l.inspect(id).RestartCount > count })
}

// A container with --rm whose restart fails is removed, as is one whose start fails.
func TestFailedRestartRemovesWhatAsksForIt(t *testing.T) {
	l := newLab(t)
	donor := l.start(spec{cmd: []string{"sleep", "1000"}})
	id := l.start(spec{cmd: []string{"sleep", "1000"}, host: func(h *api.HostConfig) {
		h.AutoRemove, h.NetworkMode = true, api.NetworkMode("container:"+donor)
	}})
	if err := l.Kill(t.Context(), donor, ""); err != nil {
		t.Fatal(err)
	}
	if err := l.Restart(t.Context(), id, engine.StopOptions{Signal: "KILL"}); err == nil || !strings.Contains(err.Error(), "non running container") {
		t.Fatal(err)
	}
	if _, err := l.Inspect(t.Context(), id, false); err == nil {
		t.Error("it is still there")
	}
}

// A volume that is renamed while a container that has it ends is idle afterwards.
func TestRenameOfAVolumeWhileItsContainerEnds(t *testing.T) {
	l := newLab(t)
	id := l.create(spec{cmd: []string{"sleep", "1000"}, host: func(h *api.HostConfig) { h.Binds = []string{"before:/data"} }})
	names := [2]string{"before", "after"}
	for i := range 4 * rounds {
		if err := l.Start(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		exit, err := l.Wait(t.Context(), id, api.WaitConditionNotRunning)
		if err != nil {
			t.Fatal(err)
		}
		if err := syscall.Kill(l.inspect(id).State.Pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		for end := time.Now().Add(time.Duration(i) * 10 * time.Microsecond); time.Now().Before(end); {
		}
		if _, err := l.Volumes.Rename(t.Context(), names[0], names[1]); err != nil {
			t.Fatal(err)
		}
		l.result(exit)
		if users := l.volumes.Users(names[1]); len(users) > 0 {
			t.Fatalf("round %d: %q are said to run with the volume", i, users)
		}
		names[0], names[1] = names[1], names[0]
	}
}
