package runtime_test

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/runtime"
	"github.com/cleatlabs/cleat/internal/seccomp"
	"github.com/cleatlabs/cleat/test/expect"
)

// A filter that forbids what a process needs to end, or PID 1 of a container to wait for its command, ends it.
func TestFiltersThatForbidTheEnd(t *testing.T) {
	l := newLab(t)
	filter := func(profile string) []byte {
		b, err := seccomp.Compile([]byte(profile), defaultCaps, l.c.Features.Major, l.c.Features.Minor)
		l.check(err)
		return b
	}
	ends := func(what string, p *runtime.Process, code int) {
		t.Helper()
		expect.Eventually(t, what, func() bool {
			select {
			case <-p.Done():
				return true
			default:
				return false
			}
		})
		if got := p.Status().Code; got != code {
			t.Errorf("%s with %d, want %d", what, got, code)
		}
	}
	const illegal = 128 + int(unix.SIGILL)
	nothing := filter(`{"defaultAction":"SCMP_ACT_ERRNO"}`)
	s := l.spec("true")
	s.Seccomp = nothing
	ends("a process that may do nothing ends", l.start(s).Process, illegal)

	for _, forbidden := range []string{"rt_sigtimedwait", "wait4"} {
		s = l.spec("true")
		s.Init, s.Seccomp = true, filter(`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["`+forbidden+`"],"action":"SCMP_ACT_ERRNO"}]}`)
		ends("PID 1 without "+forbidden+" ends", l.start(s).Process, 1)
	}

	e := l.exec(l.start(l.spec("sleep", "1000")), "true")
	e.Seccomp = nothing
	ends("an exec that may do nothing ends", l.runExec(e).Process, illegal)
}
