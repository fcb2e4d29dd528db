package registryclient

import (
	"errors"
	"net"
	"net/http"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"

	"github.com/cleatlabs/cleat/registrytrust"
)

// httpClient makes the client for one host, with keep-alive for the pull it is made
// for. An insecure host is first tried with TLS of any certificate; if it answers in
// plain HTTP, that is used from then on.
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
		client.Transport = docker.NewHTTPFallback(t)
	}
	return client, t.CloseIdleConnections, nil
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
