package main

import (
	"bufio"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestMain lets the test binary stand in for the command.
func TestMain(m *testing.M) {
	if os.Getenv("CLEAT_REGISTRY_TEST_MAIN") != "" {
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func command(args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), "CLEAT_REGISTRY_TEST_MAIN=1")
	return cmd
}

func TestFromDirectoryToRegistry(t *testing.T) {
	dir := t.TempDir()
	root, archive := filepath.Join(dir, "root"), filepath.Join(dir, "hello.tar")
	if err := os.MkdirAll(filepath.Join(root, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "bin/hello"), []byte("hi"), 0o755); err != nil {
		t.Fatal(err)
	}
	out, err := command("mkimage", "--from-dir", root, "--ref", "hello", "-o", archive, "--cmd", `["/bin/hello"]`, "--entrypoint", `["/bin/sh","-c"]`,
		"--env", "A=B", "--env", "C=", "--expose", "80", "--expose", "53/udp", "--workdir", "/w", "--user", "1:2", "--volume", "/data", "--label", "k=v", "--stopsignal", "SIGQUIT").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	id := strings.TrimSpace(string(out))

	srv := command("serve", "--addr", "127.0.0.1:0", "--data", filepath.Join(dir, "data"))
	var stderr strings.Builder
	srv.Stderr = &stderr
	stdout, err := srv.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := srv.Start(); err != nil {
		t.Fatal(err)
	}
	defer srv.Process.Kill()
	line, err := bufio.NewReader(stdout).ReadString('\n')
	addr, ok := strings.CutPrefix(strings.TrimSpace(line), "listening on ")
	if err != nil || !ok {
		t.Fatalf("the server says %q, %v", line, err)
	}
	out, err = command("push", archive, addr+"/library/hello:latest").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "digest: "+id) {
		t.Fatalf("push: %v: %s", err, out)
	}
	req, _ := http.NewRequest(http.MethodGet, "http://"+addr+"/v2/library/hello/manifests/latest", nil)
	req.Header.Set("Accept", "application/vnd.oci.image.manifest.v1+json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Docker-Content-Digest") != id {
		t.Errorf("%s: %s", resp.Status, body)
	}
	cfg := string(body)
	cfg = cfg[strings.Index(cfg, "sha256:"):]
	resp, err = http.Get("http://" + addr + "/v2/library/hello/blobs/" + cfg[:strings.Index(cfg, `"`)])
	if err != nil {
		t.Fatal(err)
	}
	body, _ = io.ReadAll(resp.Body)
	resp.Body.Close()
	for _, want := range []string{`"Cmd":["/bin/hello"]`, `"Entrypoint":["/bin/sh","-c"]`, `"Env":["A=B","C="]`, `"80/tcp":{}`, `"53/udp":{}`, `"WorkingDir":"/w"`,
		`"User":"1:2"`, `"Volumes":{"/data":{}}`, `"Labels":{"k":"v"}`, `"StopSignal":"SIGQUIT"`, `"os":"linux"`} {
		if !strings.Contains(string(body), want) {
			t.Errorf("the config lacks %s: %s", want, body)
		}
	}
	http.DefaultClient.CloseIdleConnections()
	if err := srv.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := srv.Wait(); err != nil {
		t.Errorf("ended with %v", err)
	}
	if stderr.Len() > 0 {
		t.Errorf("said on stderr: %s", stderr.String())
	}
}

func TestUsageErrors(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct {
		args string
		code int
		text string
	}{
		{"", 2, "a command is missing"},
		{"bake", 2, `unknown command "bake"`},
		{"serve", 2, "serve needs --data"},
		{"serve --data " + dir + " --colour red", 2, "flag provided but not defined"},
		{"serve --data " + dir + " extra", 2, `takes no argument "extra"`},
		{"serve --data " + dir + " --addr 127.0.0.1:99999", 1, "cannot serve on 127.0.0.1:99999"},
		{"collect", 2, "collect needs --data"},
		{"collect --data /nonexistent", 1, "no such file"},
		{"push one", 2, "push needs an archive and a name"},
		{"push /nonexistent a:1", 1, "no such file"},
		{"mkimage --ref a", 2, "-o ARCHIVE"},
		{"mkimage -o x", 2, "--ref"},
		{"mkimage --ref a -o x", 2, "either --from-dir or --from-tar"},
		{"mkimage --ref a -o x --from-dir / --cmd sh", 2, "not a JSON array"},
		{"mkimage --ref a -o x --from-dir / --expose 0", 2, "not a port"},
		{"mkimage --ref a -o x --from-dir / --expose 80/icmp", 2, "unknown protocol"},
		{"mkimage --ref a -o x --from-dir / --volume data", 2, "not an absolute path"},
		{"mkimage --ref a -o x --from-dir / --env =x", 2, "not K=V"},
		{"mkimage --ref Upper -o x --from-dir /", 1, "must be lowercase"},
	} {
		out, err := command(strings.Fields(c.args)...).CombinedOutput()
		exit, ok := err.(*exec.ExitError)
		if !ok || exit.ExitCode() != c.code || !strings.Contains(string(out), c.text) {
			t.Errorf("%q: %v, want %d with %q: %s", c.args, err, c.code, c.text, out)
		}
	}
}
