package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cleatlabs/cleat/test/harness"
)

// A directory takes the place of a file, of an empty directory's or a link's comes what is there now, and the container
// has the same; what a rule names itself, and what is mounted, is not removed for a file.
func TestComposeWatchOtherKinds(t *testing.T) {
	e := engine(t, "busybox")
	a := compose(t, e, map[string]string{
		"compose.yaml": `
services:
  web:
    image: busybox
    command: sleep 1000
    stop_signal: SIGKILL
    volumes: ["data:/app/data"]
    develop:
      watch:
        - {action: sync, path: ./app, target: /app}
        - {action: sync, path: ./one, target: /etc}
volumes: {data: }
`,
		"app/file": "a file\n", "app/dir/in": "in\n",
	})
	a.ok(t, "up", "-d")
	watch := a.begin(t, "watch", "--no-up")
	watch.Shows(t, "Watch enabled")
	list := "find . -path ./data -prune -o -print | sort | while read f; do ls -ld $f | cut -c1; echo $f; test -d $f || cat $f; done"
	for _, change := range []string{
		"mkdir empty; touch dir/in file; ln -s dir link",
		"rm file; mkdir -p file/deep; echo 1 >file/a; echo 2 >file/deep/b",
		"rm -r file; echo again >file",
		"rmdir empty; echo 3 >empty",
		"rm empty; mkdir empty",
		"mv dir ../dir; echo 4 >dir",
		"rm dir; mv ../dir dir; rm link; mkdir link; echo 5 >link/in",
		"rm -r link; ln -s dir link",
	} {
		cmd := exec.Command("sh", "-ec", change+"; "+list)
		cmd.Dir = filepath.Join(a.dir, "app")
		want, err := cmd.Output()
		if err != nil {
			t.Fatal(change, err)
		}
		harness.Eventually(t, func() (bool, string) {
			r := a.run(t, "exec", "-T", "web", "sh", "-c", "cd /app; "+list)
			return r.Stdout == string(want), change + ":\n" + r.String() + "on the host:\n" + string(want) + watch.String()
		})
	}

	a.ok(t, "exec", "-T", "web", "touch", "/app/data/kept")
	for i, command := range []string{
		"mkdir -p data/sub; echo x >data/sub/x", "rm -r data", "mkdir data", "mv data ../data", "mkdir data; touch data/kept", "rm -r data",
	} {
		cmd := exec.Command("sh", "-ec", command)
		cmd.Dir = filepath.Join(a.dir, "app")
		if said, err := cmd.CombinedOutput(); err != nil {
			t.Fatal(command, err, string(said))
		}
		a.writer(t)("app/behind", fmt.Sprint(i)) // comes with it, or after it
		harness.Eventually(t, func() (bool, string) {
			r := a.run(t, "exec", "-T", "web", "cat", "/app/behind")
			return r.Stdout == fmt.Sprint(i), r.String() + watch.String()
		})
		if got := a.ok(t, "exec", "-T", "web", "ls", "-d", "/app/data/kept"); got != "/app/data/kept" {
			t.Errorf("%s: %q of what is mounted", command, got)
		}
	}
	for _, file := range []string{"one", "app/data"} {
		if err := os.WriteFile(filepath.Join(a.dir, file), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	watch.Shows(t, "cannot overwrite directory")
	a.writer(t)("app/last", "last\n") // comes behind it
	harness.Eventually(t, func() (bool, string) {
		r := a.run(t, "exec", "-T", "web", "cat", "/app/last")
		return r.Stdout == "last\n", r.String() + watch.String()
	})
	if got := a.ok(t, "exec", "-T", "web", "ls", "-d", "/app/data/kept", "/etc/passwd"); !strings.Contains(got, "kept") || !strings.Contains(got, "passwd") {
		t.Error(got)
	}
}
