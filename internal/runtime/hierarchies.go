package runtime

import (
	"fmt"
	"os"
	"path"
	"sort"
	"strings"
)

// A hierarchy is a mounted cgroup v1 hierarchy, as containers are shown it.
type hierarchy struct {
	name  string   // of its directory: "cpu,cpuacct"
	links []string // names of its controllers, if it has several
	dir   string   // where the host has it mounted
	used  bool     // groups have a directory in it
}

// v1Hierarchies lists the hierarchies below /sys/fs/cgroup. A host of v2 has none there, or one that containers have
// nothing to do with.
func v1Hierarchies() ([]hierarchy, error) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("finding the control groups: %w", err)
	}
	return parseHierarchies(string(b)), nil
}

func parseHierarchies(mountinfo string) []hierarchy {
	var list []hierarchy
	for _, line := range strings.Split(mountinfo, "\n") {
		before, after, ok := strings.Cut(line, " - ")
		f, g := strings.Fields(before), strings.Fields(after)
		const mountPoint = 4
		if !ok || len(f) <= mountPoint || len(g) < 3 || g[0] != "cgroup" || path.Dir(f[mountPoint]) != "/sys/fs/cgroup" {
			continue
		}
		h := hierarchy{name: path.Base(f[mountPoint]), dir: f[mountPoint]}
		if strings.Contains(h.name, ",") {
			h.links = strings.Split(h.name, ",")
		}
		list = append(list, h)
	}
	sort.Slice(list, func(i, j int) bool { return list[i].name < list[j].name })
	return list
}
