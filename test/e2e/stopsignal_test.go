package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/test/harness"
)

// trap is a program that takes its SIGTERM, says so and exits with 42.
const trap = `trap 'echo got it; exit 42' TERM; echo ready; sleep 600 & wait $!`

// TestProgramsGetTheirStopSignal: each of these takes SIGTERM in its own way, and a
// stop with the default timeout must leave it to them to end.
func TestProgramsGetTheirStopSignal(t *testing.T) {
	e := engine(t, "python", "debian")
	tests := map[string][]string{
		"sigwait": {"python", "python3", "-uc", `import signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
print("ready")
signal.sigwait({signal.SIGTERM})
print("got it")
sys.exit(42)`},
		"signalfd": {"debian", "perl", "-e", fmt.Sprintf(`use POSIX;
$| = 1;
sigprocmask(SIG_BLOCK, POSIX::SigSet->new(SIGTERM));
$mask = pack("Q", 1 << (SIGTERM - 1));
$fd = syscall(%d, -1, $mask, 8, 0);
$fd >= 0 or die "signalfd: $!";
open($f, "<&=", $fd) or die $!;
print "ready\n";
sysread($f, $info, 128) == 128 or die $!;
print "got it\n" if unpack("L", $info) == SIGTERM;
exit 42`, unix.SYS_SIGNALFD4)},
		"trap": {"debian", "bash", "-c", trap},
	}
	// The inits of Debian as they are: they forward the signal to the program.
	for init, args := range map[string][]string{"tini": {"--"}, "dumb-init": {"--"}, "catatonit": {"--"}} {
		path := harness.Program(t, init)
		tests[init] = slices.Concat([]string{"-v", path + ":" + path + ":ro", "debian", path}, args, []string{"bash", "-c", trap})
	}
	tests["--init"] = []string{"--init", "debian", "bash", "-c", trap}
	for n, run := range tests {
		t.Run(n, func(t *testing.T) {
			n := name(t)
			remove(t, e, n)
			e.OK(t, "docker", append([]string{"run", "-d", "--name", n}, run...)...)
			harness.Eventually(t, func() (bool, string) {
				s := e.OK(t, "docker", "logs", n)
				return strings.Contains(s, "ready"), s
			})
			// PID 1 sits idle, waiting for its signal in whatever call it uses.
			e.OK(t, "docker", "stop", n)
			if got := e.OK(t, "docker", "inspect", "-f", "{{.State.ExitCode}}", n); got != "42" {
				t.Errorf("exit code %s", got)
			}
			if got := e.OK(t, "docker", "logs", n); got != "ready\ngot it" {
				t.Errorf("log %q", got)
			}
		})
	}
}

// TestSignalOfAnEarlyStop: the kernel drops a signal that PID 1 has no handler for yet. A program that a stop meets before
// it has come to install one gets the signal again when it has, whatever timeout the client chose, and once only.
func TestSignalOfAnEarlyStop(t *testing.T) {
	e := engine(t, "busybox")
	for _, timeout := range [][]string{nil, {"-t", "1000"}, {"-t", "-1"}} {
		n, begin := name(t), now()
		remove(t, e, n)
		// It waits without a handler, then has one, until it got the signal.
		e.OK(t, "docker", "run", "-d", "--name", n, "busybox", "sh", "-c", `echo early; i=0; while ! [ -e /go ]; do i=$((i+1)); done
trap 'echo got it' TERM; echo armed; sleep 1 & wait $!; sleep 0.2; exit 7`)
		harness.Eventually(t, func() (bool, string) {
			s := e.OK(t, "docker", "logs", n)
			return strings.Contains(s, "early"), s
		})
		stopped := make(chan harness.Result)
		go func() { stopped <- e.Docker(t, slices.Concat([]string{"stop"}, timeout, []string{n})...) }()
		kills := func() string {
			return e.OK(t, "docker", "events", "--since", begin, "--until", now(), "--filter", "container="+n, "--filter", "event=kill",
				"--format", `{{.Actor.Attributes.signal}} {{index .Actor.Attributes "cleat.reason"}}`)
		}
		harness.Eventually(t, func() (bool, string) { s := kills(); return s != "", s })
		e.OK(t, "docker", "exec", n, "touch", "/go")
		if r := <-stopped; r.Code != 0 {
			t.Fatalf("stop %v: %s", timeout, r)
		}
		if got := e.OK(t, "docker", "inspect", "-f", "{{.State.ExitCode}}", n); got != "7" {
			t.Errorf("stop %v: exit code %s", timeout, got)
		}
		if got := strings.Count(e.OK(t, "docker", "logs", n), "got it"); got != 1 {
			t.Errorf("stop %v: it got %d signals; %s", timeout, got, kills())
		}
		e.OK(t, "docker", "rm", n)
	}
}

// TestSignalOfALateHandler: a program may take seconds to come to its handler, as a Python worker on a busy machine does. It
// gets the signal then, also near the end of the timeout.
func TestSignalOfALateHandler(t *testing.T) {
	e := engine(t, "busybox")
	n := name(t)
	remove(t, e, n)
	e.OK(t, "docker", "run", "-d", "--name", n, "busybox", "sh", "-c", "sleep 7; trap 'exit 7' TERM; sleep 600 & wait")
	e.OK(t, "docker", "stop", "-t", "12", n)
	if got := e.OK(t, "docker", "inspect", "-f", "{{.State.ExitCode}}", n); got != "7" {
		t.Errorf("exit code %s", got)
	}
}
