package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cleatlabs/cleat/test/expect"
)

// TestDirectoriesComeAgain: where many containers come and go, the directories of those that went are the next ones'.
// Nothing of what the former did, or were, shows in these.
func TestDirectoriesComeAgain(t *testing.T) {
	e := engine(t, "busybox")
	const n, look = 40, "stat -c '%a %u' / /etc/hosts /etc/resolv.conf /etc/hostname; ls -A / | tr '\\n' ' '; cat /etc/resolv.conf; grep -c localhost /etc/hosts; wc -c </etc/hostname"
	run := func(i int, flags ...string) string {
		return e.OK(t, "docker", append([]string{"run", "--name", fmt.Sprintf("again%d", i), "--network", "none"}, flags...)...)
	}
	want := run(0, "busybox", "sh", "-c", look)
	names := []string{"again0"}
	for i := 1; i < n; i++ {
		run(i, "-e", "SECRET="+strings.Repeat("once-known", 300), "busybox", "sh", "-c",
			"cd /etc; for f in hosts resolv.conf hostname; do echo once-known >> $f; chmod 600 $f; chown 5:5 $f; done; chown 5:5 / && chmod 700 /")
		names = append(names, fmt.Sprintf("again%d", i))
	}
	e.OK(t, "docker", append([]string{"rm"}, names...)...)
	recycled := func() int {
		list, _ := filepath.Glob(filepath.Join(e.DataRoot, "spare", ".removed-*"))
		return len(list)
	}
	expect.Eventually(t, "the directories lie ready", func() bool { return recycled() >= n/2 })
	t.Cleanup(func() { e.Cleat(t, append([]string{"rm", "-f"}, names...)...) })
	for i := range n {
		if got := run(i, "busybox", "sh", "-c", look); got != want {
			t.Fatalf("the container sees\n%s\nof the one before, not\n%s", got, want)
		}
	}
	if left := recycled(); left > n/2 {
		t.Errorf("%d of %d directories were not used", left, n)
	}
	configs, _ := filepath.Glob(filepath.Join(e.DataRoot, "containers", "*", "config.json"))
	for _, path := range configs {
		if b, err := os.ReadFile(path); err != nil || strings.Contains(string(b), "once-known") {
			t.Fatalf("%s has what was another container's: %v", path, err)
		}
	}
	for _, path := range configs {
		dir := filepath.Dir(path)
		if b, err := os.ReadFile(filepath.Join(dir, "mount-id")); err != nil || string(b) != filepath.Base(dir) {
			t.Fatalf("%s has the mount-id %q: %v", dir, b, err)
		}
	}
	if len(configs) < n {
		t.Errorf("%d records of %d containers", len(configs), n)
	}
}
