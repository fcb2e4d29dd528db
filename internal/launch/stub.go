package launch

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

func stubAddress() uintptr

// A Stub is the interpreter as an executable. It is safe for concurrent use.
type Stub struct {
	exe   *os.File
	fd    int // of the executable, above those that a child is given
	group int // the control group's directory that processes are born into; -1 for the engine's own

	parking sync.Mutex
	nursery *nursery // nil before the first Park
}

// minStubFD keeps the executable's descriptor out of the way of most starts: ForkExec gives the child its descriptors
// from 0 on before the execve, and would overwrite it (see outOfReach).
const minStubFD = 120

// growTable makes the process's descriptor table large once, at the start: each growth of a table that several threads
// share waits for a grace period of the kernel, some milliseconds, and would be part of some container's start. Where
// the limit is lower it grows as needed.
func growTable() {
	const files = 4000
	if fd, err := unix.FcntlInt(0, unix.F_DUPFD_CLOEXEC, files); err == nil {
		unix.Close(fd)
	}
}

// NewStub makes the executable in a sealed memfd. Where the system forbids execution from those (vm.memfd_noexec=2) it
// is an unlinked file under fallbackDir, reachable only through a read-only mount, so that no process can ever write to
// it through /proc/PID/exe.
func NewStub(fallbackDir string) (*Stub, error) {
	code, err := stubCode()
	if err != nil {
		return nil, err
	}
	elf := buildELF(code)
	f, err := memfdExecutable(elf)
	if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
		f, err = fileExecutable(elf, fallbackDir)
	}
	if err != nil {
		return nil, fmt.Errorf("making the keeper's executable: %w", err)
	}
	defer f.Close()
	growTable()
	s := &Stub{group: -1}
	return s, s.place(f, minStubFD)
}

func (s *Stub) place(f *os.File, min int) error {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, min)
	if err != nil {
		return fmt.Errorf("keeping the keeper's executable open (is RLIMIT_NOFILE below %d?): %w", min, err)
	}
	s.fd, s.exe = fd, os.NewFile(uintptr(fd), "cleat-keeper")
	return nil
}

// In has the processes that are started from now on be born into the control group whose directory in the unified
// hierarchy is open as fd (-1 for the engine's own), which becomes the Stub's. It is called before the first start.
func (s *Stub) In(fd int) { s.group = fd }

// Close releases the executable; running processes are not affected. Nothing may be started or parked at the same time.
func (s *Stub) Close() error {
	if s.nursery != nil {
		s.nursery.close()
	}
	if s.group >= 0 {
		unix.Close(s.group)
	}
	return s.exe.Close()
}

// stubCode is the text between stub's beginning and the trailer.
func stubCode() ([]byte, error) {
	at := stubAddress()
	if at == 0 {
		return nil, errors.New("launch programs are not supported on this architecture")
	}
	text := unsafe.Slice((*byte)(*(*unsafe.Pointer)(unsafe.Pointer(&at))), 4096)
	n := bytes.Index(text, []byte(trailer))
	if n < 0 {
		return nil, errors.New("launch: the stub has no end")
	}
	return append([]byte(nil), text[:n]...), nil
}

func memfdExecutable(elf []byte) (*os.File, error) {
	const exec = 0x10 // MFD_EXEC, since 6.3
	fd, err := unix.MemfdCreate("cleat-keeper", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|exec)
	if errors.Is(err, unix.EINVAL) {
		fd, err = unix.MemfdCreate("cleat-keeper", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	w := os.NewFile(uintptr(fd), "cleat-keeper")
	defer w.Close()
	if _, err := w.Write(elf); err != nil {
		return nil, err
	}
	if err := w.Chmod(0o500); err != nil {
		return nil, err
	}
	seals := unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); err != nil {
		return nil, fmt.Errorf("sealing: %w", err)
	}
	// A file open for writing cannot be executed.
	return os.Open("/proc/self/fd/" + strconv.Itoa(fd))
}

func fileExecutable(elf []byte, dir string) (*os.File, error) {
	if dir == "" {
		return nil, errors.New("vm.memfd_noexec=2 forbids execution from memory and no directory for a file is configured")
	}
	w, err := os.CreateTemp(dir, "cleat-keeper-*")
	if err != nil {
		return nil, err
	}
	defer os.Remove(w.Name())
	_, err = w.Write(elf)
	if err == nil {
		err = w.Chmod(0o500)
	}
	if cerr := w.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return nil, err
	}
	tree, err := unix.OpenTree(unix.AT_FDCWD, filepath.Clean(w.Name()), unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("open_tree: %w", err)
	}
	defer unix.Close(tree)
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV, Attr_clr: unix.MOUNT_ATTR_NOEXEC}
	if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		return nil, fmt.Errorf("mount_setattr: %w", err)
	}
	return os.Open("/proc/self/fd/" + strconv.Itoa(tree))
}

// buildELF wraps code into a static executable: one readable and executable segment, a stack that is not executable.
func buildELF(code []byte) []byte {
	const (
		header  = 64
		phdr    = 56
		start   = header + 2*phdr
		address = 0x400000
	)
	le := binary.LittleEndian
	e := make([]byte, start, start+len(code))
	copy(e, "\x7fELF\x02\x01\x01")
	le.PutUint16(e[16:], 2) // ET_EXEC
	le.PutUint16(e[18:], elfMachine)
	le.PutUint32(e[20:], 1)
	le.PutUint64(e[24:], address+start)
	le.PutUint64(e[32:], header)
	le.PutUint16(e[52:], header)
	le.PutUint16(e[54:], phdr)
	le.PutUint16(e[56:], 2)
	le.PutUint16(e[58:], 64)

	load := e[header:]
	size := uint64(start + len(code))
	le.PutUint32(load[0:], 1) // PT_LOAD
	le.PutUint32(load[4:], 5) // r-x
	le.PutUint64(load[16:], address)
	le.PutUint64(load[24:], address)
	le.PutUint64(load[32:], size)
	le.PutUint64(load[40:], size)
	le.PutUint64(load[48:], mapAlign)

	stack := e[header+phdr:]
	le.PutUint32(stack[0:], 0x6474e551) // PT_GNU_STACK
	le.PutUint32(stack[4:], 6)          // rw-
	return append(e, code...)
}
