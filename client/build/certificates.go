package build

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/containerd/containerd/v2/core/remotes/docker"
)

// certificatesDir is where the certificates for a registry are kept, in a directory named HOST or HOST:PORT, as Docker's
// programs and the engine have them.
const certificatesDir = "/etc/docker/certs.d"

// trusting reaches each host with the certificates kept for it below root; configure is given a client for it, or nil
// where there are none. A host is asked for its certificates once.
func trusting(root string, configure func(*http.Client) docker.RegistryHosts) docker.RegistryHosts {
	var mu sync.Mutex
	usual, known := configure(nil), map[string][]docker.RegistryHost{}
	return func(host string) ([]docker.RegistryHost, error) {
		mu.Lock()
		defer mu.Unlock()
		if hosts, ok := known[host]; ok {
			return hosts, nil
		}
		of := usual
		cfg, err := certificates(filepath.Join(root, filepath.Base(host)))
		if err != nil {
			return nil, err
		}
		if cfg != nil {
			t := http.DefaultTransport.(*http.Transport).Clone()
			t.TLSClientConfig = cfg
			of = configure(&http.Client{Transport: t})
		}
		hosts, err := of(host)
		if err == nil {
			known[host] = hosts
		}
		return hosts, err
	}
}

// certificates reads a host's directory: *.crt are authorities that are trusted beside the system's, *.cert with a *.key
// each is who the client is. It is nil where there is no directory.
func certificates(dir string) (*tls.Config, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read a registry's certificates: %w", err)
	}
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if cfg.RootCAs, err = x509.SystemCertPool(); err != nil {
		cfg.RootCAs = x509.NewCertPool()
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		switch filepath.Ext(path) {
		case ".crt":
			pem, err := os.ReadFile(path)
			if err != nil {
				return nil, fmt.Errorf("read a registry's certificates: %w", err)
			}
			if !cfg.RootCAs.AppendCertsFromPEM(pem) {
				return nil, fmt.Errorf("%s holds no certificate in PEM format", path)
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
