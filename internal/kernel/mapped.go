package kernel

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// DropMapped takes the pages of a file out of this process's memory where it is mapped shared: they stay in the kernel's
// cache as long as that has room, and come back when they are looked at. Nobody may unmap the file meanwhile: what is
// mapped in its place by then would be lost.
func DropMapped(path string) error {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return err
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return err
	}
	lines := bufio.NewScanner(bytes.NewReader(maps))
	for lines.Scan() {
		var begin, end uintptr
		var mode, offset, device, inode string
		line := lines.Text()
		if n, _ := fmt.Sscanf(line, "%x-%x %s %s %s %s", &begin, &end, &mode, &offset, &device, &inode); n < 6 {
			continue
		}
		if len(mode) != 4 || mode[3] != 's' || len(line) <= len(real) || line[len(line)-len(real)-1:] != " "+real {
			continue
		}
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, begin, end-begin, unix.MADV_DONTNEED); errno != 0 {
			return fmt.Errorf("drop the mapped pages of %s: %w", path, errno)
		}
	}
	return lines.Err()
}
