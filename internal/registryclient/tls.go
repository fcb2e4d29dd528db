package registryclient

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"
)

// httpClient makes the client for one host, with keep-alive for the pull it is made
// for. An insecure host is first tried with TLS of any certificate; if it answers in
// plain HTTP, that is used from then on.
func (c *Client) httpClient(host string, insecure bool, answer time.Duration) (*http.Client, func(), error) {
	cfg, err := c.tlsConfig(host)
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

// tlsConfig reads the certificates kept for a host. Having none is the usual case.
func (c *Client) tlsConfig(host string) (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	dir, err := c.certificatesOf(host)
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return cfg, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the certificates for %s: %w", host, err)
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		switch filepath.Ext(e.Name()) {
		case ".crt":
			if err := addAuthority(cfg, path); err != nil {
				return nil, err
			}
		case ".cert":
			key := strings.TrimSuffix(path, ".cert") + ".key"
			pair, err := tls.LoadX509KeyPair(path, key)
			if err != nil {
				return nil, fmt.Errorf("the client certificate %s needs a matching key %s: %w", path, key, err)
			}
			cfg.Certificates = append(cfg.Certificates, pair)
		}
	}
	return cfg, nil
}

// addAuthority trusts the authorities in path, besides the system's.
func addAuthority(cfg *tls.Config, path string) error {
	pem, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read the certificate authority: %w", err)
	}
	if cfg.RootCAs == nil {
		if cfg.RootCAs, err = x509.SystemCertPool(); err != nil {
			cfg.RootCAs = x509.NewCertPool()
		}
	}
	if !cfg.RootCAs.AppendCertsFromPEM(pem) {
		return fmt.Errorf("%s holds no certificate in PEM format", path)
	}
	return nil
}
