package api_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	imagetypes "github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/jsonstream"
	networktypes "github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/system"
	volumetypes "github.com/moby/moby/api/types/volume"

	"github.com/cleatlabs/cleat/internal/api"
	"github.com/cleatlabs/cleat/internal/engine"
	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/image"
	"github.com/cleatlabs/cleat/internal/logs"
	"github.com/cleatlabs/cleat/internal/stats"
	"github.com/cleatlabs/cleat/internal/volume"
	"github.com/cleatlabs/cleat/test/expect"
)

// fake is an engine without containers. A test sets the functions that it needs;
// a call of another is a not-found error that names it. calls counts them all.
type fake struct {
	create      func(engine.CreateRequest) (string, []string, error)
	verb        func(ctx context.Context, what, name string) error
	stopOptions func(engine.StopOptions)
	remove      func(engine.RemoveOptions)
	resize      func(rows, cols uint16) error
	wait        func(ctx context.Context, cond container.WaitCondition) (<-chan engine.WaitResult, error)
	list        func(engine.ListOptions) ([]*container.Summary, error)
	inspect     func(name string, size bool) (*container.InspectResponse, error)
	attach      func(name string, opts engine.AttachOptions) (*engine.AttachSession, error)
	logs        func(name string, opts logs.ReadOptions) (*engine.LogSession, error)
	execCreate  func(name string, req container.ExecCreateRequest) (string, error)
	execStart   func(id string, opts engine.ExecStartOptions) (*engine.ExecSession, error)
	execInspect func(id string) (*container.ExecInspectResponse, error)
	info        func() (*system.Info, error)
	subscribe   func(since, until time.Time) ([]events.Message, <-chan events.Message, func())
	images      fakeImages
	volumes     fakeVolumes
	copies      api.VolumeCopies
	networks    fakeNetworks
	builds      fakeBuilds
	classic     fakeClassic

	mu    sync.Mutex
	calls []string
}

func (f *fake) called(what string, args ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, strings.Join(append([]string{what}, args...), " "))
}

func (f *fake) callCount() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.calls)
}

func missing(what string) error { return failure.NotFound("No such thing: %s", what) }

func (f *fake) Create(_ context.Context, req engine.CreateRequest) (string, []string, error) {
	f.called("create")
	if f.create == nil {
		return "", nil, missing("create")
	}
	return f.create(req)
}

func (f *fake) do(ctx context.Context, what, name string) error {
	f.called(what, name)
	if f.verb == nil {
		return missing(what)
	}
	return f.verb(ctx, what, name)
}

func (f *fake) Start(ctx context.Context, name string) error { return f.do(ctx, "start", name) }

func (f *fake) Stop(ctx context.Context, name string, opts engine.StopOptions) error {
	if f.stopOptions != nil {
		f.stopOptions(opts)
	}
	return f.do(ctx, "stop", name)
}

func (f *fake) Restart(ctx context.Context, name string, opts engine.StopOptions) error {
	if f.stopOptions != nil {
		f.stopOptions(opts)
	}
	return f.do(ctx, "restart", name)
}

func (f *fake) Kill(ctx context.Context, name, signal string) error {
	return f.do(ctx, "kill:"+signal, name)
}

func (f *fake) Pause(ctx context.Context, name string) error { return f.do(ctx, "pause", name) }

func (f *fake) Unpause(ctx context.Context, name string) error { return f.do(ctx, "unpause", name) }

func (f *fake) Rename(ctx context.Context, name, newName string) error {
	return f.do(ctx, "rename:"+newName, name)
}

func (f *fake) Update(ctx context.Context, name string, req container.UpdateConfig) ([]string, error) {
	return nil, f.do(ctx, fmt.Sprintf("update:%d:%s", req.Memory, req.RestartPolicy.Name), name)
}

func (f *fake) Remove(ctx context.Context, name string, opts engine.RemoveOptions) error {
	if f.remove != nil {
		f.remove(opts)
	}
	return f.do(ctx, "remove", name)
}

func (f *fake) Delivery(string) func(context.Context) { return func(context.Context) {} }

func (f *fake) Wait(ctx context.Context, name string, cond container.WaitCondition) (<-chan engine.WaitResult, error) {
	f.called("wait", name, string(cond))
	if f.wait == nil {
		return nil, missing("wait")
	}
	return f.wait(ctx, cond)
}

func (f *fake) Resize(_ context.Context, name string, rows, cols uint16) error {
	f.called("resize", name)
	if f.resize == nil {
		return missing("resize")
	}
	return f.resize(rows, cols)
}

func (f *fake) List(_ context.Context, opts engine.ListOptions) ([]*container.Summary, error) {
	f.called("list")
	if f.list == nil {
		return nil, nil
	}
	return f.list(opts)
}

func (f *fake) Inspect(_ context.Context, name string, size bool) (*container.InspectResponse, error) {
	f.called("inspect", name)
	if f.inspect == nil {
		return nil, failure.NotFound("No such container: %s", name)
	}
	return f.inspect(name, size)
}

func (f *fake) Top(ctx context.Context, name, args string) (*container.TopResponse, error) {
	if err := f.do(ctx, "top:"+args, name); err != nil {
		return nil, err
	}
	return &container.TopResponse{Titles: []string{"PID"}, Processes: [][]string{{"17"}}}, nil
}

func (f *fake) Stats(ctx context.Context, name string, opts stats.Options, emit func(*container.StatsResponse) error) error {
	if err := f.do(ctx, fmt.Sprintf("stats:%t:%t", opts.Stream, opts.OneShot), name); err != nil {
		return err
	}
	return emit(&container.StatsResponse{ID: name, Name: "/web", PidsStats: container.PidsStats{Current: 4}})
}

func (f *fake) Attach(_ context.Context, name string, opts engine.AttachOptions) (*engine.AttachSession, error) {
	f.called("attach", name)
	if f.attach == nil {
		return nil, failure.NotFound("No such container: %s", name)
	}
	return f.attach(name, opts)
}

func (f *fake) Logs(_ context.Context, name string, opts logs.ReadOptions) (*engine.LogSession, error) {
	f.called("logs", name)
	if f.logs == nil {
		return nil, failure.NotFound("No such container: %s", name)
	}
	return f.logs(name, opts)
}

func (f *fake) ExecCreate(_ context.Context, name string, req container.ExecCreateRequest) (string, error) {
	f.called("exec create", name)
	if f.execCreate == nil {
		return "", missing("exec create")
	}
	return f.execCreate(name, req)
}

func (f *fake) ExecStart(_ context.Context, id string, opts engine.ExecStartOptions) (*engine.ExecSession, error) {
	f.called("exec start", id)
	if f.execStart == nil {
		return nil, failure.NotFound("No such exec instance: %s", id)
	}
	return f.execStart(id, opts)
}

func (f *fake) ExecInspect(_ context.Context, id string) (*container.ExecInspectResponse, error) {
	f.called("exec inspect", id)
	if f.execInspect == nil {
		return nil, missing("exec inspect")
	}
	return f.execInspect(id)
}

func (f *fake) ExecResize(_ context.Context, id string, rows, cols uint16) error {
	f.called("exec resize", id)
	if f.resize == nil {
		return missing("exec resize")
	}
	return f.resize(rows, cols)
}

func (f *fake) Info(context.Context) (*system.Info, error) {
	f.called("info")
	if f.info == nil {
		return &system.Info{ID: "fake"}, nil
	}
	return f.info()
}

func (f *fake) Version(context.Context) (system.VersionResponse, error) {
	f.called("version")
	return system.VersionResponse{
		Version: "29.9.3", APIVersion: api.MaxVersion, MinAPIVersion: api.MinVersion, Os: "linux", Arch: "amd64",
		Components: []system.ComponentVersion{{Name: "Engine", Version: "29.9.3"}},
	}, nil
}

func (f *fake) Subscribe(since, until time.Time, _ func(events.Message) bool) ([]events.Message, <-chan events.Message, func()) {
	f.called("events")
	if f.subscribe == nil {
		closed := make(chan events.Message)
		close(closed)
		return nil, closed, func() {}
	}
	return f.subscribe(since, until)
}

type fakeImages struct {
	list     func(image.ListRequest) ([]imagetypes.Summary, error)
	inspect  func(ref, platform string) (*imagetypes.InspectResponse, error)
	history  func(ref, platform string) ([]imagetypes.HistoryResponseItem, error)
	attested func(ref string, req image.AttestationsRequest) ([]imagetypes.AttestationStatement, error)
	tag      func(src, repo, tag string) error
	remove   func(ref string, opts image.RemoveOptions) ([]imagetypes.DeleteResponse, error)
	pull     func(ctx context.Context, req image.PullRequest, progress func(jsonstream.Message)) error
	push     func(ctx context.Context, req image.PushRequest, progress func(jsonstream.Message)) error
	load     func(ctx context.Context, r io.Reader, opts image.LoadOptions, progress func(jsonstream.Message)) error
	imported func(req engine.ImportRequest, body string)
}

func (f *fakeImages) List(_ context.Context, req image.ListRequest) ([]imagetypes.Summary, error) {
	if f.list == nil {
		return nil, nil
	}
	return f.list(req)
}

func (f *fakeImages) Inspect(_ context.Context, ref, platform string) (*imagetypes.InspectResponse, error) {
	if f.inspect == nil {
		return nil, failure.NotFound("No such image: %s", ref)
	}
	return f.inspect(ref, platform)
}

func (f *fakeImages) History(_ context.Context, ref, platform string) ([]imagetypes.HistoryResponseItem, error) {
	if f.history == nil {
		return nil, failure.NotFound("No such image: %s", ref)
	}
	return f.history(ref, platform)
}

func (f *fakeImages) Attestations(_ context.Context, ref string, req image.AttestationsRequest) ([]imagetypes.AttestationStatement, error) {
	if f.attested == nil {
		return nil, failure.NotFound("No such image: %s", ref)
	}
	return f.attested(ref, req)
}

func (f *fakeImages) Tag(_ context.Context, src, repo, tag string) error {
	if f.tag == nil {
		return failure.NotFound("No such image: %s", src)
	}
	return f.tag(src, repo, tag)
}

func (f *fakeImages) Remove(_ context.Context, ref string, opts image.RemoveOptions) ([]imagetypes.DeleteResponse, error) {
	if f.remove == nil {
		return nil, failure.NotFound("No such image: %s", ref)
	}
	return f.remove(ref, opts)
}

func (f *fakeImages) Pull(ctx context.Context, req image.PullRequest, progress func(jsonstream.Message)) error {
	if f.pull == nil {
		return missing("pull")
	}
	return f.pull(ctx, req, progress)
}

func (f *fakeImages) Push(ctx context.Context, req image.PushRequest, progress func(jsonstream.Message)) error {
	if f.push == nil {
		return missing("push")
	}
	return f.push(ctx, req, progress)
}

func (f *fakeImages) Load(ctx context.Context, r io.Reader, opts image.LoadOptions, progress func(jsonstream.Message)) error {
	if f.load == nil {
		return missing("load")
	}
	return f.load(ctx, r, opts, progress)
}

type fakeVolumes struct {
	create func(name, driver string, opts, labels map[string]string) (*volumetypes.Volume, error)
	list   func(filters map[string][]string) ([]*volumetypes.Volume, error)
	remove func(name string, force bool) error
	prune  func(filters map[string][]string) (*volumetypes.PruneReport, error)
}

func (f *fakeVolumes) Prune(_ context.Context, filters map[string][]string) (*volumetypes.PruneReport, error) {
	if f.prune == nil {
		return nil, missing("volume prune")
	}
	return f.prune(filters)
}

func (f *fakeVolumes) Create(_ context.Context, r volume.Request) (*volumetypes.Volume, error) {
	if f.create == nil {
		return nil, missing("volume create")
	}
	return f.create(r.Name, r.Driver, r.Options, r.Labels)
}

func (f *fakeVolumes) List(_ context.Context, filters map[string][]string) ([]*volumetypes.Volume, []string, error) {
	if f.list == nil {
		return nil, nil, nil
	}
	found, err := f.list(filters)
	return found, nil, err
}

func (f *fakeVolumes) Inspect(_ context.Context, name string) (*volumetypes.Volume, error) {
	return nil, failure.NotFound("get %s: no such volume", name)
}

func (f *fakeVolumes) Remove(_ context.Context, name string, force bool) error {
	if f.remove == nil {
		return missing("volume remove")
	}
	return f.remove(name, force)
}

type fakeNetworks struct {
	list       func(filters map[string][]string) ([]networktypes.Summary, error)
	inspect    func(name string) (networktypes.Inspect, error)
	create     func(req networktypes.CreateRequest) (string, []string, error)
	remove     func(name string) error
	prune      func(filters map[string][]string) ([]string, error)
	connect    func(network, container string, e *networktypes.EndpointSettings) error
	disconnect func(network, container string, force bool) error
}

func (f *fakeNetworks) Create(_ context.Context, req networktypes.CreateRequest) (string, []string, error) {
	if f.create == nil {
		return "", nil, missing("network create")
	}
	return f.create(req)
}

func (f *fakeNetworks) Remove(_ context.Context, name string) error {
	if f.remove == nil {
		return missing("network remove")
	}
	return f.remove(name)
}

func (f *fakeNetworks) Prune(_ context.Context, filters map[string][]string) ([]string, error) {
	if f.prune == nil {
		return nil, nil
	}
	return f.prune(filters)
}

func (f *fakeNetworks) Connect(_ context.Context, network, container string, e *networktypes.EndpointSettings) error {
	if f.connect == nil {
		return missing("network connect")
	}
	return f.connect(network, container, e)
}

func (f *fakeNetworks) Disconnect(_ context.Context, network, container string, force bool) error {
	if f.disconnect == nil {
		return missing("network disconnect")
	}
	return f.disconnect(network, container, force)
}

func (f *fakeNetworks) List(_ context.Context, filters map[string][]string) ([]networktypes.Summary, error) {
	if f.list == nil {
		return nil, nil
	}
	return f.list(filters)
}

func (f *fakeNetworks) Inspect(_ context.Context, name string) (networktypes.Inspect, error) {
	if f.inspect == nil {
		return networktypes.Inspect{}, failure.NotFound("network %s not found", name)
	}
	return f.inspect(name)
}

func (f *fake) deps(log io.Writer) api.Deps {
	return api.Deps{
		Lifecycle: f, Upkeep: f, Queries: f, Stats: f, Streams: f, Execs: f, System: f, Events: f,
		Files:     f,
		Committer: f, Pruning: f, DiskUsage: f, Registries: f,
		Images: &f.images, Transfer: &f.images, Attested: &f.images, Volumes: &f.volumes, VolumeCopies: f.copies, Networks: &f.networks, Connections: &f.networks,
		Builds:        &f.builds,
		ClassicBuilds: &f.classic,
		ServerVersion: "29.9.3",
		CgroupV1:      true,
		Log:           slog.New(slog.NewTextHandler(log, nil)),
	}
}

// door is a served fake.
type door struct {
	t      testing.TB
	fake   *fake
	socket string
	http   *http.Client
	server *api.Server
	log    *expect.Output
}

// patience bounds a hang; no verdict depends on anything being faster.
const patience = expect.Patience

func serve(t testing.TB, f *fake) *door {
	t.Helper()
	d := &door{t: t, fake: f, socket: filepath.Join(t.TempDir(), "api.sock"), log: &expect.Output{}}
	handler, err := api.New(f.deps(d.log))
	if err != nil {
		t.Fatal(err)
	}
	ln, err := api.Listen(d.socket, -1)
	if err != nil {
		t.Fatal(err)
	}
	d.server = api.NewServer(handler)
	served := make(chan error, 1)
	go func() { served <- d.server.Serve(ln) }()
	d.http = &http.Client{Transport: &http.Transport{
		DialContext: func(context.Context, string, string) (net.Conn, error) { return net.Dial("unix", d.socket) },
	}}
	t.Cleanup(func() {
		d.http.CloseIdleConnections()
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := d.server.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return d
}

// reply is an answer that was read to its end.
type reply struct {
	status int
	header http.Header
	body   string
}

// message is the text of an error answer.
func (r reply) message() string {
	var e struct{ Message string }
	if json.Unmarshal([]byte(r.body), &e) != nil {
		return "NOT A JSON ERROR: " + r.body
	}
	return e.Message
}

// object is the answer as a JSON object.
func (r reply) object(t testing.TB) map[string]any {
	t.Helper()
	var o map[string]any
	if err := json.Unmarshal([]byte(r.body), &o); err != nil {
		t.Fatalf("answer %q: %v", r.body, err)
	}
	return o
}

func (d *door) call(method, path, body string, headers ...string) reply {
	d.t.Helper()
	var reader io.Reader
	if body != "" {
		reader = strings.NewReader(body)
	}
	req, err := http.NewRequest(method, "http://cleat"+path, reader)
	if err != nil {
		d.t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := d.http.Do(req)
	if err != nil {
		d.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		d.t.Fatalf("%s %s: %v", method, path, err)
	}
	return reply{resp.StatusCode, resp.Header, string(text)}
}

func (d *door) get(path string) reply { d.t.Helper(); return d.call("GET", path, "") }

// wire is a raw connection to the door.
type wire struct {
	t testing.TB
	*net.UnixConn
	in *bufio.Reader
}

func (d *door) dial() *wire {
	d.t.Helper()
	conn, err := net.Dial("unix", d.socket)
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		d.t.Fatal(err)
	}
	return &wire{t: d.t, UnixConn: conn.(*net.UnixConn), in: bufio.NewReader(conn)}
}

func (w *wire) send(text string) {
	w.t.Helper()
	if _, err := io.WriteString(w.UnixConn, text); err != nil {
		w.t.Fatalf("send: %v", err)
	}
}

// head reads a status line and headers.
func (w *wire) head() (status string, header http.Header) {
	w.t.Helper()
	header = http.Header{}
	for first := true; ; first = false {
		line, err := w.in.ReadString('\n')
		if err != nil {
			w.t.Fatalf("reading the head: %v", err)
		}
		line = strings.TrimRight(line, "\r\n")
		switch key, value, _ := strings.Cut(line, ":"); {
		case first:
			status = line
		case line == "":
			return status, header
		default:
			header.Add(key, strings.TrimSpace(value))
		}
	}
}

// rest reads until the server closes. A reset is a failure.
func (w *wire) rest() string {
	w.t.Helper()
	text, err := io.ReadAll(w.in)
	if err != nil {
		w.t.Fatalf("reading to the end: %v (after %q)", err, text)
	}
	return string(text)
}

func mustJSON(t testing.TB, value any) string {
	t.Helper()
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
