package cli_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestWhatCannotBeReadHere is told as that: it is not the engine that is away.
func TestWhatCannotBeReadHere(t *testing.T) {
	dir := t.TempDir()
	cut := filepath.Join(dir, "cut")
	if err := os.WriteFile(cut, []byte("junk"), 0o600); err != nil {
		t.Fatal(err)
	}
	f := newFake(t)
	for line, want := range map[string]string{
		"load -i " + dir:                        "read " + dir + ": is a directory\n",
		"import " + dir:                         "read " + dir + ": is a directory\n",
		"context import damaged " + cut:         "unexpected EOF\n",
		"context import damaged " + "/dev/null": "", // an archive of nothing
		"save -o " + dir + " nginx":             "failed to save image: " + dir + " is a directory: name a file in it\n",
		"export -o " + dir + " web":             "failed to export container: " + dir + " is a directory: name a file in it\n",
	} {
		r := call(t, program, f.host(), "", strings.Fields("--config "+dir+"/config "+line)...)
		if r.code != 1 || !strings.HasSuffix(r.stderr, want) || strings.Contains(r.stderr, "engine") {
			t.Errorf("%s: %+v", line, r)
		}
	}
}

// TestFullOutput: what cannot be written is said once.
func TestFullOutput(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	f := newFake(t)
	cmd := exec.Command(program, "logs", "web")
	cmd.Env, cmd.Stdout = environ(f.host()), full
	var said strings.Builder
	cmd.Stderr = &said
	if err := cmd.Run(); err == nil || strings.Count(said.String(), "no space left on device") != 1 {
		t.Errorf("%v: %s", err, said.String())
	}
}

// TestVersionWithoutAnEngine says nothing of the template, which asks for what is not there.
func TestVersionWithoutAnEngine(t *testing.T) {
	r := call(t, program, "unix:///nowhere", "", "version", "-f", "{{.Server.Version}}")
	if r.code != 1 || r.stdout != "\n" || !strings.HasPrefix(r.stderr, "Cannot connect to the Cleat engine at unix:///nowhere.") || strings.Contains(r.stderr, "template") {
		t.Errorf("%+v", r)
	}
}

// TestEmptyPortIsNone: a script's variable that is not set asks for all ports.
func TestEmptyPortIsNone(t *testing.T) {
	got, want := call(t, asDocker, newFake(t).host(), "", "port", "web", ""), call(t, docker(t), newFake(t).host(), "", "port", "web", "")
	if got != want || got.code != 0 {
		t.Errorf("ours: %+v\ndocker's: %+v", got, want)
	}
}
