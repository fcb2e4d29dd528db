package kernel

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A Mounted is a line of the mount table.
type Mounted struct {
	ID            uint64 // as statx(2) tells it of what lies there (STATX_MNT_ID)
	Point         string // an absolute path
	Shared, Slave bool   // it gives the mounts below it to peers, has them from peers
	Type          string // of the filesystem: ext4, cgroup2 …
	Options       string // the filesystem's own: rw,cpu,cpuacct
}

// MountTable lists what is mounted in this process's mount namespace. Where several are mounted at one place the last
// hides the others.
func MountTable() ([]Mounted, error) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("mount table: %w", err)
	}
	return ParseMountTable(string(b)), nil
}

// MountOf is the mount that a path lies on, with links followed.
func MountOf(path string) (Mounted, error) {
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, 0, unix.STATX_MNT_ID, &st); err != nil {
		return Mounted{}, fmt.Errorf("%s: %w", path, err)
	}
	table, err := MountTable()
	if err != nil {
		return Mounted{}, fmt.Errorf("mount of %s: %w", path, err)
	}
	i := slices.IndexFunc(table, func(m Mounted) bool { return m.ID == st.Mnt_id })
	if i < 0 {
		return Mounted{}, fmt.Errorf("path %s: its mount is not found in /proc/self/mountinfo", path)
	}
	return table[i], nil
}

// ParseMountTable reads a table in the format of /proc/self/mountinfo. What is no line of one is passed over.
func ParseMountTable(table string) []Mounted {
	var all []Mounted
	for line := range strings.Lines(table) {
		mount, filesystem, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " - ")
		f, fs := strings.Fields(mount), strings.SplitN(filesystem, " ", 3)
		const point, optional = 4, 6
		if len(f) < optional || len(fs) < 3 {
			continue
		}
		id, err := strconv.ParseUint(f[0], 10, 64)
		if err != nil {
			continue
		}
		m := Mounted{ID: id, Point: unescape(f[point]), Type: fs[0], Options: fs[2]}
		for _, tag := range f[optional:] {
			m.Shared = m.Shared || strings.HasPrefix(tag, "shared:")
			m.Slave = m.Slave || strings.HasPrefix(tag, "master:")
		}
		all = append(all, m)
	}
	return all
}

// unescape undoes the octal escapes (\040 for a space) of the kernel's mount tables.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
