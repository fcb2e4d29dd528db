package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path"
	"strings"

	"github.com/moby/moby/client"

	"github.com/cleatlabs/cleat/client/connect"
)

// hijacked is a connection that the engine has turned into a raw stream: the
// container's output comes from it, and what is written to it is its input.
type hijacked struct {
	conn net.Conn
	r    *bufio.Reader
	// mux says that stdout and stderr come in frames.
	mux bool
}

// hijack asks the engine for a stream. It is not left to the client library, which
// throws away the engine's reason when there is none to be had.
func (a *app) hijack(ctx context.Context, route string, query url.Values, body any) (*hijacked, error) {
	c, err := a.api()
	if err != nil {
		return nil, err
	}
	conn, err := c.Dialer()(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, fmt.Errorf("cannot connect to the Docker daemon: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	h, err := a.upgrade(ctx, c, conn, route, query, body)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		_ = conn.Close()
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, err
	}
	return h, nil
}

func (a *app) upgrade(ctx context.Context, c *client.Client, conn net.Conn, route string, query url.Values, body any) (*hijacked, error) {
	var payload io.Reader = http.NoBody
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		payload = bytes.NewReader(data)
	}
	base := ""
	if u, err := client.ParseHostURL(c.DaemonHost()); err == nil {
		base = u.Path
	}
	target := url.URL{Scheme: "http", Host: client.DummyHost, Path: path.Join("/", base, "v"+c.ClientVersion(), route), RawQuery: query.Encode()}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target.String(), payload)
	if err != nil {
		return nil, err
	}
	headers, err := connect.Headers(a.config())
	if err != nil {
		return nil, err
	}
	for k, v := range headers {
		req.Header.Set(k, v)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	req.Header.Set("User-Agent", a.userAgent())
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", "tcp")
	if err := req.Write(conn); err != nil {
		return nil, err
	}
	r := bufio.NewReaderSize(conn, 64<<10)
	resp, err := http.ReadResponse(r, req)
	if err != nil {
		return nil, fmt.Errorf("the engine closed the connection before it handed over the stream: %w", err)
	}
	switch resp.StatusCode {
	case http.StatusSwitchingProtocols, http.StatusOK:
		return &hijacked{conn: conn, r: r, mux: strings.Contains(resp.Header.Get("Content-Type"), "multiplexed")}, nil
	}
	defer func() { _ = resp.Body.Close() }()
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	var msg struct{ Message string }
	if json.Unmarshal(text, &msg) != nil || msg.Message == "" {
		msg.Message = strings.TrimSpace(string(text))
	}
	if msg.Message == "" {
		msg.Message = resp.Status
	}
	return nil, fmt.Errorf("Error response from daemon: %s", msg.Message) //nolint:staticcheck // Docker's text
}

// closeWrite tells the container that its input has ended.
func (h *hijacked) closeWrite() error {
	if c, ok := h.conn.(client.CloseWriter); ok {
		return c.CloseWrite()
	}
	return nil
}

func (h *hijacked) Close() error { return h.conn.Close() }
