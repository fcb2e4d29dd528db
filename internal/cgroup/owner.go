package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/failure"
)

// ownerMark is an attribute of the directory that an engine's groups lie in: the engine's id. An engine ends what it finds
// there and does not know, so a directory must not be two engines' own, as it would be of those in containers that see
// the host's tree (`--cgroupns host`, privileged pods of Kubernetes) and of those in one slice.
const ownerMark = "trusted.cleat.owner"

// longestOwner bounds what is read of the mark; an engine's id has half of that.
const longestOwner = 64

// Claim makes the directory of path, and makes it that of the engine whose id is owner. If another engine lives that has
// claimed it, or processes of one are in it, that is errdefs.ErrConflict; what another engine has left empty is taken
// over. It holds until the host is booted or the directory is removed, over the engine's end. Where the kernel keeps no
// such attributes, or does not let this process set them (in a user namespace), nothing is claimed.
func (h *Hierarchy) Claim(path, owner string) error {
	if err := CheckPath(path); err != nil {
		return err
	}
	if err := h.makeClaimed(path, owner); err != nil {
		return err
	}
	dir := h.claimed(path)
	err := unix.Setxattr(dir, ownerMark, []byte(owner), unix.XATTR_CREATE)
	if errors.Is(err, unix.EEXIST) {
		if other := h.Foreign(path, owner); other != "" {
			return failure.Conflict("the control group %s is that of another engine (%s)", path, other)
		}
		err = unix.Setxattr(dir, ownerMark, []byte(owner), unix.XATTR_REPLACE)
	}
	if err != nil && !unmarkable(err) {
		return fmt.Errorf("claim the control group %s (choose another one with --cgroup-parent): %w", path,
			&os.PathError{Op: "setxattr", Path: dir, Err: err})
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lockClaimed(dir)
	return nil
}

// unmarkable tells of an error of setxattr(2) that it says no mark can be kept, so that nobody has one; any other leaves
// open whose the directory is.
func unmarkable(err error) bool {
	return errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES)
}

// Foreign is the id of another engine than owner that has claimed the directory of path and lives, or has processes in
// it; "" if there is none. A mark that cannot be read is that of an engine whose id is not known.
func (h *Hierarchy) Foreign(path, owner string) string {
	dir := h.claimed(path)
	buf := make([]byte, longestOwner)
	n, err := unix.Getxattr(dir, ownerMark, buf)
	other := string(buf[:max(n, 0)])
	switch {
	case errors.Is(err, unix.ENODATA), errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR), err != nil && unmarkable(err):
		return ""
	case err != nil:
		other = fmt.Sprintf("whose mark cannot be read: %v", err)
	case other == owner:
		return ""
	}
	if !holdsProcesses(dir) && !lockedByOther(dir) {
		return ""
	}
	return other
}

// lockClaimed says for as long as this process lives that an engine has the directory: where there are only hierarchies of
// version 1, no process of an idle engine lies in it. The lock is on the directory itself, as engines in containers have
// a /run of their own. Where it cannot be had, processes alone tell. h.mu is held.
func (h *Hierarchy) lockClaimed(dir string) {
	f, err := os.Open(dir)
	if err != nil {
		return
	}
	// Shared, as a directory cannot be opened for writing: whether there is another's is asked as if for one's own alone.
	if unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_RDLCK}) != nil {
		f.Close()
		return
	}
	if h.lock != nil {
		h.lock.Close()
	}
	h.lock = f
}

func lockedByOther(dir string) bool {
	f, err := os.Open(dir)
	if err != nil {
		return false
	}
	defer f.Close()
	l := unix.Flock_t{Type: unix.F_WRLCK}
	return unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &l) == nil && l.Type != unix.F_UNLCK
}

// Exists tells whether there is a group at path, which is relative to the hierarchy's root.
func (h *Hierarchy) Exists(path string) bool { return exists(h.claimed(path)) }

// claimed is the one directory of path that the mark is on: keepers lie in the unified hierarchy where there is one, so
// that it holds processes as long as its engine lives.
func (h *Hierarchy) claimed(path string) string {
	if h.unified != "" {
		return filepath.Join(h.unified, path)
	}
	return filepath.Join(h.primary(), path)
}

// makeClaimed makes the claimed directory, and notes whose it is for when it is made again.
func (h *Hierarchy) makeClaimed(path, owner string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.own, h.owner = path, owner
	if h.unified != "" {
		return h.mkdirUnified(path)
	}
	t, ok := h.tree("freezer")
	if !ok {
		t = h.v1[0]
	}
	return h.mkdirV1(t, path)
}

// claimAgain marks the engine's own directory, which somebody has removed. Where that cannot be, it is as in Claim. h.mu is
// held.
func (h *Hierarchy) claimAgain(path string) {
	if path == h.own {
		_ = unix.Setxattr(h.claimed(path), ownerMark, []byte(h.owner), 0)
		h.lockClaimed(h.claimed(path))
	}
}

// holdsProcesses tells whether a process is in the group or below it; if that cannot be read, it may be.
func holdsProcesses(dir string) bool {
	if n, err := readKey(dir, "cgroup.events", "populated"); err == nil {
		return n == 1
	}
	pids, err := procsBelow(dir)
	return err != nil || len(pids) > 0
}
