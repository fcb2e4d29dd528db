package e2e

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cleatlabs/cleat/test/harness"
)

// TestInstall: what `make install` puts where, that systemd takes the units, and that uninstall removes it all.
func TestInstall(t *testing.T) {
	prefix := t.TempDir()
	run := func(program string, args ...string) string {
		t.Helper()
		cmd := exec.Command(harness.Program(t, program), args...)
		cmd.Dir = harness.Top(t)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %v\n%s", cmd.Args, err, out)
		}
		return string(out)
	}
	run("make", "-o", "build", "install", "PREFIX="+prefix, "SYSCONFDIR="+filepath.Join(prefix, "etc"))
	unit := filepath.Join(prefix, "lib/systemd/system/cleat.service")
	// It warns of anything that it does not know, and still ends well.
	if said := run("systemd-analyze", "verify", "--man=no", unit, filepath.Join(prefix, "lib/systemd/system/cleat.socket"), filepath.Join(prefix, "lib/systemd/system/cleat-containers.service")); strings.Contains(said, "cleat") {
		t.Errorf("systemd says: %s", said)
	}
	text, err := os.ReadFile(unit)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"ExecStart=" + prefix + "/bin/cleatd\n", "Type=notify\n", "KillMode=process\n", "Delegate=yes\n", "OOMPolicy=continue\n", "OOMScoreAdjust=-500\n",
		"TasksMax=infinity\n", "LimitNOFILE=infinity\n",
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the unit lacks %s", want)
		}
	}
	run("bash", "-n", filepath.Join(prefix, "share/bash-completion/completions/cleat"))
	run("make", "uninstall", "PREFIX="+prefix, "SYSCONFDIR="+filepath.Join(prefix, "etc"))
	_ = filepath.WalkDir(prefix, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			t.Errorf("left after uninstall: %s, %v", path, err)
		}
		return nil
	})
}

// TestServiceManagerIsTold: Type=notify means that "started" is "answers".
func TestServiceManagerIsTold(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	next := func(want string) {
		t.Helper()
		if err := conn.SetReadDeadline(time.Now().Add(harness.Patience)); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 1<<10)
		n, err := conn.Read(b)
		if err != nil || !strings.HasPrefix(string(b[:n]), want) {
			t.Fatalf("told %q, %v; want %s", b[:n], err, want)
		}
	}
	e := harness.Start(t, harness.Options{Env: []string{"NOTIFY_SOCKET=" + path}})
	next("READY=1")
	hangUp(t, e, "settings have been read anew")
	next("RELOADING=1\nMONOTONIC_USEC=")
	next("READY=1")
	e.Stop(t)
	next("STOPPING=1")
}
