package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/client"

	"github.com/cleatlabs/cleat/test/harness"
)

// gopher is a test's connection to an engine with the official Go client.
type gopher struct {
	*testing.T
	*client.Client
	ctx context.Context
}

func gophers(t *testing.T, e *harness.Engine) *gopher {
	ctx, cancel := context.WithTimeout(context.Background(), 5*harness.Patience)
	t.Cleanup(cancel)
	return &gopher{t, e.Client(t), ctx}
}

// create makes a container that is removed at the end of the test.
func (g *gopher) create(opts client.ContainerCreateOptions) string {
	g.Helper()
	created, err := g.ContainerCreate(g.ctx, opts)
	if err != nil {
		g.Fatalf("create: %v", err)
	}
	g.Cleanup(func() {
		_, err := g.ContainerRemove(context.Background(), created.ID, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
		if err != nil && !errdefs.IsNotFound(err) && !errdefs.IsConflict(err) {
			g.Errorf("cleanup: %v", err)
		}
	})
	return created.ID
}

// busybox makes a container that runs a shell script.
func (g *gopher) busybox(script string) string {
	g.Helper()
	return g.create(client.ContainerCreateOptions{Config: &container.Config{Image: "busybox", Cmd: []string{"sh", "-c", script}}})
}

func (g *gopher) start(id string) {
	g.Helper()
	if _, err := g.ContainerStart(g.ctx, id, client.ContainerStartOptions{}); err != nil {
		g.Fatalf("start: %v", err)
	}
}

func (g *gopher) inspect(id string) container.InspectResponse {
	g.Helper()
	got, err := g.ContainerInspect(g.ctx, id, client.ContainerInspectOptions{})
	if err != nil {
		g.Fatalf("inspect: %v", err)
	}
	return got.Container
}

// exit waits for what ContainerWait promised.
func (g *gopher) exit(wait client.ContainerWaitResult) int64 {
	g.Helper()
	select {
	case result := <-wait.Result:
		if result.Error != nil {
			g.Fatalf("wait: %s", result.Error.Message)
		}
		return result.StatusCode
	case err := <-wait.Error:
		g.Fatalf("wait: %v", err)
	}
	return -1
}

func (g *gopher) wait(id string, condition container.WaitCondition) client.ContainerWaitResult {
	return g.ContainerWait(g.ctx, id, client.ContainerWaitOptions{Condition: condition})
}

// run starts an attached container and returns its output and exit code.
func (g *gopher) run(id, stdin string) (stdout, stderr string, code int64) {
	g.Helper()
	attached, err := g.ContainerAttach(g.ctx, id, client.ContainerAttachOptions{Stream: true, Stdin: true, Stdout: true, Stderr: true})
	if err != nil {
		g.Fatalf("attach: %v", err)
	}
	defer attached.Close()
	wait := g.wait(id, container.WaitConditionNextExit)
	g.start(id)
	go func() {
		io.WriteString(attached.Conn, stdin)
		attached.CloseWrite()
	}()
	var out, errs bytes.Buffer
	if _, err := stdcopy.StdCopy(&out, &errs, attached.Reader); err != nil {
		g.Errorf("attach: %v", err)
	}
	return out.String(), errs.String(), g.exit(wait)
}

func TestGoClientLife(t *testing.T) {
	g := gophers(t, engine(t, "busybox"))
	id := g.create(client.ContainerCreateOptions{
		Name: name(t),
		Config: &container.Config{
			Image: "busybox", Cmd: []string{"sh", "-c", "cat; echo problem >&2; exit 42"}, Env: []string{"A=<&>"},
			OpenStdin: true, StdinOnce: true, AttachStdin: true, AttachStdout: true, AttachStderr: true, Labels: map[string]string{"test": name(t)},
		},
	})
	if got := g.inspect(id); got.State.Status != container.StateCreated || got.Name != "/"+name(t) || got.State.Running || !slices.Contains(got.Config.Env, "A=<&>") {
		t.Errorf("created: %+v %s %v", got.State, got.Name, got.Config.Env)
	}
	for round := range 3 { // a container can be run again
		input := strings.Repeat(fmt.Sprintf("round %d\n", round), 5000)
		stdout, stderr, code := g.run(id, input)
		if stdout != input || stderr != "problem\n" || code != 42 {
			t.Errorf("round %d: %d bytes of output, %q, exit %d", round, len(stdout), stderr, code)
		}
		got := g.inspect(id)
		finished, err := time.Parse(time.RFC3339Nano, got.State.FinishedAt)
		if got.State.Status != container.StateExited || got.State.ExitCode != 42 || err != nil || time.Since(finished) > time.Hour || got.State.Pid != 0 {
			t.Errorf("exited: %+v %v", got.State, err)
		}
	}
	list, err := g.ContainerList(g.ctx, client.ContainerListOptions{All: true, Filters: make(client.Filters).Add("label", "test="+name(t))})
	if err != nil || len(list.Items) != 1 || list.Items[0].ID != id || !strings.HasPrefix(list.Items[0].Status, "Exited (42)") || list.Items[0].Image != "busybox" {
		t.Errorf("list: %+v %v", list.Items, err)
	}
	if _, err := g.ContainerRename(g.ctx, id, client.ContainerRenameOptions{NewName: name(t) + "-b"}); err != nil {
		t.Error(err)
	}
	if _, err := g.ContainerRemove(g.ctx, name(t)+"-b", client.ContainerRemoveOptions{}); err != nil {
		t.Error(err)
	}
	if _, err := g.ContainerInspect(g.ctx, id, client.ContainerInspectOptions{}); !errdefs.IsNotFound(err) || !strings.Contains(err.Error(), "No such container: "+id) {
		t.Errorf("after the removal: %v", err)
	}
}

// No exit is missed: neither a fast one, nor the removal that follows it.
func TestGoClientWait(t *testing.T) {
	g := gophers(t, engine(t, "busybox"))
	for i := range 20 {
		id := g.create(client.ContainerCreateOptions{
			Config:     &container.Config{Image: "busybox", Cmd: []string{"sh", "-c", fmt.Sprintf("exit %d", i)}},
			HostConfig: &container.HostConfig{AutoRemove: true, NetworkMode: "none"},
		})
		next, removed := g.wait(id, container.WaitConditionNextExit), g.wait(id, container.WaitConditionRemoved)
		g.start(id)
		if a, b := g.exit(next), g.exit(removed); a != int64(i) || b != int64(i) {
			t.Fatalf("next-exit %d, removed %d, want %d", a, b, i)
		}
		if _, err := g.ContainerInspect(g.ctx, id, client.ContainerInspectOptions{}); !errdefs.IsNotFound(err) {
			t.Fatalf("removed, but %v", err)
		}
	}
	id := g.busybox("exit 7")
	if code := g.exit(g.wait(id, "")); code != 0 {
		t.Errorf("not-running of one that never ran: %d", code)
	}
	removed := g.wait(id, container.WaitConditionRemoved)
	g.ContainerRemove(g.ctx, id, client.ContainerRemoveOptions{})
	if code := g.exit(removed); code != 0 {
		t.Errorf("removed of one that never ran: %d", code)
	}
	wait := g.wait("no-such-container", "")
	if err := <-wait.Error; !errdefs.IsNotFound(err) {
		t.Errorf("unknown container: %v", err)
	}
}

func TestGoClientExec(t *testing.T) {
	g := gophers(t, engine(t, "busybox"))
	id := g.busybox("sleep 600")
	if _, err := g.ExecCreate(g.ctx, id, client.ExecCreateOptions{Cmd: []string{"true"}}); !errdefs.IsConflict(err) {
		t.Errorf("exec in one that does not run: %v", err)
	}
	g.start(id)
	for _, test := range []struct {
		opts           client.ExecCreateOptions
		stdin          string
		stdout, stderr string
		code           int
	}{
		{client.ExecCreateOptions{Cmd: []string{"sh", "-c", "cat; echo e >&2; exit 3"}}, "some\ninput", "some\ninput", "e\n", 3},
		{client.ExecCreateOptions{Cmd: []string{"sh", "-c", "echo $A $(id -u):$(id -g) $PWD"}, Env: []string{"A=b c"}, User: "1000:1000", WorkingDir: "/tmp"}, "", "b c 1000:1000 /tmp\n", "", 0},
		{client.ExecCreateOptions{Cmd: []string{"sh", "-c", "kill -9 $$"}}, "", "", "", 137},
	} {
		test.opts.AttachStdin, test.opts.AttachStdout, test.opts.AttachStderr = true, true, true
		created, err := g.ExecCreate(g.ctx, id, test.opts)
		if err != nil {
			t.Fatal(err)
		}
		session, err := g.ExecAttach(g.ctx, created.ID, client.ExecAttachOptions{})
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(session.Conn, test.stdin)
		session.CloseWrite()
		var out, errs bytes.Buffer
		if _, err := stdcopy.StdCopy(&out, &errs, session.Reader); err != nil {
			t.Error(err)
		}
		session.Close()
		got, err := g.ExecInspect(g.ctx, created.ID, client.ExecInspectOptions{})
		if out.String() != test.stdout || errs.String() != test.stderr || err != nil || got.Running || got.ExitCode != test.code || got.ContainerID != id {
			t.Errorf("%q: %q %q, %+v %v", test.opts.Cmd, out.String(), errs.String(), got, err)
		}
		if _, err := g.ExecAttach(g.ctx, created.ID, client.ExecAttachOptions{}); err == nil {
			t.Errorf("%q was started twice", test.opts.Cmd)
		}
	}
	for command, code := range map[string]int{"no-such-command": 127, "/etc/passwd": 126} {
		created, err := g.ExecCreate(g.ctx, id, client.ExecCreateOptions{Cmd: []string{command}, AttachStdout: true, AttachStderr: true})
		if err != nil {
			t.Fatal(err)
		}
		session, err := g.ExecAttach(g.ctx, created.ID, client.ExecAttachOptions{})
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(session.Reader)
		session.Close()
		got, err := g.ExecInspect(g.ctx, created.ID, client.ExecInspectOptions{})
		if !bytes.Contains(text, []byte(command)) || err != nil || got.ExitCode != code {
			t.Errorf("%s: stream %q, exit code %d, want %d (%v)", command, text, got.ExitCode, code, err)
		}
		created, err = g.ExecCreate(g.ctx, id, client.ExecCreateOptions{Cmd: []string{command}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := g.ExecStart(g.ctx, created.ID, client.ExecStartOptions{Detach: true}); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), command) {
			t.Errorf("%s detached: %v, want a 400 that names it", command, err)
		}
	}
	stranger, err := g.ExecCreate(g.ctx, id, client.ExecCreateOptions{Cmd: []string{"true"}, User: "nobody-by-that-name"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := g.ExecStart(g.ctx, stranger.ID, client.ExecStartOptions{Detach: true}); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "nobody-by-that-name") {
		t.Errorf("unknown user: %v, want a 400 that names it", err)
	}
	if got, err := g.ExecInspect(g.ctx, stranger.ID, client.ExecInspectOptions{}); err != nil || got.ExitCode != 126 {
		t.Errorf("unknown user: exit code %d, want 126 (%v)", got.ExitCode, err)
	}
	if _, err := g.ExecInspect(g.ctx, strings.Repeat("0", 64), client.ExecInspectOptions{}); !errdefs.IsNotFound(err) {
		t.Errorf("unknown exec: %v", err)
	}
}

// Many clients at once, and each gets all of its own output.
func TestGoClientParallelRuns(t *testing.T) {
	g := gophers(t, engine(t, "busybox"))
	var work sync.WaitGroup
	for worker := range 8 {
		work.Go(func() {
			for i := range 5 {
				want := fmt.Sprintf("%d-%d", worker, i)
				created, err := g.ContainerCreate(g.ctx, client.ContainerCreateOptions{
					Config:     &container.Config{Image: "busybox", Cmd: []string{"sh", "-c", "yes " + want + " | head -n 2000"}, AttachStdout: true},
					HostConfig: &container.HostConfig{NetworkMode: "none"},
				})
				if err != nil {
					t.Error(err)
					return
				}
				attached, err := g.ContainerAttach(g.ctx, created.ID, client.ContainerAttachOptions{Stream: true, Stdout: true})
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := g.ContainerStart(g.ctx, created.ID, client.ContainerStartOptions{}); err != nil {
					t.Error(err)
				}
				var out bytes.Buffer
				if _, err := stdcopy.StdCopy(&out, io.Discard, attached.Reader); err != nil || out.String() != strings.Repeat(want+"\n", 2000) {
					t.Errorf("%s: %d bytes, %v", want, out.Len(), err)
				}
				attached.Close()
				if _, err := g.ContainerRemove(g.ctx, created.ID, client.ContainerRemoveOptions{Force: true}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	work.Wait()
}

func TestGoClientLogs(t *testing.T) {
	g := gophers(t, engine(t, "busybox"))
	id := g.busybox("for i in 1 2 3 4 5; do echo line $i; done; echo bad >&2; printf unfinished")
	wait := g.wait(id, container.WaitConditionNextExit)
	g.start(id)
	g.exit(wait)
	read := func(opts client.ContainerLogsOptions) (string, string) {
		t.Helper()
		stream, err := g.ContainerLogs(g.ctx, id, opts)
		if err != nil {
			t.Fatal(err)
		}
		defer stream.Close()
		var out, errs bytes.Buffer
		if _, err := stdcopy.StdCopy(&out, &errs, stream); err != nil {
			t.Error(err)
		}
		return out.String(), errs.String()
	}
	const lines = "line 1\nline 2\nline 3\nline 4\nline 5\n"
	if out, errs := read(client.ContainerLogsOptions{ShowStdout: true, ShowStderr: true, Follow: true}); out != lines+"unfinished" || errs != "bad\n" {
		t.Errorf("%q %q", out, errs)
	}
	if out, errs := read(client.ContainerLogsOptions{ShowStderr: true}); out != "" || errs != "bad\n" {
		t.Errorf("stderr only: %q %q", out, errs)
	}
	// Which of the two streams' last lines came first is the pipes' affair.
	if out, errs := read(client.ContainerLogsOptions{ShowStdout: true, ShowStderr: true, Tail: "2"}); out+errs != "line 5\nunfinished" && out+errs != "unfinishedbad\n" {
		t.Errorf("tail 2: %q %q", out, errs)
	}
	if out, errs := read(client.ContainerLogsOptions{ShowStdout: true, ShowStderr: true, Tail: "0"}); out+errs != "" {
		t.Errorf("tail 0: %q %q", out, errs)
	}
	all, _ := read(client.ContainerLogsOptions{ShowStdout: true, Timestamps: true})
	stamped := all[strings.LastIndex(all, "\n")+1:]
	stamp, text, _ := strings.Cut(stamped, " ")
	at, err := time.Parse(time.RFC3339Nano, stamp)
	if err != nil || len(stamp) != len("2006-01-02T15:04:05.000000000Z") || text != "unfinished" {
		t.Fatalf("timestamps: %q %v", stamped, err)
	}
	after := fmt.Sprintf("%d.%09d", at.Unix()+1, at.Nanosecond())
	if out, _ := read(client.ContainerLogsOptions{ShowStdout: true, Since: after}); out != "" {
		t.Errorf("since the end: %q", out)
	}
	if out, _ := read(client.ContainerLogsOptions{ShowStdout: true, Until: after}); out != lines+"unfinished" {
		t.Errorf("until the end: %q", out)
	}
}

func TestGoClientEvents(t *testing.T) {
	g := gophers(t, engine(t, "busybox"))
	ctx, stop := context.WithCancel(g.ctx)
	defer stop()
	label := make(client.Filters).Add("label", "test="+name(t))
	stream := g.Events(ctx, client.EventsListOptions{Filters: label})
	id := g.create(client.ContainerCreateOptions{
		Name:   name(t),
		Config: &container.Config{Image: "busybox", Cmd: []string{"sh", "-c", "trap 'exit 9' TERM; echo ready; while :; do sleep 0.01; done"}, Labels: map[string]string{"test": name(t)}},
	})
	g.start(id)
	output, err := g.ContainerLogs(g.ctx, id, client.ContainerLogsOptions{ShowStdout: true, Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(output, make([]byte, len("12345678ready"))); err != nil {
		t.Fatal(err)
	}
	output.Close()
	timeout := 30
	if _, err := g.ContainerStop(g.ctx, id, client.ContainerStopOptions{Timeout: &timeout}); err != nil {
		t.Error(err)
	}
	if _, err := g.ContainerRemove(g.ctx, id, client.ContainerRemoveOptions{}); err != nil {
		t.Error(err)
	}
	want := []events.Action{"create", "start", "kill", "die", "stop", "destroy"}
	var got []events.Message
	for len(got) < len(want) {
		select {
		case event := <-stream.Messages:
			got = append(got, event)
		case err := <-stream.Err:
			t.Fatalf("after %v: %v", got, err)
		}
	}
	for i, event := range got {
		if event.Action != want[i] || event.Type != "container" || event.Actor.ID != id || event.Scope != "local" ||
			event.Actor.Attributes["name"] != name(t) || event.Actor.Attributes["image"] != "busybox" || event.Actor.Attributes["test"] != name(t) ||
			event.TimeNano/1e9 != event.Time {
			t.Errorf("event %d: %+v, want %s", i, event, want[i])
		}
		if event.Action == events.ActionDie && event.Actor.Attributes["exitCode"] != "9" {
			t.Errorf("die: %v", event.Actor.Attributes)
		}
	}
	// The same from the past.
	label.Add("event", "die")
	past := g.Events(g.ctx, client.EventsListOptions{
		Filters: label, Since: fmt.Sprint(got[0].Time), Until: fmt.Sprintf("%d.%09d", time.Now().Unix(), time.Now().Nanosecond()),
	})
	var again []events.Action
	for done := false; !done; {
		select {
		case event := <-past.Messages:
			again = append(again, event.Action)
		case err := <-past.Err:
			if !errors.Is(err, io.EOF) {
				t.Error(err)
			}
			done = true
		}
	}
	if !slices.Equal(again, []events.Action{"die"}) {
		t.Errorf("past events: %v", again)
	}
}

// What happens after a list is among the events that the same process then asks for, as Docker Compose's `up` needs.
func TestGoClientListsThenListens(t *testing.T) {
	g := gophers(t, engine(t, "busybox"))
	ctx, stop := context.WithCancel(g.ctx)
	defer stop()
	ends := func(n int) string {
		return g.create(client.ContainerCreateOptions{Config: &container.Config{
			Image: "busybox", Cmd: []string{"true"}, Labels: map[string]string{"test": name(t), "number": fmt.Sprint(n)},
		}})
	}
	run := func(id string) {
		exited := g.ContainerWait(ctx, id, client.ContainerWaitOptions{Condition: container.WaitConditionNextExit})
		g.start(id)
		select {
		case <-exited.Result:
		case err := <-exited.Error:
			t.Fatal(err)
		}
	}
	first := func(filters client.Filters, then func()) events.Message {
		stream := g.Events(ctx, client.EventsListOptions{Filters: filters})
		then()
		select {
		case event := <-stream.Messages:
			return event
		case err := <-stream.Err:
			t.Fatal(err)
		}
		panic("unreachable")
	}
	label := make(client.Filters).Add("label", "test="+name(t))
	died := make(client.Filters).Add("label", "test="+name(t)).Add("event", "die")
	one, two := ends(1), ends(2)
	for done := false; !done; {
		listed := time.Now()
		if _, err := g.ContainerList(g.ctx, client.ContainerListOptions{All: true, Filters: label}); err != nil {
			t.Fatal(err)
		}
		run(one)
		event := first(died, func() { done = time.Since(listed) < 5*time.Second; run(two) }) // later ones are not told the past
		if done && event.Actor.ID != one {
			t.Errorf("%+v, want the end of %s, which came after the list", event, one)
		}
	}
	if event := first(make(client.Filters).Add("event", "die"), func() { run(two) }); event.Actor.ID != two {
		t.Errorf("events of any label: %+v, want the end of %s, which came after the call", event, two)
	}
}

// What a client stops waiting for, the engine stops working on.
func TestGoClientLeaves(t *testing.T) {
	g := gophers(t, engine(t, "busybox"))
	id := g.create(client.ContainerCreateOptions{Config: &container.Config{Image: "busybox", Cmd: []string{"sleep", "600"}, OpenStdin: true}})
	g.start(id)
	routines := func() int {
		info, err := g.Info(g.ctx, client.InfoOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return info.Info.NGoroutines
	}
	before := routines()
	for range 10 {
		ctx, cancel := context.WithCancel(g.ctx)
		g.Events(ctx, client.EventsListOptions{})
		g.ContainerWait(ctx, id, client.ContainerWaitOptions{})
		logs, err := g.ContainerLogs(ctx, id, client.ContainerLogsOptions{ShowStdout: true, Follow: true})
		if err != nil {
			t.Fatal(err)
		}
		attached, err := g.ContainerAttach(ctx, id, client.ContainerAttachOptions{Stream: true, Stdin: true, Stdout: true})
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		logs.Close()
		attached.Close()
	}
	harness.Eventually(t, func() (bool, string) {
		now := routines()
		return now <= before+10, fmt.Sprintf("%d goroutines in the engine, %d before", now, before)
	})
	if state := g.inspect(id).State; !state.Running {
		t.Errorf("the container ended with its clients: %+v", state)
	}
}

// Watchtower, Terraform and others make containers from what inspect says.
func TestGoClientRoundTrip(t *testing.T) {
	g := gophers(t, engine(t, "busybox"))
	limit := int64(100)
	first := g.create(client.ContainerCreateOptions{
		Config: &container.Config{Image: "busybox", Cmd: []string{"sleep", "600"}, Env: []string{"A=b"}, Labels: map[string]string{"l": "m"}, WorkingDir: "/work", User: "1000", Volumes: map[string]struct{}{"/anonymous": {}}},
		HostConfig: &container.HostConfig{
			Binds: []string{t.TempDir() + ":/bind:ro"}, Tmpfs: map[string]string{"/tmp": "size=1m"}, CapAdd: []string{"NET_ADMIN"}, CapDrop: []string{"CHOWN"},
			RestartPolicy: container.RestartPolicy{Name: "on-failure", MaximumRetryCount: 3}, ReadonlyRootfs: true,
			Resources: container.Resources{Memory: 64 << 20, NanoCPUs: 500000000, PidsLimit: &limit},
			ShmSize:   1 << 20, Sysctls: map[string]string{"net.ipv4.ip_forward": "1"}, ExtraHosts: []string{"peer:10.0.0.1"},
		},
	})
	seen := g.inspect(first)
	second := g.create(client.ContainerCreateOptions{Config: seen.Config, HostConfig: seen.HostConfig})
	again := g.inspect(second)
	again.Config.Hostname = seen.Config.Hostname
	for what, pair := range map[string][2]any{"Config": {seen.Config, again.Config}, "HostConfig": {seen.HostConfig, again.HostConfig}} {
		a, _ := json.Marshal(pair[0])
		b, _ := json.Marshal(pair[1])
		if !bytes.Equal(a, b) {
			t.Errorf("%s changed on its way:\n%s\n%s", what, a, b)
		}
	}
	g.start(second)
}

func TestGoClientVolumes(t *testing.T) {
	g := gophers(t, engine(t, "busybox"))
	n := name(t)
	created, err := g.VolumeCreate(g.ctx, client.VolumeCreateOptions{Name: n, Labels: map[string]string{"a": "b"}})
	if err != nil || created.Volume.Name != n || created.Volume.Driver != "local" || created.Volume.Mountpoint == "" {
		t.Fatalf("create: %+v %v", created.Volume, err)
	}
	t.Cleanup(func() { g.VolumeRemove(context.Background(), n, client.VolumeRemoveOptions{Force: true}) })
	if again, err := g.VolumeCreate(g.ctx, client.VolumeCreateOptions{Name: n}); err != nil || again.Volume.CreatedAt != created.Volume.CreatedAt || again.Volume.Labels["a"] != "b" {
		t.Errorf("create again: %+v %v", again.Volume, err)
	}
	id := g.create(client.ContainerCreateOptions{
		Config:     &container.Config{Image: "busybox", Cmd: []string{"sh", "-c", "echo kept >/data/file; ls /data"}, AttachStdout: true},
		HostConfig: &container.HostConfig{Mounts: []mount.Mount{{Type: mount.TypeVolume, Source: n, Target: "/data"}}},
	})
	if out, _, code := g.run(id, ""); out != "file\n" || code != 0 {
		t.Errorf("%q, exit %d", out, code)
	}
	if mounts := g.inspect(id).Mounts; len(mounts) != 1 || mounts[0].Name != n || mounts[0].Destination != "/data" || !mounts[0].RW {
		t.Errorf("mounts: %+v", mounts)
	}
	for _, force := range []bool{false, true} {
		if _, err := g.VolumeRemove(g.ctx, n, client.VolumeRemoveOptions{Force: force}); !errdefs.IsConflict(err) || !strings.Contains(err.Error(), id) {
			t.Errorf("removal of a used volume: %v, want a 409 that names the user", err)
		}
	}
	list, err := g.VolumeList(g.ctx, client.VolumeListOptions{Filters: make(client.Filters).Add("name", n)})
	if err != nil || len(list.Items) != 1 {
		t.Errorf("list: %+v %v", list.Items, err)
	}
	if _, err := g.ContainerRemove(g.ctx, id, client.ContainerRemoveOptions{RemoveVolumes: true}); err != nil {
		t.Error(err)
	}
	if _, err := g.VolumeInspect(g.ctx, n, client.VolumeInspectOptions{}); err != nil {
		t.Errorf("a named volume went with its container: %v", err)
	}
	if _, err := g.VolumeRemove(g.ctx, n, client.VolumeRemoveOptions{}); err != nil {
		t.Error(err)
	}
	if _, err := g.VolumeInspect(g.ctx, n, client.VolumeInspectOptions{}); !errdefs.IsNotFound(err) {
		t.Errorf("after the removal: %v", err)
	}
	if _, err := g.VolumeRemove(g.ctx, n, client.VolumeRemoveOptions{}); !errdefs.IsNotFound(err) {
		t.Errorf("removal of none: %v", err)
	}
	if _, err := g.VolumeRemove(g.ctx, n, client.VolumeRemoveOptions{Force: true}); err != nil {
		t.Errorf("forced removal of none: %v", err)
	}
}

func TestGoClientImages(t *testing.T) {
	g := gophers(t, engine(t, "busybox"))
	tag := "example.test:5000/some/" + name(t) + ":v1"
	if _, err := g.ImageTag(g.ctx, client.ImageTagOptions{Source: "busybox", Target: tag}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.ImageRemove(context.Background(), tag, client.ImageRemoveOptions{}) })
	original, err := g.ImageInspect(g.ctx, "busybox")
	if err != nil {
		t.Fatal(err)
	}
	tagged, err := g.ImageInspect(g.ctx, tag)
	if err != nil || tagged.ID != original.ID || !slices.Contains(tagged.RepoTags, tag) || tagged.Os != "linux" || len(tagged.RootFS.Layers) == 0 {
		t.Errorf("inspect: %+v %v", tagged.InspectResponse, err)
	}
	list, err := g.ImageList(g.ctx, client.ImageListOptions{Filters: make(client.Filters).Add("reference", tag)})
	if err != nil || len(list.Items) != 1 || list.Items[0].ID != original.ID {
		t.Errorf("list: %+v %v", list.Items, err)
	}
	if history, err := g.ImageHistory(g.ctx, tag); err != nil || len(history.Items) == 0 {
		t.Errorf("history: %+v %v", history.Items, err)
	}
	removed, err := g.ImageRemove(g.ctx, tag, client.ImageRemoveOptions{})
	if err != nil || len(removed.Items) != 1 || removed.Items[0].Untagged != tag {
		t.Errorf("removal of one of two names: %+v %v", removed.Items, err)
	}
	if _, err := g.ImageInspect(g.ctx, tag); !errdefs.IsNotFound(err) || !strings.Contains(err.Error(), "No such image: "+tag) {
		t.Errorf("inspect of none: %v", err)
	}
	id := g.busybox("true")
	if _, err := g.ImageRemove(g.ctx, "busybox", client.ImageRemoveOptions{}); !errdefs.IsConflict(err) {
		t.Errorf("removal of a used image: %v, want a 409 because of %s", err, id)
	}
	loaded, err := g.ImageLoad(g.ctx, strings.NewReader("this is no archive"))
	if err != nil {
		t.Fatal(err)
	}
	defer loaded.Close()
	var record jsonstream.Message
	if err := json.NewDecoder(loaded).Decode(&record); err != nil || record.Error == nil || record.Error.Message == "" {
		t.Errorf("loading no archive: %+v %v, want an error record", record, err)
	}
}
