package e2e

import (
	"bytes"
	"encoding/binary"
	"io"
	"os/exec"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/cleatlabs/cleat/test/harness"
)

// followBehind follows the log of a container that writes count numbered lines while nobody reads, and returns what came
// by stream: far more than the log may have.
func followBehind(t *testing.T, g *gopher, count string) (stdout, stderr string) {
	t.Helper()
	created, err := g.ContainerCreate(g.ctx, client.ContainerCreateOptions{
		Config: &container.Config{Image: "busybox", Cmd: []string{"sh", "-c", "trap 'seq 1 " + count + "; exit' USR1; echo first; while :; do sleep 0.1; done"}},
		HostConfig: &container.HostConfig{
			NetworkMode: "none", LogConfig: container.LogConfig{Type: "json-file", Config: map[string]string{"max-size": "50k", "max-file": "2"}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	remove(t, engine(t), created.ID)
	exited := g.wait(created.ID, container.WaitConditionNextExit)
	g.start(created.ID)
	stream, err := g.ContainerLogs(g.ctx, created.ID, client.ContainerLogsOptions{ShowStdout: true, ShowStderr: true, Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	first := make([]byte, 8+len("first\n"))
	if _, err := io.ReadFull(stream, first); err != nil || string(first[8:]) != "first\n" {
		t.Fatalf("%q, %v", first, err)
	}
	if _, err := g.ContainerKill(g.ctx, created.ID, client.ContainerKillOptions{Signal: "USR1"}); err != nil {
		t.Fatal(err)
	}
	g.exit(exited)
	all, err := io.ReadAll(stream)
	if err != nil {
		t.Fatal(err)
	}
	streams := map[byte]*bytes.Buffer{1: {}, 2: {}}
	for len(all) >= 8 {
		size := 8 + int(binary.BigEndian.Uint32(all[4:]))
		streams[all[0]].Write(all[8:size])
		all = all[size:]
	}
	return streams[1].String(), streams[2].String()
}

// Who follows a log and reads later than it is rotated gets every line all the same, as long as that is not too much to be
// kept for him; then he is told in its place, and the engine's log tells.
func TestFollowerBehindRotations(t *testing.T) {
	e := engine(t, "busybox")
	g := gophers(t, e)
	out, errs := followBehind(t, g, "100000")
	want, err := exec.Command("seq", "1", "100000").Output()
	if err != nil {
		t.Fatal(err)
	}
	if out != string(want) || errs != "" {
		t.Errorf("%d bytes of %d, which end with %q; told %q", len(out), len(want), out[max(0, len(out)-50):], errs)
	}
	out, errs = followBehind(t, g, "1000000")
	if !strings.HasSuffix(out, "\n999999\n1000000\n") || !strings.Contains(errs, "lines are missing here") {
		t.Errorf("%d bytes, which end with %q; told %q", len(out), out[max(0, len(out)-50):], errs)
	}
	if !strings.Contains(e.Log(), "follows a container's log more slowly") {
		t.Error("the engine's log does not tell of the lines that a client did not get")
	}
}

// TestBytesOfLogs writes what is no text, and compares what comes back with what comes from dockerd.
func TestBytesOfLogs(t *testing.T) {
	t.Parallel()
	e := engine(t, "busybox")
	socket := dockerd(t)
	other := func(args ...string) (out []byte) {
		t.Helper()
		out, err := exec.Command("docker", append([]string{"-H", "unix://" + socket}, args...)...).Output()
		if err != nil {
			t.Fatalf("docker %q: %v", args, err)
		}
		return out
	}
	other("load", "-i", harness.Images(t, "busybox")[0])
	for _, driver := range []string{"local", "json-file"} {
		n := strings.ToLower(name(t)) + driver
		run := []string{"run", "--network", "none", "--name", n, "--log-driver", driver, "busybox", "printf", `a\377\303( \342\202 <\342\200\250\001"\\>\n\376\375\303\251\nend`}
		other(run...)
		remove(t, e, n)
		e.OK(t, "cleat", run...)
		if want, got := other("logs", n), e.Do(t, "cleat", "", "logs", n).Stdout; got != string(want) {
			t.Errorf("%s gives back %q, dockerd's %q", driver, got, want)
		}
	}
}
