package runtime

import (
	"errors"
	"fmt"

	"github.com/cleatlabs/cleat/internal/cgroup"
	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/keeper"
	"github.com/cleatlabs/cleat/internal/launch"
	"golang.org/x/sys/unix"
)

// A GroupInMaking is a container's control group with all that its start wants of it, while it is being made: beside
// the mount of the root filesystem and the building of the program, which do not depend on it and take as long. It
// belongs to one goroutine.
type GroupInMaking struct {
	ready chan struct{}
	group *cgroup.Group
	dir   int   // of the unified hierarchy, for CLONE_INTO_CGROUP; −1 without
	tasks []int // of the group's
	trees []int // binds of its directories, which the container is shown
	err   error
}

// PrepareGroup begins to make the control group at path, for the Spec of a container that is about to be started. Give
// it to Start in the Spec, or Discard it. It is nil where there is nothing to make.
func (r *Runtime) PrepareGroup(path string, res cgroup.Resources, privileged bool) *GroupInMaking {
	if path == "" || r.c.Cgroups == nil {
		return nil
	}
	m := &GroupInMaking{ready: make(chan struct{}), dir: -1}
	go func() {
		defer close(m.ready)
		if m.group, m.err = r.c.Cgroups.Create(path, res); m.err != nil {
			if errors.Is(m.err, unix.ENOMEM) {
				m.err = failure.Invalid("control group %s: its parent's memory limit is too small to start a process", path)
			}
			return
		}
		if m.dir, m.err = m.group.DirFD(); m.err != nil {
			return
		}
		if m.tasks, m.err = m.group.TaskFDs(); m.err != nil {
			return
		}
		attr := uint64(attrNNN)
		if !privileged {
			attr |= attrRO
		}
		for _, h := range r.hierarchies {
			if !h.used {
				continue
			}
			tree := -1
			if tree, m.err = bindGroup(h.dir+path, attr); m.err != nil {
				return
			}
			m.trees = append(m.trees, tree)
		}
	}()
	return m
}

func bindGroup(dir string, attr uint64) (int, error) {
	tree, err := unix.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_SYMLINK_NOFOLLOW)
	if err == nil {
		set := unix.MountAttr{Attr_set: attr, Propagation: unix.MS_PRIVATE}
		if err = unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, &set); err == nil {
			return tree, nil
		}
		unix.Close(tree)
	}
	return -1, fmt.Errorf("bind of the control group %s: %w", dir, err)
}

// wait returns when the group is made, or has failed: then it is not there.
func (m *GroupInMaking) wait() error {
	<-m.ready
	if m.err != nil {
		m.Discard()
	}
	return m.err
}

// closeFDs closes what a started program does not need any more. The group is made or has failed.
func (m *GroupInMaking) closeFDs() {
	for _, fd := range m.trees {
		unix.Close(fd)
	}
	m.trees = nil
	if m.group != nil {
		m.group.CloseFDs()
	}
}

// Discard undoes what was made. It is meant for a start that does not come to that; nil is nothing made.
func (m *GroupInMaking) Discard() error {
	if m == nil {
		return nil
	}
	<-m.ready
	m.closeFDs()
	if m.group == nil {
		return nil
	}
	group := m.group
	m.group = nil
	return group.Remove()
}

// oomKills is how many processes of the group were killed for want of memory; 0 without a group.
func (m *GroupInMaking) oomKills() uint64 {
	if m == nil || m.group == nil {
		return 0
	}
	n, err := m.group.OOMKills()
	if err != nil {
		return 0
	}
	return n
}

// A reservation is the numbers that the descriptors of a group in the making will have in the child.
type reservation struct {
	dir   int // index in plan.files; −1 without
	tasks []int
	trees []int
}

// reserveGroup gives out the numbers.
func (b *builder) reserveGroup(c *keeper.Clone) (tasks []launch.Arg) {
	b.reserved = reservation{dir: -1}
	if b.making == nil {
		return nil
	}
	reserve := func(n int, name string) (at []int, args []launch.Arg) {
		for range n {
			at = append(at, len(b.files))
			args = append(args, b.fd(-1, name))
		}
		return at, args
	}
	if b.r.c.Cgroups.Unified() {
		at, _ := reserve(1, "cgroup")
		b.reserved.dir, c.Cgroup = at[0], launch.FirstFD+at[0]
	}
	b.reserved.tasks, tasks = reserve(b.r.c.Cgroups.TaskFiles(), "tasks")
	for _, h := range b.r.hierarchies {
		var arg []launch.Arg
		if h.used {
			var at []int
			at, arg = reserve(1, "group of "+h.name)
			b.reserved.trees = append(b.reserved.trees, at...)
		}
		b.groupTrees = append(b.groupTrees, arg)
	}
	return tasks
}

// fillGroup waits for the group and puts its descriptors where they were promised to be.
func (b *builder) fillGroup() error {
	if b.making == nil {
		return nil
	}
	if err := b.making.wait(); err != nil {
		return err
	}
	m, at := b.making, b.reserved
	if len(m.tasks) != len(at.tasks) || len(m.trees) != len(at.trees) || (m.dir >= 0) != (at.dir >= 0) {
		return errors.New("the control group has not the files that the launch program was built for")
	}
	if at.dir >= 0 {
		b.files[at.dir] = m.dir
	}
	for i, fd := range m.tasks {
		b.files[at.tasks[i]] = fd
	}
	for i, fd := range m.trees {
		b.files[at.trees[i]] = fd
	}
	return nil
}
