package cli_test

import (
	"encoding/base64"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// What is wrong with a config.json keeps nobody from anything but to write it: all else in it would be lost.
func TestDamagedConfigIsNotReplaced(t *testing.T) {
	dir := t.TempDir()
	path, damaged := filepath.Join(dir, "config.json"), `{"auths": {"a.example.com": {"auth": "bWU6cGFzcw=="}}, "psFormat": "{{.ID}}",}`
	if err := os.WriteFile(path, []byte(damaged), 0o600); err != nil {
		t.Fatal(err)
	}
	f := newFake(t)
	run := func(args ...string) (string, int) {
		cmd := exec.Command(program, args...)
		cmd.Env = environ(f.host(), "DOCKER_CONFIG="+dir)
		out, _ := cmd.CombinedOutput()
		return string(out), cmd.ProcessState.ExitCode()
	}
	if out, code := run("context", "create", "other", "--docker", "host=tcp://192.0.2.1:1"); code != 0 {
		t.Fatal(out)
	}
	for _, line := range []string{"login -u me -p secret b.example.com", "logout a.example.com", "context use other", "context use default"} {
		if out, code := run(strings.Fields(line)...); code != 1 || !strings.Contains(out, path) || !strings.Contains(out, "would be lost") {
			t.Errorf("%s: exit code %d: %s", line, code, out)
		}
		if now, err := os.ReadFile(path); err != nil || string(now) != damaged {
			t.Fatalf("%s: %v, %s", line, err, now)
		}
	}
	if out, code := run("ps", "-q"); code != 0 || !strings.Contains(out, "WARNING: Error loading config file") || !strings.Contains(out, containerID[:12]) {
		t.Errorf("ps: exit code %d: %s", code, out)
	}
}

// Credentials of who has chosen no store go to the helper that is installed. Where that fails they are kept nowhere:
// in config.json they would be readable, which is what the helper is there against.
func TestInstalledCredentialHelper(t *testing.T) {
	host := serveUnix(t, func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write([]byte(`{"Status":"Login Succeeded"}`)) })
	for _, c := range []struct {
		helper        string // what it does when it is to store
		config, kept  string
		inFile, helps bool
	}{
		{"/bin/cat >$0.kept", "", "secret", false, true}, {"exit 1", `{"auths":{"a.example.com":{}}}`, "", true, false}, {"/bin/cat >$0.kept", `{"auths":{"other:1":{"auth":"bWU6cGFzcw=="}}}`, "", true, false},
	} {
		dir := t.TempDir()
		helper := filepath.Join(dir, "docker-credential-secretservice")
		if err := os.WriteFile(helper, []byte("#!/bin/sh\ncase $1 in store) "+c.helper+";; *) echo credentials not found in native keychain; exit 1;; esac\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, "config.json")
		if c.config != "" {
			if err := os.WriteFile(path, []byte(c.config), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		cmd := exec.Command(program, "login", "-u", "me", "--password-stdin", "a.example.com")
		cmd.Env = []string{"PATH=" + dir, "DOCKER_CONFIG=" + dir, "DOCKER_HOST=" + host}
		cmd.Stdin = strings.NewReader("secret")
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "Login Succeeded") {
			t.Fatalf("%+v: %v, %s", c, err, out)
		}
		kept, _ := os.ReadFile(helper + ".kept")
		config, err := os.ReadFile(path)
		if inFile := strings.Contains(string(config), base64.StdEncoding.EncodeToString([]byte("me:secret"))); err != nil || inFile != c.inFile ||
			!strings.Contains(string(kept), c.kept) || strings.Contains(string(config), `"credsStore": "secretservice"`) != c.helps {
			t.Errorf("%+v: the helper has %q; config.json: %v, %s", c, kept, err, config)
		}
	}
}

// The error of a helper that fails says what to do, and that works.
func TestFailingCredentialHelper(t *testing.T) {
	host := serveUnix(t, func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write([]byte(`{"Status":"Login Succeeded"}`)) })
	dir := t.TempDir()
	helper := "#!/bin/sh\ncase $1 in store) echo no keychain here; exit 1;; *) echo credentials not found in native keychain; exit 1;; esac\n"
	if err := os.WriteFile(filepath.Join(dir, "docker-credential-secretservice"), []byte(helper), 0o755); err != nil {
		t.Fatal(err)
	}
	login := func() (string, int) {
		cmd := exec.Command(program, "login", "-u", "me", "--password-stdin", "a.example.com")
		cmd.Env = []string{"PATH=" + dir, "DOCKER_CONFIG=" + dir, "DOCKER_HOST=" + host}
		cmd.Stdin = strings.NewReader("secret")
		out, _ := cmd.CombinedOutput()
		return string(out), cmd.ProcessState.ExitCode()
	}
	path, wayOut := filepath.Join(dir, "config.json"), `{"auths": {"a.example.com": {}}}`
	said, code := login()
	if code != 1 || !strings.Contains(said, "no keychain here") || !strings.Contains(said, wayOut+" into "+path) || strings.Contains(said, "Login Succeeded") {
		t.Errorf("exit code %d: %s", code, said)
	}
	if kept, err := os.ReadFile(path); !os.IsNotExist(err) {
		t.Errorf("config.json: %v, %s", err, kept)
	}
	if err := os.WriteFile(path, []byte(wayOut), 0o600); err != nil {
		t.Fatal(err)
	}
	if said, code := login(); code != 0 || !strings.Contains(said, "Login Succeeded") {
		t.Errorf("as it says: exit code %d: %s", code, said)
	}
}
