package keeper

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// The status file, little-endian; its first 64 bytes are preallocated by the engine.
//
//	0  "clks", version (uint32 each)   8  keeper's PID   16  process's PID (as the engine sees them; uint64 each)
//	24 wait status, 1 (uint32 each)    32 seconds        40  nanoseconds since 1970 of the end
//	48 length of saved stdout          56 of saved stderr (uint64 each)          64 … the saved output itself
//	8388608 … a Note, of a process that has one
const (
	statusName   = "status"
	statusSize   = 64
	statusMagic  = 0x736b6c63
	offsetPIDs   = 8
	offsetExited = 24
)

// State is what a status file says.
type State struct {
	KeeperPID, PID int // 0: not yet known
	Exited         bool
	Wait           unix.WaitStatus
	At             time.Time // of the exit
	Stdout, Stderr int64     // lengths of the output saved for the next engine
}

// CreateStatus makes the status file in dir, which should be on tmpfs: a keeper must be able to write when the disk is
// full or hangs.
func CreateStatus(dir string) (*os.File, error) {
	f, err := openStatus(dir, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL)
	if err != nil {
		return nil, err
	}
	b := make([]byte, statusSize)
	binary.LittleEndian.PutUint32(b, statusMagic)
	binary.LittleEndian.PutUint32(b[4:], LayoutVersion)
	if _, err := f.WriteAt(b, 0); err != nil {
		f.Close()
		os.Remove(f.Name())
		return nil, fmt.Errorf("status file: %w", full(err, dir))
	}
	return f, nil
}

// full adds to an error, if it is of no space, where that is missing.
func full(err error, dir string) error {
	if !errors.Is(err, unix.ENOSPC) {
		return err
	}
	return fmt.Errorf("%w: the filesystem of --exec-root is full, which holds nothing that prune would remove; \"df -h %s\" shows it", err, dir)
}

// OpenStatus opens the status file in dir, which must be there; fs.ErrNotExist otherwise.
func OpenStatus(dir string) (*os.File, error) {
	return openStatus(dir, unix.O_RDWR)
}

// openStatus opens by system call: package os would offer the file to the poller first, which takes five calls more in
// every start and exec.
func openStatus(dir string, flags int) (*os.File, error) {
	path := filepath.Join(dir, statusName)
	for {
		fd, err := unix.Open(path, flags|unix.O_CLOEXEC, waits)
		switch err {
		case nil:
			return os.NewFile(uintptr(fd), path), nil
		case unix.EINTR:
		default:
			return nil, fmt.Errorf("status file: %w", &os.PathError{Op: "open", Path: path, Err: err})
		}
	}
}

// ReadStatus reads a status file. One that is cut short, of another format or of impossible values is an error.
func ReadStatus(f *os.File) (State, error) {
	var b [statusSize]byte
	if _, err := f.ReadAt(b[:], 0); err != nil {
		return State{}, fmt.Errorf("status file %s: %w", f.Name(), err)
	}
	return parseStatus(b)
}

func parseStatus(b [statusSize]byte) (State, error) {
	le := binary.LittleEndian
	if m := le.Uint32(b[0:]); m != statusMagic {
		return State{}, fmt.Errorf("status file: bad magic %#x", m)
	}
	if v := le.Uint32(b[4:]); !known(int(v)) {
		return State{}, fmt.Errorf("status file: layout version %d is not known to this engine (it knows up to %d)", v, LayoutVersion)
	}
	s := State{
		KeeperPID: int(int32(le.Uint64(b[offsetPIDs:]))),
		PID:       int(int32(le.Uint64(b[offsetPIDs+8:]))),
		Exited:    le.Uint32(b[offsetExited+4:]) == 1,
	}
	if s.Exited {
		s.Wait = unix.WaitStatus(le.Uint32(b[offsetExited:]))
		s.Stdout, s.Stderr = int64(le.Uint64(b[48:])), int64(le.Uint64(b[56:]))
		s.At = time.Unix(int64(le.Uint64(b[offsetExited+8:])), int64(le.Uint64(b[offsetExited+16:])))
	}
	const most = 1 << 32
	if s.Stdout < 0 || s.Stderr < 0 || s.Stdout > most || s.Stderr > most {
		return s, fmt.Errorf("status file: saved output of %d and %d bytes", s.Stdout, s.Stderr)
	}
	return s, nil
}

// The modes of a status file. They are otherwise without meaning: only the engine comes near it.
const (
	waits  = 0o700 // its process has not been let execute its command
	mayRun = 0o600 // it may have; also the mode of those made by engines before this one
)

// LetGo notes that the process of r may execute its command from now on. Of an exec its note says so (Begun).
func LetGo(r Record) error {
	path := filepath.Join(r.Dir, statusName)
	if err := unix.Chmod(path, mayRun); err != nil {
		return fmt.Errorf("status file: %w", &os.PathError{Op: "chmod", Path: path, Err: err})
	}
	return nil
}

// NeverRan says of a process that has ended that it never came to execute its command: it has waited for an engine that
// died.
func NeverRan(status *os.File) bool {
	var st unix.Stat_t
	err := unix.Fstat(int(status.Fd()), &st)
	return err == nil && st.Mode&0o777 == waits && st.Size <= offsetNote
}

// Lock says that an engine lives which reads the process's output; the lock ends with f. It waits while a keeper saves
// output, but not for another engine: that is ErrHeld.
func Lock(f *os.File) error {
	const patience, interval = 5 * time.Second, time.Millisecond
	for end := time.Now().Add(patience); ; time.Sleep(interval) {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			return nil
		case err != unix.EINTR && err != unix.EWOULDBLOCK:
			return fmt.Errorf("locking the status file: %w", err)
		case time.Now().After(end):
			return ErrHeld
		}
	}
}

// Occupy marks f, as CreateStatus returned it, as the keeper's: it stays marked for as long as a process has that open
// file, from the moment at which the keeper is forked.
func Occupy(f *os.File) error {
	l := unix.Flock_t{Type: unix.F_WRLCK, Len: 1}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &l); err != nil {
		return fmt.Errorf("marking the status file: %w", err)
	}
	return nil
}

// Occupied says whether the status file's keeper lives, be it that it has not come to write its PID yet.
func Occupied(f *os.File) (bool, error) {
	l := unix.Flock_t{Type: unix.F_WRLCK, Len: 1}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &l); err != nil {
		return false, fmt.Errorf("status file %s: %w", f.Name(), err)
	}
	return l.Type != unix.F_UNLCK, nil
}

// ErrHeld says that another engine has the process.
var ErrHeld = errors.New("another engine has this process")

// Rest returns readers of the output that the keeper saved: stdout's (or the terminal's) and stderr's.
func (s State) Rest(f *os.File) (stdout, stderr *io.SectionReader) {
	return io.NewSectionReader(f, statusSize, s.Stdout), io.NewSectionReader(f, statusSize+s.Stdout, s.Stderr)
}

// Decode turns a wait status into an exit code (128+signal for signals, as shells do) and the signal, if it was one.
func Decode(w unix.WaitStatus) (code, signal int) {
	if w.Signaled() {
		return 128 + int(w.Signal()), int(w.Signal())
	}
	return w.ExitStatus(), 0
}
