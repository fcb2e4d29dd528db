package registryclient_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/registry"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sirupsen/logrus"

	"github.com/cleatlabs/cleat/internal/registryclient"
	"github.com/cleatlabs/cleat/test/expect"
)

func TestMain(m *testing.M) {
	logrus.SetOutput(io.Discard)
	os.Exit(m.Run())
}

var manifest = []byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json"}`)

// fake is a registry that knows one manifest, and remembers who asked.
type fake struct {
	mu   sync.Mutex
	auth []string // Authorization headers, one per request
	// allow says whether a request may pass; the challenge follows if not.
	allow     func(*http.Request) bool
	challenge string
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	f.auth = append(f.auth, r.Header.Get("Authorization"))
	f.mu.Unlock()
	if f.allow != nil && !f.allow(r) {
		w.Header().Set("WWW-Authenticate", f.challenge)
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	if !strings.Contains(r.URL.Path, "/manifests/") {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
	w.Header().Set("Docker-Content-Digest", digest.FromBytes(manifest).String())
	w.Header().Set("Content-Length", fmt.Sprint(len(manifest)))
	if r.Method == http.MethodGet {
		w.Write(manifest)
	}
}

func (f *fake) seen() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string(nil), f.auth...)
}

func resolve(t *testing.T, cfg registryclient.Config, ref string, auth *registry.AuthConfig) error {
	t.Helper()
	c, err := registryclient.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		t.Fatal(err)
	}
	s, err := c.Open(named, auth)
	if err != nil {
		return err
	}
	defer s.Close()
	desc, err := s.Resolve(context.Background())
	if err == nil && desc.Digest != digest.FromBytes(manifest) {
		t.Errorf("resolved to %v", desc)
	}
	return s.Explain(err)
}

func hostOf(url string) string {
	_, host, _ := strings.Cut(url, "://")
	return host
}

func basic(user, password string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
}

func TestBasicCredentials(t *testing.T) {
	f := &fake{challenge: `Basic realm="x"`}
	f.allow = func(r *http.Request) bool { return r.Header.Get("Authorization") == basic("alice", "pw") }
	ts := httptest.NewServer(f)
	defer ts.Close()
	ref := hostOf(ts.URL) + "/lab/x:1"
	if err := resolve(t, registryclient.Config{}, ref, &registry.AuthConfig{Username: "alice", Password: "pw"}); err != nil {
		t.Error(err)
	}
	for _, auth := range []*registry.AuthConfig{nil, {Username: "alice", Password: "wrong"}} {
		err := resolve(t, registryclient.Config{}, ref, auth)
		if !errdefs.IsNotFound(err) || !strings.HasPrefix(err.Error(), "pull access denied for "+hostOf(ts.URL)+"/lab/x, repository does not exist or may require 'docker login': denied:") {
			t.Errorf("%+v: %v", auth, err)
		}
	}
}

func TestTokens(t *testing.T) {
	var mu sync.Mutex
	var asked []string
	tokens := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.ParseForm()
		mu.Lock()
		asked = append(asked, r.Method+" "+r.Form.Get("grant_type")+" "+r.Form.Get("refresh_token")+" "+r.Form.Get("scope"))
		mu.Unlock()
		json.NewEncoder(w).Encode(map[string]string{"token": "good", "access_token": "good"})
	}))
	defer tokens.Close()
	f := &fake{challenge: `Bearer realm="` + tokens.URL + `/token",service="test",scope="repository:lab/x:pull"`}
	f.allow = func(r *http.Request) bool { return r.Header.Get("Authorization") == "Bearer good" }
	ts := httptest.NewServer(f)
	defer ts.Close()
	ref := hostOf(ts.URL) + "/lab/x:1"
	for name, auth := range map[string]*registry.AuthConfig{
		"anonymous":      nil,
		"password":       {Username: "alice", Password: "pw"},
		"identity token": {IdentityToken: "refresh-me"},
		"registry token": {RegistryToken: "good"},
	} {
		if err := resolve(t, registryclient.Config{}, ref, auth); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	all := strings.Join(asked, "\n")
	for _, want := range []string{"GET   repository:lab/x:pull", "POST password  repository:lab/x:pull", "POST refresh_token refresh-me repository:lab/x:pull"} {
		if !strings.Contains(all, want) {
			t.Errorf("nobody asked %q in\n%s", want, all)
		}
	}
	if len(asked) != 3 {
		t.Errorf("a registry token needs no other:\n%s", all)
	}
}

// TestCredentialsGoToTheRegistryOnly has a mirror that asks for a password, and a
// registry that redirects.
func TestCredentialsGoToTheRegistryOnly(t *testing.T) {
	other := &fake{}
	otherServer := httptest.NewServer(other)
	defer otherServer.Close()
	f := &fake{challenge: `Basic realm="x"`}
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != basic("alice", "pw") {
			f.allow = func(*http.Request) bool { return false }
			f.ServeHTTP(w, r)
			return
		}
		http.Redirect(w, r, otherServer.URL+r.URL.Path, http.StatusTemporaryRedirect)
	}))
	defer front.Close()
	if err := resolve(t, registryclient.Config{}, hostOf(front.URL)+"/lab/x:1", &registry.AuthConfig{Username: "alice", Password: "pw"}); err != nil {
		t.Fatal(err)
	}
	mirror := &fake{challenge: `Basic realm="mirror"`, allow: func(*http.Request) bool { return false }}
	mirrorServer := httptest.NewServer(mirror)
	defer mirrorServer.Close()
	c, err := registryclient.New(registryclient.Config{Mirrors: []string{mirrorServer.URL}})
	if err != nil {
		t.Fatal(err)
	}
	named, _ := reference.ParseNormalizedNamed("tool:1")
	s, err := c.Open(named, &registry.AuthConfig{Username: "alice", Password: "pw"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ctx, cancel := context.WithCancel(context.Background())
	resolved := make(chan struct{})
	go func() {
		defer close(resolved)
		s.Resolve(ctx) // Docker Hub itself may or may not be reachable from here
	}()
	expect.Eventually(t, "the mirror is asked", func() bool { return len(mirror.seen()) > 0 })
	select {
	case <-resolved:
	case <-time.After(time.Second): // who is asked after the mirror
	}
	cancel()
	<-resolved
	for _, auth := range append(other.seen(), mirror.seen()...) {
		if auth != "" {
			t.Errorf("credentials went elsewhere: %s", auth)
		}
	}
}

// certificate makes a self-signed certificate for 127.0.0.1.
func certificate(t *testing.T) (certPEM, keyPEM []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"registry.test"},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER})
}

// nonLoopback is an address of this machine that is not loopback, "" if it has none.
func nonLoopback() string {
	addrs, _ := net.InterfaceAddrs()
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && !n.IP.IsLoopback() && n.IP.To4() != nil {
			return n.IP.String()
		}
	}
	return ""
}

func TestLoopbackIsReachedWithAnyCertificate(t *testing.T) {
	ts := httptest.NewTLSServer(&fake{})
	defer ts.Close()
	if err := resolve(t, registryclient.Config{}, hostOf(ts.URL)+"/lab/x:1", nil); err != nil {
		t.Error(err)
	}
	_, port, _ := net.SplitHostPort(hostOf(ts.URL))
	if err := resolve(t, registryclient.Config{}, "localhost:"+port+"/lab/x:1", nil); err != nil {
		t.Error(err)
	}
}

func TestOtherHostsNeedACertificateOrLeave(t *testing.T) {
	ip := nonLoopback()
	if ip == "" {
		t.Skip("this machine has no address but loopback")
	}
	listen := func(h http.Handler, tls bool) string {
		l, err := net.Listen("tcp", ip+":0")
		if err != nil {
			t.Fatal(err)
		}
		ts := httptest.NewUnstartedServer(h)
		ts.Listener.Close()
		ts.Listener = l
		if tls {
			ts.StartTLS()
		} else {
			ts.Start()
		}
		t.Cleanup(ts.Close)
		return l.Addr().String()
	}
	plain, secure := listen(&fake{}, false), listen(&fake{}, true)
	for _, c := range []struct {
		name, host string
		insecure   []string
		text       string
	}{
		{"plain, no leave", plain, nil, "--insecure-registry"},
		{"plain, host and port", plain, []string{plain}, ""},
		{"plain, host", plain, []string{ip}, ""},
		{"plain, network", plain, []string{ip + "/24"}, ""},
		{"plain, another host", plain, []string{"other:5000", "198.51.100.0/24"}, "--insecure-registry"},
		{"unknown authority, no leave", secure, nil, "--insecure-registry"},
		{"unknown authority, host and port", secure, []string{secure}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := resolve(t, registryclient.Config{Insecure: c.insecure}, c.host+"/lab/x:1", nil)
			if c.text == "" && err != nil || c.text != "" && (err == nil || !strings.Contains(err.Error(), c.text) || !strings.Contains(err.Error(), c.host)) {
				t.Errorf("error %v, want %q", err, c.text)
			}
		})
	}
}

// silent is a listener of a server that knows no TLS: it says nothing to a handshake, and closes or resets the connection.
type silent struct {
	net.Listener
	reset bool
}

type silentConn struct {
	net.Conn
	reset bool
}

func (l silent) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return silentConn{c, l.reset}, err
}

func (c silentConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	const handshake = 0x16
	if n == 0 || p[0] != handshake {
		return n, err
	}
	if c.reset {
		_ = c.Conn.(*net.TCPConn).SetLinger(0)
	}
	c.Conn.Close()
	return 0, io.EOF
}

func TestInsecureHostThatIsSilentToTLS(t *testing.T) {
	for _, reset := range []bool{false, true} {
		ts := httptest.NewUnstartedServer(&fake{})
		ts.Listener = silent{ts.Listener, reset}
		ts.Start()
		t.Cleanup(ts.Close)
		if err := resolve(t, registryclient.Config{}, hostOf(ts.URL)+"/lab/x:1", nil); err != nil {
			t.Errorf("reset %v: %v", reset, err)
		}
	}
}

func TestCertificateDirectory(t *testing.T) {
	dir := t.TempDir()
	certs := filepath.Join(dir, "127.0.0.1:1")
	if err := os.MkdirAll(certs, 0o755); err != nil {
		t.Fatal(err)
	}
	cert, key := certificate(t)
	write := func(name string, data []byte) {
		if err := os.WriteFile(filepath.Join(certs, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cfg := registryclient.Config{CertsDir: dir}
	refused := func(text string) {
		t.Helper()
		if err := resolve(t, cfg, "127.0.0.1:1/lab/x:1", nil); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("error %v, want %q", err, text)
		}
	}
	write("ca.crt", cert)
	refused("connection refused") // the certificates are fine, nobody listens
	write("client.cert", cert)
	refused("client.key")
	write("client.key", key)
	refused("connection refused")
	write("ca.crt", []byte("nonsense"))
	refused("no certificate in PEM format")
}

func TestUnreachableNamesTheAddress(t *testing.T) {
	err := resolve(t, registryclient.Config{}, "registry.invalid/lab/x:1", nil)
	if !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), "cannot reach the registry at https://registry.invalid") {
		t.Errorf("error %v", err)
	}
	l, _ := net.Listen("tcp", "127.0.0.1:0")
	addr := l.Addr().String()
	l.Close()
	err = resolve(t, registryclient.Config{}, addr+"/lab/x:1", nil)
	if want := "cannot reach the registry at " + addr + ": connection refused; is it running, and is the port right?"; err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
}

// TestForeignLayerIsNotFetched: what a manifest says of another address is told, and not asked.
func TestForeignLayerIsNotFetched(t *testing.T) {
	elsewhere := &fake{}
	outside, inside := httptest.NewServer(elsewhere), httptest.NewServer(&fake{})
	t.Cleanup(outside.Close)
	t.Cleanup(inside.Close)
	c, err := registryclient.New(registryclient.Config{})
	if err != nil {
		t.Fatal(err)
	}
	named, err := reference.ParseNormalizedNamed(hostOf(inside.URL) + "/lab/x:1")
	if err != nil {
		t.Fatal(err)
	}
	s, err := c.Open(named, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.Resolve(t.Context()); err != nil {
		t.Fatal(err)
	}
	f, err := s.Fetcher(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	rc, err := f.Fetch(t.Context(), ocispec.Descriptor{
		MediaType: "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", Digest: digest.FromString("x"), Size: 1, URLs: []string{outside.URL + "/layer"},
	})
	if err == nil {
		defer rc.Close()
		_, err = io.ReadAll(rc)
	}
	err = s.Explain(err)
	if !errdefs.IsNotFound(err) || !strings.Contains(err.Error(), outside.URL) || len(elsewhere.seen()) != 0 {
		t.Errorf("%v; asked elsewhere %d times", err, len(elsewhere.seen()))
	}
}

// A registry can list tags for ever, or such as fill the memory.
func TestListsOfTagsAreBounded(t *testing.T) {
	for want, tags := range map[string]string{
		"the registry lists a tag that is not one": `["` + strings.Repeat("x", 200) + `"]`,
		"": `[]`,
	} {
		asked := 0
		ts := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if asked++; asked < 10 {
				w.Header().Set("Link", fmt.Sprintf(`</v2/x/tags/list?last=%d>; rel="next"`, asked))
			}
			fmt.Fprintf(w, `{"tags":%s}`, tags)
		}))
		c, err := registryclient.New(registryclient.Config{})
		if err != nil {
			t.Fatal(err)
		}
		named, err := reference.ParseNormalizedNamed(hostOf(ts.URL) + "/x")
		if err != nil {
			t.Fatal(err)
		}
		s, err := c.Open(named, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.Tags(context.Background())
		if asked != 1 || fmt.Sprint(s.Explain(err)) == "<nil>" != (want == "") || want != "" && (!strings.Contains(err.Error(), want) || !errdefs.IsInvalidArgument(err)) {
			t.Errorf("asked %d times: %v, want %q", asked, err, want)
		}
		s.Close()
		ts.Close()
	}
}
