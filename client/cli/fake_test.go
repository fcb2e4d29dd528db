package cli_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
)

const (
	containerID = "4c01db0b339c0d1e6ffb1e4e4c6ab4c1c7b1a1f2b9a3e0d5c6f7a8b9c0d1e2f3"
	execID      = "e0ec0000000000000000000000000000000000000000000000000000000000ff"
	layerDigest = "sha256:8a1e25ce7c4f75e372e9884f8f7b1bedcfe4a7a7d452eb4b0a1c7477c9a90345"
)

// fake is an engine that answers from recorded JSON and keeps what it was asked.
type fake struct {
	socket  string
	version string // newest API version it speaks

	mu       sync.Mutex
	requests []string          // METHOD path?query, without the version
	bodies   map[string][]byte // the last body of METHOD path
	auth     string            // the last credentials for a registry
	custom   []string          // X-Seen/X-Other of each request
	pulled   bool
	attached *bufio.ReadWriter
	conn     net.Conn
	create   map[string]any
	exited   chan struct{}
	// abandoned is closed when the client has given up a pull of "slow".
	abandoned chan struct{}
	signals   []string
}

func newFake(t testing.TB) *fake {
	t.Helper()
	return newFakeOf(t, "1.56")
}

// newFakeOf is newFake whose newest API version is version.
func newFakeOf(t testing.TB, version string) *fake {
	t.Helper()
	dir, err := os.MkdirTemp("", "cleat-cli-")
	if err != nil {
		t.Fatal(err)
	}
	f := &fake{socket: filepath.Join(dir, "s"), version: version, bodies: map[string][]byte{}, exited: make(chan struct{}), abandoned: make(chan struct{})}
	l, err := net.Listen("unix", f.socket)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(http.HandlerFunc(f.serve))
	srv.Listener = l
	srv.Start()
	t.Cleanup(func() {
		f.mu.Lock()
		if f.conn != nil {
			f.conn.Close()
		}
		f.mu.Unlock()
		srv.CloseClientConnections()
		srv.Close()
		os.RemoveAll(dir)
	})
	return f
}

func (f *fake) host() string { return "unix://" + f.socket }

// asked returns the requests so far, pings left out.
func (f *fake) asked() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string(nil), f.requests...)
}

func (f *fake) body(t testing.TB, request string) map[string]any {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	var v map[string]any
	if err := json.Unmarshal(f.bodies[request], &v); err != nil {
		t.Fatalf("body of %s: %v: %q (asked: %v)", request, err, f.bodies[request], f.requests)
	}
	return v
}

func (f *fake) wasKilled() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string(nil), f.signals...)
}

var versioned = regexp.MustCompile(`^/v(1\.\d+)(/.*)$`)

func refuse(w http.ResponseWriter, code int, format string, args ...any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	json.NewEncoder(w).Encode(map[string]string{"message": fmt.Sprintf(format, args...)})
}

func (f *fake) serve(w http.ResponseWriter, r *http.Request) {
	path := r.URL.Path
	if path == "/_ping" {
		w.Header().Set("Api-Version", f.version)
		w.Header().Set("Ostype", "linux")
		w.Header().Set("Builder-Version", "2")
		return
	}
	if m := versioned.FindStringSubmatch(path); m != nil {
		path = m[2]
		if len(m[1]) == len(f.version) && m[1] > f.version {
			refuse(w, 400, "client version %s is too new. Maximum supported API version is %s", m[1], f.version)
			return
		}
	}
	var body []byte
	if r.Header.Get("Upgrade") == "" || r.ContentLength > 0 {
		body, _ = io.ReadAll(r.Body)
	}
	f.mu.Lock()
	query, _ := url.QueryUnescape(r.URL.RawQuery)
	if query != "" {
		query = "?" + query
	}
	f.requests = append(f.requests, r.Method+" "+path+query)
	f.custom = append(f.custom, r.Header.Get("X-Seen")+"/"+r.Header.Get("X-Other"))
	f.bodies[r.Method+" "+path] = body
	f.mu.Unlock()
	parts := strings.Split(strings.Trim(path, "/"), "/")
	switch parts[0] {
	case "containers":
		f.containers(w, r, parts[1:], body)
	case "exec":
		f.execs(w, r, parts[1:], body)
	case "images":
		f.images(w, r, strings.Join(parts[1:], "/"))
	case "volumes", "networks":
		f.objects(w, r, parts)
	case "info", "version":
		recorded(w, parts[0]+".json")
	case "events":
		recorded(w, "events.json")
	case "system":
		recorded(w, "diskusage.json")
	default:
		refuse(w, 404, "page not found")
	}
}

// recorded answers with a file of testdata.
func recorded(w http.ResponseWriter, name string) {
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		refuse(w, 500, "%v", err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Write(b)
}

func (f *fake) containers(w http.ResponseWriter, r *http.Request, parts []string, body []byte) {
	if parts[0] == "json" {
		recorded(w, "containers.json")
		return
	}
	if parts[0] == "create" {
		f.createContainer(w, body)
		return
	}
	name := parts[0]
	if strings.HasPrefix(name, "no-such") {
		refuse(w, 404, "No such container: %s", name)
		return
	}
	verb := ""
	if len(parts) > 1 {
		verb = parts[1]
	}
	switch verb {
	case "json":
		f.describe(w)
	case "attach":
		f.attach(w)
	case "start":
		f.start(w, name)
	case "wait":
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(200)
		w.(http.Flusher).Flush()
		select {
		case <-f.exited:
		case <-r.Context().Done():
			return
		}
		fmt.Fprintf(w, `{"StatusCode":%d}`, f.exitCode())
	case "kill":
		f.mu.Lock()
		f.signals = append(f.signals, r.URL.Query().Get("signal"))
		f.mu.Unlock()
		if r.URL.Query().Get("signal") == "TERM" {
			f.finish()
		}
		w.WriteHeader(204)
	case "exec":
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(201)
		fmt.Fprintf(w, `{"Id":%q}`, execID)
	case "logs":
		f.logs(w)
	case "resize", "stop", "restart", "rename":
		w.WriteHeader(204)
	case "":
		if name == "running" {
			refuse(w, 409, "cannot remove container \"/running\": container is running: stop the container before removing or force remove")
			return
		}
		w.WriteHeader(204)
	default:
		refuse(w, 404, "page not found")
	}
}

// describe answers with the recorded container, which has a terminal if the one that was created has.
func (f *fake) describe(w http.ResponseWriter) {
	f.mu.Lock()
	tty, _ := f.create["Tty"].(bool)
	f.mu.Unlock()
	if !tty {
		recorded(w, "container.json")
		return
	}
	b, err := os.ReadFile(filepath.Join("testdata", "container.json"))
	if err != nil {
		refuse(w, 500, "%v", err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Write(bytes.ReplaceAll(bytes.ReplaceAll(b, []byte(`"Tty": false`), []byte(`"Tty": true`)), []byte(`"OpenStdin": false`), []byte(`"OpenStdin": true`)))
}

func (f *fake) createContainer(w http.ResponseWriter, body []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.create = nil
	if err := json.Unmarshal(body, &f.create); err != nil {
		refuse(w, 400, "%v", err)
		return
	}
	image, _ := f.create["Image"].(string)
	switch {
	case (strings.HasPrefix(image, "missing") || image == "slow") && !f.pulled:
		refuse(w, 404, "No such image: %s", image)
		return
	case image == "conflict":
		refuse(w, 409, "Conflict. The container name \"/x\" is already in use by container \"%s\". You have to remove (or rename) that container to be able to reuse that name.", containerID)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(201)
	fmt.Fprintf(w, `{"Id":%q,"Warnings":["the kernel cannot count swap"]}`, containerID)
}

func (f *fake) command() []string {
	var out []string
	cmd, _ := f.create["Cmd"].([]any)
	for _, c := range cmd {
		out = append(out, c.(string))
	}
	return out
}

func (f *fake) exitCode() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	var n int
	if c := f.command(); len(c) == 2 && c[0] == "exit" {
		fmt.Sscan(c[1], &n)
	}
	return n
}

func (f *fake) hijack(w http.ResponseWriter, tty bool) (net.Conn, *bufio.ReadWriter) {
	conn, rw, err := w.(http.Hijacker).Hijack()
	if err != nil {
		panic(err)
	}
	kind := "multiplexed"
	if tty {
		kind = "raw"
	}
	fmt.Fprintf(conn, "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.%s-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n", kind)
	return conn, rw
}

func (f *fake) attach(w http.ResponseWriter) {
	f.mu.Lock()
	tty, _ := f.create["Tty"].(bool)
	f.mu.Unlock()
	f.mu.Lock() // the client starts the container as soon as it has its stream
	conn, rw := f.hijack(w, tty)
	f.conn, f.attached = conn, rw
	f.mu.Unlock()
	select {
	case <-f.exited:
		conn.Close()
	default:
	}
}

func frame(stream byte, text string) []byte {
	head := []byte{stream, 0, 0, 0, 0, 0, 0, 0}
	binary.BigEndian.PutUint32(head[4:], uint32(len(text)))
	return append(head, text...)
}

// finish ends the container.
func (f *fake) finish() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.conn != nil {
		f.conn.Close()
		f.conn = nil
	}
	select {
	case <-f.exited:
	default:
		close(f.exited)
	}
}

// start plays the program that the container's command names.
func (f *fake) start(w http.ResponseWriter, name string) {
	f.mu.Lock()
	cmd, conn, rw := f.command(), f.conn, f.attached
	f.mu.Unlock()
	program := ""
	if len(cmd) > 0 {
		program = cmd[0]
	}
	fail := func(code int, text string) { refuse(w, code, "%s", text) }
	switch {
	case program == "nocmd":
		fail(400, `failed to create task for container: failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: error during container init: exec: "nocmd": executable file not found in $PATH: unknown`)
		return
	case program == "noperm":
		fail(400, `failed to create task for container: exec: "/etc/passwd": permission denied: unknown`)
		return
	case program == "noport" || name == "noport":
		fail(500, "driver failed programming external connectivity on endpoint x: Bind for 0.0.0.0:80 failed: port is already allocated")
		return
	}
	w.WriteHeader(204)
	if conn == nil {
		return
	}
	go func() {
		switch program {
		case "cat":
			io.Copy(writerFunc(func(p []byte) (int, error) { conn.Write(frame(1, string(p))); return len(p), nil }), rw)
		case "shell": // a terminal's program: says hello, echoes, and ends with the line "exit"
			io.WriteString(conn, "$ ")
			for line := ""; ; {
				b, err := rw.ReadByte()
				if err != nil {
					return
				}
				conn.Write([]byte{b})
				if b != '\r' {
					line += string(b)
					continue
				}
				io.WriteString(conn, "\n")
				if line == "exit" {
					f.finish()
					return
				}
				line = ""
				io.WriteString(conn, "$ ")
			}
		case "wait":
			<-f.exited
			return
		default:
			conn.Write(frame(1, "to stdout\n"))
			conn.Write(frame(2, "to stderr\n"))
		}
		f.finish()
	}()
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func (f *fake) execs(w http.ResponseWriter, r *http.Request, parts []string, body []byte) {
	switch parts[1] {
	case "json":
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"ID":%q,"Running":false,"ExitCode":7}`, execID)
	case "resize":
		w.WriteHeader(200)
	case "start":
		var req struct{ Detach, Tty bool }
		json.Unmarshal(body, &req)
		if req.Detach {
			w.WriteHeader(200)
			return
		}
		conn, rw := f.hijack(w, req.Tty)
		conn.Write(frame(1, "exec out\n"))
		conn.Write(frame(2, "exec err\n"))
		in, _ := io.ReadAll(rw)
		conn.Write(frame(1, string(in)))
		conn.Close()
	}
}

func (f *fake) logs(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/vnd.docker.multiplexed-stream")
	w.Write(frame(1, "line one\n"))
	w.Write(frame(2, "an error\n"))
	w.Write(frame(1, "line two\n"))
}

func (f *fake) images(w http.ResponseWriter, r *http.Request, rest string) {
	switch {
	case rest == "json":
		recorded(w, "images.json")
	case rest == "create":
		f.mu.Lock()
		f.pulled, f.auth = true, r.Header.Get("X-Registry-Auth")
		f.mu.Unlock()
		if r.URL.Query().Get("fromImage") == "slow" || r.URL.Query().Get("fromImage") == "docker.io/library/slow" {
			w.Header().Set("Content-Type", "application/json")
			io.WriteString(w, `{"status":"Pulling fs layer","progressDetail":{},"id":"8a1e25ce7c4f"}`+"\n")
			w.(http.Flusher).Flush()
			<-r.Context().Done()
			close(f.abandoned)
			return
		}
		if r.URL.Query().Get("fromImage") == "docker.io/library/denied" || r.URL.Query().Get("fromImage") == "denied" {
			refuse(w, 404, "pull access denied for denied, repository does not exist or may require 'docker login'")
			return
		}
		recorded(w, "pull.json")
	case rest == "load":
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"stream":"Loaded image: hello-world:latest\n"}`)
	case strings.HasSuffix(rest, "/history"):
		recorded(w, "history.json")
	case strings.HasSuffix(rest, "/tag"):
		w.WriteHeader(201)
	case strings.Contains(rest, "no-such"):
		refuse(w, 404, "No such image: %s:latest", strings.TrimSuffix(rest, "/json"))
	case r.Method == http.MethodDelete && rest == "used":
		refuse(w, 409, "conflict: unable to remove repository reference \"used\" (must force) - container 4c01db0b339c is using its referenced image")
	case r.Method == http.MethodDelete:
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `[{"Untagged":"hello-world:latest"},{"Deleted":%q}]`, layerDigest)
	default:
		recorded(w, "image.json")
	}
}

func (f *fake) objects(w http.ResponseWriter, r *http.Request, parts []string) {
	switch {
	case len(parts) == 1:
		recorded(w, parts[0]+".json")
	case r.Method == http.MethodPost:
		recorded(w, "volume.json")
	case strings.HasPrefix(parts[1], "no-such"):
		refuse(w, 404, "get %s: no such volume", parts[1])
	case parts[1] == "nginx":
		refuse(w, 404, "%s nginx not found", strings.TrimSuffix(parts[0], "s"))
	case r.Method == http.MethodDelete && parts[1] == "used":
		refuse(w, 409, "remove used: volume is in use - [%s]", containerID)
	case r.Method == http.MethodDelete:
		w.WriteHeader(204)
	default:
		recorded(w, strings.TrimSuffix(parts[0], "s")+".json")
	}
}
