package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/failure"
)

// Group is the control group of one container: a directory in each hierarchy. TaskFDs, DirFD and CloseFDs belong to one
// goroutine; the other methods may be called by several.
type Group struct {
	h     *Hierarchy
	path  string
	fresh bool // made by this Create: no limit was ever set

	tasks []int
	dir   int
}

// Create makes the group at path ("/cleat/ID"; its parents are made, too) with limits r. A group of that name without
// processes, left by a crash, is replaced; one with processes is errdefs.ErrConflict. After an error nothing is left.
func (h *Hierarchy) Create(path string, r Resources) (*Group, error) {
	if err := CheckPath(path); err != nil {
		return nil, err
	}
	if err := r.validate(h.Version()); err != nil {
		return nil, err
	}
	g := &Group{h: h, path: path, fresh: true, dir: -1}
	err := g.make()
	if errors.Is(err, unix.EEXIST) {
		if err := g.removeStale(); err != nil {
			return nil, err
		}
		err = g.make()
	}
	if err == nil {
		err = g.apply(r)
	}
	if err != nil {
		return nil, errors.Join(err, g.Remove())
	}
	g.fresh = false
	return g, nil
}

// Open returns the group at path, made by an earlier engine; errdefs.ErrNotFound if there is none.
func (h *Hierarchy) Open(path string) (*Group, error) {
	if err := CheckPath(path); err != nil {
		return nil, err
	}
	g := &Group{h: h, path: path, dir: -1}
	if !exists(g.in(h.primary())) {
		return nil, failure.NotFound("no control group %s", path)
	}
	return g, nil
}

// Remove removes the group at path as Group.Remove does, also what an interrupted Create made of it in some of the
// hierarchies.
func (h *Hierarchy) Remove(path string) error {
	if err := CheckPath(path); err != nil {
		return err
	}
	g := &Group{h: h, path: path, dir: -1}
	return g.Remove()
}

// longestPath is what the kernel takes of a path, with that of the hierarchy before it and a file's name behind it.
const longestPath = unix.PathMax - 256

// CheckPath refuses what would lead out of the tree, is the tree itself, or can be no directory's path.
func CheckPath(path string) error {
	if len(path) > longestPath {
		return failure.Invalid("invalid control group path %q…: it has %d bytes, and may have %d at most", path[:64], len(path), longestPath)
	}
	if !strings.HasPrefix(path, "/") || path == "/" || filepath.Clean(path) != path || strings.ContainsAny(path, "\x00\n") {
		return failure.Invalid("invalid control group path %q: it must be absolute, below the root, without . and .., and in one line", path)
	}
	return nil
}

// in is the group's directory in the hierarchy mounted at mount.
func (g *Group) in(mount string) string { return mount + g.path }

// controller is the group's directory in the v1 hierarchy of a controller.
func (g *Group) controller(name string) (string, bool) {
	t, ok := g.h.tree(name)
	return g.in(t.mount), ok
}

// make makes the directories. EEXIST means that there was one already; those made are left for Remove.
func (g *Group) make() error {
	dir := filepath.Dir(g.path)
	for attempt := 0; ; attempt++ {
		p, err := g.h.prepareParent(dir)
		if err == nil {
			err = g.makeIn(p)
			if errors.Is(err, unix.ENOENT) && attempt <= 2 {
				// Its last group has gone, and it with that, or somebody has removed it.
				g.h.forgetParent(dir)
				continue
			}
		}
		if errors.Is(err, unix.ENOTDIR) {
			return failure.Invalid("control group %s: its parent has the name of a file that the kernel has there: %w", g.path, err)
		}
		return err
	}
}

func (g *Group) makeIn(p parent) error {
	for _, mount := range g.h.mounts() {
		if err := g.h.mkdir(g.in(mount)); err != nil {
			return &os.PathError{Op: "mkdir", Path: g.in(mount), Err: err}
		}
	}
	if p.inheritsCpuset {
		return nil
	}
	if t, ok := g.h.tree("cpuset"); ok {
		return fillCpuset(t.mount, g.in(t.mount))
	}
	return nil
}

// removeStale removes an earlier group of the same name if it has no processes.
func (g *Group) removeStale() error {
	pids, err := g.Procs()
	if err != nil {
		return err
	}
	if len(pids) > 0 {
		return failure.Conflict("control group %s already exists and holds the processes %v", g.path, pids)
	}
	return g.Remove()
}

// TaskFDs opens the tasks file of every v1 hierarchy for writing: a process enters the group by writing "0" to each. Nil
// on v2. The descriptors are close-on-exec and stay the group's until CloseFDs.
func (g *Group) TaskFDs() ([]int, error) {
	if len(g.tasks) > 0 || len(g.h.v1) == 0 {
		return g.tasks, nil
	}
	fds := make([]int, 0, len(g.h.v1))
	for _, t := range g.h.v1 {
		fd, err := openFile(g.in(t.mount)+"/tasks", unix.O_WRONLY)
		if err != nil {
			closeAll(fds)
			return nil, &os.PathError{Op: "open", Path: g.in(t.mount) + "/tasks", Err: err}
		}
		fds = append(fds, fd)
	}
	g.tasks = fds
	return fds, nil
}

// DirFD opens the group's directory in the unified hierarchy, for CLONE_INTO_CGROUP; -1 on v1 hosts. On a hybrid host
// it holds no limits, but a process that is born into it can be killed in one step and is missed when it ends. The
// descriptor stays the group's until CloseFDs.
func (g *Group) DirFD() (int, error) {
	if g.h.unified == "" || g.dir >= 0 {
		return g.dir, nil
	}
	fd, err := openFile(g.in(g.h.unified), unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: g.in(g.h.unified), Err: err}
	}
	g.dir = fd
	return fd, nil
}

// CloseFDs closes what TaskFDs and DirFD opened.
func (g *Group) CloseFDs() {
	closeAll(g.tasks)
	g.tasks = nil
	if g.dir >= 0 {
		unix.Close(g.dir)
		g.dir = -1
	}
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}

// removeWait is how long Remove waits for killed processes to be gone.
const removeWait = time.Second

// Remove removes the group and the groups that processes made inside it. It does not kill: as long as processes are in
// it, it waits for them to end, up to a second, and then fails with errdefs.ErrConflict and their ids. A group that is
// gone is no error.
func (g *Group) Remove() error {
	pending := make([]string, 0, len(g.h.v1)+1)
	for _, mount := range g.h.mounts() {
		pending = append(pending, g.in(mount))
	}
	deadline := time.Now().Add(removeWait)
	for pause := 100 * time.Microsecond; ; pause *= 2 {
		var err error
		pending, err = removeDirs(pending)
		if len(pending) == 0 || err != nil {
			return err
		}
		left := time.Until(deadline)
		if left <= 0 {
			pids, _ := g.Procs()
			return failure.Conflict("control group %s cannot be removed: it still holds the processes %v", g.path, pids)
		}
		g.waitEmpty(min(pause, 20*time.Millisecond, left))
	}
}

// waitEmpty waits until the kernel says that the group has changed, or for d: v1 has nothing that says so.
func (g *Group) waitEmpty(d time.Duration) {
	if g.h.mode == "v2" {
		if err := waitEvents(g.in(g.h.unified), d); err == nil {
			return
		}
	}
	time.Sleep(d)
}

// removeDirs removes what it can of dirs and returns those that are busy.
func removeDirs(dirs []string) (busy []string, err error) {
	for _, dir := range dirs {
		err := removeDir(dir)
		switch {
		case err == nil:
		case errors.Is(err, unix.EBUSY):
			busy = append(busy, dir)
		default:
			return busy, fmt.Errorf("removing a control group: %w", err)
		}
	}
	return busy, nil
}

// removeDir removes a directory with those below it, deepest first.
func removeDir(dir string) error {
	err := rmdir(dir)
	if !errors.Is(err, unix.EBUSY) {
		return err
	}
	children, cerr := childDirs(dir)
	if cerr != nil || len(children) == 0 {
		return err
	}
	for _, c := range children {
		if err := removeDir(c); err != nil {
			return err
		}
	}
	return rmdir(dir)
}

func rmdir(dir string) error {
	for {
		err := unix.Rmdir(dir)
		switch {
		case err == nil, errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR): // not below a file either
			return nil
		case errors.Is(err, unix.EINTR):
		default:
			return &os.PathError{Op: "rmdir", Path: dir, Err: err}
		}
	}
}

// childDirs lists the groups directly below dir. A directory with two links has none, and is not read.
func childDirs(dir string) ([]string, error) {
	var st unix.Stat_t
	if err := unix.Lstat(dir, &st); err != nil {
		return nil, err
	}
	if st.Nlink == 2 {
		return nil, nil
	}
	entries, err := os.ReadDir(dir)
	var children []string
	for _, e := range entries {
		if e.IsDir() {
			children = append(children, filepath.Join(dir, e.Name()))
		}
	}
	return children, err
}
