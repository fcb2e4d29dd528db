package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/moby/moby/client"
	"github.com/spf13/pflag"

	"github.com/cleatlabs/cleat/client/connect"
)

const (
	defaultExecRoot = "/run/cleat" // the engine's own default
	defaultLogFile  = "/var/log/cleatd.log"
	// engineStartTime is long for an engine that adopts thousands of containers.
	engineStartTime = 60 * time.Second
)

// engineFlags say which engine is meant: a machine can carry several.
type engineFlags struct {
	DataRoot string `json:"dataRoot,omitempty"`
	ExecRoot string `json:"execRoot,omitempty"`
	Socket   string `json:"socket"`
	PIDFile  string `json:"pidFile"`
	LogFile  string `json:"logFile"`
}

// install adds the flags that name an engine; those of its roots are for start only.
func (f *engineFlags) install(fs *pflag.FlagSet, roots bool) {
	if roots {
		fs.StringVar(&f.DataRoot, "data-root", "", "Directory of images, volumes and containers (default the engine's own)")
	}
	fs.StringVar(&f.ExecRoot, "exec-root", "", "Directory of what lasts until the next boot (default "+defaultExecRoot+")")
	fs.StringVar(&f.Socket, "socket", "", "Socket that the engine listens on (default "+connect.CleatSocket+")")
	fs.StringVar(&f.PIDFile, "pidfile", "", "File with the engine's process id (default cleatd.pid in --exec-root)")
	fs.StringVar(&f.LogFile, "log-file", "", "File of the engine's log (default "+defaultLogFile+", or cleatd.log in --exec-root)")
}

// resolve fills in what was not given. An engine with a directory of its own has its
// socket, pidfile and log there.
func (f *engineFlags) resolve() error {
	own := f.ExecRoot == "" || f.ExecRoot == defaultExecRoot
	or := func(p *string, machine, name string) {
		switch {
		case *p != "":
		case own:
			*p = machine
		default:
			*p = filepath.Join(f.ExecRoot, name)
		}
	}
	or(&f.PIDFile, filepath.Join(defaultExecRoot, "cleatd.pid"), "cleatd.pid")
	or(&f.LogFile, defaultLogFile, "cleatd.log")
	or(&f.Socket, connect.CleatSocket, "cleat.sock")
	return f.absolute()
}

// absolute makes what was given independent of the working directory.
func (f *engineFlags) absolute() error {
	f.Socket = strings.TrimPrefix(f.Socket, "unix://")
	for _, p := range []*string{&f.DataRoot, &f.ExecRoot, &f.Socket, &f.PIDFile, &f.LogFile} {
		if *p == "" {
			continue
		}
		abs, err := filepath.Abs(*p)
		if err != nil {
			return err
		}
		*p = abs
	}
	return nil
}

func (f *engineFlags) host() string { return "unix://" + f.Socket }

// ownSocket says whether the engine is the machine's, which listens on Docker's
// socket too: no --host is passed then.
func (f *engineFlags) ownSocket() bool { return f.Socket == connect.CleatSocket }

// arguments are what cleatd is started with.
func (f *engineFlags) arguments() []string {
	args := []string{"--pidfile", f.PIDFile}
	if f.DataRoot != "" {
		args = append(args, "--data-root", f.DataRoot)
	}
	if f.ExecRoot != "" {
		args = append(args, "--exec-root", f.ExecRoot)
	}
	if !f.ownSocket() {
		args = append(args, "--host", f.host())
	}
	return args
}

func (a *app) engineStart() spec {
	return spec{
		use: "start [OPTIONS] [-- CLEATD-OPTIONS...]", short: "Start the engine in the background and wait until it is ready",
		setup: func(fs *pflag.FlagSet) action {
			var f engineFlags
			f.install(fs, true)
			program := fs.String("cleatd", "", "The engine's program (default cleatd beside this one, or in PATH)")
			return func(ctx context.Context, args []string) error {
				if err := f.resolve(); err != nil {
					return err
				}
				return a.startEngine(ctx, f, *program, args)
			}
		},
	}
}

func (a *app) startEngine(ctx context.Context, f engineFlags, program string, more []string) error {
	if pid := f.pid(); pid != 0 && a.pingEngine(ctx, f.host()) == nil {
		_, _ = fmt.Fprintf(a.out, "The engine is running already: pid %d, %s\n", pid, f.host())
		if known, err := a.loadEngines(); err != nil || !slices.ContainsFunc(known.Engines, f.sameAs) {
			a.rememberEngine(f)
		}
		return nil
	}
	if a.pingEngine(ctx, f.host()) == nil {
		return fmt.Errorf("another engine answers at %s already: choose another --socket, or stop it", f.host())
	}
	if err := misplaced(more); err != nil {
		return err
	}
	path, err := findProgram(program)
	if err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return errors.New("an engine isolates and connects containers, which needs root: sudo " + a.name + " engine start")
	}
	for _, dir := range []string{filepath.Dir(f.PIDFile), filepath.Dir(f.LogFile), filepath.Dir(f.Socket)} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("cannot prepare the engine's directories: %w", err)
		}
	}
	log, err := os.OpenFile(f.LogFile, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o640)
	if err != nil {
		return fmt.Errorf("cannot open the engine's log: %w (another place can be given with --log-file)", err)
	}
	defer func() { _ = log.Close() }()
	before, err := log.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	cmd := exec.Command(path, append(f.arguments(), more...)...)
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // it outlives this terminal
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("cannot start %s: %w", path, err)
	}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	if err := a.awaitEngine(ctx, f, exited); err != nil {
		return fmt.Errorf("%w\n%sits log is %s", err, tailFrom(f.LogFile, before), f.LogFile)
	}
	a.rememberEngine(f)
	_, _ = fmt.Fprintf(a.out, "The engine is ready: pid %d, %s, log %s\n", cmd.Process.Pid, f.host(), f.LogFile)
	return nil
}

// misplaced finds options that this command has to know as well.
func misplaced(args []string) error {
	for _, arg := range args {
		name, _, _ := strings.Cut(arg, "=")
		switch name {
		case "--data-root", "--exec-root", "--pidfile":
			return fmt.Errorf("give %s before the '--'", name)
		case "-p":
			return errors.New("give --pidfile before the '--'")
		case "--host", "-H":
			return errors.New("give the engine's socket as --socket before the '--'")
		}
	}
	return nil
}

// findProgram is the engine's program: as given, beside this one, or in PATH.
func findProgram(given string) (string, error) {
	if given != "" {
		return exec.LookPath(given)
	}
	if self, err := os.Executable(); err == nil {
		if path := filepath.Join(filepath.Dir(self), "cleatd"); isExecutable(path) {
			return path, nil
		}
	}
	path, err := exec.LookPath("cleatd")
	if err != nil {
		return "", errors.New("cleatd, the engine's program, is neither beside this one nor in PATH: install it there or name it with --cleatd")
	}
	return path, nil
}

func isExecutable(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0
}

// awaitEngine waits until the engine answers, has ended, or takes too long.
func (a *app) awaitEngine(ctx context.Context, f engineFlags, exited <-chan error) error {
	deadline := time.NewTimer(engineStartTime)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case err := <-exited:
			if err == nil {
				err = errors.New("exit status 0")
			}
			return fmt.Errorf("the engine has ended while starting: %w", err)
		case <-ctx.Done():
			return ctx.Err()
		case <-deadline.C:
			return fmt.Errorf("the engine does not answer at %s after %s", f.host(), engineStartTime)
		case <-tick.C:
			if a.pingEngine(ctx, f.host()) == nil {
				return nil
			}
		}
	}
}

func (a *app) pingEngine(ctx context.Context, host string) error {
	c, err := client.New(client.WithHost(host), client.WithUserAgent(a.userAgent()))
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	_, err = c.Ping(ctx, client.PingOptions{})
	return err
}

// pid is the running engine's, 0 if there is none: a pidfile that was left behind may
// name a process that is something else by now.
func (f *engineFlags) pid() int {
	data, err := os.ReadFile(f.PIDFile)
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil || pid <= 1 {
		return 0
	}
	comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil || !strings.HasPrefix(string(comm), "cleatd") || processGone(pid) {
		return 0
	}
	return pid
}

func (a *app) engineStop() spec {
	return spec{
		use: "stop [OPTIONS]", short: "Stop the engine; containers go on and are taken over by the next one", args: a.noArgs,
		setup: func(fs *pflag.FlagSet) action {
			var f engineFlags
			f.install(fs, false)
			timeout := fs.DurationP("timeout", "t", 30*time.Second, "How long to wait for it to end")
			return func(ctx context.Context, _ []string) error {
				if _, err := a.findEngine(&f); err != nil {
					return err
				}
				return a.stopEngine(ctx, f, *timeout)
			}
		},
	}
}

func (a *app) stopEngine(ctx context.Context, f engineFlags, timeout time.Duration) error {
	pid := f.pid()
	if pid == 0 {
		_, _ = fmt.Fprintf(a.out, "The engine is not running (no process in %s)\n", f.PIDFile)
		return nil
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("cannot stop the engine (pid %d): %w", pid, err)
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.NewTimer(timeout)
	defer deadline.Stop()
	for !processGone(pid) {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-deadline.C:
			return fmt.Errorf("the engine (pid %d) has not ended after %s; see %s", pid, timeout, f.LogFile)
		case <-tick.C:
		}
	}
	_, _ = fmt.Fprintf(a.out, "The engine has stopped (pid %d)\n", pid)
	return nil
}

// processGone says whether pid has ended; one that nobody has waited for yet has, too.
func processGone(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true
	}
	i := strings.LastIndexByte(string(stat), ')')
	return i > 0 && strings.HasPrefix(string(stat[i+1:]), " Z")
}

func (a *app) engineStatus() spec {
	return spec{
		use: "status [OPTIONS]", short: "Show whether the engine is running", args: a.noArgs,
		setup: func(fs *pflag.FlagSet) action {
			var f engineFlags
			f.install(fs, false)
			return func(ctx context.Context, _ []string) error {
				others, err := a.findEngine(&f)
				if err != nil {
					return err
				}
				err = a.showEngine(ctx, f)
				for _, option := range asOptions(others) {
					_, _ = fmt.Fprintf(a.out, "Another one is running: %s\n", option)
				}
				return err
			}
		},
	}
}

// showEngine prints the engine's state. Its exit code is 3 if it does not run, as
// that of service managers.
func (a *app) showEngine(ctx context.Context, f engineFlags) error {
	pid := f.pid()
	c, err := client.New(client.WithHost(f.host()), client.WithUserAgent(a.userAgent()))
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	res, err := c.Info(ctx, client.InfoOptions{})
	if err != nil {
		state := "not running at " + f.host()
		if pid != 0 {
			state = fmt.Sprintf("running as pid %d, but it does not answer at %s", pid, f.host())
		}
		_, _ = fmt.Fprintln(a.out, "Engine:    ", state)
		if other := os.Getenv("DOCKER_HOST"); other != "" && other != f.host() {
			_, _ = fmt.Fprintf(a.out, "            (DOCKER_HOST names another, %s: ask for it with --socket)\n", other)
		}
		return &statusError{code: 3}
	}
	i := res.Info
	process := "?"
	if pid != 0 {
		process = strconv.Itoa(pid)
	}
	_, _ = fmt.Fprintf(a.out, "Engine:     running\nPID:        %s\nSocket:     %s\nVersion:    %s\nData root:  %s\nContainers: %d (%d running, %d paused, %d stopped)\nImages:     %d\n",
		process, f.host(), engineVersion(ctx, c, i.ServerVersion), i.DockerRootDir, i.Containers, i.ContainersRunning, i.ContainersPaused, i.ContainersStopped, i.Images)
	if _, err := os.Stat(f.LogFile); err == nil && pid != 0 {
		_, _ = fmt.Fprintf(a.out, "Log:        %s\n", f.LogFile)
	}
	return nil
}

// engineVersion is the engine's own version and the one of Docker that it answers as.
func engineVersion(ctx context.Context, c *client.Client, docker string) string {
	v, err := c.ServerVersion(ctx, client.ServerVersionOptions{})
	if err != nil {
		return docker
	}
	for _, part := range v.Components {
		if part.Name == "cleatd" {
			return part.Version + ", as Docker " + docker
		}
	}
	return docker
}

func (a *app) engineLogs() spec {
	return spec{
		use: "logs [OPTIONS]", short: "Show the engine's log", args: a.noArgs,
		setup: func(fs *pflag.FlagSet) action {
			var f engineFlags
			f.install(fs, false)
			follow := fs.BoolP("follow", "f", false, "Follow log output")
			tail := fs.StringP("tail", "n", "all", "Number of lines to show from the end of the log")
			return func(ctx context.Context, _ []string) error {
				if _, err := a.findEngine(&f); err != nil {
					return err
				}
				return a.showEngineLog(ctx, f.LogFile, *tail, *follow)
			}
		},
	}
}

func (a *app) showEngineLog(ctx context.Context, path, tail string, follow bool) error {
	lines := -1
	if tail != "all" {
		n, err := strconv.Atoi(tail)
		if err != nil || n < 0 {
			return fmt.Errorf("invalid --tail %q: a number of lines or \"all\" is wanted", tail)
		}
		lines = n
	}
	log, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("there is no log at %s: the engine was not started with 'cleat engine start', or with another --log-file", path)
	}
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	if lines >= 0 {
		if err := seekLastLines(log, lines); err != nil {
			return err
		}
	}
	if _, err := io.Copy(a.out, log); err != nil || !follow {
		return err
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
			if _, err := io.Copy(a.out, log); err != nil {
				return err
			}
		}
	}
}

// seekLastLines moves to the beginning of the last n lines.
func seekLastLines(f io.ReadSeeker, n int) error {
	pos, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	end, found := pos, 0
	buf := make([]byte, 32<<10)
	for pos > 0 {
		size := min(pos, int64(len(buf)))
		if _, err := f.Seek(pos-size, io.SeekStart); err != nil {
			return err
		}
		if _, err := io.ReadFull(f, buf[:size]); err != nil {
			return err
		}
		for i := size - 1; i >= 0; i-- {
			if buf[i] != '\n' || pos-size+i == end-1 {
				continue // the last line's own newline ends nothing before it
			}
			if found++; found == n {
				_, err := f.Seek(pos-size+i+1, io.SeekStart)
				return err
			}
		}
		pos -= size
	}
	if n == 0 {
		pos = end
	}
	_, err = f.Seek(pos, io.SeekStart)
	return err
}

// tailFrom is what was written to the log since offset, its last kilobytes at most.
func tailFrom(path string, offset int64) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer func() { _ = f.Close() }()
	const most = 4 << 10
	if end, err := f.Seek(0, io.SeekEnd); err == nil && end-offset > most {
		offset = end - most
	}
	text, err := io.ReadAll(io.NewSectionReader(f, offset, most))
	if err != nil || len(text) == 0 {
		return ""
	}
	return strings.TrimRight(string(text), "\n") + "\n"
}
