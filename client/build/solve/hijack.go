package solve

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

const (
	// refusalPatience is how long the engine may take to say again why it refuses.
	refusalPatience = 5 * time.Second
	// maxRefusal bounds what it says, in bytes.
	maxRefusal = 64 << 10
)

// Hijack takes a connection to the engine over for proto. What the engine answers instead, if it cannot build, is the
// error: the API's client keeps the status alone.
func (e *Engine) Hijack(ctx context.Context, path, proto string, meta map[string][]string) (net.Conn, error) {
	conn, err := e.API.DialHijack(ctx, path, proto, meta)
	if err == nil || !strings.Contains(err.Error(), ", received 5") {
		return conn, err
	}
	if reason := e.refusal(ctx, path, proto); reason != "" {
		return nil, errors.New(reason)
	}
	return nil, err
}

// refusal asks the engine once more, to hear its reason; "" if it gives none.
func (e *Engine) refusal(ctx context.Context, path, proto string) string {
	conn, err := e.API.Dialer()(ctx)
	if err != nil {
		return ""
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(refusalPatience)); err != nil {
		return ""
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://engine"+path, nil)
	if err != nil {
		return ""
	}
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", proto)
	if err := req.Write(conn); err != nil {
		return ""
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), req)
	if err != nil || res.StatusCode < http.StatusInternalServerError {
		return ""
	}
	var said struct{ Message string }
	if json.NewDecoder(io.LimitReader(res.Body, maxRefusal)).Decode(&said) != nil {
		return ""
	}
	return said.Message
}
