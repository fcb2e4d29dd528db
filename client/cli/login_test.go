package cli_test

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestLoginIsGivenUp: Ctrl-C ends the questions, Ctrl-D answers them with nothing, and the terminal shows again what is typed.
func TestLoginIsGivenUp(t *testing.T) {
	const host, interrupt, end = "127.0.0.1:1", "\x03", "\x04"
	for _, c := range []struct {
		args            []string
		question, typed string
		code            int
		said            string
	}{
		{[]string{"login", host}, "Username: ", interrupt, 130, ""},
		{[]string{"login", "-u", "me", host}, "Password: ", interrupt, 130, ""},
		{[]string{"login", host}, "Username: ", end, 1, "Non-null Username Required"},
		{[]string{"login", "-u", "me", host}, "Password: ", end, 1, "Password Required"},
	} {
		f := newFake(t)
		x := startTTY(t, f, 24, 80, c.args...)
		x.expect(c.question)
		x.typed(c.typed)
		if c.said != "" {
			x.expect(c.said)
		}
		if code := x.exit(); code != c.code {
			t.Errorf("%s after %q: exit code %d, shown: %q", strings.Join(c.args, " "), c.question, code, x.out.String())
		}
		if state, err := unix.IoctlGetTermios(int(x.file.Fd()), unix.TCGETS); err != nil || state.Lflag&unix.ECHO == 0 {
			t.Errorf("%s after %q: the terminal shows nothing any more (%v)", strings.Join(c.args, " "), c.question, err)
		}
		if asked := f.asked(); len(asked) > 0 {
			t.Errorf("the engine was asked: %v", asked)
		}
	}
}
