package runtime

import (
	"path"
	"sort"
	"strings"

	"github.com/cleatlabs/cleat/internal/kernel"
)

// A hierarchy is a mounted cgroup v1 hierarchy, as containers are shown it.
type hierarchy struct {
	name  string   // of its directory: "cpu,cpuacct"
	links []string // names of its controllers, if it has several
	dir   string   // where the host has it mounted
	used  bool     // groups have a directory in it
}

// v1Hierarchies finds the hierarchies below /sys/fs/cgroup in a mount table. A host of v2 has none there, or one that
// containers have nothing to do with.
func v1Hierarchies(table []kernel.Mounted) []hierarchy {
	var list []hierarchy
	for _, m := range table {
		if m.Type != "cgroup" || path.Dir(m.Point) != "/sys/fs/cgroup" {
			continue
		}
		h := hierarchy{name: path.Base(m.Point), dir: m.Point}
		if strings.Contains(h.name, ",") {
			h.links = strings.Split(h.name, ",")
		}
		list = append(list, h)
	}
	sort.Slice(list, func(i, j int) bool { return list[i].name < list[j].name })
	return list
}
