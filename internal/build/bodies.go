package build

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"

	"github.com/moby/buildkit/identity"
)

// bodies lets BuildKit fetch the body of a request to the engine as if it were a file on
// the web: it knows no other way to a context that comes as a stream.
type bodies struct {
	// outside fetches everything else.
	outside http.RoundTripper

	mu      sync.Mutex
	waiting map[string]io.Reader
}

// bodyHost begins the name of a host that is a body. No name server is asked for it.
const bodyHost = "build-context-"

// add gives the URL under which r can be fetched, once.
func (b *bodies) add(r io.Reader) (url string, forget func()) {
	host := bodyHost + identity.NewID()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.waiting == nil {
		b.waiting = map[string]io.Reader{}
	}
	b.waiting[host] = r
	return "http://" + host, func() { b.take(host) }
}

func (b *bodies) take(host string) io.Reader {
	b.mu.Lock()
	defer b.mu.Unlock()
	r := b.waiting[host]
	delete(b.waiting, host)
	return r
}

// RoundTrip answers for bodies.
func (b *bodies) RoundTrip(req *http.Request) (*http.Response, error) {
	if !strings.HasPrefix(req.URL.Host, bodyHost) {
		return b.outside.RoundTrip(req)
	}
	if req.Method != http.MethodGet {
		return nil, fmt.Errorf("the build's context cannot be asked with %s", req.Method)
	}
	r := b.take(req.URL.Host)
	if r == nil {
		return nil, fmt.Errorf("the build's context was read already")
	}
	return &http.Response{
		Status: "200 OK", StatusCode: http.StatusOK, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{}, Body: io.NopCloser(r), ContentLength: -1, Request: req,
	}, nil
}
