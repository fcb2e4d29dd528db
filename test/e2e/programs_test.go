package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creack/pty"

	"github.com/cleatlabs/cleat/test/harness"
)

func TestNginx(t *testing.T) {
	e := engine(t, "nginx")
	each(t, func(t *testing.T, program string) {
		n := name(t)
		remove(t, e, n)
		e.OK(t, program, "run", "-d", "--name", n, "-p", "18088:80", "nginx")
		harness.Eventually(t, func() (bool, string) {
			got, err := body("http://127.0.0.1:18088/")
			return strings.Contains(got, "nginx"), fmt.Sprint(got, err)
		})
		harness.Eventually(t, func() (bool, string) {
			s := e.OK(t, program, "logs", n)
			return strings.Contains(s, `"GET / HTTP/1.1" 200`), s
		})
		e.OK(t, program, "stop", n)
		if got := e.OK(t, program, "inspect", "-f", "{{.State.ExitCode}}", n); got != "0" {
			t.Errorf("nginx stopped by SIGQUIT exits with %s", got)
		}
	})
}

func TestRedis(t *testing.T) {
	e := engine(t, "redis")
	each(t, func(t *testing.T, program string) {
		n := name(t)
		remove(t, e, n)
		e.OK(t, program, "run", "-d", "--name", n, "redis")
		harness.Eventually(t, func() (bool, string) {
			r := e.Do(t, program, "", "exec", n, "redis-cli", "ping")
			return r.Line() == "PONG", r.String()
		})
		e.OK(t, program, "exec", n, "redis-cli", "set", "key", "value")
		if got := e.OK(t, program, "exec", n, "redis-cli", "get", "key"); got != "value" {
			t.Errorf("%q", got)
		}
	})
}

// TestPostgres: data in a named volume is there in a new container.
func TestPostgres(t *testing.T) {
	e := engine(t, "postgres")
	each(t, func(t *testing.T, program string) {
		n, v := name(t), name(t)+"-data"
		remove(t, e, n)
		t.Cleanup(func() { e.OK(t, program, "rm", "-f", n); e.OK(t, program, "volume", "rm", v) })
		up := func() {
			e.OK(t, program, "run", "-d", "--name", n, "-e", "POSTGRES_PASSWORD=secret", "-v", v+":/var/lib/postgresql/data", "postgres")
			harness.Eventually(t, func() (bool, string) {
				r := e.Do(t, program, "", "exec", "-u", "postgres", n, "psql", "-qtAc", "select 1")
				return r.Line() == "1", r.String() + e.Do(t, program, "", "logs", "-n", "5", n).String()
			})
		}
		up()
		e.OK(t, program, "exec", "-u", "postgres", n, "psql", "-qc", "create table t (x text); insert into t values ('still here')")
		e.OK(t, program, "stop", n)
		e.OK(t, program, "rm", n)
		up()
		if got := e.OK(t, program, "exec", "-u", "postgres", n, "psql", "-qtAc", "select x from t"); got != "still here" {
			t.Errorf("%q", got)
		}
	})
}

func TestPythonAndNode(t *testing.T) {
	e := engine(t, "python", "node")
	each(t, func(t *testing.T, program string) {
		if got := e.OK(t, program, "run", "--rm", "python", "python3", "-c", "import sys, threading; print(sum(range(10)), sys.version_info[0])"); got != "45 3" {
			t.Errorf("%q", got)
		}
		if got := e.OK(t, program, "run", "--rm", "node", "node", "-e", "console.log([1,2,3].map(x => x * x).join())"); got != "1,4,9" {
			t.Errorf("%q", got)
		}
		if r := e.Do(t, program, "print('from stdin')\n", "run", "--rm", "-i", "python", "python3", "-"); r.Line() != "from stdin" {
			t.Errorf("%s", r)
		}
	})
}

// terminal is a command line on a terminal that a test types into.
type terminal struct {
	t   *testing.T
	pty *os.File
	cmd *exec.Cmd
	mu  sync.Mutex
	buf bytes.Buffer
	end chan error
}

func onTerminal(t *testing.T, e *harness.Engine, rows, cols uint16, program string, args ...string) *terminal {
	t.Helper()
	cmd := e.Command(t, program, args...)
	cmd.Env = append(cmd.Env, "TERM=xterm")
	p, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: rows, Cols: cols})
	if err != nil {
		t.Fatal(err)
	}
	tm := &terminal{t: t, pty: p, cmd: cmd, end: make(chan error, 1)}
	go func() {
		b := make([]byte, 4096)
		for {
			n, err := p.Read(b)
			tm.mu.Lock()
			tm.buf.Write(b[:n])
			tm.mu.Unlock()
			if err != nil {
				tm.end <- cmd.Wait()
				return
			}
		}
	}()
	t.Cleanup(func() { cmd.Process.Kill(); p.Close() })
	return tm
}

func (tm *terminal) typed(s string) {
	tm.t.Helper()
	if _, err := tm.pty.WriteString(s); err != nil {
		tm.t.Fatal(err)
	}
}

// shows waits until the screen's text holds want after what was seen before.
func (tm *terminal) shows(want string) {
	tm.t.Helper()
	harness.Eventually(tm.t, func() (bool, string) {
		tm.mu.Lock()
		defer tm.mu.Unlock()
		s := tm.buf.String()
		if i := strings.Index(s, want); i >= 0 {
			tm.buf.Next(i + len(want))
			return true, ""
		}
		return false, fmt.Sprintf("%q is not on the terminal: %q", want, s)
	})
}

// ends waits until the program has ended and returns its exit code.
func (tm *terminal) ends() int {
	tm.t.Helper()
	select {
	case <-tm.end:
		return tm.cmd.ProcessState.ExitCode()
	case <-time.After(harness.Patience):
		tm.mu.Lock()
		defer tm.mu.Unlock()
		tm.t.Fatalf("the program does not end; on the terminal: %q", tm.buf.String())
		return -1
	}
}

const (
	interactive = "--norc"
	detach      = "\x10\x11" // ctrl-p ctrl-q
)

func TestTerminal(t *testing.T) {
	e := engine(t, "debian")
	each(t, func(t *testing.T, program string) {
		n := name(t)
		remove(t, e, n)
		tm := onTerminal(t, e, 30, 100, program, "run", "-it", "--name", n, "-e", "PS1=ready> ", "debian", "bash", interactive)
		tm.shows("ready> ")
		tm.typed("stty size; tty\n")
		tm.shows("30 100")
		tm.shows("/dev/pts/0")
		if err := pty.Setsize(tm.pty, &pty.Winsize{Rows: 40, Cols: 120}); err != nil {
			t.Fatal(err)
		}
		tm.shows("ready> ")
		harness.Eventually(t, func() (bool, string) {
			s := e.OK(t, program, "exec", n, "stty", "-F", "/dev/pts/0", "size")
			return s == "40 120", s
		})
		tm.typed("x=kept\n")
		tm.shows("ready> ")
		tm.typed(detach)
		if code := tm.ends(); code != 0 {
			t.Errorf("detaching exits with %d", code)
		}
		tm = onTerminal(t, e, 24, 80, program, "attach", n)
		tm.typed("echo $x again\n")
		tm.shows("kept again")
		tm.typed("sleep 100\n")
		harness.Eventually(t, func() (bool, string) {
			r := e.Do(t, program, "", "exec", n, "pgrep", "sleep")
			return r.Code == 0, r.String()
		})
		tm.typed("\x03") // ctrl-c reaches the foreground program
		tm.shows("^C")
		tm.shows("ready> ")
		tm.typed("exit 3\n")
		if code := tm.ends(); code != 3 {
			t.Errorf("exit code %d", code)
		}
	})
}

func TestTerminalOfExec(t *testing.T) {
	e := engine(t, "debian")
	each(t, func(t *testing.T, program string) {
		n := name(t)
		remove(t, e, n)
		e.OK(t, program, "run", "-d", "--name", n, "debian", "sleep", "600")
		tm := onTerminal(t, e, 33, 99, program, "exec", "-it", "-e", "PS1=ready> ", n, "bash", interactive)
		tm.shows("ready> ")
		tm.typed("stty size\n")
		tm.shows("33 99")
		tm.typed("exit 4\n")
		if code := tm.ends(); code != 4 {
			t.Errorf("exit code %d", code)
		}
	})
}

// TestTerminalOverAKilledEngine: the shell, its terminal and its state survive.
func TestTerminalOverAKilledEngine(t *testing.T) {
	e := harness.Start(t, harness.Options{})
	e.Load(t, "debian")
	each(t, func(t *testing.T, program string) {
		n := name(t)
		tm := onTerminal(t, e, 30, 100, program, "run", "-it", "--name", n, "-e", "PS1=ready> ", "debian", "bash", interactive)
		tm.shows("ready> ")
		tm.typed("x=survived\n")
		tm.shows("ready> ")
		e.Kill()
		tm.ends()
		e.Run(t)
		tm = onTerminal(t, e, 25, 90, program, "attach", n)
		tm.typed("echo $x\n")
		tm.shows("survived")
		// A client that attaches gives a size that is one too large first, so that programs draw anew.
		tm.typed("until [ \"$(stty size)\" = '25 90' ]; do sleep .05; done; echo si''zed\n")
		tm.shows("sized")
		tm.typed("exit 6\n")
		if code := tm.ends(); code != 6 {
			t.Errorf("exit code %d", code)
		}
	})
}
