package mount

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/failure"
)

// maxID is one more than the highest user or group id: the highest is not one.
const maxID = 1<<32 - 1

// Swap makes files that belong to one id on the disk belong to another where they are mounted, and the reverse; all other
// ids are what they are.
type Swap struct{ Disk, Mounted uint32 }

// mappings are those of a user namespace whose ids are those on the disk.
func (s Swap) mappings() []syscall.SysProcIDMap {
	if s.Disk == s.Mounted {
		return []syscall.SysProcIDMap{{Size: maxID}}
	}
	low, high := int(min(s.Disk, s.Mounted)), int(max(s.Disk, s.Mounted))
	var out []syscall.SysProcIDMap
	add := func(inside, outside, n int) {
		if n > 0 {
			out = append(out, syscall.SysProcIDMap{ContainerID: inside, HostID: outside, Size: n})
		}
	}
	add(0, 0, low)
	add(low, high, 1)
	add(low+1, low+1, high-low-1)
	add(high, low, 1)
	add(high+1, high+1, maxID-high-1)
	return out
}

// UserNamespace makes a user namespace for IDMap: a close-on-exec descriptor that the caller closes. It is made by a
// process that is killed before the first instruction of a program: there is no other way to get one.
func UserNamespace(users, groups Swap) (int, error) {
	for _, id := range []uint32{users.Disk, users.Mounted, groups.Disk, groups.Mounted} {
		if id == maxID {
			return -1, failure.Invalid("%d is not a user or group id", id)
		}
	}
	runtime.LockOSThread() // the tracer is a thread
	defer runtime.UnlockOSThread()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return -1, err
	}
	defer null.Close()
	// Traced, it stops when it has been executed, and before anything of it runs.
	pid, err := syscall.ForkExec("/proc/self/exe", []string{"cleat-idmap"}, &syscall.ProcAttr{
		Env: []string{}, Files: []uintptr{null.Fd(), null.Fd(), null.Fd()},
		Sys: &syscall.SysProcAttr{
			Cloneflags: unix.CLONE_NEWUSER, UidMappings: users.mappings(), GidMappings: groups.mappings(), GidMappingsEnableSetgroups: true,
			Ptrace: true, Pdeathsig: unix.SIGKILL,
		},
	})
	if err != nil {
		return -1, fmt.Errorf("making a user namespace (is user.max_user_namespaces 0?): %w", err)
	}
	fd, err := unix.Open("/proc/"+strconv.Itoa(pid)+"/ns/user", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		err = fmt.Errorf("user namespace: %w", err)
	}
	return fd, errors.Join(err, endTraced(pid))
}

// endTraced kills the process and collects it.
func endTraced(pid int) error {
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		return err
	}
	for {
		var status unix.WaitStatus
		_, err := unix.Wait4(pid, &status, unix.WALL, nil)
		switch {
		case errors.Is(err, unix.EINTR) || err == nil && status.Stopped():
		case errors.Is(err, unix.ECHILD): // somebody else has collected it
			return nil
		default:
			return err
		}
	}
}

// IDMap applies a user namespace of UserNamespace to a detached mount, and to those below it if recursive.
func IDMap(tree, userNS int, recursive bool) error {
	flags := uint(unix.AT_EMPTY_PATH)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	err := unix.MountSetattr(tree, "", flags, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(userNS)})
	if errors.Is(err, unix.EINVAL) {
		return failure.Invalid("its filesystem, or one mounted below it, cannot map ids (ext4, XFS and Btrfs can): leave out idmap")
	}
	if err != nil {
		return fmt.Errorf("idmap: %w", err)
	}
	return nil
}
