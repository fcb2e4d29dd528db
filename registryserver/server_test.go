package registryserver_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/crypto/bcrypt"

	"github.com/cleatlabs/cleat/registryserver"
	"github.com/cleatlabs/cleat/test/expect"
)

func TestMain(m *testing.M) {
	logrus.SetOutput(io.Discard)
	os.Exit(m.Run())
}

// serve starts a registry and gives its address and the function that ends it.
func serve(t *testing.T, cfg registryserver.Config) (addr string, end func() error) {
	t.Helper()
	s, err := registryserver.New(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	var ended bool
	end = func() error {
		if ended {
			return nil
		}
		ended = true
		cancel()
		select {
		case err := <-done:
			return err
		case <-time.After(expect.Patience):
			t.Fatal("the server does not end")
			return nil
		}
	}
	t.Cleanup(func() { end() })
	return l.Addr().String(), end
}

func TestServesTheProtocolAndEnds(t *testing.T) {
	addr, end := serve(t, registryserver.Config{Data: t.TempDir()})
	resp, err := http.Get("http://" + addr + "/v2/")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Docker-Distribution-Api-Version") != "registry/2.0" {
		t.Errorf("answer %s, %v", resp.Status, resp.Header)
	}
	if err := end(); err != nil {
		t.Error(err)
	}
	if _, err := net.Dial("tcp", addr); err == nil {
		t.Error("something still listens")
	}
}

// TestCatalogueOfMoreThanAPage: who asks for more repositories than one answer has gets a page, and is told of the next one.
func TestCatalogueOfMoreThanAPage(t *testing.T) {
	data := t.TempDir()
	addr, _ := serve(t, registryserver.Config{Data: data})
	put(t, addr, "r/0000")
	repositories := filepath.Join(data, "docker/registry/v2/repositories/r")
	for i := 1; i <= 1000; i++ {
		if err := os.MkdirAll(filepath.Join(repositories, fmt.Sprintf("%04d/_manifests", i)), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	next, seen := "/v2/_catalog?n=10000", 0
	for next != "" {
		resp, err := http.Get("http://" + addr + next)
		if err != nil {
			t.Fatal(err)
		}
		var page struct{ Repositories []string }
		err = json.NewDecoder(resp.Body).Decode(&page)
		resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK || len(page.Repositories) == 0 {
			t.Fatalf("%s: %s, %d repositories, %v", next, resp.Status, len(page.Repositories), err)
		}
		seen += len(page.Repositories)
		next, _, _ = strings.Cut(strings.TrimPrefix(resp.Header.Get("Link"), "<"), ">")
	}
	if seen != 1001 {
		t.Errorf("%d repositories", seen)
	}
}

func TestPasswords(t *testing.T) {
	hash, err := bcrypt.GenerateFromPassword([]byte("pw"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "users")
	if err := os.WriteFile(file, []byte("alice:"+string(hash)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	addr, _ := serve(t, registryserver.Config{Data: t.TempDir(), Htpasswd: file})
	for _, c := range []struct {
		user, password string
		status         int
	}{{"", "", 401}, {"alice", "wrong", 401}, {"bob", "pw", 401}, {"alice", "pw", 200}} {
		req, _ := http.NewRequest(http.MethodGet, "http://"+addr+"/v2/", nil)
		if c.user != "" {
			req.SetBasicAuth(c.user, c.password)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != c.status {
			t.Errorf("%s:%s gets %s", c.user, c.password, resp.Status)
		}
	}
	// Nothing is read, nor kept, of what somebody sends who is not let in.
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(expect.Patience))
	fmt.Fprint(conn, "PUT /v2/a/manifests/latest HTTP/1.1\r\nHost: a\r\nContent-Length: 4000000\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("a manifest of nobody's gets %s", resp.Status)
	}
}

func TestTLS(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, keyFile := filepath.Join(dir, "c.pem"), filepath.Join(dir, "k.pem")
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	os.WriteFile(cert, certPEM, 0o600)
	os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER}), 0o600)
	addr, end := serve(t, registryserver.Config{Data: t.TempDir(), TLSCert: cert, TLSKey: keyFile})
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(certPEM)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
	resp, err := client.Get("https://" + addr + "/v2/")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	client.CloseIdleConnections()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("answer %s", resp.Status)
	}
	if err := end(); err != nil {
		t.Error(err)
	}
}

func TestBadConfigurationIsAnError(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	os.WriteFile(file, nil, 0o600)
	for name, c := range map[string]struct {
		cfg  registryserver.Config
		text string
	}{
		"no data":                 {registryserver.Config{}, "--data"},
		"data is a file":          {registryserver.Config{Data: file}, "data directory"},
		"no such users":           {registryserver.Config{Data: t.TempDir(), Htpasswd: "/nonexistent"}, "the file of users"},
		"certificate without key": {registryserver.Config{Data: t.TempDir(), TLSCert: file}, "go together"},
		"certificate is none":     {registryserver.Config{Data: t.TempDir(), TLSCert: file, TLSKey: file}, "load the certificate"},
	} {
		_, err := registryserver.New(context.Background(), c.cfg)
		if c.text != "" && (err == nil || !strings.Contains(err.Error(), c.text)) {
			t.Errorf("%s: error %v, want one with %q", name, err, c.text)
		}
	}
}
