// Package cgroup gives containers their control groups: on cgroup v1, hybrid and v2 hosts behind one type.
package cgroup

import (
	"errors"
	"time"
)

// Hierarchy is the host's control group tree.
type Hierarchy struct{}

// Group is the control group of one container: one directory in each hierarchy.
type Group struct{}

// Detect finds the mounted hierarchies.
func Detect() (*Hierarchy, error) { return nil, errors.New("cgroup: not available") }

// Version is 1 (v1 and hybrid hosts) or 2.
func (h *Hierarchy) Version() int { return 0 }

// Mode is "v1", "hybrid" or "v2".
func (h *Hierarchy) Mode() string { return "" }

// Driver is "cgroupfs": directories are made directly, without systemd.
func (h *Hierarchy) Driver() string { return "cgroupfs" }

// Create makes the group at path ("/cleat/ID") with limits r.
func (h *Hierarchy) Create(path string, r Resources) (*Group, error) {
	return nil, errors.New("cgroup: not available")
}

// Open returns an existing group.
func (h *Hierarchy) Open(path string) (*Group, error) {
	return nil, errors.New("cgroup: not available")
}

// Path is the group's path as given to Create or Open.
func (g *Group) Path() string { return "" }

// TaskFDs returns one open "tasks" file a v1 hierarchy, for a child to write "0" to; nil on v2.
func (g *Group) TaskFDs() ([]int, error) { return nil, errors.New("cgroup: not available") }

// DirFD returns the group's directory for CLONE_INTO_CGROUP on v2, -1 on v1.
func (g *Group) DirFD() (int, error) { return -1, errors.New("cgroup: not available") }

// CloseFDs closes what TaskFDs and DirFD opened.
func (g *Group) CloseFDs() {}

// Update changes the limits that are set in r.
func (g *Group) Update(r Resources) error { return errors.New("cgroup: not available") }

// Freeze stops all processes of the group and returns when they stand still.
func (g *Group) Freeze() error { return errors.New("cgroup: not available") }

// Thaw lets them go on.
func (g *Group) Thaw() error { return errors.New("cgroup: not available") }

// Frozen reports whether the group is frozen.
func (g *Group) Frozen() (bool, error) { return false, errors.New("cgroup: not available") }

// Kill sends SIGKILL to every process of the group; a frozen group is thawed.
func (g *Group) Kill() error { return errors.New("cgroup: not available") }

// Procs lists the process ids in the group and below.
func (g *Group) Procs() ([]int, error) { return nil, errors.New("cgroup: not available") }

// CPUUsage is the CPU time that the group has used.
func (g *Group) CPUUsage() (time.Duration, error) { return 0, errors.New("cgroup: not available") }

// OOMKills counts the processes that the kernel killed for want of memory.
func (g *Group) OOMKills() (uint64, error) { return 0, errors.New("cgroup: not available") }

// Remove removes the group.
func (g *Group) Remove() error { return errors.New("cgroup: not available") }

// WatchOOM sends a value for each out-of-memory condition until stop is closed; the channel is closed then.
func (g *Group) WatchOOM(stop <-chan struct{}) (<-chan struct{}, error) {
	return nil, errors.New("cgroup: not available")
}
