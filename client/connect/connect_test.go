package connect_test

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/docker/cli/cli/config/configfile"
	"github.com/spf13/pflag"

	"github.com/cleatlabs/cleat/client/connect"
)

// options are what a program's flags and environment come to.
func options(t *testing.T, flags ...string) *connect.Options {
	t.Helper()
	var o connect.Options
	fs := pflag.NewFlagSet("test", pflag.ContinueOnError)
	o.Install(fs)
	if err := fs.Parse(flags); err != nil {
		t.Fatal(err)
	}
	return &o
}

// setEnviron has the process see these variables of Docker's clients, and no others of them.
func setEnviron(t *testing.T, env []string) {
	t.Helper()
	for _, name := range []string{"DOCKER_CONFIG", "DOCKER_CONTEXT", "DOCKER_HOST", "DOCKER_TLS", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"} {
		t.Setenv(name, "")
	}
	for _, s := range env {
		name, value, _ := strings.Cut(s, "=")
		t.Setenv(name, value)
	}
}

func noConfiguration() *configfile.ConfigFile { return configfile.New("") }

func write(t *testing.T, path, data string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestAProgramThatIsRunReachesTheSameEngine(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"ca.pem", "cert.pem", "key.pem"} {
		write(t, filepath.Join(dir, "certs", name), "x")
	}
	id := sha256.Sum256([]byte("remote"))
	write(t, filepath.Join(dir, "config", "contexts", "meta", hex.EncodeToString(id[:]), "meta.json"),
		`{"Name":"remote","Endpoints":{"docker":{"Host":"tcp://192.0.2.2:2376","SkipTLSVerify":true}}}`)
	certs := []string{"--tlscacert", dir + "/certs/ca.pem", "--tlscert", dir + "/certs/cert.pem", "--tlskey", dir + "/certs/key.pem"}
	for name, c := range map[string]struct {
		env, flags []string
	}{
		"nothing":             {},
		"a socket":            {flags: []string{"-H", "unix:///run/other.sock"}},
		"ssh":                 {flags: []string{"-H", "ssh://user@192.0.2.1"}},
		"the environment":     {env: []string{"DOCKER_HOST=tcp://192.0.2.1:2376", "DOCKER_TLS_VERIFY=1", "DOCKER_CERT_PATH=" + dir + "/certs"}},
		"flags over it":       {env: []string{"DOCKER_HOST=tcp://192.0.2.9:1", "DOCKER_CONTEXT=x"}, flags: append([]string{"-H", "tcp://192.0.2.1:2376", "--tlsverify"}, certs...)},
		"unverified":          {flags: append([]string{"-H", "tcp://192.0.2.1:2376", "--tls"}, certs...)},
		"a context":           {flags: []string{"--config", dir + "/config", "--context", "remote"}},
		"a context over it":   {env: []string{"DOCKER_HOST=tcp://192.0.2.9:1"}, flags: []string{"--config", dir + "/config", "--context", "remote"}},
		"the default context": {env: []string{"DOCKER_CONTEXT=remote"}, flags: []string{"--config", dir + "/config", "--context", "default"}},
	} {
		t.Run(name, func(t *testing.T) {
			setEnviron(t, c.env)
			o := options(t, c.flags...)
			want, err := o.Endpoint(noConfiguration)
			if err != nil {
				t.Fatal(err)
			}
			env, err := o.Environ(noConfiguration, append(os.Environ(), "OTHER=kept"))
			if err != nil {
				t.Fatal(err)
			}
			setEnviron(t, env)
			child := options(t, "--config", os.Getenv("DOCKER_CONFIG")) // which is read once in a process's life
			if got, err := child.Endpoint(noConfiguration); err != nil || got != want {
				t.Errorf("the program reaches %+v, %v, not %+v", got, err, want)
			}
			if child.Dir() != o.Dir() || os.Getenv("OTHER") != "kept" {
				t.Errorf("configured by %s, not %s; OTHER=%q", child.Dir(), o.Dir(), os.Getenv("OTHER"))
			}
		})
	}
}

func TestCertificatesThatNoEnvironmentNames(t *testing.T) {
	setEnviron(t, nil)
	key := filepath.Join(t.TempDir(), "mine.pem")
	write(t, key, "x")
	_, err := options(t, "-H", "tcp://192.0.2.1:2376", "--tlsverify", "--tlskey", key).Environ(noConfiguration, nil)
	if err == nil || !strings.Contains(err.Error(), key) || !strings.Contains(err.Error(), "DOCKER_CERT_PATH") {
		t.Errorf("%v", err)
	}
}

// TestNamedCertificatesHaveToBeThere: one that is only looked for need not be.
func TestTLSWithoutVerification(t *testing.T) {
	setEnviron(t, nil)
	for flag, want := range map[string]connect.Endpoint{
		"--tlsverify=false": {TLS: true, SkipVerify: true}, "--tlsverify": {TLS: true}, "--tls": {TLS: true, SkipVerify: true}, "--tls=false": {SkipVerify: true},
	} {
		ep, err := options(t, "--config", t.TempDir(), "-H", "tcp://192.0.2.1:2376", flag).DefaultEndpoint()
		if err != nil || ep.TLS != want.TLS || ep.SkipVerify != want.SkipVerify || ep.Host != "tcp://192.0.2.1:2376" {
			t.Errorf("%s: %+v, %v", flag, ep, err)
		}
	}
}

func TestNamedCertificatesHaveToBeThere(t *testing.T) {
	dir := t.TempDir()
	for name, c := range map[string]struct {
		env, flags    []string
		ca, cert, key string
	}{
		"looked for":            {flags: []string{"--tlsverify"}},
		"in DOCKER_CERT_PATH":   {env: []string{"DOCKER_CERT_PATH=" + dir}, flags: []string{"--tlsverify"}, ca: dir + "/ca.pem"},
		"there, unverified":     {env: []string{"DOCKER_CERT_PATH=" + dir}, flags: []string{"--tls"}},
		"an authority by name":  {flags: []string{"--tlsverify", "--tlscacert", "typo.pem"}, ca: "typo.pem"},
		"a certificate by name": {flags: []string{"--tlsverify", "--tlscert", "typo.pem", "--tlskey", "typo.key"}, cert: "typo.pem", key: "typo.key"},
	} {
		setEnviron(t, append(c.env, "DOCKER_HOST=tcp://192.0.2.1:2376"))
		ep, err := options(t, c.flags...).Endpoint(noConfiguration)
		if err != nil || ep.CAFile != c.ca || ep.CertFile != c.cert || ep.KeyFile != c.key {
			t.Errorf("%s: %+v, %v", name, ep, err)
		}
	}
}

func TestWhatTLSSays(t *testing.T) {
	for cause, want := range map[string]string{
		"Client sent an HTTP request to an HTTPS server.":                                  "served with TLS there: give --tlsverify",
		"tls: first record does not look like a TLS handshake":                             "does not speak TLS: leave out --tlsverify",
		"read: remote error: tls: certificate required":                                    "name yours by --tlscert and --tlskey",
		"read: remote error: tls: expired certificate":                                     "(expired certificate): name another by",
		"tls: failed to verify certificate: x509: certificate signed by unknown authority": "name that by --tlscacert",
		"x509: certificate is valid for example.com, not localhost":                        "valid for example.com, not localhost",
	} {
		e := &connect.UnreachableError{Host: "tcp://192.0.2.1:2376", Cause: errors.New(cause)}
		if got := e.Error(); !strings.Contains(got, want) || strings.Contains(got, "Is it running") {
			t.Errorf("%s: %s", cause, got)
		}
	}
}

// Nothing is sent to the engine of this machine where the context that was named tells of no engine.
func TestContextWithoutEndpoint(t *testing.T) {
	setEnviron(t, nil)
	id := sha256.Sum256([]byte("remote"))
	for _, endpoints := range []string{`null`, `{}`, `{"docker":null}`} {
		dir := t.TempDir()
		write(t, filepath.Join(dir, "contexts", "meta", hex.EncodeToString(id[:]), "meta.json"), `{"Name":"remote","Endpoints":`+endpoints+`}`)
		ep, err := options(t, "--config", dir, "--context", "remote").Endpoint(func() *configfile.ConfigFile { return configfile.New("") })
		if err == nil || !strings.Contains(err.Error(), "has no docker endpoint") {
			t.Errorf("%s: %+v, %v", endpoints, ep, err)
		}
	}
}
