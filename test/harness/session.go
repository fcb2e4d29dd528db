package harness

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"

	"github.com/cleatlabs/cleat/test/expect"
)

// Session is a program that runs while a test looks at what it says, on both of its streams or on its terminal.
type Session struct {
	expect.Output
	cmd      *exec.Cmd
	terminal *os.File
}

// Begin starts a program in a process group of its own, which is killed at the end of the test.
func Begin(t testing.TB, cmd *exec.Cmd) *Session {
	t.Helper()
	s := &Session{cmd: cmd}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Stdout, cmd.Stderr = s, s
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s.await(t, func() {})
	return s
}

// BeginOnTerminal starts a program on a terminal of its own.
func BeginOnTerminal(t testing.TB, cmd *exec.Cmd, rows, cols uint16) *Session {
	t.Helper()
	s := &Session{cmd: cmd}
	var err error
	if s.terminal, err = pty.StartWithSize(cmd, &pty.Winsize{Rows: rows, Cols: cols}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.terminal.Close() })
	s.await(t, func() { _, _ = io.Copy(s, s.terminal) })
	return s
}

// await tells, when all that the program says has been read, of its end.
func (s *Session) await(t testing.TB, read func()) {
	ended := make(chan struct{})
	s.Ended = ended
	go func() {
		defer close(ended)
		read()
		_ = s.cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL)
		<-ended
	})
}

// Signal is for the program and what it has started, as a signal that is typed is.
func (s *Session) Signal(t testing.TB, sig syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(-s.cmd.Process.Pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		t.Fatal(err)
	}
}

// Type is what somebody types on the terminal.
func (s *Session) Type(t testing.TB, text string) {
	t.Helper()
	if _, err := s.terminal.WriteString(text); err != nil {
		t.Fatal(err)
	}
}

// Resize gives the terminal another size.
func (s *Session) Resize(t testing.TB, rows, cols uint16) {
	t.Helper()
	if err := pty.Setsize(s.terminal, &pty.Winsize{Rows: rows, Cols: cols}); err != nil {
		t.Fatal(err)
	}
}

// Exit waits for the program's end and returns its exit code, -1 if a signal has ended it.
func (s *Session) Exit(t testing.TB) int {
	t.Helper()
	select {
	case <-s.Ended:
	case <-time.After(expect.Patience):
		t.Fatalf("%v goes on; it has said:\n%s", s.cmd.Args, s)
	}
	return s.cmd.ProcessState.ExitCode()
}
