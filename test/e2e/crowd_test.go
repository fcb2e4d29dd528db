package e2e

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/test/harness"
)

// TestIdleClientsLeaveFilesToContainers: however many connections clients leave open, containers are started again by
// their policies, and callers are served once the others have gone.
func TestIdleClientsLeaveFilesToContainers(t *testing.T) {
	t.Parallel()
	e := harness.Start(t, harness.Options{})
	e.Load(t, "busybox")
	dir := t.TempDir()
	e.OK(t, "docker", "run", "-d", "--name", "again", "--restart", "always", "-v", dir+":/out", "busybox", "sh", "-c",
		"echo start >> /out/starts; until [ -e /out/end ]; do sleep 0.05; done; rm /out/end; exit 1")
	const files = 400
	if err := unix.Prlimit(e.PID(), unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: files, Max: files}, nil); err != nil {
		t.Fatal(err)
	}
	var idle []net.Conn
	for range files {
		c, err := net.Dial("unix", e.Socket)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		idle = append(idle, c)
	}
	for _, want := range []int{2, 3} {
		if err := os.WriteFile(filepath.Join(dir, "end"), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		harness.Eventually(t, func() (bool, string) {
			b, _ := os.ReadFile(filepath.Join(dir, "starts"))
			return strings.Count(string(b), "start") == want, "starts:\n" + string(b) + e.Log()
		})
	}
	for _, c := range idle {
		c.Close()
	}
	if got := e.OK(t, "docker", "ps", "--format", "{{.Names}}"); got != "again" {
		t.Errorf("afterwards: %s", got)
	}
	if said := e.Log(); !strings.Contains(said, "as many connections open as the engine takes") || strings.Contains(said, "too many open files") {
		t.Errorf("the log:\n%s", said)
	}
}
