package cgroup

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/failure"
)

// DeviceRule allows or denies access to devices.
type DeviceRule struct {
	Allow        bool
	Type         rune   // 'c', 'b', or 'a' for both
	Major, Minor int64  // -1 any
	Access       string // some of "rwm": read, write, make the node
}

// DefaultDeviceRules are the devices that every container may use: the standard nodes of /dev, terminals, and making
// nodes (but not opening them) of any kind. They are Docker's.
func DefaultDeviceRules() []DeviceRule {
	rules := []DeviceRule{
		{Allow: true, Type: 'c', Major: -1, Minor: -1, Access: "m"},
		{Allow: true, Type: 'b', Major: -1, Minor: -1, Access: "m"},
		{Allow: true, Type: 'c', Major: 136, Minor: -1, Access: "rwm"}, // /dev/pts/*
	}
	for _, d := range [][2]int64{
		{1, 3}, {1, 5}, {1, 7}, {1, 8}, {1, 9}, // null zero full random urandom
		{5, 0}, {5, 1}, {5, 2}, // tty console ptmx
	} {
		rules = append(rules, DeviceRule{Allow: true, Type: 'c', Major: d[0], Minor: d[1], Access: "rwm"})
	}
	return rules
}

func (r DeviceRule) validate() error {
	if r.Type != 'a' && r.Type != 'b' && r.Type != 'c' {
		return failure.Invalid("invalid device rule: type %q is not a, b or c", r.Type)
	}
	if r.Major < -1 || r.Minor < -1 || r.Major > 1<<32-1 || r.Minor > 1<<32-1 {
		return failure.Invalid("invalid device rule: device number %d:%d", r.Major, r.Minor)
	}
	if r.Access == "" || strings.Trim(r.Access, "rwm") != "" {
		return failure.Invalid("invalid device rule: access %q is not made of r, w and m", r.Access)
	}
	return nil
}

// String is the rule as v1's devices.allow and devices.deny take it: "c 1:3 rwm".
func (r DeviceRule) String() string {
	number := func(n int64) string {
		if n == -1 {
			return "*"
		}
		return strconv.FormatInt(n, 10)
	}
	return fmt.Sprintf("%c %s:%s %s", r.Type, number(r.Major), number(r.Minor), r.Access)
}

// setDevicesV1 denies everything and then goes through the rules. The kernel takes one rule a write.
func (g *Group) setDevicesV1(rules []DeviceRule) error {
	dir, ok := g.controller("devices")
	if !ok {
		return missing("the use of devices", "it has no devices control group")
	}
	if err := writeFile(dir, "devices.deny", "a"); err != nil {
		return fmt.Errorf("device rules: %w", err)
	}
	allow, err := openFile(dir+"/devices.allow", unix.O_WRONLY)
	if err != nil {
		return &os.PathError{Op: "open", Path: dir + "/devices.allow", Err: err}
	}
	defer unix.Close(allow)
	for _, r := range rules {
		for _, one := range r.split() {
			if r.Allow {
				err = writeFD(allow, dir+"/devices.allow", one.String())
			} else {
				err = writeFile(dir, "devices.deny", one.String())
			}
			if err != nil {
				return fmt.Errorf("device rules: %w", err)
			}
		}
	}
	return nil
}

// split replaces a rule for both types by one for each: to v1's files, "a" means every device and access, whatever
// follows.
func (r DeviceRule) split() []DeviceRule {
	if r.Type != 'a' {
		return []DeviceRule{r}
	}
	b, c := r, r
	b.Type, c.Type = 'b', 'c'
	return []DeviceRule{b, c}
}
