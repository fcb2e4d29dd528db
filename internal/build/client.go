package build

import (
	"context"
	"fmt"
	"net"

	"github.com/containerd/containerd/v2/defaults"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/client/llb"
	"google.golang.org/grpc"
)

// Solve is a build that the engine asks of itself: what a client does by the control API
// and a session, over connections within the process. It has the contract of BuildKit's
// [client.Client.Solve]; status, which is closed at the end, must be read.
func (b *Builder) Solve(ctx context.Context, def *llb.Definition, opt client.SolveOpt, status chan *client.SolveStatus) (*client.SolveResponse, error) {
	c, err := b.client(ctx)
	if err != nil {
		close(status)
		return nil, err
	}
	defer c.Close()
	return c.Solve(ctx, def, opt, status)
}

// client is one over pipes: BuildKit's server cannot tell it from a client at the socket.
func (b *Builder) client(ctx context.Context) (*client.Client, error) {
	if err := b.Open(); err != nil {
		return nil, err
	}
	alive := context.WithoutCancel(ctx) // a connection ends when the client closes it
	c, err := client.New(ctx, "",
		client.WithContextDialer(func(context.Context, string) (net.Conn, error) {
			near, far := net.Pipe()
			go b.ServeConn(alive, far) //nolint:errcheck // the near end sees it
			return near, nil
		}),
		client.WithSessionDialer(func(_ context.Context, _ string, header map[string][]string) (net.Conn, error) {
			near, far := net.Pipe()
			go b.ServeSession(alive, far, header) //nolint:errcheck // the near end sees it
			return near, nil
		}),
		client.WithGRPCDialOption(grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(defaults.DefaultMaxRecvMsgSize))),
	)
	if err != nil {
		return nil, fmt.Errorf("builder: %w", err)
	}
	return c, nil
}
