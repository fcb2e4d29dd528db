package cli_test

import (
	"bytes"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// asksTheEngine are lines that have an engine answer in every way that there is.
var asksTheEngine = []string{
	"attach web", "commit web x", "cp web:/a -", "cp - web:/a", "cp web:/a /nonexistent/x", "cp /etc/hostname web:/a", "cp -L web:/a -", "create nginx", "diff web",
	"events --until 1", "events --until 1 --format json", "exec web ls", "exec -d web ls", "export web", "history nginx", "history --format json nginx",
	"images", "images -a --digests", "images --tree", "images --format json", "import - x", "info", "info --format json", "inspect web", "inspect -f {{.Name}} web",
	"inspect --type image nginx", "inspect -s --type container -f {{.NetworkSettings.IPAddress}} web", "kill web", "load", "logs web", "logs -f -t web", "pause web", "port web", "port web 80",
	"ps", "ps -as", "ps --format json", "ps --no-trunc", "pull nginx", "push x", "rename web web2", "restart web", "rm -f web", "rmi nginx", "run nginx", "run -d nginx",
	"run --rm -i nginx", "save nginx", "search nginx", "search --format json nginx", "start web", "start -a web", "start -ai web", "stats --no-stream", "stats --no-stream web",
	"stats --no-stream --format json web", "stop web", "tag a b", "top web", "unpause web", "update --memory 10m web", "version", "version --format json", "wait web",
	"container prune -f", "container inspect web", "image prune -af", "image inspect nginx", "image inspect -f {{.VirtualSize}}{{.Parent}} nginx",
	"volume create", "volume inspect v", "volume ls", "volume ls --format json", "volume ls --cluster", "volume prune -f", "volume rm v", "volume update v",
	"volume clone a b", "volume rename a b", "volume snapshot v", "volume snapshots v", "volume restore v s", "volume export v", "volume import v -",
	"network check web", "network connect n web", "network create n", "network disconnect n web", "network inspect n", "network ls", "network ls --format json", "network prune -f", "network rm n",
	"system df", "system df -v", "system df --format json", "system df -v --format json", "system prune -af --volumes", "__complete stop ", "__complete rmi ", "__complete volume rm ", "__complete network rm ",
}

// A foreign engine, or a proxy in front of one, may answer anything: the client tells what is wrong, or shows what it has
// been told, and always ends.
func TestForeignEngines(t *testing.T) {
	for name, answer := range map[string]string{
		"nothing": "", "an object": "{}", "null": "null", "a list": "[]", "a list of null": "[null]", "a list of objects": "[{}]", "cut off": `{"Id":"4c0`, "a text": `"text"`,
		"a number": "1e999", "a page": "<html>\x1b[2J</html>", "frames": "\x01\x00\x00\x00\x00\x00\x00\x05hello\x03\x00\x00\x00\xff\xff\xff\xffgone",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host := serveUnix(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				_, _ = w.Write([]byte(answer))
			})
			for _, line := range asksTheEngine {
				survives(t, host, line)
			}
		})
	}
}

// So may one that answers as Docker's does, but for what it says nothing of.
func TestEnginesThatSayLess(t *testing.T) {
	for depth := range 6 {
		t.Run(strings.Repeat("deeper ", depth), func(t *testing.T) {
			t.Parallel()
			f := newFake(t)
			f.finish() // what is waited for has ended
			host := serveUnix(t, func(w http.ResponseWriter, r *http.Request) {
				if strings.HasSuffix(r.URL.Path, "/attach") || strings.HasSuffix(r.URL.Path, "/start") {
					f.serve(w, r)
					return
				}
				whole := httptest.NewRecorder()
				f.serve(whole, r)
				for key, values := range whole.Header() {
					w.Header()[key] = values
				}
				w.WriteHeader(whole.Code)
				_, _ = w.Write(withoutWhatIs(depth, whole.Body.Bytes()))
			})
			for _, line := range asksTheEngine {
				survives(t, host, line)
			}
		})
	}
}

// survives runs the client and holds it to an end of its own.
func survives(t *testing.T, host, line string) {
	t.Helper()
	args := strings.Fields(line)
	if strings.HasSuffix(line, " ") {
		args = append(args, "")
	}
	r := call(t, program, host, "", args...)
	if strings.Contains(r.stderr, "goroutine ") || r.code < 0 || r.code == 2 {
		t.Errorf("%s: exit code %d: %s", line, r.code, r.stderr[:min(len(r.stderr), 600)])
	}
}

// serveUnix answers pings as an engine does, and all else by answer.
func serveUnix(t *testing.T, answer http.HandlerFunc) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "cleat-cli-") // a test's own has too long a name for a socket
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/_ping" {
			w.Header().Set("Api-Version", "1.56")
			return
		}
		answer(w, r)
	}))
	srv.Listener = l
	srv.Start()
	t.Cleanup(func() { srv.CloseClientConnections(); srv.Close(); os.RemoveAll(dir) })
	return "unix://" + socket
}

// withoutWhatIs has null in the place of everything in JSON documents that is so deep. What is no JSON stays as it is.
func withoutWhatIs(depth int, text []byte) []byte {
	var out bytes.Buffer
	for dec := json.NewDecoder(bytes.NewReader(text)); ; {
		var v any
		if dec.Decode(&v) != nil {
			break
		}
		_ = json.NewEncoder(&out).Encode(cutAt(depth, v))
	}
	if out.Len() == 0 {
		return text
	}
	return out.Bytes()
}

func cutAt(depth int, v any) any {
	if depth == 0 {
		return nil
	}
	switch v := v.(type) {
	case map[string]any:
		for key, inner := range v {
			v[key] = cutAt(depth-1, inner)
		}
	case []any:
		for i, inner := range v {
			v[i] = cutAt(depth-1, inner)
		}
	}
	return v
}
