package command

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"regexp"
	"strings"
	"sync"

	"github.com/moby/moby/client"
)

// rehearsal answers the calls that would change something as an engine would, and passes all others on to the real one.
// It is what a dry run speaks to: every command does all that it does, and nothing happens.
type rehearsal struct {
	real *httputil.ReverseProxy

	mu   sync.Mutex
	made map[string]bool // ids that were given out
}

// rehearse is a client of an engine that only pretends to act. It lives as long as the process.
func rehearse(real *client.Client, options ...client.Opt) (*client.Client, error) {
	dial := real.Dialer()
	r := &rehearsal{made: map[string]bool{}, real: &httputil.ReverseProxy{
		Rewrite:       func(p *httputil.ProxyRequest) { p.Out.URL.Scheme, p.Out.URL.Host = "http", client.DummyHost },
		Transport:     &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) }},
		FlushInterval: -1, // events are streams
	}}
	ln := &pipes{conns: make(chan net.Conn)}
	go func() { _ = http.Serve(ln, r) }() //nolint:gosec // its only client is this process
	return client.New(append(options, client.WithHost("tcp://"+client.DummyHost), client.WithDialContext(ln.dial))...)
}

// pipes is a listener within the process.
type pipes struct{ conns chan net.Conn }

func (p *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	here, there := net.Pipe()
	select {
	case p.conns <- there:
		return here, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Accept implements net.Listener.
func (p *pipes) Accept() (net.Conn, error) { return <-p.conns, nil }

// Close implements net.Listener.
func (p *pipes) Close() error { return nil }

// Addr implements net.Listener.
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "rehearsal"} }

// changing tells the calls by their paths, without version.
var changing = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^(?:/v[0-9.]+)?/(containers|networks|volumes|images|build|exec)(/.*)?$`)
})

// ServeHTTP implements http.Handler.
func (r *rehearsal) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	parts := changing().FindStringSubmatch(q.URL.Path)
	switch {
	case q.Method == http.MethodGet && parts != nil && r.pretended(w, parts[1], parts[2]):
	case q.Method == http.MethodGet || q.Method == http.MethodHead || parts == nil:
		r.real.ServeHTTP(w, q)
	default:
		_, _ = io.Copy(io.Discard, q.Body)
		r.act(w, q, parts[1], parts[2])
	}
}

// act answers a change that is not made.
func (r *rehearsal) act(w http.ResponseWriter, q *http.Request, kind, rest string) {
	answer := func(status int, v any) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		if v != nil {
			_ = json.NewEncoder(w).Encode(v)
		}
	}
	switch {
	case kind == "volumes" && rest == "/create":
		answer(http.StatusCreated, map[string]any{"Name": q.URL.Query().Get("name"), "Driver": "local"})
	case rest == "/create" && kind != "images":
		answer(http.StatusCreated, map[string]any{"Id": r.make(kind + q.URL.Query().Get("name")), "Warnings": []string{}})
	case kind == "images" && q.Method == http.MethodDelete:
		answer(http.StatusOK, []any{})
	case kind == "images" || strings.HasSuffix(rest, "/connect"):
		answer(http.StatusOK, nil)
	case strings.HasSuffix(rest, "/wait"):
		answer(http.StatusOK, map[string]any{"StatusCode": 0})
	default:
		answer(http.StatusNoContent, nil)
	}
}

func (r *rehearsal) make(name string) string {
	sum := sha256.Sum256([]byte(name))
	id := hex.EncodeToString(sum[:])
	r.mu.Lock()
	defer r.mu.Unlock()
	r.made[id] = true
	return id
}

// pretended answers for a container that was not really made: it runs, and is healthy.
func (r *rehearsal) pretended(w http.ResponseWriter, kind, rest string) bool {
	id, isInspect := strings.CutSuffix(strings.TrimPrefix(rest, "/"), "/json")
	r.mu.Lock()
	known := r.made[id]
	r.mu.Unlock()
	if kind != "containers" || !isInspect || !known {
		return false
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = fmt.Fprintf(w, `{"Id":%q,"State":{"Status":"running","Running":true,"Health":{"Status":"healthy"}},"Config":{},"HostConfig":{}}`, id)
	return true
}
