package runtime

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/cleatlabs/cleat/internal/supervise"
	"golang.org/x/sys/unix"
)

const (
	// spareDevs bounds how many lie idle, each of some ten kB of the kernel's memory.
	spareDevs = 8
	// devQuiet is as quietTime.
	devQuiet = 8 * time.Millisecond
)

// newDevs keeps a few instances of what most containers have for /dev, with nodes, links and directories, mounted
// nowhere: to make them is a tenth of what a container's process does before its command.
func newDevs() *supervise.Reserve[int] {
	fill := func(missing int, put func(int)) {
		for range missing {
			fd, err := makeDev()
			if err != nil {
				return // the program makes its own, or meets the same and reports it
			}
			put(fd)
		}
	}
	return supervise.NewReserve(spareDevs, spareDevs, devQuiet, fill, func(fd int) { unix.Close(fd) })
}

// makeDev is what devfs has a program do.
func makeDev() (int, error) {
	fs, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("spare /dev: %w", err)
	}
	defer unix.Close(fs)
	for _, o := range append([]option{{"source", "tmpfs"}}, devOptions...) {
		if err := unix.FsconfigSetString(fs, o.key, o.value); err != nil {
			return -1, fmt.Errorf("spare /dev: %s: %w", o.key, err)
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, fmt.Errorf("spare /dev: %w", err)
	}
	dev, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, devAttr)
	if err != nil {
		return -1, fmt.Errorf("spare /dev: %w", err)
	}
	if err := furnishDev(dev); err != nil {
		unix.Close(dev)
		return -1, fmt.Errorf("spare /dev: %w", err)
	}
	return dev, nil
}

// furnishDev sets each mode after the fact: the engine has a umask.
func furnishDev(dev int) (err error) {
	for _, d := range defaultDevices {
		err = errors.Join(err, unix.Mknodat(dev, d.name, unix.S_IFCHR|0o666, int(unix.Mkdev(d.major, d.minor))), unix.Fchmodat(dev, d.name, 0o666, 0))
	}
	for _, l := range devLinks {
		err = errors.Join(err, unix.Symlinkat(l[0], dev, l[1]))
	}
	for _, dir := range devDirs {
		err = errors.Join(err, unix.Mkdirat(dev, dir, 0o755), unix.Fchmodat(dev, dir, 0o755, 0))
	}
	return err
}

// takeDev gives the child a /dev that is at hand, if it is to have what all have.
func (b *builder) takeDev() bool {
	if b.dry || b.r.devs == nil || b.s.NoShm {
		return false
	}
	for dir := range b.layout.replaced {
		if dir == "/dev" || strings.HasPrefix(dir, "/dev/") {
			return false
		}
	}
	fd, ok := b.r.devs.Take()
	if !ok {
		return false
	}
	b.owned = append(b.owned, fd)
	b.dev, b.spareDev = b.fd(fd, "spare /dev"), true
	return true
}
