package assemble

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/kernel"
	"github.com/cleatlabs/cleat/internal/record"
)

// errInUse says that another engine works on the same directory.
type errInUse struct {
	dir string
	pid int
}

func (e *errInUse) Error() string {
	return fmt.Sprintf("another engine (PID %d) is running on %s: stop it first, or choose other --data-root, --exec-root, --pidfile, "+
		"--bridge and --cgroup-parent for a second one", e.pid, e.dir)
}

// lockDir makes this process the engine of dir for as long as it lives. The
// lock is the kernel's, so a dead engine holds none.
func lockDir(dir string) (*os.File, error) {
	path := filepath.Join(dir, "engine.lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	if err := flock(f); err != nil {
		defer f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, &errInUse{dir: dir, pid: readPID(path)}
		}
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	if err = f.Truncate(0); err == nil {
		_, err = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	return f, nil
}

// flock takes the lock that is f's. A child that an engine was killed in the
// middle of starting has the lock, too, until it executes its program: while the
// engine that f names is dead, its children are waited for.
func flock(f *os.File) error {
	const patience, interval = 5 * time.Second, time.Millisecond
	for end := time.Now().Add(patience); ; time.Sleep(interval) {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case errors.Is(err, unix.EINTR):
		case !errors.Is(err, unix.EWOULDBLOCK):
			return err
		case isAlive(readPID(f.Name())) || time.Now().After(end):
			return err
		}
	}
}

func readPID(path string) int {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 0
	}
	return pid
}

// takePidfile writes the pidfile. One that names a running engine is an error;
// any other is stale (PIDs are reused) and replaced.
func takePidfile(path string) error {
	if pid := readPID(path); pid > 1 && pid != os.Getpid() && isEngine(pid) {
		return fmt.Errorf("%s names a running engine (PID %d): stop it first, or choose another --pidfile", path, pid)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("pidfile: %w", err)
	}
	return record.Write(path, []byte(strconv.Itoa(os.Getpid())), 0o644)
}

// isEngine says whether pid is an engine that works.
func isEngine(pid int) bool { return nameOf(pid) == "cleatd" }

func isAlive(pid int) bool { return nameOf(pid) != "" }

// nameOf is the name of a process, "" if there is none: one that was killed and
// that its parent has not waited for yet still has its name, and is none.
func nameOf(pid int) string {
	s, err := kernel.StatOf(pid)
	if err != nil || s.State == 'Z' || s.State == 'X' {
		return ""
	}
	return s.Name
}

// dropPidfile removes the pidfile if it is still ours.
func dropPidfile(path string) {
	if readPID(path) == os.Getpid() {
		_ = os.Remove(path)
	}
}
