package harness

import (
	"bytes"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Snapshot is what the machine holds of the things that an engine can leave behind.
type Snapshot map[string]bool

// Take lists processes of ours, mounts, network namespaces, links, nft tables,
// cgroups and temporary directories.
func Take() (Snapshot, error) {
	s := Snapshot{}
	for _, add := range []func() error{s.processes, s.mounts, s.links, s.tables, s.cgroups, s.dirs} {
		if err := add(); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// Left returns what is in now and was not in s, in order.
func (s Snapshot) Left(now Snapshot) []string {
	var left []string
	for _, k := range slices.Sorted(maps.Keys(now)) {
		if !s[k] {
			left = append(left, k)
		}
	}
	return left
}

// processes adds the engines, keepers and network namespaces that processes hold.
// A keeper and a container's processes are told by their control group or name.
func (s Snapshot) processes() error {
	procs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return err
	}
	for _, p := range procs {
		if ns, err := os.Readlink(p + "/ns/net"); err == nil {
			s["network namespace "+ns] = true
		}
		cg, err := os.ReadFile(p + "/cgroup")
		if err != nil {
			continue // it has ended meanwhile
		}
		cmdline, _ := os.ReadFile(p + "/cmdline")
		name, _ := os.ReadFile(p + "/comm")
		line := strings.TrimSpace(string(bytes.ReplaceAll(cmdline, []byte{0}, []byte{' '})))
		if strings.Contains(string(cg), "/cleat") || strings.HasPrefix(string(name), "cleat") || strings.Contains(line, "/bin/cleat") {
			s[fmt.Sprintf("process %s (%s) %s", filepath.Base(p), strings.TrimSpace(string(name)), line)] = true
		}
	}
	return nil
}

func (s Snapshot) mounts() error {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	for l := range strings.Lines(string(b)) {
		f := strings.Fields(l)
		s["mount "+f[4]] = true
	}
	return nil
}

func (s Snapshot) links() error {
	ifs, err := net.Interfaces()
	if err != nil {
		return err
	}
	for _, i := range ifs {
		s["link "+i.Name] = true
	}
	return nil
}

func (s Snapshot) tables() error {
	out, err := exec.Command("nft", "list", "tables").Output()
	if err != nil {
		return fmt.Errorf("nft list tables: %w", err)
	}
	for l := range strings.Lines(string(out)) {
		s["nft "+strings.TrimSpace(l)] = true
	}
	return nil
}

// cgroups leaves out what lies beside the control group that this process is in: other
// sessions and services of the machine, which come and go as they like.
func (s Snapshot) cgroups() error {
	own, err := ownGroups()
	if err != nil {
		return err
	}
	return filepath.WalkDir("/sys/fs/cgroup", func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return nil // a control group that goes away while we look
		case !d.IsDir():
		case own[filepath.Dir(p)] != "" && own[filepath.Dir(p)] != p:
			return filepath.SkipDir
		default:
			s["cgroup "+p] = true
		}
		return nil
	})
}

// ownGroups are the directories of this process's control groups by the directories
// that they lie in, without those of the root group, as cgroups(7) describes /proc/self/cgroup.
func ownGroups() (map[string]string, error) {
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, err
	}
	own := map[string]string{}
	for l := range strings.Lines(string(b)) {
		f := strings.SplitN(strings.TrimSpace(l), ":", 3)
		if len(f) != 3 || filepath.Dir(f[2]) == "/" {
			continue
		}
		for _, at := range []string{strings.TrimPrefix(f[1], "name="), "unified", ""} {
			dir := filepath.Join("/sys/fs/cgroup", at, f[2])
			own[filepath.Dir(dir)] = dir
		}
	}
	return own, nil
}

func (s Snapshot) dirs() error {
	for _, pat := range []string{"/tmp/cleat*", "/dev/shm/cleat*", "/run/cleat*", "/var/lib/cleat*"} {
		m, err := filepath.Glob(pat)
		if err != nil {
			return err
		}
		for _, d := range m {
			s["directory "+d] = true
		}
	}
	return nil
}

// Leftovers waits until the machine holds nothing that s did not, since links and
// namespaces go away a moment after their last user, and returns what stays.
func (s Snapshot) Leftovers() []string {
	var left []string
	for deadline := time.Now().Add(Patience); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		now, err := Take()
		if err != nil {
			return []string{err.Error()}
		}
		if left = s.Left(now); len(left) == 0 {
			return nil
		}
	}
	return left
}
