package runtime_test

import (
	"strings"
	"testing"

	"github.com/cleatlabs/cleat/internal/runtime"
)

// TestProgramEntersTheProfile: the transition is asked for by the process itself, through the host's procfs, before the
// system call filter and the last execve; PID 1 of --init, which executes nothing, changes into the profile at once.
func TestProgramEntersTheProfile(t *testing.T) {
	l := newLab(t)
	dump := func(profile string, init bool) string {
		t.Helper()
		s := &runtime.Spec{
			ID: "0123456789ab", RootFD: -1, Args: []string{"nginx"}, NetNS: runtime.NewNetwork, Capabilities: defaultCaps, Seccomp: allowAll,
			Init: init, AppArmorProfile: profile,
		}
		text, err := l.r.Dump(s)
		l.check(err)
		return text
	}
	inOrder := func(text string, parts ...string) {
		t.Helper()
		at := 0
		for _, p := range parts {
			i := strings.Index(text[at:], p)
			if i < 0 {
				t.Errorf("%q is missing or too early in:\n%s", p, text)
				return
			}
			at += i
		}
	}
	const open, set = `"thread-self/attr/apparmor/exec", O_WRONLY|O_CLOEXEC`, `"exec cleat-default", 18)`
	inOrder(dump("cleat-default", false), "clone3", open, set, "seccomp(", "execve(")
	inOrder(dump("cleat-default", true), "clone3", open, set, `"thread-self/attr/apparmor/current"`, "clone3", "execve(", `"changeprofile cleat-default", 27)`, "seccomp(")
	if strings.Contains(dump("cleat-default", false), "changeprofile") {
		t.Error("a process that executes the command changes its profile before")
	}
	for _, none := range []string{"", "unconfined"} {
		if text := dump(none, true); strings.Contains(text, "apparmor") || strings.Contains(text, "host's proc") {
			t.Errorf("profile %q costs a start something:\n%s", none, text)
		}
	}
}
