package cgroup

import (
	"errors"
	"fmt"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Mode is "v1", "hybrid" or "v2".
func (h *Hierarchy) Mode() string { return h.mode }

// Path is the group's path as given to Create or Open.
func (g *Group) Path() string { return g.path }

// EndClaim is the end of the engine that has claimed a directory.
func (h *Hierarchy) EndClaim() { h.lock.Close() }

// RemoveParent removes the directory of path, in which groups were made, and those above it, as far as they are empty:
// for an engine that ends with no container left. One that is in use stays, without an error.
func (h *Hierarchy) RemoveParent(path string) error {
	if err := CheckPath(path); err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for p := path; p != "/"; p = filepath.Dir(p) {
		delete(h.parents, p)
		for _, mount := range h.mounts() {
			if err := rmdir(mount + p); err != nil && !errors.Is(err, unix.EBUSY) {
				return fmt.Errorf("removing the control group %s: %w", p, err)
			}
		}
	}
	return nil
}
