package archive

import (
	"bytes"
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// holeSize is the granularity in which zeros become holes: that of filesystems.
const holeSize = 4096

// writeData writes p at the offset at, but for blocks of zeros, which a new file has
// anyway.
func writeData(file *os.File, p []byte, at int64) error {
	var zeros [holeSize]byte
	for len(p) > 0 {
		data := 0 // bytes before the first block of zeros
		for data < len(p) && !isZero(p[data:], zeros[:]) {
			data += min(holeSize, len(p)-data)
		}
		if data > 0 {
			if _, err := file.WriteAt(p[:data], at); err != nil {
				return bare(err)
			}
		}
		p, at = p[data:], at+int64(data)
		for len(p) > 0 && isZero(p, zeros[:]) {
			n := min(holeSize, len(p))
			p, at = p[n:], at+int64(n)
		}
	}
	return nil
}

// isZero reports whether the first block of p, which may be short, is zero.
func isZero(p, zeros []byte) bool {
	n := min(len(p), len(zeros))
	return bytes.Equal(p[:n], zeros[:n])
}

// removeTree removes the directory name of dir with everything in it. It stops at what
// is mounted there.
func removeTree(dir int, name string) error { return removeBelow(dir, name, 0) }

func removeBelow(dir int, name string, depth int) error {
	if depth > maxDepth {
		return unix.ELOOP
	}
	var st unix.Statx_t
	err := unix.Statx(dir, name, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, unix.STATX_TYPE, &st)
	if err != nil {
		return gone(err)
	}
	if st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0 {
		return unix.EBUSY
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return gone(unix.Unlinkat(dir, name, 0))
	}
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return gone(err)
	}
	sub := os.NewFile(uintptr(fd), name)
	defer sub.Close()
	names, err := sub.Readdirnames(-1)
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return bare(err)
	}
	for _, n := range names {
		if err := removeBelow(fd, n, depth+1); err != nil {
			return err
		}
	}
	return gone(unix.Unlinkat(dir, name, unix.AT_REMOVEDIR))
}
