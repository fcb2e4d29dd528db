package network

import (
	"io/fs"
	"runtime"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// attempts writes settings that the kernel takes only while nobody else changes the
// network of any namespace. By write(2) whoever comes at another time does not sleep: the
// kernel has the call begin again at once, over and over (rtnl_trylock, restart_syscall),
// which takes a processor from who makes or takes down a link meanwhile. Asynchronous I/O
// cannot begin again, and says EINTR: the only way to learn that it is not the time. It is
// safe for concurrent use; the zero value is ready.
type attempts struct {
	mu      sync.Mutex
	begun   bool
	context uintptr // of io_setup; 0 where there is none
}

const (
	firstPause = 100 * time.Microsecond // about what making a link takes
	maxPause   = 2 * time.Millisecond
	// attemptPatience bounds the courtesy.
	attemptPatience = time.Second
)

// write writes value to the file. Where attempts cannot be made, or are in vain for
// attemptPatience, it goes the kernel's way.
func (a *attempts) write(fd int, value string) error {
	pause := firstPause
	for end := time.Now().Add(attemptPatience); time.Now().Before(end); pause = min(2*pause, maxPause) {
		switch err := a.attempt(fd, value); err {
		case unix.EINTR:
			time.Sleep(pause)
		case errNoAttempts:
			_, err := unix.Write(fd, []byte(value))
			return err
		default:
			return err
		}
	}
	_, err := unix.Write(fd, []byte(value))
	return err
}

// errNoAttempts says that the kernel, or this file, has no asynchronous I/O.
const errNoAttempts = unix.EOPNOTSUPP

// An operation is struct iocb.
type operation struct {
	data       uint64
	key, flags uint32
	code       uint16
	priority   int16
	fd         uint32
	buffer     uint64
	size       uint64
	offset     int64
	_          uint64
	_, _       uint32
}

// A result is struct io_event.
type result struct {
	data, operation uint64
	got, more       int64
}

// attempt writes once; EINTR says that it is not the time.
func (a *attempts) attempt(fd int, value string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.begun {
		a.begun = true
		if _, _, errno := unix.Syscall(unix.SYS_IO_SETUP, 1, uintptr(unsafe.Pointer(&a.context)), 0); errno != 0 {
			a.context = 0
		}
	}
	if a.context == 0 {
		return errNoAttempts
	}
	const pwrite = 1
	data := []byte(value)
	op := &operation{code: pwrite, fd: uint32(fd), size: uint64(len(data))}
	var pins runtime.Pinner // the kernel is told where they lie by numbers that Go does not know for addresses
	defer pins.Unpin()
	pins.Pin(&data[0])
	pins.Pin(op)
	op.buffer = uint64(uintptr(unsafe.Pointer(&data[0])))
	list := [1]*operation{op}
	if _, _, errno := unix.Syscall(unix.SYS_IO_SUBMIT, a.context, 1, uintptr(unsafe.Pointer(&list))); errno != 0 {
		return errNoAttempts
	}
	// It is done by now: only block devices' operations go on beyond the call.
	var done result
	for {
		n, _, errno := unix.Syscall6(unix.SYS_IO_GETEVENTS, a.context, 1, 1, uintptr(unsafe.Pointer(&done)), 0, 0)
		switch {
		case errno == unix.EINTR:
		case errno != 0:
			return errno
		case n == 1 && done.got < 0:
			return unix.Errno(-done.got)
		default:
			return nil
		}
	}
}

// close gives the kernel's memory back. Nothing may be written any more.
func (a *attempts) close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.context != 0 {
		_, _, _ = unix.Syscall(unix.SYS_IO_DESTROY, a.context, 0, 0)
		a.context = 0
	}
}

// writeInTurn is write for a setting that the kernel takes at certain times only.
func (p *sysctls) writeInTurn(path, value string) error {
	fd, err := p.open(path, unix.O_WRONLY)
	if err != nil {
		return &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	if err := p.attempts.write(fd, value); err != nil {
		return &fs.PathError{Op: "write", Path: path, Err: err}
	}
	return nil
}
