package cgroup

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// EnterWith has DirFD open the group of the unified hierarchy that process pid is in, instead of g's own, if it lies
// inside of g. Where what runs in a group has divided it among groups of its own (a service manager or an engine in a
// container), the kernel lets no process into the group itself: clone3(2) fails with EBUSY. It reports whether there is
// such a group.
func (g *Group) EnterWith(pid int) (bool, error) {
	if g.h.unified == "" {
		return false, nil
	}
	table, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return false, err
	}
	inner, ok := innerGroup(string(table), g.path)
	if !ok {
		return false, nil
	}
	dir := g.h.unified + inner
	fd, err := openFile(dir, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return false, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	if g.dir >= 0 {
		unix.Close(g.dir)
	}
	g.dir = fd
	return true, nil
}

// innerGroup picks the group of the unified hierarchy out of a process's table, if it is inside of outer.
func innerGroup(table, outer string) (string, bool) {
	for line := range strings.Lines(table) {
		group, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::")
		if !ok {
			continue
		}
		// The kernel marks one that has been removed, and says how to get to one that lies outside of what the engine sees.
		inside := strings.HasPrefix(group, outer+"/") && filepath.Clean(group) == group && !strings.HasSuffix(group, " (deleted)")
		return group, inside
	}
	return "", false
}
