package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cleatlabs/cleat/test/harness"
)

// pairWriter writes the same number into two files, the second after the first:
// a copy of one instant never has the second ahead, nor the first ahead by two.
const pairWriter = `i=0; while true; do i=$((i+1)); echo $i >/d/.t && mv /d/.t /d/first; echo $i >/d/.t && mv /d/.t /d/second; done`

// TestVolumeCloneWhileInUse: a copy of a volume that is written to is of one instant,
// and whoever writes goes on.
func TestVolumeCloneWhileInUse(t *testing.T) {
	e := engine(t, "busybox")
	n := name(t)
	remove(t, e, n)
	e.OK(t, "docker", "volume", "create", "--label", "of=source", n)
	e.OK(t, "docker", "run", "-d", "--name", n, "-v", n+":/d", "busybox", "sh", "-c", pairWriter)
	read := func(volume string) (first, second string) {
		f := strings.Fields(e.OK(t, "docker", "run", "--rm", "-v", volume+":/d:ro", "busybox", "cat", "/d/first", "/d/second"))
		if len(f) != 2 {
			t.Fatalf("%q", f)
		}
		return f[0], f[1]
	}
	harness.Eventually(t, func() (bool, string) {
		r := e.Docker(t, "exec", n, "test", "-e", "/d/second")
		return r.Code == 0, r.String()
	})
	for range 8 {
		r := e.Cleat(t, "volume", "clone", n, n+"-copy")
		if r.Code != 0 || r.Line() != n+"-copy" || r.Stderr != "" { // cron would mail it
			t.Fatalf("%s", r)
		}
		first, second := read(n + "-copy")
		if next := second + "+1"; first != second && e.OK(t, "docker", "run", "--rm", "busybox", "sh", "-c", "echo $(("+next+"))") != first {
			t.Errorf("the copy is of no instant: %s and %s", first, second)
		}
		if got := e.OK(t, "docker", "volume", "inspect", "-f", "{{.Driver}} {{.Labels.of}}", n+"-copy"); got != "local source" {
			t.Errorf("%q", got)
		}
		e.OK(t, "docker", "volume", "rm", n+"-copy")
		before, _ := read(n)
		harness.Eventually(t, func() (bool, string) { now, _ := read(n); return now != before, "the writer stands still" })
	}
	if got := e.OK(t, "docker", "inspect", "-f", "{{.State.Status}}", n); got != "running" {
		t.Error(got)
	}
	// A container that somebody has paused stays so.
	e.OK(t, "docker", "pause", n)
	e.OK(t, "cleat", "volume", "clone", "--label", "x=y", n, n+"-copy")
	if got := e.OK(t, "docker", "inspect", "-f", "{{.State.Status}}", n); got != "paused" {
		t.Error(got)
	}
	if got := e.OK(t, "docker", "volume", "inspect", "-f", "{{json .Labels}}", n+"-copy"); got != `{"x":"y"}` {
		t.Error(got)
	}
	e.OK(t, "docker", "unpause", n)
	for args, text := range map[string]string{
		"volume clone " + n + " " + n + "-copy":                      "a volume named " + n + "-copy exists already",
		"volume clone none " + n + "-other":                          "get none: no such volume",
		"volume clone " + n + " a/b":                                 "includes invalid characters",
		"volume clone --snapshot none " + n + " " + n + "-x":         "has no snapshot none",
		"volume restore " + n + " none":                              "has no snapshot none",
		"volume snapshot " + n + " ../x":                             "invalid snapshot name",
		"volume snapshot --rm " + n + " none":                        "has no snapshot none",
		"volume snapshots none":                                      "get none: no such volume",
		"volume rename " + n + " " + n + "-copy":                     "exists already",
		"volume rename none other" + n:                               "get none: no such volume",
		"--host unix:///nowhere volume clone " + n + " " + n + "-no": "Cannot connect to the Cleat engine",
	} {
		if r := e.Cleat(t, strings.Fields(args)...); r.Code != 1 || !strings.Contains(r.Stderr, text) {
			t.Errorf("%s", r)
		}
	}
	e.OK(t, "docker", "rm", "-f", n)
	e.OK(t, "docker", "volume", "rm", n, n+"-copy")
}

// TestVolumeCloneOfMuchWhileInUse: while a large volume is copied its containers go on, take execs, and others are
// started; they stand still only for what has changed meanwhile.
func TestVolumeCloneOfMuchWhileInUse(t *testing.T) {
	e := engine(t, "busybox")
	n := name(t)
	remove(t, e, n)
	e.OK(t, "docker", "run", "-d", "--name", n, "-v", n+":/d", "busybox", "sh", "-c", pairWriter)
	// More than is looked at a second time while anybody stands still, and written just now.
	e.OK(t, "docker", "exec", n, "sh", "-c", "head -c 100000000 /dev/urandom >/d/much")
	// Anything may keep a machine from its work during the short while that they stand still, or let the copy be done
	// before a client has begun. It does not each time; what is copied while they stand still, or holds others up, does.
	for try := 1; ; try++ {
		began := time.Now()
		clone := harness.BeginOnTerminal(t, e.Command(t, "cleat", "volume", "clone", n, n+"-copy"), 24, 200)
		started := -1 // while it was copied
		for running := true; running; started++ {
			if x := e.Docker(t, "exec", n, "true"); x.Code != 0 {
				t.Errorf("while it is copied: %s", x)
			}
			e.OK(t, "docker", "run", "--rm", "-v", n+":/d", "busybox", "test", "-e", "/d/much")
			select {
			case <-clone.Ended:
				running = false
			default:
			}
		}
		took := time.Since(began)
		_, text, _ := strings.Cut(clone.String(), "stood still for ")
		text, _, _ = strings.Cut(text, " ")
		still, err := time.ParseDuration(text)
		if clone.Exit(t) != 0 || err != nil {
			t.Fatalf("%v: %s", err, clone)
		}
		t.Logf("cloned in %v, of which containers stood still for %v; %d were started meanwhile", took, still, started)
		if started > 0 && still <= took/4 {
			break
		}
		if try == 10 {
			t.Fatalf("it took %v, containers stood still for %v, and %d could be started meanwhile, as in %d tries before", took, still, started, try-1)
		}
		e.OK(t, "docker", "volume", "rm", n+"-copy")
	}
	f := strings.Fields(e.OK(t, "docker", "run", "--rm", "-v", n+":/a:ro", "-v", n+"-copy:/b:ro", "busybox", "sh", "-c",
		"cmp /a/much /b/much && cat /b/second && echo $(($(cat /b/second)+1)) && cat /b/first"))
	if len(f) != 3 || f[2] != f[0] && f[2] != f[1] {
		t.Errorf("the copy is of no instant: %q", f)
	}
	e.OK(t, "docker", "rm", "-f", n)
	e.OK(t, "docker", "volume", "rm", n, n+"-copy")
}

// TestExecWaitsForACopy: an exec into a container that stands still for a copy waits, rather than to be told that it is
// paused. What lies on a tmpfs is copied as a whole meanwhile.
func TestExecWaitsForACopy(t *testing.T) {
	e := engine(t, "busybox")
	n := name(t)
	remove(t, e, n)
	e.OK(t, "docker", "volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", n)
	e.OK(t, "docker", "run", "-d", "--name", n, "-v", n+":/d", "busybox", "sleep", "600")
	e.OK(t, "docker", "exec", n, "sh", "-c", "head -c 60000000 /dev/zero >/d/much")
	done := make(chan harness.Result, 1)
	go func() { done <- e.Cleat(t, "volume", "clone", n, n+"-copy") }()
	for running := true; running; {
		if x := e.Docker(t, "exec", n, "true"); x.Code != 0 {
			t.Errorf("while it is copied: %s", x)
		}
		select {
		case r := <-done:
			running = false
			if r.Code != 0 || r.Stderr != "" {
				t.Errorf("%s", r)
			}
		default:
		}
	}
	e.OK(t, "docker", "rm", "-f", n)
	e.OK(t, "docker", "volume", "rm", n, n+"-copy")
}

func TestVolumeSnapshotAndRestore(t *testing.T) {
	e := engine(t, "busybox")
	n := name(t)
	remove(t, e, n)
	sh := func(script string) string {
		return e.OK(t, "docker", "run", "--rm", "-v", n+":/d", "busybox", "sh", "-c", script)
	}
	sh("echo one >/d/f; chown 12:34 /d; chmod 700 /d")
	e.OK(t, "cleat", "volume", "snapshot", n, "before")
	sh("echo two >/d/f; touch /d/new; chown 0:0 /d")
	e.OK(t, "docker", "run", "-d", "--name", n, "-v", n+":/d", "busybox", "sleep", "600")
	second := e.OK(t, "cleat", "volume", "snapshot", n)
	if got := e.OK(t, "cleat", "volume", "snapshots", "-q", n); got != "before\n"+second {
		t.Errorf("%q", got)
	}
	if r := e.Cleat(t, "volume", "restore", n, "before"); r.Code != 1 || !strings.Contains(r.Stderr, "a container runs with the volume") {
		t.Errorf("%s", r)
	}
	e.OK(t, "docker", "rm", "-f", n)
	e.OK(t, "cleat", "volume", "restore", n, "before") // idle when the end is told
	if got := sh("cat /d/f; ls /d; stat -c %u:%g:%a /d"); got != "one\nf\n12:34:700" {
		t.Errorf("restored: %q", got)
	}
	e.OK(t, "cleat", "volume", "restore", n, second)
	if got := sh("cat /d/f; ls /d"); got != "two\nf\nnew" {
		t.Errorf("restored: %q", got)
	}
	e.OK(t, "cleat", "volume", "clone", "--snapshot", "before", n, n+"-old")
	if got := e.OK(t, "docker", "run", "--rm", "-v", n+"-old:/d", "busybox", "cat", "/d/f"); got != "one" {
		t.Errorf("%q", got)
	}
	// They are what somebody wanted to keep.
	if r := e.Docker(t, "volume", "rm", n); r.Code != 1 || !strings.Contains(r.Stderr, "volume has snapshots - ["+second+", before]") {
		t.Errorf("%s", r)
	}
	e.OK(t, "cleat", "volume", "snapshot", "--rm", n, second)
	e.OK(t, "docker", "volume", "rm", "-f", n)
	e.OK(t, "docker", "volume", "rm", n+"-old")
}

// TestVolumeRename: containers, running or not, have the volume under its new name,
// over a restart of the engine, too.
func TestVolumeRename(t *testing.T) {
	e := harness.Start(t, harness.Options{})
	e.Load(t, "busybox")
	e.OK(t, "docker", "run", "-d", "--name", "running", "-v", "old:/d", "busybox", "sleep", "600")
	e.OK(t, "docker", "create", "--name", "created", "--mount", "type=volume,src=old,dst=/d,readonly", "-v", "other:/o", "busybox", "cat", "/d/f")
	e.OK(t, "docker", "exec", "running", "sh", "-c", "echo before >/d/f")
	e.OK(t, "cleat", "volume", "rename", "old", "new")
	e.OK(t, "docker", "exec", "running", "sh", "-c", "echo after >>/d/f")
	check := func() {
		t.Helper()
		if got := e.OK(t, "docker", "start", "-a", "created"); got != "before\nafter" {
			t.Errorf("%q", got)
		}
		if got := e.OK(t, "docker", "volume", "ls", "-q"); got != "new\nother" {
			t.Errorf("%q", got)
		}
		for _, c := range []string{"running", "created"} {
			var m []struct{ Name, Source string }
			if err := json.Unmarshal([]byte(e.OK(t, "docker", "inspect", "-f", "{{json .Mounts}}", c)), &m); err != nil || m[0].Name != "new" || filepath.Base(filepath.Dir(m[0].Source)) != "new" {
				t.Errorf("%s: %+v, %v", c, m, err)
			}
		}
		if got := e.OK(t, "docker", "inspect", "-f", "{{.HostConfig.Binds}}", "running"); got != "[new:/d]" {
			t.Errorf("%q", got)
		}
		if got := e.OK(t, "docker", "inspect", "-f", "{{(index .HostConfig.Mounts 0).Source}} {{.HostConfig.Binds}}", "created"); got != "new [other:/o]" {
			t.Errorf("%q", got)
		}
		if r := e.Docker(t, "volume", "rm", "new"); !strings.Contains(r.Stderr, "volume is in use") {
			t.Errorf("%s", r)
		}
	}
	check()
	e.Kill()
	e.Run(t)
	check()
	e.OK(t, "docker", "restart", "-t", "0", "running")
	if got := e.OK(t, "docker", "exec", "running", "cat", "/d/f"); got != "before\nafter" {
		t.Errorf("%q", got)
	}
}

// TestKilledWhileAVolumeIsCopied: the next engine lets go who stood still.
func TestKilledWhileAVolumeIsCopied(t *testing.T) {
	e := harness.Start(t, harness.Options{})
	e.Stop(t)
	e.SetEnv("CLEAT_FAILPOINTS=engine.still.after-freeze")
	e.Run(t)
	e.SetEnv()
	e.Load(t, "busybox")
	e.OK(t, "docker", "run", "-d", "--name", "writer", "-v", "data:/d", "busybox", "sh", "-c", pairWriter)
	ready(t, e, "docker", "writer", "/d/second")
	if r := e.Cleat(t, "volume", "clone", "data", "copy"); r.Code == 0 {
		t.Fatalf("%s", r)
	}
	<-e.Exited()
	e.Run(t)
	if got := e.OK(t, "docker", "inspect", "-f", "{{.State.Status}}", "writer"); got != "running" {
		t.Errorf("the writer is %s", got)
	}
	first := e.OK(t, "docker", "exec", "writer", "cat", "/d/first")
	harness.Eventually(t, func() (bool, string) {
		return e.OK(t, "docker", "exec", "writer", "cat", "/d/first") != first, "the writer stands still"
	})
	if got := e.OK(t, "docker", "volume", "ls", "-q"); got != "data" {
		t.Errorf("half a copy: %q", got)
	}
	e.OK(t, "cleat", "volume", "clone", "data", "copy")
	harness.Eventually(t, func() (bool, string) {
		left, err := os.ReadDir(filepath.Join(e.ExecRoot, "still"))
		return err == nil && len(left) == 0, fmt.Sprint(left, err)
	})
}
