package api_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"golang.org/x/net/websocket"

	"github.com/cleatlabs/cleat/internal/engine"
	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/logs"
	"github.com/cleatlabs/cleat/internal/stdio"
	"github.com/cleatlabs/cleat/test/expect"
)

// attaching serves one attach or exec session that runs as given.
func attaching(t testing.TB, tty bool, run func(context.Context, engine.StreamIO) error) *door {
	return serve(t, &fake{
		attach: func(string, engine.AttachOptions) (*engine.AttachSession, error) {
			return engine.NewAttachSession(tty, run, nil), nil
		},
		execStart: func(string, engine.ExecStartOptions) (*engine.ExecSession, error) {
			return engine.NewExecSession(run, nil), nil
		},
	})
}

// An exec whose client cannot be served, as its connection carries other calls too, can be started by another.
func TestExecWithoutAConnectionOfItsOwn(t *testing.T) {
	given := false
	d := serve(t, &fake{execStart: func(string, engine.ExecStartOptions) (*engine.ExecSession, error) {
		return engine.NewExecSession(echo, func() { given = true }), nil
	}})
	only2 := &http.Protocols{}
	only2.SetUnencryptedHTTP2(true)
	client := &http.Client{Transport: &http.Transport{
		Protocols:   only2,
		DialContext: func(context.Context, string, string) (net.Conn, error) { return net.Dial("unix", d.socket) },
	}}
	defer client.CloseIdleConnections()
	answer, err := client.Post("http://engine/exec/x/start", "application/json", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	if answer.ProtoMajor != 2 || answer.StatusCode < 400 || !given {
		t.Errorf("%s %s, given up: %v", answer.Proto, answer.Status, given)
	}
}

// echo copies stdin to stdout and, at its end, says so on stderr.
func echo(_ context.Context, client engine.StreamIO) error {
	if _, err := io.Copy(client.Stdout, client.Stdin); err != nil {
		return err
	}
	if client.Stderr != nil {
		_, err := io.WriteString(client.Stderr, "end")
		return err
	}
	return nil
}

func frame(stream byte, text string) string {
	return string([]byte{stream, 0, 0, 0, 0, 0, byte(len(text) >> 8), byte(len(text))}) + text
}

const attachAll = "/containers/x/attach?stream=1&stdin=1&stdout=1&stderr=1"

func TestUpgrade(t *testing.T) {
	for _, test := range []struct {
		minor   int
		tty     bool
		upgrade bool
		status  string
		kind    string
	}{
		{56, false, true, "HTTP/1.1 101 UPGRADED", "application/vnd.docker.multiplexed-stream"},
		{42, false, true, "HTTP/1.1 101 UPGRADED", "application/vnd.docker.multiplexed-stream"},
		{41, false, true, "HTTP/1.1 101 UPGRADED", "application/vnd.docker.raw-stream"},
		{56, true, true, "HTTP/1.1 101 UPGRADED", "application/vnd.docker.raw-stream"},
		{56, false, false, "HTTP/1.1 200 OK", "application/vnd.docker.raw-stream"},
		{24, true, false, "HTTP/1.1 200 OK", "application/vnd.docker.raw-stream"},
	} {
		for _, path := range []string{attachAll, "/exec/x/start"} {
			d := attaching(t, test.tty, echo)
			w := d.dial()
			request, body := fmt.Sprintf("POST /v1.%d%s HTTP/1.1\r\nHost: x\r\n", test.minor, path), ""
			if path != attachAll { // a container knows whether it has a TTY, an exec's start says it
				body = fmt.Sprintf(`{"Tty":%t}`, test.tty)
				request += fmt.Sprintf("Content-Type: application/json\r\nContent-Length: %d\r\n", len(body))
			}
			if test.upgrade {
				request += "Connection: Upgrade\r\nUpgrade: tcp\r\n"
			}
			w.send(request + "\r\n" + body)
			status, header := w.head()
			if status != test.status || header.Get("Content-Type") != test.kind {
				t.Errorf("%s, %+v: %s %s", path, test, status, header.Get("Content-Type"))
			}
			if test.upgrade && (header.Get("Connection") != "Upgrade" || header.Get("Upgrade") != "tcp") {
				t.Errorf("%s: headers %v", path, header)
			}
			if header.Get("Api-Version") != "1.56" {
				t.Errorf("%s: no Api-Version in %v", path, header)
			}
			w.send("hello")
			want := frame(1, "hello")
			if test.tty {
				want = "hello"
			}
			got := make([]byte, len(want))
			if _, err := io.ReadFull(w.in, got); err != nil || string(got) != want {
				t.Errorf("%s: output %q %v, want %q", path, got, err, want)
			}
			// A half-close ends stdin and nothing else.
			if err := w.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			want = frame(2, "end")
			if test.tty {
				want = ""
			}
			if rest := w.rest(); rest != want {
				t.Errorf("%s: after the half-close %q, want %q", path, rest, want)
			}
		}
	}
}

// What arrives together with the request is stdin, even if the client has ended
// its side before it is answered.
func TestInputThatComesWithTheRequest(t *testing.T) {
	const body = `{"Detach":false,"Tty":false}`
	for name, request := range map[string]string{
		"attach":           "POST " + attachAll + " HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n",
		"attach, length 0": "POST " + attachAll + " HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nContent-Type: text/plain\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n",
		"exec":             fmt.Sprintf("POST /exec/x/start HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n%s", len(body), body),
		"exec, chunked":    fmt.Sprintf("POST /exec/x/start HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(body), body),
	} {
		for _, input := range []string{"", "a", "some lines\nof input\n", strings.Repeat("x", 20000)} {
			var got strings.Builder
			d := attaching(t, false, func(_ context.Context, client engine.StreamIO) error {
				if _, err := io.Copy(&got, client.Stdin); err != nil {
					return err
				}
				_, err := fmt.Fprintf(client.Stdout, "%d", got.Len())
				return err
			})
			w := d.dial()
			w.send(request + input)
			if err := w.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if status, _ := w.head(); status != "HTTP/1.1 101 UPGRADED" {
				t.Fatalf("%s: %s", name, status)
			}
			if rest, want := w.rest(), frame(1, fmt.Sprint(len(input))); rest != want || got.String() != input {
				t.Errorf("%s with %d bytes: output %q, want %q", name, len(input), rest, want)
			}
		}
	}
}

// All output arrives before the end, and the end is no reset, although the
// client has sent input that nobody took.
func TestOutputIsCompleteAtTheEnd(t *testing.T) {
	const size = 4 << 20
	d := attaching(t, true, func(_ context.Context, client engine.StreamIO) error {
		_, err := client.Stdout.Write(make([]byte, size))
		return err
	})
	for range 10 {
		w := d.dial()
		w.send("POST " + attachAll + " HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\nunread input")
		w.head()
		if got := len(w.rest()); got != size {
			t.Fatalf("%d bytes of output, want %d", got, size)
		}
		w.Close()
	}
}

// Docker's Python SDK loses what comes together with the head of the answer: a
// session of its begins when it has read that.
func TestHeadComesAlone(t *testing.T) {
	for agent, alone := range map[string]bool{
		"docker-sdk-python/5.0.3": true, "ansible-community.docker": true, "docker-compose/1.29.2 docker-py/5.0.3 Linux/6.1": true, "docker-py/1.10.6": true,
		"Docker-Client/28.2.2 (linux)": false, "": false,
	} {
		began := make(chan struct{})
		d := attaching(t, true, func(_ context.Context, client engine.StreamIO) error {
			close(began)
			_, err := io.WriteString(client.Stdout, "output")
			return err
		})
		w := d.dial()
		w.send("POST /exec/x/start HTTP/1.1\r\nHost: x\r\nUser-Agent: " + agent + "\r\nContent-Type: application/json\r\nContent-Length: 12\r\n" +
			"Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n" + `{"Tty":true}`)
		if alone {
			select {
			case <-began:
				t.Errorf("%s: the session began before the head was read", agent)
			case <-time.After(20 * time.Millisecond): // long enough to fail without the wait
			}
		} else {
			<-began // and nothing was read
		}
		w.head()
		if got := w.rest(); got != "output" {
			t.Errorf("%s: %q", agent, got)
		}
	}
}

// attachedUntilGone serves a session that reads its input and ends with its client: it has entered, and left.
func attachedUntilGone(t *testing.T) (d *door, entered, left chan struct{}) {
	entered, left = make(chan struct{}), make(chan struct{})
	d = attaching(t, false, func(ctx context.Context, client engine.StreamIO) error {
		if client.Stdin != nil {
			go io.Copy(io.Discard, client.Stdin)
		}
		close(entered)
		<-ctx.Done()
		close(left)
		return ctx.Err()
	})
	return d, entered, left
}

// A client that closes ends its session, whether or not its input is read.
func TestSessionsEndWithTheirClient(t *testing.T) {
	for _, query := range []string{"stream=1&stdout=1", "stream=1&stdin=1&stdout=1"} {
		d, entered, left := attachedUntilGone(t)
		w := d.dial()
		w.send("POST /containers/x/attach?" + query + " HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
		w.head()
		ended(t, "the start of the session", entered)
		w.Close()
		ended(t, "the session with "+query, left)
	}
}

// Nor does it wait for input that nobody reads and that is not there.
func TestSessionsWhoseStdinIsNotReadEndAtOnce(t *testing.T) {
	entered, left := make(chan struct{}), make(chan time.Time, 1)
	d := attaching(t, false, func(ctx context.Context, _ engine.StreamIO) error {
		close(entered)
		<-ctx.Done()
		left <- time.Now()
		return fmt.Errorf("copy output: %w", ctx.Err())
	})
	w := d.dial()
	w.send("POST " + attachAll + " HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
	w.head()
	<-entered
	gone := time.Now()
	w.Close()
	select {
	case at := <-left:
		// The grace for input that is there is five seconds.
		if took := at.Sub(gone); took > 4*time.Second {
			t.Errorf("the session ended %v after its client", took)
		}
	case <-time.After(patience):
		t.Fatal("the session did not end")
	}
	d.server.Shutdown(context.Background())
	if log := d.log.String(); log != "" {
		t.Errorf("a client that leaves is no fault, but the log says %s", log)
	}
}

// A half-close must not be taken for a client that has gone.
func TestHalfCloseDoesNotEndASession(t *testing.T) {
	proceed := make(chan struct{})
	d := attaching(t, false, func(ctx context.Context, client engine.StreamIO) error {
		io.Copy(io.Discard, client.Stdin)
		<-proceed
		if ctx.Err() != nil {
			return ctx.Err()
		}
		_, err := io.WriteString(client.Stdout, "still here")
		return err
	})
	w := d.dial()
	w.send("POST " + attachAll + " HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
	w.head()
	w.CloseWrite()
	for range 3 { // other calls come and go in the meantime
		d.get("/_ping")
	}
	close(proceed)
	if rest := w.rest(); rest != frame(1, "still here") {
		t.Errorf("output %q", rest)
	}
}

// Input that a client left behind is taken before its going ends the session.
func TestInputOfAClientThatLeft(t *testing.T) {
	const size = 64 << 10
	proceed, got := make(chan struct{}), make(chan int, 1)
	d := attaching(t, false, func(ctx context.Context, client engine.StreamIO) error {
		<-proceed
		n, _ := io.Copy(io.Discard, client.Stdin)
		<-ctx.Done()
		got <- int(n)
		return nil
	})
	w := d.dial()
	w.send("POST " + attachAll + " HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
	w.head()
	w.send(strings.Repeat("x", size))
	w.Close()
	d.get("/_ping")
	close(proceed)
	select {
	case n := <-got:
		if n != size {
			t.Errorf("%d bytes of input, want %d", n, size)
		}
	case <-time.After(patience):
		t.Fatal("the session did not end")
	}
}

// Whoever reads stdin when a session ends is released.
func TestStdinEndsWithTheSession(t *testing.T) {
	released := make(chan struct{})
	d := attaching(t, false, func(_ context.Context, client engine.StreamIO) error {
		go func() {
			io.Copy(io.Discard, client.Stdin)
			close(released)
		}()
		return nil
	})
	w := d.dial() // does not close its side
	w.send("POST " + attachAll + " HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
	w.head()
	if rest := w.rest(); rest != "" {
		t.Errorf("output %q", rest)
	}
	w.Close()
	ended(t, "reading stdin", released)
}

func TestErrorsBeforeTheUpgrade(t *testing.T) {
	d := serve(t, &fake{
		attach: func(name string, _ engine.AttachOptions) (*engine.AttachSession, error) {
			if name == "paused" {
				return nil, failure.Conflict("container paused is paused, unpause the container before attach")
			}
			return nil, failure.NotFound("No such container: %s", name)
		},
		execStart: func(id string, _ engine.ExecStartOptions) (*engine.ExecSession, error) {
			return nil, failure.Conflict("container of %s is not running", id)
		},
	})
	for path, want := range map[string]string{
		"/containers/gone/attach?stream=1":   "404 Not Found",
		"/containers/paused/attach?stream=1": "409 Conflict",
		"/exec/x/start":                      "409 Conflict",
	} {
		w := d.dial()
		w.send("POST " + path + " HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
		status, header := w.head()
		if status != "HTTP/1.1 "+want || header.Get("Content-Type") != "application/json" || header.Get("Upgrade") != "" {
			t.Errorf("%s: %s %v", path, status, header)
		}
	}
}

func TestAttachOptions(t *testing.T) {
	ran := make(chan string, 1)
	d := serve(t, &fake{attach: func(_ string, opts engine.AttachOptions) (*engine.AttachSession, error) {
		return engine.NewAttachSession(opts.Logs, func(_ context.Context, client engine.StreamIO) error {
			ran <- fmt.Sprint(opts, " ", client.Stdin != nil, " ", client.Stdout != nil, " ", client.Stderr != nil)
			return nil
		}, nil), nil
	}})
	for query, want := range map[string]string{
		"stream=1&stdin=1&stdout=1&stderr=1&detachKeys=ctrl-x": "{true true true true false ctrl-x} true true true",
		"logs=1&stdout=1&stderr=1":                             "{false true true false true } false true false", // with a TTY
		"stdin=0&stdout=1&stderr=false":                        "{false true false false false } false true false",
		"":                                                     "{false false false false false } false false false",
	} {
		if reply := d.call("POST", "/containers/x/attach?"+query, ""); reply.status != 200 {
			t.Errorf("%q: %d", query, reply.status)
		} else if got := <-ran; got != want {
			t.Errorf("%q: %s, want %s", query, got, want)
		}
	}
}

// A session that is never run is closed.
func TestSessionsAreClosed(t *testing.T) {
	closed := make(chan struct{})
	d := serve(t, &fake{attach: func(string, engine.AttachOptions) (*engine.AttachSession, error) {
		return engine.NewAttachSession(false, echo, func() { close(closed) }), nil
	}})
	// Not a WebSocket handshake.
	if got := d.get("/containers/x/attach/ws"); got.status != 400 {
		t.Errorf("no handshake: %d %s", got.status, got.body)
	}
	ended(t, "the session without a connection", closed)
}

func TestPanicInASession(t *testing.T) {
	d := attaching(t, false, func(context.Context, engine.StreamIO) error { panic("mid-stream") })
	w := d.dial()
	w.send("POST " + attachAll + " HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
	w.head()
	if rest := w.rest(); rest != "" {
		t.Errorf("output %q", rest)
	}
	w.Close()
	if got := d.get("/_ping"); got.status != 200 {
		t.Errorf("after the panic: %d", got.status)
	}
}

func TestWebsocket(t *testing.T) {
	var got engine.AttachOptions
	f := &fake{attach: func(_ string, opts engine.AttachOptions) (*engine.AttachSession, error) {
		got = opts
		return engine.NewAttachSession(false, echo, nil), nil
	}}
	d := serve(t, f)
	for _, test := range []struct {
		minor int
		query string
		want  string
		frame byte
	}{
		{56, "?stream=1&stdin=1&stdout=1", "true true false", websocket.BinaryFrame},
		{42, "?stream=1&stdin=1&stdout=1&stderr=1", "true true true", websocket.BinaryFrame},
		{41, "?stream=1", "true true true", websocket.BinaryFrame},
		{27, "?stream=1", "true true true", websocket.TextFrame},
	} {
		config, err := websocket.NewConfig(fmt.Sprintf("ws://cleat/v1.%d/containers/x/attach/ws%s", test.minor, test.query), "http://cleat")
		if err != nil {
			t.Fatal(err)
		}
		conn, err := websocket.NewClient(config, d.dial().UnixConn)
		if err != nil {
			t.Fatalf("1.%d: %v", test.minor, err)
		}
		if text := fmt.Sprint(got.Stdin, got.Stdout, got.Stderr); text != test.want || !got.Stream {
			t.Errorf("1.%d: streams %s, want %s", test.minor, text, test.want)
		}
		if _, err := conn.Write([]byte("typed")); err != nil {
			t.Fatal(err)
		}
		reader, err := conn.NewFrameReader()
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(reader)
		if err != nil || string(text) != "typed" || reader.PayloadType() != test.frame {
			t.Errorf("1.%d: %q in a frame of type %d, %v: want it bare in type %d", test.minor, text, reader.PayloadType(), err, test.frame)
		}
		conn.Close()
	}
	// The end of the container closes the socket properly.
	f.attach = func(string, engine.AttachOptions) (*engine.AttachSession, error) {
		return engine.NewAttachSession(false, func(_ context.Context, client engine.StreamIO) error {
			_, err := io.WriteString(client.Stdout, "bye")
			return err
		}, nil), nil
	}
	config, _ := websocket.NewConfig("ws://cleat/containers/x/attach/ws?stream=1&stdout=1", "http://cleat")
	conn, err := websocket.NewClient(config, d.dial().UnixConn)
	if err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(conn); err != nil || string(text) != "bye" {
		t.Errorf("%q %v, want bye and a close frame", text, err)
	}
}

func TestWebsocketEndsWithItsClient(t *testing.T) {
	for _, query := range []string{"stdout=1", "stdin=1&stdout=1"} {
		d, entered, left := attachedUntilGone(t)
		config, _ := websocket.NewConfig("ws://cleat/containers/x/attach/ws?stream=1&"+query, "http://cleat")
		conn, err := websocket.NewClient(config, d.dial().UnixConn)
		if err != nil {
			t.Fatal(err)
		}
		ended(t, "the start of the session", entered)
		conn.Close()
		ended(t, "the session with "+query, left)
	}
}

// Shutdown ends sessions, streams and waits, lets verbs finish, and leaves no
// descriptor behind.
func TestShutdown(t *testing.T) {
	before := descriptors(t)
	entered := make(chan struct{}, 4)
	hold := func(ctx context.Context) { entered <- struct{}{}; <-ctx.Done() }
	verb := make(chan struct{})
	f := &fake{
		attach: func(string, engine.AttachOptions) (*engine.AttachSession, error) {
			return engine.NewAttachSession(false, func(ctx context.Context, _ engine.StreamIO) error { hold(ctx); return nil }, nil), nil
		},
		wait: func(ctx context.Context, _ container.WaitCondition) (<-chan engine.WaitResult, error) {
			entered <- struct{}{}
			return nil, nil
		},
		verb: func(context.Context, string, string) error {
			entered <- struct{}{}
			<-verb
			return nil
		},
	}
	func() {
		d := serve(t, f)
		attached, waiting, stopping := d.dial(), d.dial(), d.dial()
		attached.send("POST " + attachAll + " HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
		waiting.send("POST /containers/x/wait HTTP/1.1\r\nHost: x\r\n\r\n")
		stopping.send("POST /containers/x/stop HTTP/1.1\r\nHost: x\r\n\r\n")
		for range 3 {
			<-entered
		}
		done := make(chan error, 1)
		go func() { done <- d.server.Shutdown(context.Background()) }()
		attached.head()
		attached.rest()
		waiting.head()
		waiting.rest()
		select {
		case err := <-done:
			t.Errorf("shutdown did not wait for the verb: %v", err)
		default:
		}
		close(verb)
		if status, _ := stopping.head(); status != "HTTP/1.1 204 No Content" {
			t.Errorf("the verb was answered with %s", status)
		}
		if err := <-done; err != nil {
			t.Errorf("shutdown: %v", err)
		}
		if _, err := os.Lstat(d.socket); err == nil {
			t.Error("the socket is left behind")
		}
		for _, w := range []*wire{attached, waiting, stopping} {
			w.Close()
		}
	}()
	expect.Eventually(t, fmt.Sprintf("no more than %d descriptors are open, as before", before), func() bool { return descriptors(t) <= before })
}

// A verb that takes too long is cut off.
func TestShutdownIsBounded(t *testing.T) {
	entered, verb := make(chan struct{}), make(chan struct{})
	d := serve(t, &fake{verb: func(context.Context, string, string) error { close(entered); <-verb; return nil }})
	defer close(verb)
	w := d.dial()
	w.send("POST /containers/x/stop HTTP/1.1\r\nHost: x\r\n\r\n")
	<-entered
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := d.server.Shutdown(ctx); err == nil {
		t.Error("shutdown did not tell that it cut a call off")
	}
}

// A client that reads nothing does not keep the engine from ending.
func TestShutdownWithClientsThatStall(t *testing.T) {
	f := &fake{logs: func(string, logs.ReadOptions) (*engine.LogSession, error) {
		return engine.NewLogSession(true, func(ctx context.Context, emit func(stdio.Stream, []byte) error) error {
			for ctx.Err() == nil {
				if err := emit(stdio.Stdout, make([]byte, 64<<10)); err != nil {
					return err
				}
			}
			return nil
		}), nil
	}, attach: func(string, engine.AttachOptions) (*engine.AttachSession, error) {
		return engine.NewAttachSession(true, func(ctx context.Context, client engine.StreamIO) error {
			for ctx.Err() == nil {
				if _, err := client.Stdout.Write(make([]byte, 64<<10)); err != nil {
					return err
				}
			}
			return nil
		}, nil), nil
	}}
	for name, head := range map[string]string{
		"attach": "POST " + attachAll + " HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n",
		"websocket": "GET /containers/x/attach/ws?stream=1&stdout=1 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
			"Origin: http://x\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
		"logs": "GET /containers/x/logs?follow=1&stdout=1 HTTP/1.1\r\nHost: x\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			d := serve(t, f)
			w := d.dial()
			w.send(head)
			w.head() // and nothing after it
			done := make(chan error, 1)
			go func() { done <- d.server.Shutdown(context.Background()) }()
			select {
			case err := <-done:
				if err != nil {
					t.Error(err)
				}
			case <-time.After(patience):
				t.Fatal("the engine waits for a client that does not read")
			}
		})
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
