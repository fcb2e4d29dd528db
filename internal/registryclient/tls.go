package registryclient

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"

	"github.com/cleatlabs/cleat/registrytrust"
)

// httpClient makes the client for one host, with keep-alive for the pull it is made
// for. An insecure host is first tried with TLS of any certificate; if it answers in
// plain HTTP, or breaks off, plain HTTP is used from then on.
func (c *Client) httpClient(host string, insecure bool, answer time.Duration) (*http.Client, func(), error) {
	cfg, err := registrytrust.TLS(c.certsDir, host)
	if err != nil {
		return nil, nil, err
	}
	cfg.InsecureSkipVerify = insecure
	t := &http.Transport{
		Proxy: c.proxy,
		DialContext: (&net.Dialer{
			Timeout:   30 * time.Second,
			KeepAlive: 30 * time.Second,
		}).DialContext,
		TLSClientConfig:       cfg,
		TLSHandshakeTimeout:   10 * time.Second,
		ResponseHeaderTimeout: answer,
		ExpectContinueTimeout: 5 * time.Second,
		IdleConnTimeout:       30 * time.Second,
		MaxIdleConnsPerHost:   8,
		// Layers are compressed already, and a digest is that of the bytes as stored.
		DisableCompression: true,
		ForceAttemptHTTP2:  true,
	}
	client := &http.Client{Transport: t, CheckRedirect: checkRedirect}
	if insecure {
		client.Transport = docker.NewHTTPFallback(&greeter{t, c.insecure})
	}
	return client, t.CloseIdleConnections, nil
}

// greeter is a transport to which a server that does not know what to do with a TLS handshake is one that answers in plain
// HTTP. Some say nothing to what they take for a bad request, and close or reset the connection.
type greeter struct {
	*http.Transport
	insecure func(host string) bool
}

// RoundTrip tells docker.NewHTTPFallback of such a server by the only error that it falls back for.
func (g *greeter) RoundTrip(r *http.Request) (*http.Response, error) {
	var failed atomic.Bool
	ctx := httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{
		TLSHandshakeDone: func(_ tls.ConnectionState, err error) { failed.Store(err != nil) },
	})
	resp, err := g.Transport.RoundTrip(r.WithContext(ctx))
	if err == nil || !failed.Load() || !g.insecure(r.URL.Host) { // a redirect may lead anywhere
		return resp, err
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) {
		return nil, fmt.Errorf("%w: %w", err, tls.RecordHeaderError{Msg: "no TLS", RecordHeader: [5]byte([]byte("HTTP/"))})
	}
	return nil, err
}

// checkRedirect follows registries to where they keep their blobs, without the
// credentials: net/http itself would take them along to another port of the same host.
func checkRedirect(req *http.Request, via []*http.Request) error {
	if len(via) >= 10 {
		return errors.New("stopped after 10 redirects")
	}
	if from := via[0].URL; req.URL.Host != from.Host || (from.Scheme == "https" && req.URL.Scheme != "https") {
		req.Header.Del("Authorization")
	}
	return nil
}
