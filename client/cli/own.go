package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
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

// ownRequest is a call of an operation that Docker's API does not have.
type ownRequest struct {
	method, route string // route below /cleat, escaped
	query         url.Values
	body          any       // sent as JSON
	stream        io.Reader // sent as it is, if there is no body
}

// own calls the engine and returns its answer, whose body the caller closes. An
// answer that says that something is wrong is an error.
func (a *app) own(ctx context.Context, r ownRequest) (*http.Response, error) {
	c, err := a.api()
	if err != nil {
		return nil, err
	}
	req, err := a.ownHTTP(ctx, c.DaemonHost(), r)
	if err != nil {
		return nil, err
	}
	dial := c.Dialer()
	transport := &http.Transport{
		DisableKeepAlives: true, DisableCompression: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
	}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		var op *net.OpError
		if errors.As(err, &op) && op.Op == "dial" {
			return nil, fmt.Errorf("cannot connect to the Docker daemon: %w", err)
		}
		return nil, err
	}
	if resp.StatusCode < http.StatusBadRequest {
		return resp, nil
	}
	defer func() { _ = resp.Body.Close() }()
	return nil, refusal(resp, c.DaemonHost())
}

// ownHTTP is r as it is sent to the engine at host.
func (a *app) ownHTTP(ctx context.Context, host string, r ownRequest) (*http.Request, error) {
	payload, kind := r.stream, "application/x-tar"
	if r.body != nil {
		data, err := json.Marshal(r.body)
		if err != nil {
			return nil, err
		}
		payload, kind = bytes.NewReader(data), "application/json"
	}
	base := ""
	if u, err := client.ParseHostURL(host); err == nil && u.Scheme != "unix" {
		base = u.Path
	}
	target := "http://" + client.DummyHost + path.Join("/", base, "cleat") + r.route
	if len(r.query) > 0 {
		target += "?" + r.query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, r.method, target, payload)
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
	if payload != nil {
		req.Header.Set("Content-Type", kind)
	}
	req.Header.Set("User-Agent", a.userAgent())
	return req, nil
}

// refusal is what the engine at host answers where something is wrong.
func refusal(resp *http.Response, host string) error {
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	var msg struct{ Message string }
	if json.Unmarshal(text, &msg) != nil || msg.Message == "" {
		msg.Message = strings.TrimSpace(string(text))
	}
	switch {
	case resp.StatusCode == http.StatusNotFound && strings.Contains(msg.Message, "page not found"):
		return fmt.Errorf("the engine at %s does not have this: it is another than Cleat, or an older one", host)
	case msg.Message == "":
		msg.Message = resp.Status
	}
	return fmt.Errorf("Error response from daemon: %s", msg.Message) //nolint:staticcheck // Docker's text
}

// ownJSON calls the engine and decodes its answer into v, if that is not nil.
func (a *app) ownJSON(ctx context.Context, r ownRequest, v any) error {
	resp, err := a.own(ctx, r)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if v == nil {
		return nil
	}
	if err := json.NewDecoder(resp.Body).Decode(v); err != nil {
		return fmt.Errorf("the engine's answer cannot be read: %w", err)
	}
	return nil
}
