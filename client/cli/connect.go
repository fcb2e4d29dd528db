package cli

import (
	"context"
	"os"

	"github.com/moby/moby/client"
)

// contextName is the context in force.
func (a *app) contextName() string { return a.globals.ContextName(a.config) }

// api makes the client of the engine at the first use. Nothing is sent yet.
func (a *app) api() (*client.Client, error) {
	if a.conn != nil {
		return a.conn, nil
	}
	version := os.Getenv("DOCKER_API_VERSION")
	if version == "" && !a.negotiate {
		version = client.MaxAPIVersion
	}
	c, err := a.connect(version)
	if err != nil {
		return nil, err
	}
	a.conn = c
	return c, nil
}

// connect makes a client that speaks one version of the API, or with "" the one
// that it and the engine agree upon.
func (a *app) connect(version string) (*client.Client, error) {
	var options []client.Opt
	if version != "" {
		options = append(options, client.WithAPIVersion(version))
	}
	c, host, err := a.globals.Client(a.config, a.userAgent(), options...)
	a.host = host
	return c, err
}

// negotiated is api, having asked the engine which version it speaks: for requests
// that cannot be sent twice.
func (a *app) negotiated(ctx context.Context) (*client.Client, error) {
	c, err := a.api()
	if err != nil || a.negotiate || os.Getenv("DOCKER_API_VERSION") != "" {
		return c, err
	}
	_, err = c.Ping(ctx, client.PingOptions{NegotiateAPIVersion: true, ForceNegotiate: true})
	return c, err
}

func (a *app) userAgent() string { return "cleat-client/" + a.version + " (linux)" }
