package cli

import (
	"fmt"
	"path"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/container"
)

// isCDIDevice says whether val is a vendor.com/class=name of the Container Device Interface.
func isCDIDevice(val string) bool {
	kind, name, ok := strings.Cut(val, "=")
	vendor, class, slash := strings.Cut(kind, "/")
	return ok && slash && name != "" && vendor != "" && class != "" && !strings.ContainsAny(vendor+class, "/:")
}

// parseDevice parses HOST[:CONTAINER][:MODE]; the mode is some of "rwm".
func parseDevice(val string) (container.DeviceMapping, error) {
	m := container.DeviceMapping{CgroupPermissions: "rwm"}
	parts := strings.Split(val, ":")
	if len(parts) > 3 || parts[0] == "" {
		return m, fmt.Errorf("bad format for path: %s", val)
	}
	m.PathOnHost = parts[0]
	switch {
	case len(parts) == 3:
		if !validDeviceMode(parts[2]) {
			return m, fmt.Errorf("bad mode specified: %s", parts[2])
		}
		m.PathInContainer, m.CgroupPermissions = parts[1], parts[2]
	case len(parts) == 2 && validDeviceMode(parts[1]):
		m.CgroupPermissions = parts[1]
	case len(parts) == 2:
		m.PathInContainer = parts[1]
	}
	if m.PathInContainer == "" {
		m.PathInContainer = m.PathOnHost
	}
	if !path.IsAbs(m.PathInContainer) {
		return m, fmt.Errorf("%s is not an absolute path", m.PathInContainer)
	}
	m.PathInContainer = path.Clean(m.PathInContainer)
	return m, nil
}

// validDeviceMode accepts some of r, w and m, each at most once.
func validDeviceMode(mode string) bool {
	for i, c := range mode {
		if !strings.ContainsRune("rwm", c) || strings.ContainsRune(mode[:i], c) {
			return false
		}
	}
	return mode != ""
}

// validDeviceRule checks "TYPE MAJOR:MINOR ACCESS" as it is given to --device-cgroup-rule.
func validDeviceRule(val string) (string, error) {
	bad := fmt.Errorf("invalid device cgroup format '%s'", val)
	fields := strings.Split(val, " ")
	if len(fields) != 3 || len(fields[0]) != 1 || !strings.Contains("acb", fields[0]) {
		return val, bad
	}
	major, minor, ok := strings.Cut(fields[1], ":")
	if !ok || !deviceNumber(major) || !deviceNumber(minor) {
		return val, bad
	}
	if n := len(fields[2]); n < 1 || n > 3 || strings.Trim(fields[2], "rwm") != "" {
		return val, bad
	}
	return val, nil
}

func deviceNumber(s string) bool {
	if s == "*" {
		return true
	}
	_, err := strconv.ParseUint(s, 10, 32)
	return err == nil
}
