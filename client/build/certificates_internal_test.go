package build

import (
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/remotes/docker"
)

// A registry whose certificate is of an authority of the user's own is trusted by what is kept for it, and only then.
func TestCertificatesOfARegistry(t *testing.T) {
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }))
	t.Cleanup(srv.Close)
	root, host := t.TempDir(), strings.TrimPrefix(srv.URL, "https://")
	look := func(host string) ([]docker.RegistryHost, error) {
		return trusting(root, func(c *http.Client) docker.RegistryHosts {
			return docker.ConfigureDefaultRegistries(docker.WithClient(c))
		})(host)
	}
	ask := func() error {
		hosts, err := look(host)
		if err != nil {
			return err
		}
		resp, err := hosts[0].Client.Get("https://" + hosts[0].Host + "/v2/")
		if err == nil {
			resp.Body.Close()
		}
		return err
	}
	if err := ask(); err == nil || !strings.Contains(err.Error(), "unknown authority") {
		t.Errorf("nothing is kept for it: %v", err)
	}
	write := func(name string, data []byte) {
		t.Helper()
		path := filepath.Join(root, host, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	authority := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
	write("ca.crt", authority)
	if err := ask(); err != nil {
		t.Error(err)
	}
	write("client.cert", authority)
	if err := ask(); err == nil || !strings.Contains(err.Error(), "client.key") {
		t.Errorf("a certificate without a key: %v", err)
	}
	write("ca.crt", []byte("nonsense"))
	if err := ask(); err == nil || !strings.Contains(err.Error(), "no certificate in PEM format") {
		t.Errorf("nonsense: %v", err)
	}
	if _, err := look(".."); err == nil || !strings.Contains(err.Error(), `".." is not a host`) {
		t.Errorf("a host that leads out of the directory: %v", err)
	}
}
