package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// parent is what is known about a directory that groups are made in.
type parent struct {
	inheritsCpuset bool // the kernel gives new v1 cpusets in it the same CPUs and memory nodes
}

// prepareParent makes the directory of path ("/cleat") in every hierarchy and lets its controllers be used below it. It
// is done once.
func (h *Hierarchy) prepareParent(path string) (parent, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if p, ok := h.parents[path]; ok {
		return p, nil
	}
	for _, t := range h.v1 {
		if err := h.mkdirV1(t, path); err != nil {
			return parent{}, fmt.Errorf("making the control group %s: %w", path, err)
		}
	}
	if h.unified != "" {
		if err := h.mkdirUnified(path); err != nil {
			return parent{}, fmt.Errorf("making the control group %s: %w", path, err)
		}
	}
	p := parent{}
	if t, ok := h.tree("cpuset"); ok {
		clone, err := readString(filepath.Join(t.mount, path), "cgroup.clone_children")
		p.inheritsCpuset = err == nil && clone == "1"
	}
	h.claimAgain(path)
	h.parents[path] = p
	return p, nil
}

// forgetParent is for one that someone has removed.
func (h *Hierarchy) forgetParent(path string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.parents, path)
}

// levels lists the directories from the first below the root to path itself: "/a", "/a/b".
func levels(path string) []string {
	var all []string
	for p := path; p != "/" && p != "."; p = filepath.Dir(p) {
		all = append([]string{p}, all...)
	}
	return all
}

func (h *Hierarchy) mkdirV1(t tree, path string) error {
	for _, level := range levels(path) {
		dir := filepath.Join(t.mount, level)
		err := h.mkdir(dir)
		if errors.Is(err, unix.EEXIST) {
			continue // somebody else's: used as it is
		}
		if err != nil {
			return &os.PathError{Op: "mkdir", Path: dir, Err: err}
		}
		mark(dir)
		if t.has("cpuset") {
			if err := fillCpuset(t.mount, dir); err != nil {
				return err
			}
			if err := writeFile(dir, "cgroup.clone_children", "1"); err != nil {
				return err
			}
		}
	}
	return nil
}

// fillCpuset gives a v1 cpuset without CPUs or memory nodes (no process can enter it) those of its parent.
func fillCpuset(mount, dir string) error {
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		have, err := readString(dir, file)
		if err != nil {
			return err
		}
		if have != "" || dir == mount {
			continue
		}
		if err := fillCpuset(mount, filepath.Dir(dir)); err != nil {
			return err
		}
		value, err := readString(filepath.Dir(dir), file)
		if err != nil {
			return err
		}
		if err := writeFile(dir, file, value); err != nil {
			return err
		}
	}
	return nil
}

func (h *Hierarchy) mkdirUnified(path string) error {
	if h.mode == "v2" {
		makeRoom(h.unified)
	}
	enableControllers(h.unified)
	for _, level := range levels(path) {
		dir := filepath.Join(h.unified, level)
		switch err := h.mkdir(dir); {
		case err == nil:
			mark(dir)
		case !errors.Is(err, unix.EEXIST):
			return &os.PathError{Op: "mkdir", Path: dir, Err: err}
		}
		enableControllers(dir)
	}
	return nil
}

// enableControllers lets the children of dir use every controller that dir has. A controller that cannot be enabled
// (dir has processes of its own, or it is a realtime task's) is missed only by who asks for one of its limits, and is
// told then.
func enableControllers(dir string) {
	have, err := readString(dir, "cgroup.controllers")
	if err != nil || have == "" {
		return
	}
	list := strings.Fields(have)
	if writeFile(dir, "cgroup.subtree_control", "+"+strings.Join(list, " +")) == nil {
		return
	}
	for _, c := range list {
		if writeFile(dir, "cgroup.subtree_control", "+"+c) != nil {
			continue // the others may still do
		}
	}
}

// madeMark is an attribute of the directories that groups' parents were made in by an engine: it tells them from those
// that an administrator has made, and lives as long as they do, over the end of the engine.
const madeMark = "trusted.cleat.made"

// mark notes that dir is of our making. Where attributes are not to be had, the directory stays when it is empty.
func mark(dir string) { _ = unix.Setxattr(dir, madeMark, []byte{1}, 0) }

func marked(dir string) bool {
	_, err := unix.Getxattr(dir, madeMark, make([]byte, 8))
	return err == nil
}

// RemoveMadeParent removes the directory of path, and those above it, where an engine has made them for its groups and
// nothing is in them any more. Others stay.
func (h *Hierarchy) RemoveMadeParent(path string) error {
	if err := CheckPath(path); err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for p := path; p != "/"; p = filepath.Dir(p) {
		for _, mount := range h.mounts() {
			if !marked(mount + p) {
				continue
			}
			delete(h.parents, p)
			if err := rmdir(mount + p); err != nil && !errors.Is(err, unix.EBUSY) {
				return fmt.Errorf("removing the control group %s: %w", p, err)
			}
		}
	}
	return nil
}
