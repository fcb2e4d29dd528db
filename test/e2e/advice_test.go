package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/cleatlabs/cleat/test/harness"
)

// TestMistakesAreExplained makes the mistakes that everybody makes once, and wants to be
// told what is wrong and the way out.
func TestMistakesAreExplained(t *testing.T) {
	e := engine(t, "busybox")
	dir := t.TempDir()
	for name, content := range map[string]string{
		"crlf": "#!/bin/sh\r\necho\r\n", "interpreter": "#!/no/such\n", "text": "echo\n", "plain": "#!/bin/sh\n",
		"arm": "\x7fELF\x02\x01\x01" + strings.Repeat("\x00", 9) + "\x02\x00\xb7\x00" + strings.Repeat("\x00", 44),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Join(dir, "plain"), 0o644); err != nil {
		t.Fatal(err)
	}
	before := e.Things(t)
	const stopped = "advice-stopped"
	e.OK(t, "cleat", "run", "--name", stopped, "busybox", "true")
	remove(t, e, stopped)
	script := func(name string) []string {
		return []string{"run", "--rm", "-v", dir + ":/s:ro", "busybox", "/s/" + name}
	}
	for _, c := range []struct {
		args []string
		code int
		text string
	}{
		{[]string{"rn", "busybox"}, 1, "Did you mean 'cleat rm' or 'cleat run'?"},
		{[]string{"up"}, 1, "Did you mean 'cleat compose up'?"},
		{[]string{"container", "lss"}, 1, "Did you mean 'cleat container ls'?"},
		{[]string{"compose", "upp"}, 1, "Did you mean 'cleat compose up'?"},
		{[]string{"run", "--nmae", "x", "busybox"}, 125, "unknown flag: --nmae\n\nDid you mean '--name'?"},
		{[]string{"run", "-name", "x", "busybox"}, 125, "Did you mean '--name', with two dashes?"},
		{[]string{"run", "--rm", "busybox", "-p", "80:80"}, 127, "options of 'cleat run' stand before it"},
		{[]string{"run", "--rm", "busybox", "ls -la"}, 127, `sh -c "ls -la"`},
		{[]string{"run", "--rm", "busybox", "bash"}, 127, "sh is in nearly all"},
		{[]string{"run", "--rm", "-it", "busybox"}, 1, "the input device is not a TTY: leave out -t"},
		{[]string{"run", "--rm", "--mount", "src=/tmp,dst=/x", "busybox"}, 125, "say type=bind"},
		{[]string{"pull", "https://example.org/x"}, 1, "write example.org/x"},
		{[]string{"run", "", "x"}, 125, "the image's name is empty"},
		{[]string{"exec", stopped, "true"}, 1, "start it first, with 'cleat start " + stopped + "'"},
		{[]string{"import", filepath.Join(dir, "text")}, 1, "not a tar archive"},
		{[]string{"-H", "/x.sock", "ps"}, 1, "is written unix:///x.sock"},
		{[]string{"-H", "http://127.0.0.1:1", "ps"}, 1, "is written tcp://127.0.0.1:1"},
		{[]string{"-H", "tcp://127.0.0.1:1", "ps"}, 1, "Cannot connect to the engine at tcp://127.0.0.1:1. Is it running, and does it listen there?\n"},
		{script("crlf"), 127, "Windows (CRLF)"},
		{script("interpreter"), 127, `the file exists, but its interpreter "/no/such" does not`},
		{script("text"), 125, "a first line such as #!/bin/sh"},
		{script("plain"), 126, "permission denied: the file is not executable: chmod +x it"},
		{[]string{"run", "--rm", "-v", dir + "/plain:/x", "busybox", "/x"}, 126, "chmod +x"},
		{script("arm"), 125, "it is a program for arm64, and this machine is"},
	} {
		r := e.Cleat(t, c.args...)
		if r.Code != c.code || !strings.Contains(r.Stderr, c.text) {
			t.Errorf("cleat %s: want exit %d and %q, got %s", strings.Join(c.args, " "), c.code, c.text, r)
		}
	}
	config := t.TempDir()
	if err := os.WriteFile(filepath.Join(config, "config.json"), []byte(`{"credsStore": "gone"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	// A pull asks without credentials then, as Docker's does.
	r := e.Cleat(t, "--config", config, "pull", "127.0.0.1:1/x")
	if r.Code != 1 || !strings.Contains(r.Stderr, "install that helper, or take its name out of credsStore and credHelpers in "+config+"/config.json") ||
		!strings.Contains(r.Stderr, "cannot reach the registry at 127.0.0.1:1") {
		t.Errorf("a credential helper that is not installed: %s", r)
	}
	// What is a mistake of nobody's gets no advice: the program in the container was found.
	r = e.Cleat(t, "run", "--rm", "busybox", "sh", "-c", "bash")
	if r.Code != 127 || strings.Contains(r.Stderr, "Not every image") {
		t.Errorf("advice about what a shell in the container said: %s", r)
	}
	e.OK(t, "cleat", "rm", stopped)
	e.NothingNew(t, before)
}

// TestComposeSaysWhatItWaitsFor has an application wait for one that can never be
// healthy, as it ends again and again: that looks as if it took long.
func TestComposeSaysWhatItWaitsFor(t *testing.T) {
	e := engine(t, "busybox")
	dir := t.TempDir()
	const file = `services:
  db: {image: busybox, command: "false", restart: always, healthcheck: {test: [CMD, "true"]}}
  web: {image: busybox, command: sleep 1000, depends_on: {db: {condition: service_healthy}}}
`
	if err := os.WriteFile(filepath.Join(dir, "compose.yaml"), []byte(file), 0o644); err != nil {
		t.Fatal(err)
	}
	project := []string{"compose", "-p", "advice", "--project-directory", dir}
	defer e.OK(t, "cleat", append(project, "down", "-t", "0")...)
	up := harness.Begin(t, e.Command(t, "cleat", append(project, "up", "-d")...))
	const said = "container advice-db-1, which others wait for, ends again and again: 'compose logs db' shows why"
	up.Shows(t, said)
	up.Signal(t, syscall.SIGINT)
	up.Exit(t)
	if n := strings.Count(up.String(), said); n != 1 {
		t.Errorf("it is said %d times:\n%s", n, up.String())
	}
}
