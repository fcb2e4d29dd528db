package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Outside makes the group at path in the unified hierarchy alone, without any limit, and opens its directory: for
// processes that belong to no container, which are born into it (CLONE_INTO_CGROUP). A group that is there is used. Where
// the host has no unified hierarchy there is no such group, and the descriptor is -1. The caller closes it.
func (h *Hierarchy) Outside(path string) (int, error) {
	if err := CheckPath(path); err != nil {
		return -1, err
	}
	if h.unified == "" {
		return -1, nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	dir := h.unified + path
	err := h.mkdirUnified(filepath.Dir(path))
	if err == nil {
		if err = h.mkdir(dir); errors.Is(err, unix.EEXIST) {
			err = nil
		} else if err == nil {
			mark(dir)
		}
	}
	if err != nil {
		return -1, fmt.Errorf("making the control group %s: %w", path, err)
	}
	fd, err := openFile(dir, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	return fd, nil
}
