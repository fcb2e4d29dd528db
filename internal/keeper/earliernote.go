package keeper

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/cleatlabs/cleat/internal/kernel"
)

// earlierNoteName is the file, beside the status file, that a note was before it lay in that.
const earlierNoteName = "note"

// readEarlierNote is ReadNote of what an engine wrote that noted processes once they were made: both PIDs, and when it
// was written in place of their start times. Processes that started later are others with the same PIDs.
func readEarlierNote(dir string) (Note, error) {
	b, err := os.ReadFile(filepath.Join(dir, earlierNoteName))
	if err != nil {
		return Note{}, err
	}
	n, err := parseNote(b, dir)
	if err != nil {
		return Note{}, err
	}
	var written struct{ Noted uint64 }
	if err := json.Unmarshal(b, &written); err != nil {
		return Note{}, fmt.Errorf("%w: %v", ErrTorn, err)
	}
	p := &n.Process
	if p.KeeperPID <= 0 || p.PID <= 0 {
		return Note{}, fmt.Errorf("%w: it names PID %d and keeper %d", ErrTorn, p.PID, p.KeeperPID)
	}
	startOf := func(pid int) uint64 {
		if start, err := kernel.StartTime(pid); err == nil && start <= written.Noted {
			return start
		}
		return 0
	}
	p.KeeperStart, p.PIDStart = startOf(p.KeeperPID), startOf(p.PID)
	return n, nil
}
