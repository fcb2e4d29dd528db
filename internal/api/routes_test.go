package api_test

import (
	"bufio"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// description opens the API description that comes with the module of the API's types.
func description(t *testing.T) *os.File {
	t.Helper()
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/moby/moby/api").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	file, err := os.Open(filepath.Join(strings.TrimSpace(string(dir)), "swagger.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	return file
}

// operation is one of the API description.
type operation struct{ method, path string }

// described reads the operations out of the API description.
func described(t *testing.T) []operation {
	t.Helper()
	file := description(t)
	var operations []operation
	var path string
	inPaths := false
	for scan := bufio.NewScanner(file); scan.Scan(); {
		line := scan.Text()
		key := strings.TrimSuffix(strings.TrimSpace(line), ":")
		switch {
		case len(line) > 0 && line[0] != ' ' && line[0] != '#':
			inPaths = key == "paths"
		case !inPaths:
		case strings.HasPrefix(line, "  /"):
			path = key
		case strings.HasPrefix(line, "    ") && line[4] != ' ':
			switch key {
			case "get", "head", "post", "put", "delete":
				operations = append(operations, operation{strings.ToUpper(key), path})
			}
		}
	}
	if len(operations) < 100 {
		t.Fatalf("found only %d operations: the description is not read right", len(operations))
	}
	return operations
}

// served are the operations whose answer depends on the engine. All others are
// refused, and say why.
var served = map[operation]bool{
	{"GET", "/_ping"}: true, {"HEAD", "/_ping"}: true, {"GET", "/version"}: true, {"GET", "/info"}: true, {"GET", "/events"}: true,
	{"GET", "/containers/json"}: true, {"POST", "/containers/create"}: true, {"GET", "/containers/{id}/json"}: true,
	{"POST", "/containers/{id}/start"}: true, {"POST", "/containers/{id}/stop"}: true, {"POST", "/containers/{id}/restart"}: true,
	{"POST", "/containers/{id}/kill"}: true, {"POST", "/containers/{id}/wait"}: true, {"POST", "/containers/{id}/rename"}: true,
	{"GET", "/containers/{id}/top"}: true, {"GET", "/containers/{id}/stats"}: true, {"POST", "/containers/{id}/update"}: true, {"POST", "/containers/{id}/pause"}: true, {"POST", "/containers/{id}/unpause"}: true,
	{"POST", "/containers/{id}/resize"}: true, {"POST", "/containers/{id}/attach"}: true, {"GET", "/containers/{id}/attach/ws"}: true,
	{"GET", "/containers/{id}/logs"}: true, {"DELETE", "/containers/{id}"}: true,
	{"POST", "/containers/{id}/exec"}: true, {"POST", "/exec/{id}/start"}: true, {"POST", "/exec/{id}/resize"}: true, {"GET", "/exec/{id}/json"}: true,
	{"POST", "/containers/prune"}: true, {"POST", "/images/prune"}: true, {"POST", "/build/prune"}: true, {"POST", "/build"}: true, {"POST", "/session"}: true, {"GET", "/system/df"}: true,
	{"GET", "/containers/{id}/changes"}: true, {"GET", "/containers/{id}/export"}: true, {"POST", "/commit"}: true, {"POST", "/auth"}: true,
	{"GET", "/images/get"}: true, {"GET", "/images/{name}/get"}: true,
	{"HEAD", "/containers/{id}/archive"}: true, {"GET", "/containers/{id}/archive"}: true, {"PUT", "/containers/{id}/archive"}: true,
	{"GET", "/images/json"}: true, {"POST", "/images/create"}: true, {"POST", "/images/load"}: true, {"GET", "/images/{name}/json"}: true,
	{"GET", "/images/{name}/history"}: true, {"GET", "/images/{name}/attestations"}: true, {"POST", "/images/{name}/tag"}: true, {"POST", "/images/{name}/push"}: true, {"GET", "/images/search"}: true, {"GET", "/distribution/{name}/json"}: true, {"DELETE", "/images/{name}"}: true,
	{"GET", "/volumes"}: true, {"POST", "/volumes/create"}: true, {"POST", "/volumes/prune"}: true, {"GET", "/volumes/{name}"}: true, {"DELETE", "/volumes/{name}"}: true,
	{"GET", "/networks"}: true, {"GET", "/networks/{id}"}: true, {"DELETE", "/networks/{id}"}: true, {"POST", "/networks/create"}: true,
	{"POST", "/networks/{id}/connect"}: true, {"POST", "/networks/{id}/disconnect"}: true, {"POST", "/networks/prune"}: true,
	{"GET", "/plugins"}: true, {"GET", "/plugins/{name}/json"}: true,
}

// Every operation of the API description is served, or refused by name.
func TestEveryOperationIsAnswered(t *testing.T) {
	d := serve(t, &fake{})
	left := map[operation]bool{}
	for op := range served {
		left[op] = true
	}
	for _, op := range described(t) {
		path := strings.NewReplacer("{id}", "abc", "{name}", "abc").Replace(op.path)
		got := d.call(op.method, "/v1.56"+path, "")
		text := got.message()
		if op.method == http.MethodHead {
			text = ""
		}
		if strings.Contains(text, "page not found") {
			t.Errorf("%s %s is not routed", op.method, op.path)
			continue
		}
		if served[op] {
			delete(left, op)
			if got.status == http.StatusNotImplemented || got.status == http.StatusServiceUnavailable {
				t.Errorf("%s %s shall be served, but is refused: %s", op.method, op.path, got.body)
			}
			continue
		}
		swarm := false
		for _, prefix := range []string{"/swarm", "/nodes", "/services", "/tasks", "/secrets", "/configs"} {
			swarm = swarm || strings.HasPrefix(op.path, prefix)
		}
		switch {
		case op.method == http.MethodHead:
			if got.status != http.StatusNotImplemented {
				t.Errorf("%s %s: status %d, want 501", op.method, op.path, got.status)
			}
		case op.path == "/swarm/init" || op.path == "/swarm/join":
			if got.status != http.StatusNotImplemented || !strings.Contains(text, "swarm mode") {
				t.Errorf("%s %s: %d %q, want a 501 that names swarm mode", op.method, op.path, got.status, text)
			}
		case op.path == "/swarm/leave":
			if got.status != http.StatusServiceUnavailable || !strings.Contains(text, "not part of a swarm") {
				t.Errorf("%s %s: %d %q", op.method, op.path, got.status, text)
			}
		case swarm:
			if got.status != http.StatusServiceUnavailable || !strings.Contains(text, "docker swarm init") {
				t.Errorf("%s %s: %d %q, want a 503 that names docker swarm init", op.method, op.path, got.status, text)
			}
		case op == operation{"PUT", "/volumes/{name}"}:
			if got.status != http.StatusServiceUnavailable || !strings.Contains(text, "swarm is unavailable") {
				t.Errorf("%s %s: %d %q", op.method, op.path, got.status, text)
			}
		default:
			if got.status != http.StatusNotImplemented || !strings.HasSuffix(text, "is not supported by this version of Cleat yet") || len(text) < 50 {
				t.Errorf("%s %s: %d %q, want a 501 that names what is missing", op.method, op.path, got.status, text)
			}
		}
	}
	for op := range left {
		t.Errorf("%s %s is served but not in the API description", op.method, op.path)
	}
}

// The names in a path reach the engine as the client meant them.
func TestNamesInPaths(t *testing.T) {
	for _, test := range []struct{ method, path, call string }{
		{"GET", "/containers/web/json", "inspect web"},
		{"GET", "/v1.24/containers/web/json", "inspect web"},
		{"GET", "/v1.56/containers/%2Fweb/json", "inspect /web"},
		{"GET", "/containers//web/json", "inspect /web"},
		{"POST", "//containers/web/start", "start web"},
		{"POST", "//v1.41/containers/web/start", "start web"},
		{"POST", "/v1.41//containers/web/start", "start web"},
		{"GET", "/containers/json/json", "inspect json"},
		{"POST", "/containers/a%20b/start", "start a b"},
		{"POST", "/containers/create/start", "start create"},
		{"DELETE", "/v1.41/containers/x", "remove x"},
		{"POST", "/exec/0123/start", "exec start 0123"},
	} {
		f := &fake{}
		d := serve(t, f)
		d.call(test.method, test.path, "")
		if len(f.calls) != 1 || f.calls[0] != test.call {
			t.Errorf("%s %s called %q, want %q", test.method, test.path, f.calls, test.call)
		}
	}
}

func TestImageNamesInPaths(t *testing.T) {
	d := serve(t, &fake{})
	for path, name := range map[string]string{
		"/images/nginx/json":                                    "nginx",
		"/v1.24/images/host:5000/a/b:tag/json":                  "host:5000/a/b:tag",
		"/v1.56/images/host%3A5000%2Fa%2Fb:tag/json":            "host:5000/a/b:tag",
		"/images/quay.io/x/y@sha256:00ff/history":               "quay.io/x/y@sha256:00ff",
		"/images/json/json":                                     "json",
		"/images/a/json/history":                                "a/json",
		"/images/sha256:7a/json?platform=&manifests=0&unknown=": "sha256:7a",
	} {
		got := d.get(path)
		if want := "No such image: " + name; got.status != http.StatusNotFound || got.message() != want {
			t.Errorf("GET %s: %d %q, want 404 %q", path, got.status, got.message(), want)
		}
	}
}

func TestUnknownPaths(t *testing.T) {
	d := serve(t, &fake{})
	for _, call := range []string{
		"GET /", "GET /nothing", "GET /v1.40", "GET /v1.40/", "GET /v1.40/nothing", "GET /vx/info", "GET /v/info",
		"POST /containers/json", "PUT /containers/create", "GET /containers/abc/start", "DELETE /info", "PATCH /version",
		"GET /containers//json", "GET /containers/%zz/json", "GET /images//json", "DELETE /images/", "POST /_ping", "GET /containers/",
	} {
		method, path, _ := strings.Cut(call, " ")
		w := d.dial() // net/http's client would not send some of these
		w.send(method + " " + path + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
		status, header := w.head()
		body := w.rest()
		if strings.Contains(path, "%zz") {
			if status != "HTTP/1.1 400 Bad Request" {
				t.Errorf("%s: %s", call, status)
			}
			continue
		}
		if status != "HTTP/1.1 404 Not Found" || body != "{\"message\":\"page not found\"}\n" || header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: %s %q (%s), want 404 page not found in JSON", call, status, body, header.Get("Content-Type"))
		}
	}
	if n := d.fake.callCount(); n != 0 {
		t.Errorf("the engine was called %d times", n)
	}
}
