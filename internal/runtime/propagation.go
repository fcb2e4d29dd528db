package runtime

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/kernel"
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
	table, err := kernel.MountTable()
	if err != nil {
		return fmt.Errorf("propagation of %s: %w", m.Source, err)
	}
	i := slices.IndexFunc(table, func(m kernel.Mounted) bool { return m.ID == st.Mnt_id })
	switch {
	case i < 0:
		return invalid("path %s: its mount is not found in /proc/self/mountinfo", m.Source)
	case kind == "shared" && !table[i].Shared:
		return invalid("path %s is mounted on %s but it is not a shared mount: make it one (mount --make-rshared %[2]s), or leave out %[3]s", m.Source, table[i].Point, m.Propagation)
	case kind == "slave" && !table[i].Shared && !table[i].Slave:
		return invalid("path %s is mounted on %s but it is not a shared or slave mount: make it one (mount --make-rshared %[2]s), or leave out %[3]s", m.Source, table[i].Point, m.Propagation)
	}
	return nil
}
