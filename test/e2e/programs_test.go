package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cleatlabs/cleat/test/harness"
)

func TestNginx(t *testing.T) {
	e := engine(t, "nginx")
	each(t, func(t *testing.T, program string) {
		n := name(t)
		remove(t, e, n)
		port := freePort(t)
		e.OK(t, program, "run", "-d", "--name", n, "-p", port+":80", "nginx")
		harness.Eventually(t, func() (bool, string) {
			got, err := body("http://127.0.0.1:" + port + "/")
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

// onTerminal runs a command line on a terminal that the test types into.
func onTerminal(t *testing.T, e *harness.Engine, rows, cols uint16, program string, args ...string) *harness.Session {
	t.Helper()
	cmd := e.Command(t, program, args...)
	cmd.Env = append(cmd.Env, "TERM=xterm")
	return harness.BeginOnTerminal(t, cmd, rows, cols)
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
		tm.Shows(t, "ready> ")
		tm.Type(t, "stty size; tty\n")
		tm.Shows(t, "30 100")
		tm.Shows(t, "/dev/pts/0")
		tm.Resize(t, 40, 120)
		tm.Shows(t, "ready> ")
		harness.Eventually(t, func() (bool, string) {
			s := e.OK(t, program, "exec", n, "stty", "-F", "/dev/pts/0", "size")
			return s == "40 120", s
		})
		tm.Type(t, "x=kept\n")
		tm.Shows(t, "ready> ")
		tm.Type(t, detach)
		if code := tm.Exit(t); code != 0 {
			t.Errorf("detaching exits with %d", code)
		}
		tm = onTerminal(t, e, 24, 80, program, "attach", n)
		tm.Type(t, "echo $x again\n")
		tm.Shows(t, "kept again")
		tm.Type(t, "sleep 100\n")
		harness.Eventually(t, func() (bool, string) {
			r := e.Do(t, program, "", "exec", n, "pgrep", "sleep")
			return r.Code == 0, r.String()
		})
		tm.Type(t, "\x03") // ctrl-c reaches the foreground program
		tm.Shows(t, "^C")
		tm.Shows(t, "ready> ")
		tm.Type(t, "exit 3\n")
		if code := tm.Exit(t); code != 3 {
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
		tm.Shows(t, "ready> ")
		tm.Type(t, "stty size\n")
		tm.Shows(t, "33 99")
		tm.Type(t, "exit 4\n")
		if code := tm.Exit(t); code != 4 {
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
		tm.Shows(t, "ready> ")
		tm.Type(t, "x=survived\n")
		tm.Shows(t, "ready> ")
		e.Kill()
		tm.Exit(t)
		e.Run(t)
		tm = onTerminal(t, e, 25, 90, program, "attach", n)
		tm.Type(t, "echo $x\n")
		tm.Shows(t, "survived")
		// A client that attaches gives a size that is one too large first, so that programs draw anew.
		tm.Type(t, "until [ \"$(stty size)\" = '25 90' ]; do sleep .05; done; echo si''zed\n")
		tm.Shows(t, "sized")
		tm.Type(t, "exit 6\n")
		if code := tm.Exit(t); code != 6 {
			t.Errorf("exit code %d", code)
		}
	})
}
