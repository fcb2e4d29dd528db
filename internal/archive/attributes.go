package archive

import (
	"errors"
	"strings"

	"github.com/containerd/continuity/sysx"
	"golang.org/x/sys/unix"
)

// paxAttribute begins the PAX records that are extended attributes.
const paxAttribute = "SCHILY.xattr."

// carried says which extended attributes travel. Those of overlay are its own, labels
// are given by the policy of the machine that a file lands on, and what else begins
// with trusted. or security. is for one machine's root alone.
func carried(name string) bool {
	return name == "security.capability" || strings.HasPrefix(name, "system.posix_acl_") ||
		strings.HasPrefix(name, "user.") && !strings.HasPrefix(name, "user.overlay.")
}

// readAttributes gives the attributes of a file as PAX records; nil if it has none.
func readAttributes(fd int) (map[string]string, error) {
	file := procPath(fd)
	names, err := sysx.Listxattr(file)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return nil, nil // a filesystem without attributes has none
	}
	if err != nil {
		return nil, err
	}
	var records map[string]string
	for _, name := range names {
		// A PAX record's key ends at the first "=".
		if !carried(name) || strings.Contains(name, "=") {
			continue
		}
		value, err := sysx.Getxattr(file, name)
		if errors.Is(err, unix.ENODATA) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if records == nil {
			records = map[string]string{}
		}
		records[paxAttribute+name] = string(value)
	}
	return records, nil
}

// setAttributes gives a file the attributes of its header. One that its filesystem
// cannot hold, or that the engine may not set, is left out, as in Docker.
func setAttributes(fd int, records map[string]string) error {
	for key, value := range records {
		name, ok := strings.CutPrefix(key, paxAttribute)
		if !ok || !carried(name) {
			continue
		}
		err := unix.Setxattr(procPath(fd), name, []byte(value), 0)
		if err != nil && !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EPERM) {
			return err
		}
	}
	return nil
}
