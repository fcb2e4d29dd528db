package assemble

import (
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/cleatlabs/cleat/internal/kernel"
)

const (
	// reserved are bytes, far more than an engine writes at its start.
	reserved = 1 << 20
	// reservedFiles are those of the reserve, a file each.
	reservedFiles = 32
	// plenty is how many times as much must be free for some of it to be kept back: somebody has made room.
	plenty = 16
)

// A reserve is a little of the data root's filesystem, kept back for the start of an engine: on a full disk there would be
// none to make room by. Removals find what they need in what the databases have free, and in what the start has left.
type reserve struct {
	dir string
	log *slog.Logger
}

// lend gives the reserve up if the filesystem is full.
func (r reserve) lend() {
	if space, err := kernel.SpaceOf(filepath.Dir(r.dir)); err == nil && (space.Bytes < reserved || space.NoInodes()) {
		if err := os.RemoveAll(r.dir); err != nil {
			r.log.Warn("space that was kept back for a start on a full disk cannot be used", "error", err)
		}
	}
}

// fill makes the reserve, if it is not there and there is room.
func (r reserve) fill() {
	text := filepath.Join(r.dir, "bytes") // made last
	if info, err := os.Stat(text); err == nil && info.Size() == reserved {
		return
	}
	space, err := kernel.SpaceOf(filepath.Dir(r.dir))
	if err == nil && (space.Bytes < plenty*reserved || space.Counted && space.Inodes < plenty*reservedFiles) {
		return
	}
	if err == nil {
		err = r.make(text)
	}
	if err != nil {
		r.log.Warn("no space is kept back for a start on a full disk", "error", errors.Join(err, os.RemoveAll(r.dir)))
	}
}

func (r reserve) make(text string) error {
	if err := os.MkdirAll(r.dir, 0o700); err != nil {
		return err
	}
	for i := range reservedFiles {
		if err := os.WriteFile(filepath.Join(r.dir, fmt.Sprint(i)), nil, 0o600); err != nil {
			return err
		}
	}
	b := make([]byte, reserved)
	_, _ = rand.Read(b) // zeros might be kept as nothing; it never fails, by its documentation
	return os.WriteFile(text, b, 0o600)
}
