package archive

import (
	"bytes"
	"errors"
	"strings"

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
	names, err := readAttribute(func(buf []byte) (int, error) { return unix.Listxattr(file, buf) })
	if err != nil || len(names) == 0 {
		return nil, err
	}
	var records map[string]string
	for raw := range bytes.SplitSeq(bytes.TrimSuffix(names, []byte{0}), []byte{0}) {
		name := string(raw)
		// A PAX record's key ends at the first "=".
		if !carried(name) || strings.Contains(name, "=") {
			continue
		}
		value, err := readAttribute(func(buf []byte) (int, error) { return unix.Getxattr(file, name, buf) })
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

// readAttribute asks for the size first: most files have no attributes, which is one
// call. A filesystem without attributes has none.
func readAttribute(get func([]byte) (int, error)) ([]byte, error) {
	for {
		n, err := get(nil)
		if errors.Is(err, unix.EOPNOTSUPP) {
			return nil, nil
		}
		if err != nil || n == 0 {
			return nil, err
		}
		buf := make([]byte, n)
		n, err = get(buf)
		if errors.Is(err, unix.ERANGE) { // grew meanwhile
			continue
		}
		return buf[:max(n, 0)], err
	}
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
