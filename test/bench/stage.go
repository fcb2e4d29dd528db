package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// stage is all that a run of bench makes on the machine.
type stage struct {
	options
	self    string // this program
	dir     string // on disk: roots, sockets, logs
	cgroup  string // parent of every control group, from the hierarchies' roots
	started []*held
	cleat   *system
	bundles []*bundle
}

// held is an engine in its namespaces.
type held struct {
	name    string
	cmd     *exec.Cmd
	release *os.File // closing it ends the namespaces
	log     string
	exited  chan struct{}
}

func newStage(o options) (*stage, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("root is needed to start engines")
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	for _, p := range []*string{&o.bin, &o.image} {
		if *p, err = filepath.Abs(*p); err != nil {
			return nil, err
		}
	}
	dir, err := os.MkdirTemp("", "cleat-bench.")
	if err != nil {
		return nil, err
	}
	// The first process of a bare container becomes our child when its runtime has ended.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, err
	}
	if o.image, err = addNothing(o.bin, o.image, dir); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return &stage{options: o, self: self, dir: dir, cgroup: "/" + filepath.Base(dir)}, nil
}

// bringUp starts every system that is installed, Cleat first. One of the others that
// does not come up is left out, and said so.
func (st *stage) bringUp(ctx context.Context) ([]*system, error) {
	cleat, err := st.engine(ctx, "cleat", []string{filepath.Join(st.bin, "cleatd"),
		"--data-root", st.path("cleat"), "--host", "unix://" + st.path("cleat.sock"), "--pidfile", st.path("cleatd.pid"),
		"--bridge", "cleatbench0", "--cgroup-parent", st.cgroup + "/cleat"})
	if err != nil {
		return nil, err
	}
	cleat.client = []string{filepath.Join(st.bin, "cleat")}
	st.cleat = cleat
	systems := []*system{cleat}
	if !st.peers {
		return systems, nil
	}
	for _, name := range []string{"runc", "crun"} {
		if path, err := exec.LookPath(name); err == nil {
			s, err := st.bare(ctx, name, path)
			if err == nil {
				systems = append(systems, s)
			} else if !leftOut(ctx, name, err) {
				return nil, err
			}
		}
	}
	for _, p := range []struct {
		name    string
		command []string
		client  []string
	}{
		{"podman", []string{"podman", "--root", st.path("podman"), "--runroot", "/run/containers/storage", "--cgroup-manager", "cgroupfs",
			"system", "service", "-t", "0", "unix://" + st.path("podman.sock")}, []string{"podman", "--remote", "--url", "unix://" + st.path("podman.sock")}},
		{"dockerd", []string{"dockerd", "--data-root", st.path("dockerd"), "--exec-root", "/run/docker", "-H", "unix://" + st.path("dockerd.sock"),
			"--pidfile", st.path("dockerd.pid"), "--bip", "10.199.1.1/24", "--cgroup-parent", st.cgroup + "/dockerd"}, []string{"docker"}},
	} {
		if _, err := exec.LookPath(p.command[0]); err != nil {
			continue
		}
		s, err := st.engine(ctx, p.name, p.command)
		if err != nil {
			if !leftOut(ctx, p.name, err) {
				return nil, err
			}
			continue
		}
		if _, err := exec.LookPath(p.client[0]); err == nil {
			s.client = p.client
		}
		systems = append(systems, s)
	}
	return systems, nil
}

// leftOut says why a system is not measured, unless the whole run has been ended.
func leftOut(ctx context.Context, name string, err error) bool {
	if ctx.Err() == nil {
		fmt.Fprintf(os.Stderr, "%s is left out: %v\n", name, err)
	}
	return ctx.Err() == nil
}

func (st *stage) path(name string) string { return filepath.Join(st.dir, name) }

// engine starts one, waits until it answers, and gives it the image.
func (st *stage) engine(ctx context.Context, name string, command []string) (*system, error) {
	begin := time.Now()
	h, err := st.hold(name, command)
	if err != nil {
		return nil, err
	}
	s := &system{name: name, held: h, socket: st.path(name + ".sock"), cgroup: st.cgroup + "/" + name, http: leanClient(st.path(name + ".sock"))}
	limit, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for s.call(limit, "GET", "/_ping", nil, nil) != nil {
		select {
		case <-h.exited:
			return nil, fmt.Errorf("it has ended: %s", h.lastWords())
		case <-limit.Done():
			return nil, fmt.Errorf("it does not answer: %s", h.lastWords())
		case <-time.After(time.Millisecond):
		}
	}
	s.ready = time.Since(begin)
	image, err := os.Open(st.image)
	if err != nil {
		return nil, err
	}
	defer image.Close()
	if err := s.call(limit, "POST", "/images/load?quiet=1", image, nil); err != nil {
		return nil, err
	}
	// The first container is not like the others: it fills caches.
	return s, s.life(limit, "none", nothing, func(string, float64) {})
}

func (st *stage) hold(name string, command []string) (*held, error) {
	h := &held{name: name, log: st.path(name + ".log"), exited: make(chan struct{})}
	log, err := os.Create(h.log)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	read, write, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer read.Close()
	scratch := st.path(name + "-scratch")
	h.cmd = exec.Command(st.self, append([]string{"hold", scratch}, command...)...)
	h.cmd.Stdin, h.cmd.Stdout, h.cmd.Stderr = read, log, log
	// A session of its own: what is typed at this terminal is not for it.
	h.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWIPC}
	h.release = write
	if err := h.cmd.Start(); err != nil {
		return nil, errors.Join(err, write.Close())
	}
	go func() { _ = h.cmd.Wait(); close(h.exited) }()
	st.started = append(st.started, h)
	return h, nil
}

func (h *held) lastWords() string {
	b, _ := os.ReadFile(h.log)
	lines := bytes.Split(bytes.TrimSpace(b), []byte("\n"))
	return string(lines[len(lines)-1])
}

// end asks the engine to end, and ends its namespaces in any case.
func (h *held) end() {
	_ = h.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-h.exited:
	case <-time.After(10 * time.Second):
	}
	_ = h.release.Close()
	_ = h.cmd.Process.Kill()
	<-h.exited
}

// clear takes everything away again.
func (st *stage) clear() error {
	var errs []error
	for _, b := range st.bundles {
		b.clear()
	}
	for _, h := range st.started {
		h.end()
	}
	removeCgroups(st.cgroup)
	for range 100 { // a namespace that has just ended may still hold a mount
		if err := os.RemoveAll(st.dir); err == nil {
			break
		} else {
			errs = []error{err}
			time.Sleep(20 * time.Millisecond)
		}
	}
	if _, err := os.Lstat(st.dir); err == nil {
		return errors.Join(errs...)
	}
	return nil
}

// removeCgroups removes the directory and all below it in every hierarchy. The
// processes in them have just been killed, and may take a moment to be gone.
func removeCgroups(cgroup string) {
	roots, _ := filepath.Glob("/sys/fs/cgroup/*" + cgroup)
	roots = append(roots, "/sys/fs/cgroup"+cgroup)
	for _, root := range roots {
		for range 200 {
			var dirs []string
			_ = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
				if err == nil && d.IsDir() {
					dirs = append(dirs, path)
				}
				return nil
			})
			for i := len(dirs) - 1; i >= 0; i-- {
				_ = os.Remove(dirs[i])
			}
			if _, err := os.Lstat(root); err != nil {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
}

// children are the processes below pid, from the machine's view.
func children(pid int) []int {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	below := map[int][]int{}
	for _, path := range stats {
		b, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		i := strings.LastIndexByte(string(b), ')')
		var state string
		var p, parent int
		if _, err := fmt.Sscan(string(b[:strings.IndexByte(string(b), ' ')]), &p); err != nil {
			continue
		}
		if _, err := fmt.Sscan(string(b[i+1:]), &state, &parent); err == nil {
			below[parent] = append(below[parent], p)
		}
	}
	var all []int
	for next := below[pid]; len(next) > 0; {
		p := next[0]
		next = append(next[1:], below[p]...)
		all = append(all, p)
	}
	return all
}

func comm(pid int) string {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	return strings.TrimSpace(string(b))
}
