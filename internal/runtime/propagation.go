package runtime

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// checkPropagation refuses a shared or slave bind of a source whose mount on the host has no peers to share with or
// follow: it would work as a private one, and no one would know why.
func checkPropagation(m *Mount) error {
	kind := strings.TrimPrefix(m.Propagation, "r")
	if kind != "shared" && kind != "slave" {
		return nil
	}
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, m.Source, 0, unix.STATX_MNT_ID, &st); err != nil {
		return fmt.Errorf("%s: %w", m.Source, err)
	}
	info, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return fmt.Errorf("propagation of %s: %w", m.Source, err)
	}
	at, shared, slave, ok := peersOf(string(info), st.Mnt_id)
	switch {
	case !ok:
		return invalid("path %s: its mount is not found in /proc/self/mountinfo", m.Source)
	case kind == "shared" && !shared:
		return invalid("path %s is mounted on %s but it is not a shared mount", m.Source, at)
	case kind == "slave" && !shared && !slave:
		return invalid("path %s is mounted on %s but it is not a shared or slave mount", m.Source, at)
	}
	return nil
}

// peersOf finds a mount by its id and tells where it is and whether it is shared or a slave.
func peersOf(mountinfo string, id uint64) (at string, shared, slave, ok bool) {
	for _, line := range strings.Split(mountinfo, "\n") {
		before, _, found := strings.Cut(line, " - ")
		f := strings.Fields(before)
		const mountPoint, optional = 4, 6
		if !found || len(f) < optional || f[0] != strconv.FormatUint(id, 10) {
			continue
		}
		for _, o := range f[optional:] {
			shared = shared || strings.HasPrefix(o, "shared:")
			slave = slave || strings.HasPrefix(o, "master:")
		}
		return f[mountPoint], shared, slave, true
	}
	return "", false, false, false
}
