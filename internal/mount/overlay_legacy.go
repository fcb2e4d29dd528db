package mount

import (
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/kernel"
)

// mountLegacy is for kernels before 6.7, which take all layers in one option string of at most a page. The layers' paths
// would not fit, so a thread of its own stands in /proc/self/fd and names them by number. Its mount namespace is its own
// too, so that the mount is never seen by others and is gone with the thread, whatever happens; what stays is the
// clone that it returns.
func (o Overlay) mountLegacy() (int, error) {
	type result struct {
		fd  int
		err error
	}
	done := make(chan result)
	go kernel.OnThrowawayThread(func() {
		fd, err := o.mountInNamespace()
		done <- result{fd, err}
	})
	r := <-done
	return r.fd, r.err
}

// mountInNamespace runs on a thread of its own.
func (o Overlay) mountInNamespace() (int, error) {
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		return -1, fmt.Errorf("unshare: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return -1, fmt.Errorf("making a mount namespace private: %w", err)
	}
	// Only now: a directory that was opened outside belongs to a mount of the other namespace.
	fds, err := o.openDirs()
	defer closeAll(fds)
	if err != nil {
		return -1, err
	}
	if err := unix.Chdir("/proc/thread-self/fd"); err != nil {
		return -1, fmt.Errorf("/proc/thread-self/fd: %w", err)
	}
	// Any directory does as the place of the mount. The lower one is there for sure.
	target := fmt.Sprint("/proc/thread-self/fd/", fds[0])
	if err := ignoringInterrupts(func() error {
		return unix.Mount("overlay", target, "overlay", 0, o.legacyOptions(fds))
	}); err != nil {
		return -1, o.explain(err, "")
	}
	// The descriptor still leads below the new mount: the path has to be looked up again to reach it.
	fd, err := unix.OpenTree(unix.AT_FDCWD, o.Lower[0], unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("open_tree of the overlay: %w", err)
	}
	return fd, nil
}

// openDirs opens the directories in the order of dirs.
func (o Overlay) openDirs() ([]int, error) {
	var fds []int
	for _, d := range o.dirs() {
		fd, err := openDir(d)
		if err != nil {
			return fds, dirError("directory", d, err, "")
		}
		fds = append(fds, fd)
	}
	return fds, nil
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}

// legacyOptions names the directories by the numbers of their descriptors.
func (o Overlay) legacyOptions(fds []int) string {
	var b strings.Builder
	b.WriteString("lowerdir=")
	for i := range o.Lower {
		if i > 0 {
			b.WriteByte(':')
		}
		b.WriteString(strconv.Itoa(fds[i]))
	}
	if o.Upper != "" {
		n := len(o.Lower)
		fmt.Fprintf(&b, ",upperdir=%d,workdir=%d,index=off", fds[n], fds[n+1])
	}
	if o.Volatile {
		b.WriteString(",volatile")
	}
	for _, opt := range o.Options {
		b.WriteString("," + opt)
	}
	return b.String()
}
