package network

import "golang.org/x/sys/unix"

// traffic tells of links whether anything has ever come from them. It asks an instance of sysfs of its own, which shows the
// engine's network namespace whatever is mounted at /sys, and waits for none of the kernel's locks for links, which the
// end of a namespace holds for milliseconds. Its methods may be called concurrently, shut when nobody asks any more.
type traffic struct {
	net int // the directory of links that are no hardware; 0: there cannot be one
}

func (c *traffic) open() {
	conf, err := unix.Fsopen("sysfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return
	}
	defer unix.Close(conf)
	if unix.FsconfigCreate(conf) != nil {
		return // as in a container of which parts of /sys are masked
	}
	root, err := unix.Fsmount(conf, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
	if err != nil {
		return
	}
	defer unix.Close(root)
	if fd, err := openPath(root, "devices/virtual/net", unix.O_PATH|unix.O_DIRECTORY); err == nil {
		c.net = fd
	}
}

func (c *traffic) shut() {
	if c.net > 0 {
		unix.Close(c.net)
	}
}

// mute says that nothing has come from the host's end of a container's link since it was made. It is false where that
// cannot be told, as for a link that is gone.
func (c *traffic) mute(link string) bool {
	if c.net <= 0 || link == "" {
		return false
	}
	// It is counted at the other end. That must have been there when it was asked for: it is not any more when the
	// namespace is being taken down.
	return c.zero(link+"/statistics/rx_packets") == yesZero && c.zero(link+"/iflink") == notZero
}

// An answer is what a file says of its number.
type answer int

const (
	unknown answer = iota
	yesZero
	notZero
)

func (c *traffic) zero(file string) answer {
	fd, err := openPath(c.net, file, unix.O_RDONLY)
	if err != nil {
		return unknown
	}
	defer unix.Close(fd)
	var b [32]byte
	switch n, err := unix.Read(fd, b[:]); {
	case err != nil || n == 0:
		return unknown
	case string(b[:n]) == "0\n":
		return yesZero
	}
	return notZero
}
