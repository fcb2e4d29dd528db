package e2e

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/moby/moby/client"

	"github.com/cleatlabs/cleat/test/harness"
)

// guard is a registry that lets in only whom it knows: with "basic", by user and
// password; with "bearer", by the tokens of a token server of its own, which gives
// identity tokens if refresh is set.
type guard struct {
	scheme  string
	refresh bool
	server  *httptest.Server

	mu      sync.Mutex
	granted int // tokens
}

const (
	guardUser, guardSecret = "anna", "s3cret-of-anna"
	guardToken             = "bearer-token-of-anna"
	guardIdentity          = "identity-token-of-anna"
)

func newGuard(t *testing.T, scheme string, refresh bool, registry string) *guard {
	g := &guard{scheme: scheme, refresh: refresh}
	u, err := url.Parse("http://" + registry)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(u)
	mux := http.NewServeMux()
	mux.HandleFunc("/token", g.token)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		user, secret, _ := r.BasicAuth()
		switch {
		case scheme == "basic" && user == guardUser && secret == guardSecret, scheme == "bearer" && r.Header.Get("Authorization") == "Bearer "+guardToken:
			proxy.ServeHTTP(w, r)
		case scheme == "basic":
			w.Header().Set("WWW-Authenticate", `Basic realm="guard"`)
			w.WriteHeader(http.StatusUnauthorized)
		default:
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s/token",service="guard"`, g.server.URL))
			w.WriteHeader(http.StatusUnauthorized)
		}
	})
	g.server = httptest.NewServer(mux)
	t.Cleanup(g.server.Close)
	return g
}

func (g *guard) token(w http.ResponseWriter, r *http.Request) {
	user, secret, _ := r.BasicAuth()
	good := user == guardUser && secret == guardSecret
	if r.Method == http.MethodPost {
		_ = r.ParseForm()
		good = r.Form.Get("grant_type") == "refresh_token" && r.Form.Get("refresh_token") == guardIdentity ||
			r.Form.Get("username") == guardUser && r.Form.Get("password") == guardSecret
	}
	if !good {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	g.mu.Lock()
	g.granted++
	g.mu.Unlock()
	answer := map[string]string{"token": guardToken, "access_token": guardToken}
	if g.refresh && (r.Form.Get("access_type") == "offline" || r.URL.Query().Get("offline_token") == "true" || r.Method == http.MethodPost) {
		answer["refresh_token"] = guardIdentity
	}
	_ = json.NewEncoder(w).Encode(answer)
}

func (g *guard) address() string { return strings.TrimPrefix(g.server.URL, "http://") }

func TestLoginAndPull(t *testing.T) {
	reg := harness.StartRegistry(t, "hello-world")
	e := harness.Start(t, harness.Options{Args: []string{"--debug"}})
	each(t, func(t *testing.T, program string) {
		for _, tc := range []struct {
			scheme  string
			refresh bool
		}{{"basic", false}, {"bearer", false}, {"bearer", true}} {
			g := newGuard(t, tc.scheme, tc.refresh, reg.Addr)
			image := g.address() + "/library/hello-world:latest"
			if r := e.Do(t, program, "", "pull", image); r.Code == 0 || !strings.Contains(r.Stderr, "pull access denied for "+g.address()+"/library/hello-world") {
				t.Errorf("%+v without credentials: %s", tc, r)
			}
			if r := e.Do(t, program, "wrong\n", "login", "-u", guardUser, "--password-stdin", g.address()); r.Code == 0 || !strings.Contains(r.Stderr, "401") && !strings.Contains(r.Stderr, "unauthorized") || strings.Contains(r.Stderr, "wrong") {
				t.Errorf("%+v with a wrong password: %s", tc, r)
			}
			if r := e.Do(t, program, guardSecret+"\n", "login", "-u", guardUser, "--password-stdin", g.server.URL); r.Code != 0 || !strings.Contains(r.Stdout, "Login Succeeded") {
				t.Errorf("%+v: %s", tc, r)
			}
			config, err := os.ReadFile(filepath.Join(e.Dir, "config", "config.json"))
			if err != nil || !strings.Contains(string(config), g.address()) || strings.Contains(string(config), guardIdentity) != tc.refresh {
				t.Errorf("%+v: config.json has %s, %v", tc, config, err)
			}
			// docker 28 does not try a stored identity token.
			if r := e.Do(t, program, "", "login", g.address()); (program == "cleat" || !tc.refresh) && (r.Code != 0 || !strings.Contains(r.Stderr, "Authenticating with existing credentials")) {
				t.Errorf("%+v again: %s", tc, r)
			}
			e.OK(t, program, "pull", "-q", image)
			e.OK(t, program, "run", "--rm", image)
			e.OK(t, program, "rmi", image)
			if r := e.Do(t, program, "", "logout", g.address()); r.Code != 0 || !strings.Contains(r.Stdout, "Removing login credentials for "+g.address()) {
				t.Errorf("%+v: %s", tc, r)
			}
			if r := e.Do(t, program, "", "pull", image); r.Code == 0 {
				t.Errorf("%+v after logout: %s", tc, r)
			}
			if tc.scheme == "bearer" && g.granted == 0 {
				t.Error("the token server was not asked")
			}
		}
	})
	for _, secret := range []string{guardSecret, guardToken, guardIdentity, base64.StdEncoding.EncodeToString([]byte(guardUser + ":" + guardSecret))} {
		if strings.Contains(e.Log(), secret) {
			t.Errorf("%q is in the engine's log", secret)
		}
	}
}

// TestCredentialHelper keeps credentials where a helper program does.
func TestCredentialHelper(t *testing.T) {
	reg := harness.StartRegistry(t, "hello-world")
	e := harness.Start(t, harness.Options{})
	g := newGuard(t, "basic", false, reg.Addr)
	dir := t.TempDir()
	helper := fmt.Sprintf(`#!/bin/sh
case $1 in
store) cat >%[1]s/stored;;
get) [ -s %[1]s/stored ] && cat %[1]s/stored || { echo "credentials not found in native keychain"; exit 1; };;
erase) rm -f %[1]s/stored;;
list) echo '{}';;
esac
`, dir)
	if err := os.WriteFile(dir+"/docker-credential-test", []byte(helper), 0o755); err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf(`{"credHelpers": {%q: "test"}}`, g.address())
	if err := os.WriteFile(dir+"/config.json", []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(stdin string, args ...string) string {
		t.Helper()
		cmd := e.Command(t, "cleat", args...)
		cmd.Env = append(cmd.Env, "DOCKER_CONFIG="+dir, "PATH="+dir+":"+os.Getenv("PATH"))
		cmd.Stdin = strings.NewReader(stdin)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %v: %s", args, err, out)
		}
		return string(out)
	}
	run(guardSecret, "login", "-u", guardUser, "--password-stdin", g.address())
	if b, err := os.ReadFile(dir + "/stored"); err != nil || !strings.Contains(string(b), guardSecret) {
		t.Errorf("the helper has %s, %v", b, err)
	}
	if b, err := os.ReadFile(dir + "/config.json"); err != nil || strings.Contains(string(b), guardSecret) || strings.Contains(string(b), base64.StdEncoding.EncodeToString([]byte(guardUser+":"+guardSecret))) {
		t.Errorf("config.json has %s, %v", b, err)
	}
	run("", "pull", "-q", g.address()+"/library/hello-world")
	run("", "logout", g.address())
	if _, err := os.Stat(dir + "/stored"); !os.IsNotExist(err) {
		t.Errorf("the helper still has it: %v", err)
	}
	if r := e.Cleat(t, "login", g.address()); r.Code == 0 || !strings.Contains(r.Stderr, "Cannot perform an interactive login from a non TTY device") {
		t.Errorf("%s", r)
	}
}

func TestAuthAPI(t *testing.T) {
	reg := harness.StartRegistry(t, "hello-world")
	e := engine(t)
	bearer, basic := newGuard(t, "bearer", true, reg.Addr), newGuard(t, "basic", false, reg.Addr)
	c := gophers(t, e)
	res, err := c.RegistryLogin(c.ctx, client.RegistryLoginOptions{Username: guardUser, Password: guardSecret, ServerAddress: bearer.address()})
	if err != nil || res.Auth.Status != "Login Succeeded" || res.Auth.IdentityToken != guardIdentity {
		t.Errorf("%+v, %v", res, err)
	}
	if res, err = c.RegistryLogin(c.ctx, client.RegistryLoginOptions{IdentityToken: guardIdentity, ServerAddress: bearer.address()}); err != nil {
		t.Errorf("by identity token: %+v, %v", res, err)
	}
	p := plainly(t, e)
	body := func(address, secret string) string {
		return fmt.Sprintf(`{"username":%q,"password":%q,"serveraddress":%q}`, guardUser, secret, address)
	}
	p.want(401, "POST", "/auth", body(bearer.address(), "no"), "unauthorized: incorrect username or password")
	p.want(500, "POST", "/auth", body(basic.address(), "no"), "failed with status: 401 Unauthorized")
	p.want(200, "POST", "/auth", body(basic.server.URL+"/v2/", guardSecret), `"Status":"Login Succeeded"`)
	p.want(200, "POST", "/auth", body(reg.Addr, "anything"), "Login Succeeded")
	p.want(500, "POST", "/auth", body("127.0.0.1:1", "x"), "cannot reach the registry")
	p.want(400, "POST", "/auth", "no json", "invalid JSON")
}
