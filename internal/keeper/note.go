package keeper

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/cleatlabs/cleat/internal/kernel"
	"golang.org/x/sys/unix"
)

// NoteName is the name of the note's file, beside the status file.
const NoteName = "note"

// A Note makes a process known to the next engine where nothing durable needs to name it: an exec ends with the boot at
// the latest, so its note lies on the tmpfs of its status file and costs no wait for a disk. Start times, which are
// dear to read, are left to the reader: processes that started after Noted are others with the same PIDs.
type Note struct {
	Process Record // without start times
	Noted   uint64 // clock ticks since boot
	About   json.RawMessage
}

// ticksPerSecond is the unit of start times in /proc on every architecture (USER_HZ).
const ticksPerSecond = 100

// ticks is the time since boot in the unit of start times.
func ticks() (uint64, error) {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		return 0, fmt.Errorf("time since boot: %w", err)
	}
	return uint64(now.Nano() / (int64(time.Second) / ticksPerSecond)), nil
}

// WriteNote writes r, whose process must not have been collected yet, and what the engine wants to know about it. A
// kill in the middle leaves a note that ReadNote refuses.
func WriteNote(r Record, about any) error {
	now, err := ticks()
	if err != nil {
		return err
	}
	b, err := json.Marshal(struct {
		Process Record
		Noted   uint64
		About   any
	}{r, now, about})
	if err != nil {
		return fmt.Errorf("note of %s: %w", r.ID, err)
	}
	path := filepath.Join(r.Dir, NoteName)
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return fmt.Errorf("note %s: %w", path, err)
	}
	n, err := unix.Write(fd, b)
	if err == nil && n < len(b) {
		err = unix.ENOSPC
	}
	unix.Close(fd)
	if err != nil {
		unix.Unlink(path)
		return fmt.Errorf("note %s: %w", path, err)
	}
	return nil
}

// ReadNote reads the note in dir and fills in the start times of the processes in it that still are there. It is
// fs.ErrNotExist where there is no note, and ErrTorn where its writer was killed.
func ReadNote(dir string) (Note, error) {
	path := filepath.Join(dir, NoteName)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Note{}, fs.ErrNotExist
	}
	if err != nil {
		return Note{}, err
	}
	n, err := parseNote(b, dir)
	if err != nil {
		return Note{}, fmt.Errorf("note %s: %w", path, err)
	}
	p := &n.Process
	p.KeeperStart, p.PIDStart = n.startOf(p.KeeperPID), n.startOf(p.PID)
	return n, nil
}

// ErrTorn says that a note is not whole.
var ErrTorn = errors.New("it is not whole")

func parseNote(b []byte, dir string) (Note, error) {
	var n Note
	if err := json.Unmarshal(b, &n); err != nil {
		return Note{}, fmt.Errorf("%w: %v", ErrTorn, err)
	}
	if n.Process.ID != filepath.Base(dir) || n.Process.KeeperPID <= 0 || n.Process.PID <= 0 {
		return Note{}, fmt.Errorf("%w: it names process %q with PID %d and keeper %d", ErrTorn, n.Process.ID, n.Process.PID, n.Process.KeeperPID)
	}
	n.Process.Dir = dir
	return n, nil
}

// startOf is the start time of the process that had the PID when the note was written, 0 if it is gone.
func (n *Note) startOf(pid int) uint64 {
	if t, err := kernel.StartTime(pid); err == nil && t <= n.Noted {
		return t
	}
	return 0
}
