package registryclient

import (
	"context"
	"net/http"
	"strings"
	"sync/atomic"

	"github.com/containerd/containerd/v2/core/remotes/docker"
)

// authorizer has one request at a time authorized by the library's: that reads of a token that another goroutine is
// fetching when it expires, while that is being written. Nobody waits longer for it, as all need the same token; and who
// waits is let go with its context.
type authorizer struct {
	opts []docker.AuthorizerOpt
	now  atomic.Pointer[docker.Authorizer]
	turn chan struct{} // holds a value while a request is being authorized
}

func newAuthorizer(opts ...docker.AuthorizerOpt) *authorizer {
	a := &authorizer{opts: opts, turn: make(chan struct{}, 1)}
	a.forget()
	return a
}

// forget begins with a library's authorizer that knows nothing.
func (a *authorizer) forget() {
	fresh := docker.NewDockerAuthorizer(a.opts...)
	a.now.Store(&fresh)
}

// Authorize implements docker.Authorizer. The library remembers a fault of a token server as it does a token, and gives it
// to all who ask later. One that may pass is forgotten, so that they ask the token server again.
func (a *authorizer) Authorize(ctx context.Context, req *http.Request) error {
	select {
	case a.turn <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-a.turn }()
	err := (*a.now.Load()).Authorize(ctx, req)
	if err == nil {
		return nil
	}
	if answered, status := statusOf(err); !answered || passingStatus(status.StatusCode) {
		a.forget()
	}
	return err
}

// AddResponses implements docker.Authorizer. A token that was good for an earlier request and is refused now has run out
// or was withdrawn, whether or not the challenge says so by error="invalid_token": the library would go on with it where it
// does not. One that was fetched for this very request is not fetched again.
func (a *authorizer) AddResponses(ctx context.Context, responses []*http.Response) error {
	if len(responses) == 1 && strings.HasPrefix(responses[0].Request.Header.Get("Authorization"), "Bearer ") {
		a.forget()
	}
	return (*a.now.Load()).AddResponses(ctx, responses)
}
