package cgroup

import (
	"os"
	"path/filepath"
	"strings"
)

// roomGroup is where the processes of a container's own group go that an engine runs in.
const roomGroup = "init"

// makeRoom moves the processes of the unified hierarchy's top group into one below it, where that is not the host's top
// but a container's own group: the kernel lets a group have processes or controllers for its children, not both, and
// with some of the controllers enabled all the same its children take no processes at all. What cannot be moved is met
// again, and told, by who asks for a limit.
func makeRoom(top string) {
	if !exists(filepath.Join(top, "cgroup.type")) { // the host's has none, and no such rule
		return
	}
	const attempts = 3 // of the processes some may just have made others
	for range attempts {
		procs, err := os.ReadFile(filepath.Join(top, "cgroup.procs"))
		if err != nil || len(procs) == 0 {
			return
		}
		room := filepath.Join(top, roomGroup)
		if err := makeDir(room); err != nil && !os.IsExist(err) {
			return
		}
		for _, pid := range strings.Fields(string(procs)) {
			_ = writeFile(room, "cgroup.procs", pid) // it has ended
		}
	}
}
