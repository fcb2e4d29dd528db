package api_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"sync"
	"testing"

	apibuild "github.com/moby/moby/api/types/build"

	"github.com/cleatlabs/cleat/internal/build"
)

// fakeBuilds is a builder that builds nothing. Connections that it serves are echoed.
type fakeBuilds struct {
	sessions map[string]bool
	building func(ctx context.Context, req build.Request, progress build.Progress) error

	mu        sync.Mutex
	request   build.Request
	context   string
	cancelled []string
	grpc      int
	pruned    *build.PruneRequest
}

func (f *fakeBuilds) Prune(_ context.Context, req build.PruneRequest) (*apibuild.CachePruneReport, error) {
	f.pruned = &req
	return &apibuild.CachePruneReport{CachesDeleted: []string{"one"}, SpaceReclaimed: 7}, nil
}

func (f *fakeBuilds) ServeConn(ctx context.Context, conn net.Conn) error {
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	_, err := io.Copy(conn, conn)
	return err
}

func (f *fakeBuilds) ServeSession(ctx context.Context, conn net.Conn, header http.Header) error {
	if _, err := io.WriteString(conn, header.Get("X-Docker-Expose-Session-Name")); err != nil {
		return err
	}
	return f.ServeConn(ctx, conn)
}

func (f *fakeBuilds) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.grpc++
	w.Header().Set("Content-Type", "application/grpc")
}

func (f *fakeBuilds) HasSession(id string) bool { return f.sessions[id] }

func (f *fakeBuilds) Cancel(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cancelled = append(f.cancelled, id)
}

func (f *fakeBuilds) Build(ctx context.Context, req build.Request, progress build.Progress) error {
	if f.building != nil {
		return f.building(ctx, req, progress)
	}
	body, err := io.ReadAll(req.Context)
	f.mu.Lock()
	f.context, f.request = string(body), req
	f.request.Context = nil
	f.mu.Unlock()
	if err != nil {
		return err
	}
	if err := progress.Trace([]byte("log")); err != nil {
		return err
	}
	return progress.Image("sha256:1234")
}

func TestGRPCTakesTheConnectionOver(t *testing.T) {
	for _, path := range []string{"/grpc", "/v1.24/grpc", "/v1.52/session"} {
		d := serve(t, &fake{})
		w := d.dial()
		// What comes with the request must not be lost.
		w.send("POST " + path + " HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nX-Docker-Expose-Session-Uuid: one\r\nX-Docker-Expose-Session-Name: me,\r\n\r\nearly,")
		status, header := w.head()
		if status != "HTTP/1.1 101 UPGRADED" || header.Get("Upgrade") != "h2c" {
			t.Fatalf("%s: %s %v", path, status, header)
		}
		w.send("late.")
		want := "early,late."
		if strings.HasSuffix(path, "session") {
			want = "me," + want
		}
		got := make([]byte, len(want))
		if _, err := io.ReadFull(w.in, got); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", path, got, err)
		}
	}
}

func TestWhatCannotBeTakenOverIsRefused(t *testing.T) {
	f := &fake{builds: fakeBuilds{sessions: map[string]bool{"taken": true}}}
	d := serve(t, f)
	for _, c := range []struct {
		path, upgrade, session string
		status                 int
		text                   string
	}{
		{"/grpc", "", "", 400, "no upgrade proto in request"},
		{"/grpc", "websocket", "", 400, "protocol websocket not supported"},
		{"/session", "", "s", 400, "no upgrade proto in request"},
		{"/session", "h2c", "", 400, "no session id"},
		{"/session", "h2c", "taken", 409, "session taken already exists"},
	} {
		w := d.dial()
		head := "POST " + c.path + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
		if c.upgrade != "" {
			head += "Upgrade: " + c.upgrade + "\r\n"
		}
		if c.session != "" {
			head += "X-Docker-Expose-Session-Uuid: " + c.session + "\r\n"
		}
		w.send(head + "\r\n")
		status, _ := w.head()
		body := w.rest()
		if !strings.Contains(status, fmt.Sprintf(" %d ", c.status)) || !strings.Contains(body, c.text) {
			t.Errorf("%+v: %s %s", c, status, body)
		}
	}
}

func TestNativeGRPC(t *testing.T) {
	f := &fake{}
	d := serve(t, f)
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: &protocols, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", d.socket)
	}}
	defer transport.CloseIdleConnections()
	res, err := (&http.Client{Transport: transport}).Post("http://x/moby.buildkit.v1.Control/Info", "application/grpc", nil)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != 200 || f.builds.grpc != 1 {
		t.Errorf("%s, %d calls", res.Status, f.builds.grpc)
	}
}

func TestBuildOptions(t *testing.T) {
	value := "1"
	for query, want := range map[string]build.Request{
		"": {},
		"t=a&t=b:1&dockerfile=D&target=x&nocache=1&pull=true&remote=client-session&session=s&buildid=id": {
			Tags: []string{"a", "b:1"}, Dockerfile: "D", Target: "x", NoCache: true, Pull: true, Remote: "client-session", Session: "s", ID: "id"},
		"platform=linux/amd64,linux/arm64": {Platform: "linux/amd64,linux/arm64"},
		"buildargs=" + url.QueryEscape(`{"A":"1","B":null}`) + "&labels=" + url.QueryEscape(`{"l":"m"}`) + "&cachefrom=" + url.QueryEscape(`["c"]`): {
			Args: map[string]*string{"A": &value, "B": nil}, Labels: map[string]string{"l": "m"}, CacheFrom: []string{"c"}},
		"networkmode=host&extrahosts=a:1.2.3.4&memory=1&memswap=-1&shmsize=3&cpushares=4&cpuperiod=5&cpuquota=6&cpusetcpus=0-1&cgroupparent=/x": {
			NetworkMode: "host", ExtraHosts: []string{"a:1.2.3.4"},
			Limits: build.Limits{Memory: 1, MemorySwap: -1, ShmSize: 3, CPUShares: 4, CPUPeriod: 5, CPUQuota: 6, CpusetCpus: "0-1", CgroupParent: "/x"}},
		"outputs=" + url.QueryEscape(`[{"Type":"local","Attrs":{"dest":"x"}}]`): {
			Outputs: []build.Output{{Type: "local", Attrs: map[string]string{"dest": "x"}}}},
	} {
		f := &fake{}
		d := serve(t, f)
		got := d.call("POST", "/v1.50/build?version=2&"+query, "")
		if got.status != 200 || !reflect.DeepEqual(f.builds.request, want) {
			t.Errorf("%s: %d %s\n got %+v\nwant %+v", query, got.status, got.body, f.builds.request, want)
		}
	}
	d := serve(t, &fake{})
	for query, text := range map[string]string{
		"version=3":                                 "invalid version 3",
		"version=2&squash=1":                        "squash",
		"version=2&isolation=hyperv":                "unsupported isolation",
		"version=2&securityopt=x":                   "security options",
		"version=2&platform=a/b/c/d":                "invalid platform",
		"version=2&buildargs=x":                     "buildargs",
		"version=2&labels=[]":                       "labels",
		"version=2&ulimits=[null]":                  "ulimits",
		"version=2&memory=much":                     "memory",
		"version=2&shmsize=-1":                      "SHM size",
		"version=2&outputs=" + url.QueryEscape("{"): "outputs",
	} {
		if got := d.call("POST", "/v1.50/build?"+query, ""); got.status != 400 || !strings.Contains(got.message(), text) {
			t.Errorf("%s: %d %s", query, got.status, got.body)
		}
	}
}

func TestBuildAnswersInRecords(t *testing.T) {
	f := &fake{}
	d := serve(t, f)
	got := d.call("POST", "/v1.50/build?version=2", "the files")
	if f.builds.context != "the files" {
		t.Errorf("the builder read %q", f.builds.context)
	}
	type record struct {
		ID  string
		Aux json.RawMessage
	}
	var records []record
	for scan := bufio.NewScanner(strings.NewReader(got.body)); scan.Scan(); {
		var r record
		if err := json.Unmarshal(scan.Bytes(), &r); err != nil {
			t.Fatal(err)
		}
		records = append(records, r)
	}
	if len(records) != 2 || records[0].ID != "moby.buildkit.trace" || string(records[0].Aux) != `"bG9n"` ||
		records[1].ID != "moby.image.id" || string(records[1].Aux) != `{"ID":"sha256:1234"}` {
		t.Errorf("%s", got.body)
	}
	f.builds.building = func(_ context.Context, _ build.Request, p build.Progress) error {
		if err := p.Trace([]byte("x")); err != nil {
			return err
		}
		return errors.New("failed to solve")
	}
	if got := d.call("POST", "/v1.50/build?version=2", ""); got.status != 200 || !strings.Contains(got.body, `{"errorDetail":{"message":"failed to solve"},"error":"failed to solve"}`) {
		t.Errorf("%d %s", got.status, got.body)
	}
	f.builds.building = func(context.Context, build.Request, build.Progress) error { return errors.New("nothing was begun") }
	if got := d.call("POST", "/v1.50/build?version=2", ""); got.status != 500 || got.message() != "nothing was begun" {
		t.Errorf("%d %s", got.status, got.body)
	}
}

func TestBuildCancel(t *testing.T) {
	f := &fake{}
	d := serve(t, f)
	if got := d.call("POST", "/v1.50/build/cancel?id=x", ""); got.status != 200 || len(f.builds.cancelled) != 1 || f.builds.cancelled[0] != "x" {
		t.Errorf("%d %s, cancelled %q", got.status, got.body, f.builds.cancelled)
	}
	if got := d.call("POST", "/v1.50/build/cancel", ""); got.status != 400 || got.message() != "build ID not provided" {
		t.Errorf("%d %s", got.status, got.body)
	}
}

// A client that goes away ends its build.
func TestBuildEndsWithItsClient(t *testing.T) {
	ended := make(chan error, 1)
	f := &fake{builds: fakeBuilds{building: func(ctx context.Context, _ build.Request, p build.Progress) error {
		if err := p.Trace([]byte("begun")); err != nil {
			return err
		}
		<-ctx.Done()
		ended <- ctx.Err()
		return ctx.Err()
	}}}
	d := serve(t, f)
	w := d.dial()
	w.send("POST /v1.50/build?version=2 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
	w.head()
	w.UnixConn.Close()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
