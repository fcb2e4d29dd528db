package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/cleatlabs/cleat/test/harness"
)

// descriptors counts what the engine has open of one kind of file.
func descriptors(e *harness.Engine, kind string) (n int) {
	links, _ := filepath.Glob("/proc/" + strconv.Itoa(e.PID()) + "/fd/*")
	for _, l := range links {
		if to, err := os.Readlink(l); err == nil && strings.HasPrefix(to, kind) {
			n++
		}
	}
	return n
}

// TestBetweenCreateAndStart: a start is begun while its container is created; what is
// done to the container until it comes counts all the same.
func TestBetweenCreateAndStart(t *testing.T) {
	e := engine(t, "busybox")
	made := 0
	run := func(t *testing.T, between func(c string), flags ...string) string {
		t.Helper()
		made++
		c := name(t) + strconv.Itoa(made)
		remove(t, e, c)
		e.OK(t, "docker", append([]string{"create", "--name", c}, flags...)...)
		between(c)
		return e.OK(t, "docker", "start", "-a", c)
	}
	copied := func(content, to string) func(c string) {
		return func(c string) {
			src := tree(t, map[string]string{"f": content})
			e.OK(t, "docker", "cp", src+"/f", c+":"+to)
			e.OK(t, "docker", "cp", src+"/f", c+":/second")
		}
	}
	for _, network := range []string{"none", "bridge", "host"} {
		t.Run("a file of "+network, func(t *testing.T) {
			if got := run(t, copied("new", "/added"), "--network", network, "busybox", "cat", "/added", "/second"); got != "newnew" {
				t.Errorf("%q", got)
			}
		})
	}
	t.Run("the user", func(t *testing.T) {
		passwd := "root:x:0:0::/:/bin/sh\nlate:x:77:78::/home:/bin/sh\n"
		if got := run(t, copied(passwd, "/etc/passwd"), "--user", "late", "busybox", "sh", "-c", "id -u; id -g; echo $HOME"); got != "77\n78\n/home" {
			t.Errorf("%q", got)
		}
		if got := run(t, copied("root:x:0:0::/elsewhere:/bin/sh\n", "/etc/passwd"), "busybox", "sh", "-c", "echo $HOME"); got != "/elsewhere" {
			t.Errorf("the home directory of before: %q", got)
		}
	})
	t.Run("a directory in the way", func(t *testing.T) {
		link := func(c string) {
			src := tree(t, map[string]string{"hosts": "-> /made"})
			e.OK(t, "docker", "cp", src+"/hosts", c+":/etc/")
		}
		if got := run(t, link, "--network", "none", "busybox", "grep", "-c", "localhost", "/made"); got == "0" {
			t.Errorf("the file of names is not where the link leads")
		}
	})
	t.Run("another name", func(t *testing.T) {
		other := name(t) + "-renamed"
		remove(t, e, other)
		c := name(t)
		e.OK(t, "docker", "create", "--name", c, "busybox", "hostname")
		e.OK(t, "docker", "rename", c, other)
		if got := e.OK(t, "docker", "start", "-a", other); got != e.OK(t, "docker", "inspect", "-f", "{{.Config.Hostname}}", other) {
			t.Errorf("%q", got)
		}
	})
	t.Run("another network", func(t *testing.T) {
		network := name(t)
		e.OK(t, "docker", "network", "create", network)
		t.Cleanup(func() { e.OK(t, "docker", "network", "rm", "-f", network) })
		connect := func(c string) {
			e.OK(t, "docker", "network", "connect", "--alias", "me", network, c)
		}
		if got := run(t, connect, "busybox", "sh", "-c", "ls /sys/class/net | grep -c eth"); got != "2" {
			t.Errorf("%s interfaces", got)
		}
		if got := run(t, func(string) {}, "--network", network, "--network-alias", "mine", "busybox", "nslookup", "mine"); !strings.Contains(got, "Name") {
			t.Errorf("a lookup by the engine's server: %q", got)
		}
	})
	t.Run("looks", func(t *testing.T) {
		look := func(c string) {
			if got := e.OK(t, "docker", "diff", c); got != "" {
				t.Errorf("changes before the first start: %s", got)
			}
			if got := e.OK(t, "sh", "-c", "docker export "+c+" | tar -t | grep -c bin/busybox"); got == "0" {
				t.Error("the export lacks the image's files")
			}
			launch := exec.Command(harness.Binary(t, "cleatd"), append([]string{"debug", "launch", c}, e.Args()...)...)
			if got, err := launch.CombinedOutput(); err != nil || !strings.Contains(string(got), "execve") {
				t.Errorf("debug launch: %.200q, %v", got, err)
			}
		}
		if got := run(t, look, "busybox", "echo", "well"); got != "well" {
			t.Errorf("%q", got)
		}
	})
	t.Run("no such command", func(t *testing.T) {
		c := name(t)
		remove(t, e, c)
		e.OK(t, "docker", "create", "--name", c, "busybox", "nosuchthing")
		if r := e.Docker(t, "start", "-a", c); r.Code != 1 && r.Code != 127 || !strings.Contains(r.Stderr, "nosuchthing") {
			t.Errorf("%+v", r)
		}
		if got := e.OK(t, "docker", "inspect", "-f", "{{.State.ExitCode}}", c); got != "127" {
			t.Errorf("exit code %s", got)
		}
	})
	t.Run("standard input", func(t *testing.T) {
		c := name(t)
		remove(t, e, c)
		e.OK(t, "docker", "create", "-i", "--name", c, "busybox", "cat")
		if r := e.Do(t, "docker", "through", "start", "-ai", c); r.Stdout != "through" {
			t.Errorf("%+v", r)
		}
	})
}

// TestHeadStartsLeaveNothing: a container that is not started is no burden.
func TestHeadStartsLeaveNothing(t *testing.T) {
	t.Parallel()
	e := harness.Start(t, harness.Options{})
	e.Load(t, "busybox")
	e.OK(t, "docker", "run", "--rm", "busybox", "true")
	// An engine at rest may hold two; each container that lay ready would add its own.
	atRest := func() (bool, string) {
		n := descriptors(e, "pipe:")
		return n <= 2, strconv.Itoa(n) + " pipes"
	}
	harness.Eventually(t, atRest)
	var ids []string
	for i := range 12 {
		ids = append(ids, e.OK(t, "docker", "create", "--network", []string{"none", "bridge"}[i%2], "busybox", "true"))
	}
	e.OK(t, "docker", append([]string{"rm"}, ids[:6]...)...)
	harness.Eventually(t, atRest)
	for _, id := range ids[6:] {
		e.OK(t, "docker", "start", "-a", id)
	}

	// What the engine has begun when it dies is nobody's.
	id := e.OK(t, "docker", "create", "busybox", "echo", "after")
	e.Kill()
	e.Run(t)
	if got := e.OK(t, "docker", "start", "-a", id); got != "after" {
		t.Errorf("%q", got)
	}
	e.OK(t, "docker", append([]string{"rm", id}, ids[6:]...)...)
	nothingLeft(t, e)
	e.OK(t, "docker", "create", "--name", "last", "busybox", "true")
	e.Stop(t)
	e.Run(t)
	e.OK(t, "docker", "start", "-a", "last")
	e.OK(t, "docker", "rm", "last")
}

// TestDevicesMadeAhead: a /dev that was ready is as one that its container has made.
func TestDevicesMadeAhead(t *testing.T) {
	e := engine(t, "busybox")
	look := func(flags ...string) string {
		args := append([]string{"run", "--rm", "--network", "none"}, flags...)
		args = append(args, "busybox", "sh", "-c", "cd /dev; for f in . null zero full random urandom tty fd stdin stdout stderr ptmx core pts mqueue; do "+
			"stat -c '%n %F %a %u %g %t %T' $f; readlink $f; done; stat -f -c '%T %b' .; grep ' /dev ' /proc/mounts | cut -d, -f 1-4; ls | grep -v shm")
		return e.OK(t, "docker", args...)
	}
	// What is mounted below /dev has the container make its own.
	ahead, own := look(), look("-v", "/dev/shm:/dev/shm")
	if ahead != own || !strings.Contains(own, "null character special file 666 0 0 1 3") {
		t.Errorf("made ahead:\n%s\nmade by the container:\n%s", ahead, own)
	}
	if got := e.OK(t, "docker", "run", "--rm", "busybox", "sh", "-c", "echo x >/dev/made && cat /dev/made; df -m /dev/shm | grep -c 64"); got != "x\n1" {
		t.Errorf("%q", got)
	}
	if got := e.OK(t, "docker", "run", "--rm", "busybox", "ls", "/dev"); strings.Contains(got, "made") {
		t.Errorf("of another container: %q", got)
	}
}
