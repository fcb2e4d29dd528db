// Package registrytrust reads the certificates that are kept for registries, in a directory named HOST or HOST:PORT for
// each, as Docker's programs have them: files *.crt are authorities that are trusted beside the system's, *.cert with a
// *.key each is who the client is. The engine and the client both reach registries so; it imports nothing of either.
package registrytrust

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Dir is where the certificates are kept unless somebody says otherwise.
const Dir = "/etc/docker/certs.d"

// TLS is how host, HOST or HOST:PORT, is reached by what is kept for it below dir. Nothing being kept is the usual case,
// and no error; a file that is no certificate, or a certificate without its key, is one that names the file.
func TLS(dir, host string) (*tls.Config, error) {
	if host == "" || host == "." || host == ".." || strings.ContainsAny(host, "/\\\x00") {
		return nil, fmt.Errorf("%q is not a host", host)
	}
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	dir = filepath.Join(dir, host)
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return cfg, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the certificates for %s: %w", host, err)
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		switch filepath.Ext(path) {
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
