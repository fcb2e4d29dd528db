package e2e

import (
	"strings"
	"testing"

	"github.com/cleatlabs/cleat/test/harness"
)

// TestProgramsGetTheirStopSignal: each of these takes SIGTERM in its own way, and a
// stop with the default timeout must leave it to them to end.
func TestProgramsGetTheirStopSignal(t *testing.T) {
	e := engine(t, "python", "debian")
	for n, run := range map[string][]string{
		"sigwait": {"python", "python3", "-uc", `import signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
print("ready")
signal.sigwait({signal.SIGTERM})
print("got it")
sys.exit(42)`},
		"trap": {"debian", "bash", "-c", `trap 'echo got it; exit 42' TERM; echo ready; sleep 600 & wait`},
	} {
		t.Run(n, func(t *testing.T) {
			n := name(t)
			remove(t, e, n)
			e.OK(t, "docker", append([]string{"run", "-d", "--name", n}, run...)...)
			harness.Eventually(t, func() (bool, string) {
				s := e.OK(t, "docker", "logs", n)
				return strings.Contains(s, "ready"), s
			})
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
