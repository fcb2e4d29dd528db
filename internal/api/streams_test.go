package api_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	imagetypes "github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/jsonstream"

	"github.com/cleatlabs/cleat/internal/engine"
	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/image"
	"github.com/cleatlabs/cleat/internal/logs"
	"github.com/cleatlabs/cleat/internal/stdio"
	"github.com/cleatlabs/cleat/test/expect"
)

// ended fails the test unless the channel is closed soon.
func ended(t *testing.T, what string, done <-chan struct{}) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatalf("%s did not end", what)
	}
}

// Wait sends its status before the exit: the client starts the container then.
func TestWaitAnswersAtOnce(t *testing.T) {
	result := make(chan engine.WaitResult, 1)
	f := &fake{wait: func(context.Context, container.WaitCondition) (<-chan engine.WaitResult, error) { return result, nil }}
	d := serve(t, f)
	w := d.dial()
	w.send("POST /v1.56/containers/x/wait?condition=next-exit HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	status, header := w.head()
	if status != "HTTP/1.1 200 OK" || header.Get("Content-Type") != "application/json" {
		t.Fatalf("%s %v", status, header)
	}
	result <- engine.WaitResult{Code: 137}
	if body := w.rest(); !strings.Contains(body, `{"StatusCode":137}`) {
		t.Errorf("body %q", body)
	}
	result <- engine.WaitResult{Code: 1, Err: "it <broke>"}
	if got := d.call("POST", "/containers/x/wait", ""); got.body != `{"Error":{"Message":"it <broke>"},"StatusCode":1}`+"\n" {
		t.Errorf("with an error: %s", got.body)
	}
}

func TestWaitConditions(t *testing.T) {
	f := &fake{}
	f.wait = func(context.Context, container.WaitCondition) (<-chan engine.WaitResult, error) {
		done := make(chan engine.WaitResult, 1)
		done <- engine.WaitResult{}
		return done, nil
	}
	d := serve(t, f)
	for query, want := range map[string]string{
		"/v1.30/containers/x/wait":                       "wait x not-running",
		"/v1.30/containers/x/wait?condition=not-running": "wait x not-running",
		"/v1.30/containers/x/wait?condition=next-exit":   "wait x next-exit",
		"/v1.30/containers/x/wait?condition=removed":     "wait x removed",
		"/v1.29/containers/x/wait?condition=removed":     "wait x not-running",
	} {
		f.calls = nil
		if got := d.call("POST", query, ""); got.status != 200 || len(f.calls) != 1 || f.calls[0] != want {
			t.Errorf("%s: %d, %q, want %q", query, got.status, f.calls, want)
		}
	}
	f.wait = func(context.Context, container.WaitCondition) (<-chan engine.WaitResult, error) {
		return nil, failure.NotFound("No such container: x")
	}
	if got := d.call("POST", "/containers/x/wait", ""); got.status != 404 || got.message() != "No such container: x" {
		t.Errorf("unknown container: %d %s", got.status, got.body)
	}
}

// A client that goes away ends the wait, the pull, the events and the logs that
// it asked for.
func TestStreamsEndWithTheirClient(t *testing.T) {
	entered, left := make(chan struct{}), make(chan struct{})
	hold := func(ctx context.Context) error {
		close(entered)
		<-ctx.Done()
		close(left)
		return ctx.Err()
	}
	f := &fake{}
	f.wait = func(ctx context.Context, _ container.WaitCondition) (<-chan engine.WaitResult, error) {
		result := make(chan engine.WaitResult)
		go func() { _ = hold(ctx); close(result) }()
		return result, nil
	}
	f.subscribe = func(time.Time, time.Time) ([]events.Message, <-chan events.Message, func()) {
		close(entered)
		return nil, make(chan events.Message), func() { close(left) }
	}
	f.logs = func(string, logs.ReadOptions) (*engine.LogSession, error) {
		return engine.NewLogSession(true, func(ctx context.Context, _ func(stdio.Stream, []byte) error) error { return hold(ctx) }), nil
	}
	f.images.pull = func(ctx context.Context, _ image.PullRequest, _ func(jsonstream.Message)) error { return hold(ctx) }
	f.images.load = func(ctx context.Context, _ io.Reader, _ image.LoadOptions, _ func(jsonstream.Message)) error {
		return hold(ctx)
	}
	d := serve(t, f)
	const options = "{}" // of dockerode, a second time
	for _, request := range [][2]string{
		{"POST /containers/x/wait"}, {"GET /events"}, {"GET /containers/x/logs?stdout=1&follow=1"},
		{"POST /images/create?fromImage=x"}, {"POST /images/load"},
		{"POST /containers/x/wait", options}, {"POST /v1.29/containers/x/wait", options}, {"POST /images/create?fromImage=x", options},
	} {
		call, body := request[0], request[1]
		entered, left = make(chan struct{}), make(chan struct{})
		w := d.dial()
		w.send(fmt.Sprintf("%s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", call, len(body), body))
		ended(t, "the request of "+call, entered)
		w.Close()
		ended(t, call, left)
	}
}

func TestEventStream(t *testing.T) {
	live := make(chan events.Message)
	var since, until time.Time
	f := &fake{subscribe: func(s, u time.Time) ([]events.Message, <-chan events.Message, func()) {
		since, until = s, u
		return nil, live, func() {}
	}}
	d := serve(t, f)
	w := d.dial()
	w.send("GET /v1.52/events?since=10&until=4000000000.5 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	status, header := w.head() // before any event
	if status != "HTTP/1.1 200 OK" || header.Get("Content-Type") != "application/jsonl" {
		t.Fatalf("%s %v", status, header)
	}
	if since != time.Unix(10, 0) || until != time.Unix(4000000000, 500000000) {
		t.Errorf("since %v until %v", since, until)
	}
	// Each record is a chunk of its own.
	for i := range 3 {
		live <- events.Message{Type: "network", Time: int64(i + 1)}
		size, err := w.in.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		record, err := w.in.ReadString('\n')
		if err != nil || fmt.Sprintf("%x\r\n", len(record)) != size || !strings.Contains(record, fmt.Sprintf(`"time":%d`, i+1)) {
			t.Errorf("chunk %q of size %q: %v", record, size, err)
		}
		if end, _ := w.in.ReadString('\n'); end != "\r\n" {
			t.Errorf("end of chunk %q", end)
		}
	}
	close(live)
	if rest := w.rest(); rest != "0\r\n\r\n" {
		t.Errorf("end %q", rest)
	}
}

func TestEventTimes(t *testing.T) {
	d := serve(t, &fake{})
	for query, status := range map[string]int{
		"since=1&until=2": 200, "since=2&until=1": 400, "until=1": 200, "since=1.5": 200, "since=": 200, "since=yesterday": 400,
		"since=1.x": 400, "until=2026-01-01": 400, "since=1.-5": 400, "since=5&until=5": 200, "since=1.0000000019": 200,
	} {
		if got := d.get("/events?" + query); got.status != status {
			t.Errorf("%s: %d %s, want %d", query, got.status, got.body, status)
		}
	}
}

func TestEventFormats(t *testing.T) {
	d := serve(t, populated())
	for _, test := range []struct {
		minor        int
		accept, want string
	}{
		{51, "", "application/json"},
		{51, "*/*", "application/json"},
		{51, "application/jsonl", "application/json"},
		{51, "application/x-ndjson", "application/x-ndjson"},
		{24, "application/json-seq", "application/json-seq"},
		{52, "", "application/jsonl"},
		{52, "text/html", "application/jsonl"},
		{52, "application/json-seq;q=0.5, application/x-ndjson;q=0.9", "application/x-ndjson"},
		{56, "application/jsonl, application/x-ndjson;q=0.9, application/json-seq;q=0.5", "application/jsonl"},
		{56, "application/x-ndjson;q=zzz, ;;;, application/json-seq", "application/json-seq"},
	} {
		got := d.call("GET", fmt.Sprintf("/v1.%d/events", test.minor), "", "Accept", test.accept)
		if got.header.Get("Content-Type") != test.want {
			t.Errorf("1.%d, Accept %q: %s, want %s", test.minor, test.accept, got.header.Get("Content-Type"), test.want)
		}
		for line := range strings.SplitSeq(strings.TrimSpace(got.body), "\n") {
			if (line[0] == 0x1e) != (test.want == "application/json-seq") {
				t.Errorf("1.%d, Accept %q: record %q", test.minor, test.accept, line)
			}
		}
	}
}

func TestPullStream(t *testing.T) {
	f := &fake{}
	d := serve(t, f)
	var req image.PullRequest
	f.images.pull = func(_ context.Context, r image.PullRequest, progress func(jsonstream.Message)) error {
		req = r
		progress(jsonstream.Message{ID: "latest", Status: "Pulling from library/x"})
		progress(jsonstream.Message{ID: "0123456789ab", Status: "Downloading", Progress: &jsonstream.Progress{Current: 1, Total: 2}})
		return nil
	}
	auth := base64.RawURLEncoding.EncodeToString([]byte(`{"username":"u>?","password":"p"}`))
	got := d.call("POST", "/images/create?fromImage=host:5000/x:&tag=v1&platform=linux/arm64/v8", "", "X-Registry-Auth", auth)
	const want = `{"status":"Pulling from library/x","id":"latest"}
{"status":"Downloading","progressDetail":{"current":1,"total":2},"id":"0123456789ab"}
`
	if got.status != 200 || got.body != want || got.header.Get("Content-Type") != "application/json" {
		t.Errorf("pull: %d %q", got.status, got.body)
	}
	if req.Ref != "host:5000/x" || req.Tag != "v1" || req.Platform != "linux/arm64/v8" || req.AuthConfig == nil || req.AuthConfig.Username != "u>?" {
		t.Errorf("request %+v, credentials %+v", req, req.AuthConfig)
	}

	// Older clients get the count as a text, too.
	old := strings.ReplaceAll(want, `"total":2},`, `"total":2},"progress":"[=========================>                         ]       1B/2B",`)
	if got := d.call("POST", "/v1.51/images/create?fromImage=x", ""); got.body != old {
		t.Errorf("pull by an older client: %q, want %q", got.body, old)
	}

	// An error before the first record is a status, after it a record.
	f.images.pull = func(context.Context, image.PullRequest, func(jsonstream.Message)) error {
		return failure.NotFound("pull access denied for x")
	}
	if got := d.call("POST", "/images/create?fromImage=x", ""); got.status != 404 || got.message() != "pull access denied for x" {
		t.Errorf("early error: %d %s", got.status, got.body)
	}
	f.images.pull = func(_ context.Context, _ image.PullRequest, progress func(jsonstream.Message)) error {
		progress(jsonstream.Message{Status: "so far"})
		return errors.New("then it broke")
	}
	got = d.call("POST", "/images/create?fromImage=x", "")
	if got.status != 200 || !strings.HasSuffix(got.body, `{"errorDetail":{"message":"then it broke"},"error":"then it broke"}`+"\n") {
		t.Errorf("late error: %d %q", got.status, got.body)
	}
	for query, status := range map[string]int{
		"fromSrc=-": 404, "": 400, "fromImage=x&platform=a/b/c/d/e": 400, "fromImage=&fromSrc=http://x": 404,
	} {
		if got := d.call("POST", "/images/create?"+query, ""); got.status != status {
			t.Errorf("create?%s: %d %s, want %d", query, got.status, got.body, status)
		}
	}
}

func TestProgressText(t *testing.T) {
	f := &fake{}
	d := serve(t, f)
	for _, c := range []struct {
		progress *jsonstream.Progress
		want     string
	}{
		{nil, ""},
		{&jsonstream.Progress{}, ""},
		{&jsonstream.Progress{Current: 1_500_000}, "   1.5MB"},
		{&jsonstream.Progress{Current: 12, Units: "layers"}, "      12 layers"},
		{&jsonstream.Progress{Current: 0, Total: 100}, "[>                                                  ]       0B/100B"},
		{&jsonstream.Progress{Current: 100, Total: 100}, "[==================================================>]     100B/100B"},
		{&jsonstream.Progress{Current: 300, Total: 100}, "[==================================================>]     300B"},
		{&jsonstream.Progress{Current: 1, Total: 2, HideCounts: true}, "[=========================>                         ] "},
	} {
		f.images.pull = func(_ context.Context, _ image.PullRequest, progress func(jsonstream.Message)) error {
			progress(jsonstream.Message{ID: "x", Progress: c.progress})
			return nil
		}
		var record struct{ Progress string }
		if err := json.Unmarshal([]byte(d.call("POST", "/v1.44/images/create?fromImage=x", "").body), &record); err != nil {
			t.Fatal(err)
		}
		if record.Progress != c.want {
			t.Errorf("%+v: %q, want %q", c.progress, record.Progress, c.want)
		}
	}
}

func TestRegistryAuth(t *testing.T) {
	f := &fake{}
	var req image.PullRequest
	f.images.pull = func(_ context.Context, r image.PullRequest, _ func(jsonstream.Message)) error { req = r; return nil }
	d := serve(t, f)
	const text = `{"username":"??>>","password":"~~"}`
	for _, header := range []string{
		base64.URLEncoding.EncodeToString([]byte(text)), base64.RawURLEncoding.EncodeToString([]byte(text)),
		base64.StdEncoding.EncodeToString([]byte(text)), base64.RawStdEncoding.EncodeToString([]byte(text)),
	} {
		d.call("POST", "/images/create?fromImage=x", "", "X-Registry-Auth", header)
		if req.AuthConfig == nil || req.AuthConfig.Username != "??>>" || req.AuthConfig.Password != "~~" {
			t.Errorf("%s: %+v", header, req.AuthConfig)
		}
	}
	for _, header := range []string{"", "!", "e30", "e30=", "bm90IGpzb24", "W10=", "bnVsbA"} {
		if got := d.call("POST", "/images/create?fromImage=x", "", "X-Registry-Auth", header); got.status != 200 || req.AuthConfig != nil {
			t.Errorf("%q: %d, %+v, want none", header, got.status, req.AuthConfig)
		}
	}
}

// Load reports while it reads, and its client sees the error although it has not
// sent everything yet.
func TestLoadStream(t *testing.T) {
	f := &fake{}
	d := serve(t, f)
	reported := make(chan struct{})
	f.images.load = func(_ context.Context, r io.Reader, opts image.LoadOptions, progress func(jsonstream.Message)) error {
		if opts.Quiet {
			return errors.New("quiet was not asked for")
		}
		if _, err := io.ReadFull(r, make([]byte, 4)); err != nil {
			return err
		}
		progress(jsonstream.Message{Status: "half"})
		<-reported
		rest, err := io.ReadAll(r)
		progress(jsonstream.Message{Stream: "Loaded image: " + string(rest)})
		return err
	}
	reader, writer := io.Pipe()
	req, err := http.NewRequest("POST", "http://cleat/images/load?quiet=0", reader)
	if err != nil {
		t.Fatal(err)
	}
	go io.WriteString(writer, "head")
	resp, err := d.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	first := make([]byte, len(`{"status":"half"}`+"\n"))
	if _, err := io.ReadFull(resp.Body, first); err != nil || string(first) != `{"status":"half"}`+"\n" {
		t.Fatalf("%q %v", first, err)
	}
	close(reported)
	io.WriteString(writer, "tail")
	writer.Close()
	if rest, err := io.ReadAll(resp.Body); err != nil || string(rest) != `{"stream":"Loaded image: tail"}`+"\n" {
		t.Errorf("%q %v", rest, err)
	}

	f.images.load = func(context.Context, io.Reader, image.LoadOptions, func(jsonstream.Message)) error {
		return failure.Invalid("no archive at all")
	}
	resp, err = d.http.Post("http://cleat/images/load", "application/x-tar", bytes.NewReader(make([]byte, 8<<20)))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != 200 || string(body) != `{"errorDetail":{"message":"no archive at all"},"error":"no archive at all"}`+"\n" {
		t.Errorf("bad archive: %d %q %v", resp.StatusCode, body, err)
	}
}

// skopeo closes the answer when its head has come, with the rest of the archive unsent.
func TestQuietLoadAnswersAfterTheUpload(t *testing.T) {
	f := &fake{}
	read := make(chan struct{})
	f.images.load = func(_ context.Context, r io.Reader, _ image.LoadOptions, progress func(jsonstream.Message)) error {
		_, err := io.ReadFull(r, make([]byte, 4))
		progress(jsonstream.Message{Stream: "Loaded image: x"})
		close(read)
		return err
	}
	d := serve(t, f)
	reader, writer := io.Pipe()
	sent := make(chan error, 1)
	go func() {
		_, err := io.WriteString(writer, "head")
		<-read
		if err == nil {
			_, err = writer.Write(make([]byte, 8<<20))
		}
		sent <- err
		writer.Close()
	}()
	resp, err := d.http.Post("http://cleat/images/load?quiet=1", "application/x-tar", reader)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	select {
	case err := <-sent:
		if err != nil {
			t.Error(err)
		}
	default:
		t.Error("the answer has come before the upload's end")
	}
	if body, err := io.ReadAll(resp.Body); err != nil || string(body) != `{"stream":"Loaded image: x"}`+"\n" {
		t.Errorf("%q %v", body, err)
	}
}

func TestLoadPlatforms(t *testing.T) {
	f := &fake{}
	var got image.LoadOptions
	f.images.load = func(_ context.Context, _ io.Reader, o image.LoadOptions, _ func(jsonstream.Message)) error {
		got = o
		return nil
	}
	d := serve(t, f)
	const arm = `{"os":"linux","architecture":"arm","variant":"v7"}`
	for _, test := range []struct {
		path, want string
		status     int
	}{
		{"/v1.47/images/load?platform=" + escape(arm), "[]", 200},
		{"/v1.48/images/load?platform=" + escape(arm), "[linux/arm/v7]", 200},
		{"/v1.51/images/load?platform=" + escape(arm) + "&platform=" + escape(arm), "", 400},
		{"/v1.52/images/load?platform=" + escape(arm) + "&platform=" + escape(arm), "[linux/arm/v7 linux/arm/v7]", 200},
		{"/images/load?platform=linux", "", 400},
		{"/images/load?platform={}", "", 400},
	} {
		answer := d.call("POST", test.path, "")
		if answer.status != test.status || test.status == 200 && (fmt.Sprint(got.Platforms) != test.want || !got.Quiet) {
			t.Errorf("%s: %d %s, options %+v", test.path, answer.status, answer.body, got)
		}
	}
}

func TestLogs(t *testing.T) {
	f := &fake{}
	tty := false
	var failed error
	f.logs = func(_ string, opts logs.ReadOptions) (*engine.LogSession, error) {
		return engine.NewLogSession(tty, func(_ context.Context, emit func(stdio.Stream, []byte) error) error {
			return errors.Join(emit(stdio.Stdout, []byte("out\r\n")), emit(stdio.Stderr, []byte("err\n")), emit(stdio.Stdout, []byte("no end")), failed)
		}), nil
	}
	d := serve(t, f)
	const frames = "\x01\x00\x00\x00\x00\x00\x00\x05out\r\n\x02\x00\x00\x00\x00\x00\x00\x04err\n\x01\x00\x00\x00\x00\x00\x00\x06no end"
	for _, test := range []struct {
		minor      int
		tty        bool
		kind, body string
	}{
		{41, false, "application/vnd.docker.raw-stream", frames},
		{42, false, "application/vnd.docker.multiplexed-stream", frames},
		{56, true, "application/vnd.docker.raw-stream", "out\r\nerr\nno end"},
	} {
		tty = test.tty
		got := d.get(fmt.Sprintf("/v1.%d/containers/x/logs?stdout=1", test.minor))
		if got.status != 200 || got.header.Get("Content-Type") != test.kind || got.body != test.body {
			t.Errorf("1.%d tty %t: %d %s %q", test.minor, test.tty, got.status, got.header.Get("Content-Type"), got.body)
		}
	}
	tty, failed = false, errors.New("file gone")
	const fault = "Error grabbing logs: file gone\n"
	if got := d.get("/containers/x/logs?stdout=1"); got.body != frames+"\x03\x00\x00\x00\x00\x00\x00"+string(rune(len(fault)))+fault {
		t.Errorf("with an error: %q", got.body)
	}
}

// An engine that ends while it sends a log does not let what was sent pass for the whole; who follows a log has had it
// as far as it went.
func TestLogsOfAnEngineThatEnds(t *testing.T) {
	f := &fake{logs: func(string, logs.ReadOptions) (*engine.LogSession, error) {
		return engine.NewLogSession(true, func(ctx context.Context, emit func(stdio.Stream, []byte) error) error {
			<-ctx.Done()
			return errors.Join(emit(stdio.Stdout, []byte("a line\n")), ctx.Err())
		}), nil
	}}
	for query, want := range map[string]error{"stdout=1": io.ErrUnexpectedEOF, "stdout=1&follow=1": nil} {
		d := serve(t, f)
		resp, err := d.http.Get("http://cleat/containers/x/logs?" + query)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		ended := make(chan error, 1)
		go func() { ended <- d.server.Shutdown(context.Background()) }()
		if got, err := io.ReadAll(resp.Body); string(got) != "a line\n" || !errors.Is(err, want) {
			t.Errorf("%s: %q, %v, want %v", query, got, err, want)
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

func TestLogOptions(t *testing.T) {
	f := &fake{}
	var got logs.ReadOptions
	f.logs = func(_ string, opts logs.ReadOptions) (*engine.LogSession, error) {
		got = opts
		return engine.NewLogSession(true, func(context.Context, func(stdio.Stream, []byte) error) error { return nil }), nil
	}
	d := serve(t, f)
	for query, want := range map[string]string{
		"stdout=1":                              "out=true err=false follow=false stamps=false details=false tail=-1 since=0 until=0",
		"stderr=1&follow=1&timestamps=1":        "out=false err=true follow=true stamps=true details=false tail=-1 since=0 until=0",
		"stdout=1&tail=all&details=true":        "out=true err=false follow=false stamps=false details=true tail=-1 since=0 until=0",
		"stdout=1&tail=0":                       "out=true err=false follow=false stamps=false details=false tail=0 since=0 until=0",
		"stdout=1&tail=20":                      "out=true err=false follow=false stamps=false details=false tail=20 since=0 until=0",
		"stdout=1&tail=-3":                      "out=true err=false follow=false stamps=false details=false tail=-1 since=0 until=0",
		"stdout=1&tail=x&since=0&until=0":       "out=true err=false follow=false stamps=false details=false tail=-1 since=0 until=0",
		"stdout=1&since=7.25&until=8.000000001": "out=true err=false follow=false stamps=false details=false tail=-1 since=7250000000 until=8000000001",
		"stdout=1&until=253402300799":           "out=true err=false follow=false stamps=false details=false tail=-1 since=0 until=9223372035000000000",
	} {
		answer := d.get("/containers/x/logs?" + query)
		nanos := func(at time.Time) int64 {
			if at.IsZero() {
				return 0
			}
			return at.UnixNano()
		}
		text := fmt.Sprintf("out=%t err=%t follow=%t stamps=%t details=%t tail=%d since=%d until=%d",
			got.Stdout, got.Stderr, got.Follow, got.Timestamps, got.Details, got.Tail, nanos(got.Since), nanos(got.Until))
		if answer.status != 200 || text != want {
			t.Errorf("%s: %d\n got %s\nwant %s", query, answer.status, text, want)
		}
	}
	for _, query := range []string{"", "stdout=0&stderr=0", "stdout=1&since=then", "stdout=1&until=1h"} {
		if answer := d.get("/containers/x/logs?" + query); answer.status != 400 {
			t.Errorf("%q: %d %s, want 400", query, answer.status, answer.body)
		}
	}
}

// Followed lines arrive when they are written, not when a buffer is full.
func TestLogsAreFlushedWhenTheLogWaits(t *testing.T) {
	next := make(chan string)
	f := &fake{logs: func(_ string, opts logs.ReadOptions) (*engine.LogSession, error) {
		return engine.NewLogSession(true, func(_ context.Context, emit func(stdio.Stream, []byte) error) error {
			for line := range next {
				if err := errors.Join(emit(stdio.Stdout, []byte(line)), opts.Flush()); err != nil {
					return err
				}
			}
			return nil
		}), nil
	}}
	d := serve(t, f)
	resp, err := d.http.Get("http://cleat/containers/x/logs?stdout=1&follow=1")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	for _, line := range []string{"one\n", "two\n"} {
		next <- line
		buf := make([]byte, len(line))
		if _, err := io.ReadFull(resp.Body, buf); err != nil || string(buf) != line {
			t.Fatalf("%q %v", buf, err)
		}
	}
	close(next)
}

// A client that does not read is waited for where nothing is held for it, and its going
// ends that.
func TestLogsWaitForAClientThatDoesNotRead(t *testing.T) {
	var count atomic.Int64
	var waiting atomic.Bool
	ended := make(chan error, 1)
	piece := bytes.Repeat([]byte{'x'}, 32<<10)
	f := &fake{logs: func(_ string, opts logs.ReadOptions) (*engine.LogSession, error) {
		return engine.NewLogSession(true, func(ctx context.Context, emit func(stdio.Stream, []byte) error) (err error) {
			defer func() { ended <- err }()
			for {
				if err := errors.Join(emit(stdio.Stdout, piece), opts.Flush()); err != nil {
					return err
				}
				count.Add(1)
				waiting.Store(true)
				if err := opts.Ready(ctx); err != nil {
					return err
				}
				waiting.Store(false)
			}
		}), nil
	}}
	d := serve(t, f)
	conn, err := net.Dial("unix", d.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "GET /containers/x/logs?stdout=1&follow=1 HTTP/1.1\r\nHost: x\r\n\r\n")
	stalled := func() int64 {
		t.Helper()
		at := int64(0)
		expect.Eventually(t, "the reading waits", func() bool {
			before := at
			at = count.Load()
			return at > 0 && at == before && waiting.Load()
		})
		return at
	}
	at := stalled()
	if at > 64 {
		t.Errorf("%d pieces of 32 KiB went to a client that reads nothing", at)
	}
	if _, err := io.CopyN(io.Discard, conn, at*int64(len(piece))); err != nil {
		t.Fatal(err)
	}
	expect.Eventually(t, "more once it has read", func() bool { return count.Load() > at })
	stalled()
	conn.Close()
	select {
	case <-ended:
	case <-time.After(patience):
		t.Fatal("the reading goes on for a client that has gone")
	}
}

func TestImageParameters(t *testing.T) {
	f := populated()
	var listed image.ListRequest
	list := f.images.list
	f.images.list = func(r image.ListRequest) (s []imagetypes.Summary, err error) { listed = r; return list(r) }
	d := serve(t, f)
	for path, want := range map[string]string{
		"/v1.56/images/json?all=1&shared-size=1&manifests=1": "true true map[]",
		"/v1.41/images/json?shared-size=1&manifests=1":       "false false map[]",
		"/v1.42/images/json?shared-size=1&manifests=1":       "true false map[]",
		"/v1.46/images/json?shared-size=1&manifests=1":       "true false map[]",
		"/v1.47/images/json?shared-size=1&manifests=1":       "true true map[]",
		"/v1.24/images/json?filter=nginx":                    "false false map[reference:[nginx]]",
		"/v1.40/images/json?filter=nginx":                    "false false map[reference:[nginx]]",
		"/v1.41/images/json?filter=nginx":                    "false false map[]",
	} {
		d.get(path)
		if got := fmt.Sprint(listed.SharedSize, listed.Manifests, listed.Filters); got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
	const platform = `{"os":"linux","architecture":"arm64"}`
	for path, status := range map[string]int{
		"/v1.56/images/x/json?manifests=1&platform=" + escape(platform): 400,
		"/v1.48/images/x/json?manifests=1&platform=" + escape(platform): 200,
		"/v1.56/images/x/json?manifests=1":                              200,
		"/v1.56/images/x/json?platform=" + escape(platform):             200,
		"/v1.56/images/x/json?platform=linux":                           400,
		"/v1.56/images/x/history?platform=linux":                        400,
		"/v1.56/images/json?identity=1&manifests=1":                     501,
		"/v1.53/images/json?identity=1":                                 200,
	} {
		if got := d.get(path); got.status != status {
			t.Errorf("%s: %d %s, want %d", path, got.status, got.body, status)
		}
	}
	if got := pick(t, d.get("/v1.56/images/x/json?manifests=1").body, "Manifests.0.ID"); got != "sha256:3" {
		t.Errorf("manifests asked for: %s", got)
	}
	if got := d.call("DELETE", "/images/x?platforms="+escape(platform), ""); got.status != 501 || !strings.Contains(got.message(), "platforms") {
		t.Errorf("platforms of a removal: %d %s", got.status, got.body)
	}
}
