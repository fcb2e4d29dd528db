package cli_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/test/expect"
)

// onTerminal runs the client with a terminal as its standard input, and out as the output, and returns the terminal.
func onTerminal(t *testing.T, f *fake, out *os.File, args ...string) (*exec.Cmd, *os.File) {
	t.Helper()
	master, slave, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, args...)
	cmd.Env = environ(f.host())
	cmd.Stdin, cmd.Stdout = slave, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait(); master.Close(); slave.Close() })
	return cmd, slave
}

func isRaw(t *testing.T, terminal *os.File) bool {
	t.Helper()
	state, err := unix.IoctlGetTermios(int(terminal.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return state.Lflag&(unix.ECHO|unix.ICANON) != unix.ECHO|unix.ICANON
}

// A pipe that nobody reads any more ends `run -it … | head`, but not before the terminal is itself again.
func TestTerminalAfterABrokenPipe(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	defer w.Close()
	cmd, terminal := onTerminal(t, newFake(t), w, "run", "-it", "nginx", "shell")
	cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 1 || isRaw(t, terminal) {
		t.Errorf("exit code %d (%v), the terminal is raw: %v", code, cmd.ProcessState, isRaw(t, terminal))
	}
}

// So it is for who ends the client of a container that does not end by the signals which it is sent.
func TestTerminalAfterTheThirdSignal(t *testing.T) {
	f := newFake(t)
	cmd, terminal := onTerminal(t, f, nil, "run", "-it", "nginx", "wait")
	expect.Eventually(t, "it runs", func() bool { return slices.Contains(f.asked(), "POST /containers/"+containerID+"/start") })
	expect.Eventually(t, "the terminal is the container's", func() bool { return isRaw(t, terminal) })
	for n := range 3 {
		cmd.Process.Signal(syscall.SIGINT)
		expect.Eventually(t, "it is passed on, or the client's end", func() bool { return n == 2 || len(f.wasKilled()) > n })
	}
	cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 1 || isRaw(t, terminal) {
		t.Errorf("exit code %d (%v), the terminal is raw: %v", code, cmd.ProcessState, isRaw(t, terminal))
	}
}

// To a container with a terminal 'start -a' and attach pass no signals on: SIGTERM and SIGINT end them, and it goes on.
func TestSignalsOfAttachedTerminals(t *testing.T) {
	for _, args := range [][]string{{"start", "-ai", "web"}, {"attach", "web"}} {
		for sig, code := range map[syscall.Signal]int{syscall.SIGTERM: 143, syscall.SIGINT: 130} {
			f := newFake(t)
			if r := call(t, program, f.host(), "", "create", "-it", "nginx", "wait"); r.code != 0 {
				t.Fatalf("%+v", r)
			}
			cmd, terminal := onTerminal(t, f, nil, args...)
			expect.Eventually(t, "the terminal is the container's", func() bool { return isRaw(t, terminal) })
			cmd.Process.Signal(sig)
			ended := make(chan struct{})
			go func() { cmd.Wait(); close(ended) }()
			expect.Eventually(t, fmt.Sprint(args, " ends by ", sig), func() bool {
				select {
				case <-ended:
					return true
				default:
					return false
				}
			})
			if got := cmd.ProcessState.ExitCode(); got != code || isRaw(t, terminal) || len(f.wasKilled()) > 0 {
				t.Errorf("%v after %v: exit code %d, the terminal is raw: %v, the container was sent %v", args, sig, got, isRaw(t, terminal), f.wasKilled())
			}
		}
	}
}

// What a container writes and nobody can read is an error, whether its end or that is heard of first.
func TestRunWithFullOutput(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	for range 20 {
		f := newFake(t)
		cmd := exec.Command(program, "run", "nginx")
		cmd.Env = environ(f.host())
		var errOut bytes.Buffer
		cmd.Stdout, cmd.Stderr = full, &errOut
		_ = cmd.Run()
		if code := cmd.ProcessState.ExitCode(); code != 1 || !strings.Contains(errOut.String(), "no space left on device") {
			t.Fatalf("exit code %d: %q", code, errOut.String())
		}
	}
}

// Help and version that nobody can read are told of, as with Docker.
func TestHelpWithFullOutput(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	for line, code := range map[string]int{"--version": 1, "-v": 1, "--help": 0, "ps --help": 0, "help ps": 0} {
		cmd := exec.Command(program, strings.Fields(line)...)
		cmd.Env = environ("unix:///nonexistent")
		var errOut bytes.Buffer
		cmd.Stdout, cmd.Stderr = full, &errOut
		_ = cmd.Run()
		if got := cmd.ProcessState.ExitCode(); got != code || !strings.Contains(errOut.String(), "no space left on device") {
			t.Errorf("%s: exit code %d: %q", line, got, errOut.String())
		}
	}
}

// Nor does a pull end because what it tells cannot be written.
func TestPullWithFullOutput(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	ended := make(chan error, 1)
	host := serveUnix(t, func(w http.ResponseWriter, r *http.Request) {
		// More than lies between the two: who has gone does not take it.
		line, err := `{"status":"Pulling","id":"`+strings.Repeat("x", 1<<16)+`"}`+"\n", error(nil)
		for n := 0; n < 64 && err == nil; n++ {
			_, err = io.WriteString(w, line)
		}
		ended <- err
	})
	cmd := exec.Command(program, "pull", "nginx:1")
	cmd.Env = environ(host)
	var errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = full, &errOut
	_ = cmd.Run()
	if err := <-ended; err != nil || cmd.ProcessState.ExitCode() != 1 || !strings.Contains(errOut.String(), "no space left on device") {
		t.Errorf("the engine was listened to until %v; exit code %d: %q", err, cmd.ProcessState.ExitCode(), errOut.String())
	}
	f := newFake(t)
	cmd = exec.Command(program, "run", "-d", "missing")
	cmd.Env = environ(f.host())
	cmd.Stderr = full
	if out, err := cmd.Output(); err != nil || string(out) != containerID+"\n" {
		t.Errorf("run: %v, %q, asked: %v", err, out, f.asked())
	}
}
