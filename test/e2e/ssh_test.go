package e2e

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cleatlabs/cleat/test/harness"
)

// fakeSSH runs a command as sshd does, by a shell that has nothing of the client's environment; a host's programs are
// those in the directory of its name.
const fakeSSH = `#!/bin/sh
until [ "$1" = -- ]; do shift; done
host=$2
shift 2
exec env -i "PATH=HOSTS/$host" /bin/sh -c "$*"
`

// sshTo has ssh run commands on hosts that have these programs, by HOST/NAME, and a shell.
func sshTo(t *testing.T, programs map[string]string) {
	t.Helper()
	dir := t.TempDir()
	link := func(target, path string) {
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(target, path); err != nil && !errors.Is(err, fs.ErrExist) {
			t.Fatal(err)
		}
	}
	for path, target := range programs {
		link("/bin/sh", filepath.Join(filepath.Dir(path), "sh"))
		link(target, path)
	}
	if err := os.WriteFile(filepath.Join(dir, "ssh"), []byte(strings.ReplaceAll(fakeSSH, "HOSTS", dir)), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

// TestEnginesOverSSH: an engine of another machine, which has cleat, under its own or docker's name, and nothing of
// Docker's.
func TestEnginesOverSSH(t *testing.T) {
	e := engine(t, "busybox")
	sshTo(t, map[string]string{"ours/cleat": harness.Binary(t, "cleat"), "named/docker": harness.Binary(t, "cleat"), "bare/sh": "/bin/sh"})
	over := func(host string) []string { return []string{"-H", "ssh://someone@" + host + ":2222" + e.Socket} }
	for program, hosts := range map[string][]string{"cleat": {"ours", "named"}, "docker": {"named"}} {
		for _, host := range hosts {
			t.Run(program+" to "+host, func(t *testing.T) {
				if r := e.Do(t, program, "typed\n", append(over(host), "run", "--rm", "-i", "busybox", "sh", "-c", "cat; exit 5")...); r.Code != 5 || r.Stdout != "typed\n" {
					t.Errorf("%s", r)
				}
				// A stream that is silent does not keep the remote end alive when its client is killed.
				remote := "unix://" + e.Socket + "\x00system\x00dial-stdio"
				harness.Eventually(t, func() (bool, string) { return remoteEnds(remote) == 0, "the remote end of what has ended stays" })
				events := e.Command(t, program, append(over(host), "events", "--filter", "container=nosuch")...)
				if err := events.Start(); err != nil {
					t.Fatal(err)
				}
				harness.Eventually(t, func() (bool, string) { return remoteEnds(remote) == 1, "no remote end" })
				if err := events.Process.Kill(); err != nil {
					t.Error(err)
				}
				_ = events.Wait() // it was killed
				harness.Eventually(t, func() (bool, string) { return remoteEnds(remote) == 0, "the remote end stays" })
			})
		}
	}
	const missing = ": neither cleat nor docker is in the PATH of that machine's ssh sessions"
	for _, args := range [][]string{{"ps"}, {"run", "busybox"}, {"compose", "-p", "x", "ps"}} {
		r := e.Do(t, "cleat", "", append(over("bare"), args...)...)
		if r.Code == 0 || strings.Count(r.Stderr, "Cannot connect to the engine at ssh://someone@bare:2222"+e.Socket+missing) != 1 || strings.Count(r.Stderr, "Cannot") != 1 {
			t.Errorf("%s", r)
		}
	}
	r := e.Do(t, "cleat", "", "-H", "ssh://ours"+e.Socket+"-none", "ps")
	if r.Code != 1 || !strings.Contains(r.Stderr, "engine start") {
		t.Errorf("without an engine: %s", r)
	}
}

// remoteEnds counts the processes whose arguments contain these.
func remoteEnds(arguments string) (n int) {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range files {
		if b, _ := os.ReadFile(f); strings.Contains(string(b), arguments) && !strings.Contains(string(b), fmt.Sprint("ssh", "\x00")) {
			n++
		}
	}
	return n
}
