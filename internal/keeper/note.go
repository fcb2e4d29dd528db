package keeper

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// offsetNote is where the note lies in a status file: beyond any output that pipes of the usual sizes hold, and no
// further, as every level of the file's tree of pages costs.
const offsetNote = 8 << 20

// A Note makes a process known to the next engine where nothing durable needs to name it: an exec ends with the boot at
// the latest, so its note lies in its status file, on tmpfs, and costs no wait for a disk.
type Note struct {
	Process Record
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

// WriteNote writes r, whose process has yet to be made, and what the engine wants to know about it to r's status file.
// What the keeper tells there itself need not be in r. It counts from Begun on.
func WriteNote(status *os.File, r Record, about any) error {
	b, err := json.Marshal(struct {
		Process Record
		About   any
	}{Unmade(r), about})
	if err != nil {
		return fmt.Errorf("note of %s: %w", r.ID, err)
	}
	b[0] = 0
	if _, err := status.WriteAt(b, offsetNote); err != nil {
		return fmt.Errorf("note of %s: %w", r.ID, full(err, r.Dir))
	}
	return nil
}

// Begun makes a note count: its process may execute its command from now on.
func Begun(status *os.File) error {
	if _, err := status.WriteAt([]byte("{"), offsetNote); err != nil {
		return fmt.Errorf("status file: %w", err)
	}
	return nil
}

// WritePID adds to a noted process's status file what its keeper does not know of it.
func WritePID(status *os.File, pid int) error {
	if _, err := status.WriteAt(binary.LittleEndian.AppendUint64(nil, uint64(pid)), offsetPIDs+8); err != nil {
		return fmt.Errorf("status file: %w", err)
	}
	return nil
}

// ReadNote reads the note in the status file in dir, or beside it (readEarlierNote); of the process it tells as much as
// Complete. It is fs.ErrNotExist where there is no note that counts, and ErrTorn where it is of no process.
func ReadNote(dir string) (Note, error) {
	status, err := OpenStatus(dir)
	if err != nil {
		return Note{}, err
	}
	defer status.Close()
	b, err := io.ReadAll(io.NewSectionReader(status, offsetNote, 1<<30))
	if err != nil {
		return Note{}, fmt.Errorf("note in %s: %w", status.Name(), err)
	}
	var n Note
	if len(b) == 0 || b[0] == 0 {
		n, err = readEarlierNote(dir)
	} else if n, err = parseNote(b, dir); err == nil {
		err = n.settle(status)
	}
	if err != nil {
		return Note{}, fmt.Errorf("note in %s: %w", status.Name(), err)
	}
	return n, nil
}

// ErrTorn says that a note is not whole, or of no process.
var ErrTorn = errors.New("it is not whole")

func parseNote(b []byte, dir string) (Note, error) {
	var n Note
	if err := json.Unmarshal(b, &n); err != nil {
		return Note{}, fmt.Errorf("%w: %v", ErrTorn, err)
	}
	if n.Process.ID != filepath.Base(dir) {
		return Note{}, fmt.Errorf("%w: it names process %q", ErrTorn, n.Process.ID)
	}
	n.Process.Dir = dir
	return n, nil
}

// settle completes the note's record by the status file.
func (n *Note) settle(status *os.File) error {
	n.Process = Complete(n.Process)
	s, err := ReadStatus(status)
	switch {
	case err != nil:
		return err
	case n.Process.PID == 0 && !s.Exited:
		return fmt.Errorf("%w: its process was never made", ErrTorn)
	case s.Stdout+s.Stderr > offsetNote-statusSize:
		return fmt.Errorf("%w: saved output lies over it", ErrTorn)
	}
	n.Process.KeeperPID = s.KeeperPID
	return nil
}
