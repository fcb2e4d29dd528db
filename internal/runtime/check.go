package runtime

import (
	"path"
	"strings"

	"github.com/cleatlabs/cleat/internal/apparmor"
	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/keeper"
)

func invalid(format string, args ...any) error { return failure.Invalid(format, args...) }

const maxHostName = 64 // HOST_NAME_MAX

// check refuses what the program could not carry out as asked.
func (s *Spec) check() error {
	if err := checkID(s.ID); err != nil {
		return err
	}
	if err := checkCommand(s.Args); err != nil {
		return err
	}
	if err := apparmor.CheckName(s.AppArmorProfile); err != nil {
		return err
	}
	if len(s.Hostname) > maxHostName || len(s.Domainname) > maxHostName {
		return invalid("a host or domain name has at most %d characters", maxHostName)
	}
	if len(s.Held) > keeper.MaxHeld {
		return invalid("a keeper holds at most %d descriptors", keeper.MaxHeld)
	}
	if s.ShmSize < 0 {
		return invalid("the size of /dev/shm cannot be negative")
	}
	if s.OOMScoreAdj < -1000 || s.OOMScoreAdj > 1000 {
		return invalid("invalid value %d, range for oom score adj is [-1000, 1000]", s.OOMScoreAdj)
	}
	if s.CgroupPath != "" && (!strings.HasPrefix(s.CgroupPath, "/") || path.Clean(s.CgroupPath) != s.CgroupPath || s.CgroupPath == "/") {
		return invalid("invalid cgroup path %q", s.CgroupPath)
	}
	for _, d := range s.Devices {
		if !path.IsAbs(d.Path) || path.Clean(d.Path) == "/" {
			return invalid("invalid device path %q", d.Path)
		}
		if !strings.ContainsRune("cbup", d.Type) {
			return invalid("device %s: invalid type %q", d.Path, d.Type)
		}
	}
	return s.checkMounts()
}

func (s *Spec) checkMounts() error {
	for _, m := range s.Mounts {
		if !path.IsAbs(m.Target) || path.Clean(m.Target) == "/" {
			return invalid("invalid mount target %q: it must be an absolute path other than /", m.Target)
		}
		if m.Type != "bind" && m.Type != "tmpfs" {
			return invalid("mount %s: type %q is not supported", m.Target, m.Type)
		}
		if m.Type == "bind" && !path.IsAbs(m.Source) && m.Tree == 0 {
			return invalid("mount %s: the source %q must be an absolute path", m.Target, m.Source)
		}
		if m.RecursiveReadOnly && !m.ReadOnly {
			return invalid("mount %s: recursively read-only without read-only", m.Target)
		}
	}
	return nil
}

func checkID(id string) error {
	const max = 64
	ok := id != "" && len(id) <= max && id[0] != '.' && id != anchorName && id != privateName
	for i := 0; i < len(id); i++ {
		c := id[i]
		ok = ok && (c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("_.-", c) >= 0)
	}
	if !ok {
		return invalid("invalid id %q", id)
	}
	return nil
}
