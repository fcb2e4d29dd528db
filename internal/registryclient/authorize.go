package registryclient

import (
	"context"
	"net/http"

	"github.com/containerd/containerd/v2/core/remotes/docker"
)

// authorizer has one request at a time authorized by the library's: that reads of a token that another goroutine is
// fetching when it expires, while that is being written. Nobody waits longer for it, as all need the same token; and who
// waits is let go with its context.
type authorizer struct {
	docker.Authorizer
	turn chan struct{} // holds a value while a request is being authorized
}

func newAuthorizer(opts ...docker.AuthorizerOpt) *authorizer {
	return &authorizer{Authorizer: docker.NewDockerAuthorizer(opts...), turn: make(chan struct{}, 1)}
}

// Authorize implements docker.Authorizer.
func (a *authorizer) Authorize(ctx context.Context, req *http.Request) error {
	select {
	case a.turn <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-a.turn }()
	return a.Authorizer.Authorize(ctx, req)
}
