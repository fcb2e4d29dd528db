package cli_test

import (
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
