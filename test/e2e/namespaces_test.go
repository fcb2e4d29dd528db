package e2e

import (
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/cleatlabs/cleat/test/harness"
)

// TestJoinedNamespaces: containers that share what --pid and --ipc name.
func TestJoinedNamespaces(t *testing.T) {
	e := engine(t, "busybox")
	each(t, func(t *testing.T, program string) {
		donor, guest := name(t)+"-donor", name(t)+"-guest"
		remove(t, e, guest, donor)
		id := e.OK(t, program, "run", "-d", "--name", donor, "--ipc", "shareable", "busybox", "sh", "-c", "echo hello > /dev/shm/word; exec sleep 6711")
		harness.Eventually(t, func() (bool, string) {
			return e.Docker(t, "exec", donor, "cat", "/dev/shm/word").Stdout == "hello\n", "no word"
		})
		pidOf(t, e, "sleep\x006711")
		out := e.OK(t, program, "run", "--rm", "--pid", "container:"+donor, "--ipc", "container:"+donor, "busybox", "sh", "-c", "ps -o pid,args; cat /dev/shm/word; readlink /proc/self/ns/pid; readlink /proc/self/ns/ipc; touch /dev/shm/answer")
		if !strings.Contains(out, "1 sleep 6711") || !strings.Contains(out, "hello") {
			t.Errorf("the guest sees\n%s", out)
		}
		for _, ns := range []string{"pid", "ipc"} {
			if link := e.OK(t, program, "exec", donor, "readlink", "/proc/self/ns/"+ns); !strings.Contains(out, link) {
				t.Errorf("the donor's is %s, the guest says\n%s", link, out)
			}
		}
		e.OK(t, program, "exec", donor, "test", "-e", "/dev/shm/answer")

		// A guest is shown with the donor's id, takes execs, and dies with its PID namespace.
		e.OK(t, program, "run", "-d", "--name", guest, "--pid", "container:"+donor, "busybox", "sh", "-c", "sleep 6712 & exec sleep 6713")
		pidOf(t, e, "sleep\x006712")
		pidOf(t, e, "sleep\x006713")
		if got := e.OK(t, program, "inspect", "-f", "{{.HostConfig.PidMode}}", guest); got != "container:"+id {
			t.Errorf("PidMode %s", got)
		}
		if got := e.OK(t, program, "exec", guest, "ps", "-o", "args"); !strings.Contains(got, "sleep 6711") || !strings.Contains(got, "sleep 6713") {
			t.Errorf("exec in the guest sees\n%s", got)
		}
		if got := e.OK(t, program, "top", guest, "-o", "args"); strings.Contains(got, "6711") || !strings.Contains(got, "sleep 6712") || !strings.Contains(got, "sleep 6713") {
			t.Errorf("top of the guest:\n%s", got)
		}
		// Its own end takes what it has left running, and nothing of the donor's.
		e.OK(t, program, "kill", guest)
		var seen string
		harness.Eventually(t, func() (bool, string) {
			seen = e.OK(t, program, "exec", donor, "ps", "-o", "args")
			return !strings.Contains(seen, "6712"), "after the guest's end the donor sees\n" + seen
		})
		if !strings.Contains(seen, "6711") {
			t.Errorf("after the guest's end the donor sees\n%s", seen)
		}
		e.OK(t, program, "start", guest)
		e.OK(t, program, "kill", donor)
		if got := e.OK(t, program, "wait", guest); got != "137" {
			t.Errorf("the guest ended with %s", got)
		}
		if r := e.Do(t, program, "", "start", guest); r.Code == 0 || !strings.Contains(r.Stderr, "container "+id+" is not running") {
			t.Errorf("start without the donor: %s", r)
		}
		e.OK(t, program, "start", donor)
		e.OK(t, program, "start", guest)
		e.OK(t, program, "rm", "-f", guest)
	})
}

func TestIPCModes(t *testing.T) {
	e := engine(t, "busybox")
	private := name(t) + "-private"
	remove(t, e, private)
	e.OK(t, "docker", "run", "-d", "--name", private, "--ipc", "private", "busybox", "sleep", "600")
	each(t, func(t *testing.T, program string) {
		r := e.Do(t, program, "", "run", "--rm", "--ipc", "container:"+private, "busybox", "true")
		if r.Code != 125 || !strings.Contains(r.Stderr, "non-shareable IPC (hint: use IpcMode:shareable for the donor container)") {
			t.Errorf("%s", r)
		}
		if r := e.Do(t, program, "", "run", "--rm", "--ipc", "container:nosuch", "busybox", "true"); r.Code != 125 || !strings.Contains(r.Stderr, "No such container: nosuch") {
			t.Errorf("%s", r)
		}
		if r := e.Do(t, program, "", "run", "--rm", "--pid", "container:nosuch", "busybox", "true"); r.Code != 125 || !strings.Contains(r.Stderr, "No such container: nosuch") {
			t.Errorf("%s", r)
		}
		if got := e.OK(t, program, "run", "--rm", "--ipc", "none", "busybox", "sh", "-c", "grep -c ' /dev/shm ' /proc/mounts; readlink /proc/self/ns/ipc"); !strings.HasPrefix(got, "0\nipc:") {
			t.Errorf("none: %s", got)
		}
		if got := e.OK(t, program, "run", "--rm", "--ipc", "shareable", "--shm-size", "8m", "busybox", "df", "-k", "/dev/shm"); !strings.Contains(got, " 8192 ") {
			t.Errorf("size: %s", got)
		}
	})
}

// TestEndInTheHostsPIDs: without a PID namespace of its own the end of the first
// process is the end of the others, too.
func TestEndInTheHostsPIDs(t *testing.T) {
	e := engine(t, "busybox")
	n := name(t)
	remove(t, e, n)
	e.OK(t, "docker", "run", "-d", "--name", n, "--pid", "host", "busybox", "sh", "-c", "sleep 6721 & while [ ! -e /go ]; do sleep 0.05; done; exit 5")
	left := pidOf(t, e, "sleep\x006721")
	if top := e.OK(t, "docker", "top", n, "-o", "pid,args"); !strings.Contains(top, strconv.Itoa(left)+" ") {
		t.Errorf("top does not show process %d:\n%s", left, top)
	}
	e.OK(t, "docker", "exec", n, "touch", "/go")
	if got := e.OK(t, "docker", "wait", n); got != "5" {
		t.Errorf("exit code %s", got)
	}
	harness.Eventually(t, func() (bool, string) { return syscall.Kill(left, 0) == syscall.ESRCH, "it lives on" })
}

// TestJoinedAfterAnEngineRestart: guests are adopted, and started after their donors.
func TestJoinedAfterAnEngineRestart(t *testing.T) {
	e := harness.Start(t, harness.Options{})
	e.Load(t, "busybox")
	e.OK(t, "docker", "run", "-d", "--name", "donor", "--restart", "always", "busybox", "sleep", "6731")
	e.OK(t, "docker", "run", "-d", "--name", "guest", "--restart", "always", "--pid", "container:donor", "busybox", "sleep", "6732")
	e.Kill()
	e.Run(t)
	if got := e.OK(t, "docker", "exec", "guest", "ps", "-o", "args"); !strings.Contains(got, "sleep 6731") || !strings.Contains(got, "sleep 6732") {
		t.Errorf("the adopted guest sees\n%s", got)
	}
	e.Kill()
	if err := syscall.Kill(pidOf(t, e, "sleep\x006731"), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	e.Run(t)
	harness.Eventually(t, func() (bool, string) {
		s := e.OK(t, "docker", "inspect", "-f", "{{.State.Status}}", "donor", "guest")
		return s == "running\nrunning", s
	})
}
