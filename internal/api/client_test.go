package api_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/moby/moby/client"

	"github.com/cleatlabs/cleat/internal/engine"
	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/image"
	"github.com/cleatlabs/cleat/internal/logs"
	"github.com/cleatlabs/cleat/internal/stdio"
)

// oneContainer is an engine that has one image, echo, and runs one container of
// it at a time: it copies its stdin to stdout and exits with 3.
func oneContainer() *fake {
	var mu sync.Mutex
	started, exited := make(chan struct{}), make(chan struct{})
	var tty bool
	id := strings.Repeat("ab", 32)
	f := populated()
	f.create = func(req engine.CreateRequest) (string, []string, error) {
		if req.Config.Image != "echo" {
			return "", nil, failure.NotFound("No such image: %s:latest", req.Config.Image)
		}
		mu.Lock()
		defer mu.Unlock()
		started, exited, tty = make(chan struct{}), make(chan struct{}), req.Config.Tty
		return id, []string{"mind the gap"}, nil
	}
	f.verb = func(_ context.Context, what, name string) error {
		mu.Lock()
		defer mu.Unlock()
		if what == "start" && name == id {
			close(started)
		}
		return nil
	}
	f.attach = func(_ string, opts engine.AttachOptions) (*engine.AttachSession, error) {
		mu.Lock()
		defer mu.Unlock()
		begin, end := started, exited
		return engine.NewAttachSession(tty, func(ctx context.Context, c engine.StreamIO) error {
			defer close(end)
			select {
			case <-begin:
			case <-ctx.Done():
				return ctx.Err()
			}
			if c.Stdin != nil {
				if _, err := io.Copy(c.Stdout, c.Stdin); err != nil {
					return err
				}
			}
			if c.Stderr != nil {
				fmt.Fprint(c.Stderr, "done\n")
			}
			return nil
		}, nil), nil
	}
	f.wait = func(ctx context.Context, _ container.WaitCondition) (<-chan engine.WaitResult, error) {
		mu.Lock()
		defer mu.Unlock()
		result, end := make(chan engine.WaitResult, 1), exited
		go func() {
			select {
			case <-end:
				result <- engine.WaitResult{Code: 3}
			case <-ctx.Done():
				close(result)
			}
		}()
		return result, nil
	}
	f.remove = func(engine.RemoveOptions) {}
	f.execCreate = func(string, container.ExecCreateRequest) (string, error) { return strings.Repeat("ee", 32), nil }
	f.execStart = func(string, engine.ExecStartOptions) (*engine.ExecSession, error) {
		return engine.NewExecSession(echo, nil), nil
	}
	f.execInspect = func(id string) (*container.ExecInspectResponse, error) {
		code := 5
		return &container.ExecInspectResponse{ID: id, ExitCode: &code}, nil
	}
	f.logs = func(string, logs.ReadOptions) (*engine.LogSession, error) {
		return engine.NewLogSession(false, func(_ context.Context, emit func(stdio.Stream, []byte) error) error {
			return errors.Join(emit(stdio.Stdout, []byte("to stdout\n")), emit(stdio.Stderr, []byte("to stderr\n")))
		}), nil
	}
	f.images.pull = func(_ context.Context, req image.PullRequest, progress func(jsonstream.Message)) error {
		if !strings.Contains(req.Ref, "echo") {
			return failure.NotFound("pull access denied for %s, repository does not exist or may require 'docker login'", req.Ref)
		}
		progress(jsonstream.Message{Status: "Status: Downloaded newer image for echo:latest"})
		return nil
	}
	return f
}

func newClient(t *testing.T, d *door, opts ...client.Opt) *client.Client {
	t.Helper()
	c, err := client.New(append([]client.Opt{client.WithHost("unix://" + d.socket)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// The Go client that most programs use.
func TestGoClient(t *testing.T) {
	d := serve(t, oneContainer())
	for _, version := range []string{"", "1.40", "1.44"} {
		var opts []client.Opt
		if version != "" {
			opts = append(opts, client.WithAPIVersion(version))
		}
		c := newClient(t, d, opts...)
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()

		ping, err := c.Ping(ctx, client.PingOptions{})
		if err != nil || ping.APIVersion != "1.56" || ping.OSType != "linux" || ping.BuilderVersion != "2" {
			t.Errorf("ping: %+v %v", ping, err)
		}
		if _, err := c.ContainerInspect(ctx, "web", client.ContainerInspectOptions{}); err != nil {
			t.Errorf("inspect: %v", err)
		}
		list, err := c.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: make(client.Filters).Add("label", "a")})
		if err != nil || len(list.Items) != 2 {
			t.Errorf("list: %v %v", list.Items, err)
		}
		if _, err := c.ContainerCreate(ctx, client.ContainerCreateOptions{Config: &container.Config{Image: "nosuch"}}); !errdefs.IsNotFound(err) {
			t.Errorf("create from a missing image: %v", err)
		}
		created, err := c.ContainerCreate(ctx, client.ContainerCreateOptions{Config: &container.Config{Image: "echo"}, Name: "e"})
		if err != nil || len(created.ID) != 64 || len(created.Warnings) != 1 {
			t.Fatalf("create: %+v %v", created, err)
		}
		attached, err := c.ContainerAttach(ctx, created.ID, client.ContainerAttachOptions{Stream: true, Stdin: true, Stdout: true, Stderr: true})
		if err != nil {
			t.Fatal(err)
		}
		wait := c.ContainerWait(ctx, created.ID, client.ContainerWaitOptions{Condition: container.WaitConditionNextExit})
		if _, err := c.ContainerStart(ctx, created.ID, client.ContainerStartOptions{}); err != nil {
			t.Fatal(err)
		}
		io.WriteString(attached.Conn, "through the door")
		attached.CloseWrite()
		var stdout, stderr bytes.Buffer
		if _, err := stdcopy.StdCopy(&stdout, &stderr, attached.Reader); err != nil || stdout.String() != "through the door" || stderr.String() != "done\n" {
			t.Errorf("attach: %q %q %v", stdout.String(), stderr.String(), err)
		}
		attached.Close()
		select {
		case result := <-wait.Result:
			if result.StatusCode != 3 || result.Error != nil {
				t.Errorf("wait: %+v", result)
			}
		case err := <-wait.Error:
			t.Errorf("wait: %v", err)
		}

		executed, err := c.ExecCreate(ctx, created.ID, client.ExecCreateOptions{Cmd: []string{"cat"}, AttachStdin: true, AttachStdout: true, AttachStderr: true})
		if err != nil {
			t.Fatal(err)
		}
		session, err := c.ExecAttach(ctx, executed.ID, client.ExecAttachOptions{})
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(session.Conn, "exec")
		session.CloseWrite()
		stdout.Reset()
		if _, err := stdcopy.StdCopy(&stdout, io.Discard, session.Reader); err != nil || stdout.String() != "exec" {
			t.Errorf("exec: %q %v", stdout.String(), err)
		}
		session.Close()

		stream := c.Events(ctx, client.EventsListOptions{})
		var seen []events.Type
		for done := false; !done; {
			select {
			case event := <-stream.Messages:
				seen = append(seen, event.Type)
			case err := <-stream.Err:
				if !errors.Is(err, io.EOF) {
					t.Errorf("events: %v", err)
				}
				done = true
			}
		}
		if want := map[bool]int{true: 3, false: 4}[version != ""]; len(seen) != want {
			t.Errorf("version %q: events %v, want %d", version, seen, want)
		}

		pulled, err := c.ImagePull(ctx, "echo", client.ImagePullOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if err := pulled.Wait(ctx); err != nil {
			t.Errorf("pull: %v", err)
		}
		if _, err := c.ImagePull(ctx, "secret", client.ImagePullOptions{}); !errdefs.IsNotFound(err) {
			t.Errorf("pull of a denied image: %v", err)
		}
		for name, call := range map[string]func() error{
			"image list":      func() error { _, err := c.ImageList(ctx, client.ImageListOptions{}); return err },
			"image inspect":   func() error { _, err := c.ImageInspect(ctx, "nginx"); return err },
			"info":            func() error { _, err := c.Info(ctx, client.InfoOptions{}); return err },
			"version":         func() error { _, err := c.ServerVersion(ctx, client.ServerVersionOptions{}); return err },
			"network list":    func() error { _, err := c.NetworkList(ctx, client.NetworkListOptions{}); return err },
			"network inspect": func() error { _, err := c.NetworkInspect(ctx, "bridge", client.NetworkInspectOptions{}); return err },
			"volume list":     func() error { _, err := c.VolumeList(ctx, client.VolumeListOptions{}); return err },
		} {
			if err := call(); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if _, err := c.PluginEnable(ctx, "x", client.PluginEnableOptions{}); !errdefs.IsNotImplemented(err) {
			t.Errorf("plugin enable: %v", err)
		}
		if _, err := c.NodeList(ctx, client.NodeListOptions{}); !errdefs.IsUnavailable(err) {
			t.Errorf("nodes: %v", err)
		}
	}
}

// The docker command, of another age than the Go client.
func TestDockerCommand(t *testing.T) {
	docker, err := exec.LookPath("docker")
	if err != nil {
		t.Fatal("the docker command must be installed: what it expects is the measure")
	}
	d := serve(t, oneContainer())
	run := func(stdin string, args ...string) (stdout, stderr string, code int) {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		cmd := exec.CommandContext(ctx, docker, args...)
		cmd.Env = []string{"DOCKER_HOST=unix://" + d.socket, "DOCKER_CONFIG=" + t.TempDir(), "PATH=/usr/bin:/bin", "HOME=/nonexistent"}
		cmd.WaitDelay = time.Second
		cmd.Stdin = strings.NewReader(stdin)
		var out, errs bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &errs
		if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
			t.Fatal(err)
		}
		return out.String(), errs.String(), cmd.ProcessState.ExitCode()
	}
	for _, test := range []struct {
		args   string
		stdin  string
		code   int
		stdout string // a part of it; "" is nothing at all
		stderr string
	}{
		{"run -i echo cat", "typed\n", 3, "typed\n", "done\n"},
		{"run echo", "", 3, "", "done\n"},
		{"run -d echo", "", 0, strings.Repeat("ab", 32), ""},
		{"run nosuch", "", 125, "", "pull access denied"},
		{"exec -i web cat", "in exec", 5, "in exec", "end"},
		{"logs web", "", 0, "to stdout\n", "to stderr\n"},
		{"ps -a --format {{.Names}}|{{.Status}}|{{.Ports}}", "", 0, "web|Up 5 minutes|443/tcp, 0.0.0.0:8080->80/tcp", ""},
		{"inspect web --format {{.NetworkSettings.IPAddress}}|{{.State.Status}}", "", 0, "172.17.0.2|running", ""},
		{"inspect --type image nginx --format {{.Id}}", "", 0, "sha256:" + ocispecHex, ""},
		{"images --format {{.Repository}}:{{.Tag}}", "", 0, "nginx:latest", ""},
		{"network inspect bridge --format {{.Name}}|{{len.Containers}}", "", 0, "bridge|1", ""},
		{"network ls --format {{.Name}}", "", 0, "bridge", ""},
		{"version --format {{.Server.Version}}|{{.Server.APIVersion}}", "", 0, "29.9.3|1.56", ""},
		{"info --format {{.ID}}", "", 0, "ID", ""},
		{"events --format {{.Type}}:{{.Action}}", "", 0, "container:die", ""},
		{"volume ls", "", 0, "VOLUME NAME", ""},
		{"start web", "", 0, "web", ""},
		{"stop web", "", 0, "web", ""},
		{"rm -f web", "", 0, "web", ""},
		{"pull echo", "", 0, "Downloaded newer image", ""},
		{"pause web", "", 0, "web", ""},
		{"unpause web", "", 0, "web", ""},
		{"plugin disable p", "", 1, "", "plugins is not supported by this version of Cleat yet"},
		{"node ls", "", 1, "", "This node is not a swarm manager"},
		{"top web -o pid", "", 0, "17", ""},
	} {
		args := strings.Fields(strings.ReplaceAll(test.args, "{{len.Containers}}", "{{len\x00.Containers}}"))
		for i := range args {
			args[i] = strings.ReplaceAll(args[i], "\x00", " ")
		}
		stdout, stderr, code := run(test.stdin, args...)
		if code != test.code || !strings.Contains(stdout, test.stdout) || !strings.Contains(stderr, test.stderr) || test.stdout == "" && stdout != "" {
			t.Errorf("docker %s: exit %d, stdout %q, stderr %q", test.args, code, stdout, stderr)
		}
	}
	// An object that is nowhere is told as such after all kinds were tried.
	d = serve(t, &fake{})
	if _, stderr, code := run("", "inspect", "nosuch"); code != 1 || !strings.Contains(strings.ToLower(stderr), "no such object: nosuch") {
		t.Errorf("docker inspect nosuch: exit %d, %q", code, stderr)
	}
}
