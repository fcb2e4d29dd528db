package cli

import (
	"context"
	"fmt"
	"io"
	"net"

	"github.com/spf13/pflag"
)

// systemDialStdio is what the clients of other machines run here over ssh (DOCKER_HOST=ssh://…): a connection to the
// engine by the two standard streams.
func (a *app) systemDialStdio() spec {
	return spec{
		use: "dial-stdio", short: "Proxy the stdio stream to the daemon connection. Should not be invoked manually.",
		args: a.noArgs, hidden: true,
		setup: func(*pflag.FlagSet) action {
			return func(ctx context.Context, _ []string) error {
				c, err := a.api()
				if err != nil {
					return err
				}
				conn, err := c.Dialer()(ctx)
				if err != nil {
					return fmt.Errorf("cannot connect to the Docker daemon: %w", err)
				}
				defer func() { _ = conn.Close() }()
				stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
				defer stop()
				go func() {
					// A stream that has nothing to tell (events, a log that is followed) would hold this process for ever.
					if a.out.Abandoned() {
						_ = conn.Close()
					}
				}()
				go sendAll(conn, a.in)
				_, err = io.Copy(a.out, conn)
				if ctx.Err() != nil {
					return ctx.Err()
				}
				return err
			}
		},
	}
}

// sendAll copies what comes from in and says at its end that there will be no more: the answer may still be to come, as
// from an attached container whose input has ended.
func sendAll(conn net.Conn, in io.Reader) {
	_, err := io.Copy(conn, in)
	if half, ok := conn.(interface{ CloseWrite() error }); ok && err == nil {
		_ = half.CloseWrite()
		return
	}
	_ = conn.Close()
}
