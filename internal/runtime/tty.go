package runtime

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"github.com/cleatlabs/cleat/internal/rootpath"
	"golang.org/x/sys/unix"
)

// devptsOptions: group 5 is tty in every distribution.
var devptsOptions = []option{{"newinstance", ""}, {"ptmxmode", "0666"}, {"mode", "0620"}, {"gid", "5"}}

// A terminal is a pair made by the engine in a devpts instance of the container's own.
type terminal struct {
	devpts int // detached mount of the instance; −1 if it is a running container's
	master *os.File
	slave  int
	name   string // of the slave in the instance
}

func (t *terminal) closeChildSide() {
	for _, fd := range []int{t.devpts, t.slave} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
	t.devpts, t.slave = -1, -1
}

// newTerminal makes a devpts instance and a terminal in it.
func newTerminal(rows, cols uint16) (*terminal, error) {
	devpts, err := mountDevpts()
	if err != nil {
		return nil, fmt.Errorf("making a terminal: %w", err)
	}
	t, err := terminalIn(devpts, rows, cols)
	if err != nil {
		unix.Close(devpts)
		return nil, fmt.Errorf("making a terminal: %w", err)
	}
	t.devpts = devpts
	return t, nil
}

func mountDevpts() (int, error) {
	fs, err := unix.Fsopen("devpts", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("devpts: %w", err)
	}
	defer unix.Close(fs)
	for _, o := range devptsOptions {
		if o.value == "" {
			err = unix.FsconfigSetFlag(fs, o.key)
		} else {
			err = unix.FsconfigSetString(fs, o.key, o.value)
		}
		if err != nil {
			return -1, fmt.Errorf("devpts %s: %w", o.key, err)
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, fmt.Errorf("devpts: %w", err)
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, attrNS|attrNX)
	if err != nil {
		return -1, fmt.Errorf("devpts: %w", err)
	}
	return fd, nil
}

// terminalIn makes a terminal in the instance of devpts that is mounted at dir.
func terminalIn(dir int, rows, cols uint16) (*terminal, error) {
	m, err := unix.Openat(dir, "ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, fmt.Errorf("ptmx: %w", err)
	}
	t, err := pairOf(m, rows, cols)
	if err != nil {
		unix.Close(m)
	}
	return t, err
}

func pairOf(m int, rows, cols uint16) (*terminal, error) {
	if err := unix.IoctlSetPointerInt(m, unix.TIOCSPTLCK, 0); err != nil {
		return nil, fmt.Errorf("unlocking the terminal: %w", err)
	}
	n, err := unix.IoctlGetInt(m, unix.TIOCGPTN)
	if err != nil {
		return nil, fmt.Errorf("number of the terminal: %w", err)
	}
	if rows != 0 || cols != 0 {
		if err := unix.IoctlSetWinsize(m, unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols}); err != nil {
			return nil, fmt.Errorf("size of the terminal: %w", err)
		}
	}
	slave, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(m), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		return nil, fmt.Errorf("peer of the terminal: %w", errno)
	}
	return &terminal{devpts: -1, master: os.NewFile(uintptr(m), "console"), slave: int(slave), name: strconv.Itoa(n)}, nil
}

// terminalOf makes a terminal in a running container's devpts. The container may have put anything at /dev/pts: what is
// there is opened without effect first, and used only if it is the root of a devpts.
func terminalOf(root int, rows, cols uint16) (*terminal, error) {
	dir, err := rootpath.Open(root, "/dev/pts", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("making a terminal in the container: /dev/pts: %w", err)
	}
	defer unix.Close(dir)
	var fs unix.Statfs_t
	if err := unix.Fstatfs(dir, &fs); err != nil {
		return nil, fmt.Errorf("making a terminal in the container: /dev/pts: %w", err)
	}
	if fs.Type != unix.DEVPTS_SUPER_MAGIC {
		return nil, errors.New("making a terminal in the container: its /dev/pts is not a devpts filesystem: leave out -t")
	}
	t, err := terminalIn(dir, rows, cols)
	if err != nil {
		return nil, fmt.Errorf("making a terminal in the container: %w", err)
	}
	return t, nil
}
