package solve

import (
	"context"
	"errors"
	"net"

	"github.com/docker/cli/cli/config/configfile"
	bkclient "github.com/moby/buildkit/client"
	_ "github.com/moby/buildkit/util/grpcutil/encoding/proto" // generated code instead of reflection, on both ends
	"github.com/moby/moby/client"
)

// Engine is the connection to the engine that builds.
type Engine struct {
	API    *client.Client
	Config *configfile.ConfigFile // credentials and proxies

	bk *bkclient.Client
}

// hostGatewayLabel is where a worker tells the address that host-gateway stands for.
const hostGatewayLabel = "org.mobyproject.buildkit.worker.moby.host-gateway-ip"

// BuildKit is the engine's BuildKit. Nothing is sent before the first call.
func (e *Engine) BuildKit(ctx context.Context) (*bkclient.Client, error) {
	if e.bk != nil {
		return e.bk, nil
	}
	c, err := bkclient.New(ctx, "",
		bkclient.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return e.Hijack(ctx, "/grpc", "h2c", nil)
		}),
		bkclient.WithSessionDialer(func(ctx context.Context, proto string, meta map[string][]string) (net.Conn, error) {
			conn, err := e.Hijack(ctx, "/session", proto, meta)
			if err != nil {
				return nil, err
			}
			return gather(conn), nil
		}))
	e.bk = c
	return c, err
}

// Close ends the connection. Builds that still run are cancelled by it.
func (e *Engine) Close() {
	if e.bk != nil {
		_ = e.bk.Close()
	}
}

// HostGateway asks for the address that host-gateway stands for.
func (e *Engine) HostGateway(ctx context.Context) (string, error) {
	c, err := e.BuildKit(ctx)
	if err != nil {
		return "", err
	}
	workers, err := c.ListWorkers(ctx)
	if err != nil {
		return "", err
	}
	for _, w := range workers {
		if ip := w.Labels[hostGatewayLabel]; ip != "" {
			return ip, nil
		}
	}
	return "", errors.New("host-gateway IP not found: the engine does not tell it")
}
