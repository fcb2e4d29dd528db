package volume

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/volume"

	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/record"
)

// renamePrefix begins the names of files that say which rename is under way.
const renamePrefix = ".rename-"

// Renaming is a rename that is under way: the directory has its new name, but
// containers may still be recorded with the old one.
type Renaming struct{ Old, New string }

// Rename gives a volume another name; containers may run with it. users are the
// ids of those that refer to it, sorted: if there are others, as one that is just
// being made, it is refused. relabel is
// called when the volume has it: it changes the records of the containers, and if
// the engine dies before it returns, the next one finds the rename in Unfinished.
func (s *Service) Rename(ctx context.Context, old, name string, users []string, relabel func() error) (*volume.Volume, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	e, err := s.free(ctx, old)
	if err != nil {
		return nil, err
	}
	if e.isPlugins() {
		return nil, failure.NotImplemented("rename %s: its driver %s has no names but those that volumes were made with", old, e.driver())
	}
	if s.entries[name] != nil {
		return nil, failure.Conflict("rename %s: a volume named %s exists already", old, name)
	}
	if err := s.mayTake(old, name); err != nil {
		return nil, fmt.Errorf("rename %s: %w", old, err)
	}
	if !slices.Equal(s.users(e), users) {
		return nil, failure.Conflict("rename %s: a container that has the volume is being made or removed: try again", old)
	}
	for id := range e.active {
		if _, refers := e.refs[id]; !refers { // it gives the volume back under the name that it knows
			return nil, failure.Conflict("rename %s: files are being copied from or to a container that has the volume: try again", old)
		}
	}
	// Under neither name anybody gets at it before the containers know.
	busy := make(chan struct{})
	e.busy = busy
	s.entries[name] = e
	s.mu.Unlock()
	r := Renaming{old, name}
	moved, err := s.move(r, relabel)
	s.mu.Lock()
	if moved {
		delete(s.entries, old)
	} else {
		delete(s.entries, name)
	}
	if moved && err != nil {
		s.renames = append(s.renames, r)
	}
	e.busy = nil
	close(busy)
	if err != nil {
		return nil, err
	}
	return s.describe(name, e), nil
}

// mayTake refuses both names of a rename that is not in the records of all containers yet: the next engine, which makes
// that good, takes a volume of the old name for the one that was to be renamed, and containers would run with its data.
// s.mu is held.
func (s *Service) mayTake(names ...string) error {
	for _, r := range s.renames {
		if slices.Contains(names, r.Old) || slices.Contains(names, r.New) {
			return failure.Conflict("volume %s was renamed to %s, but not in the records of all containers: the next start of the engine makes that good", r.Old, r.New)
		}
	}
	return nil
}

// move says whether the volume has its new name, whatever went wrong then.
func (s *Service) move(r Renaming, relabel func() error) (moved bool, err error) {
	intent := filepath.Join(s.root, renamePrefix+r.New)
	data, err := json.Marshal(&r)
	if err == nil {
		err = record.WriteDurable(intent, data, 0o600)
	}
	if err != nil {
		return false, fmt.Errorf("rename volume %s: %w", r.Old, err)
	}
	record.Failpoint("volume.rename.after-intent")
	if err := os.Rename(filepath.Join(s.root, r.Old), filepath.Join(s.root, r.New)); err != nil {
		return false, errors.Join(fmt.Errorf("rename volume %s: %w", r.Old, err), os.Remove(intent))
	}
	record.Failpoint("volume.rename.after-rename")
	if err := relabel(); err != nil {
		return true, fmt.Errorf("volume %s is renamed to %s, but not in the records of all containers, which the next start of the engine makes good: %w", r.Old, r.New, err)
	}
	record.Failpoint("volume.rename.after-containers")
	return true, os.Remove(intent)
}

// resumeRenames finds the renames that an earlier engine has begun. One that has
// not moved the directory yet is given up.
func (s *Service) resumeRenames() error {
	entries, err := os.ReadDir(s.root)
	if err != nil {
		return fmt.Errorf("volumes: %w", err)
	}
	for _, f := range entries {
		if !strings.HasPrefix(f.Name(), renamePrefix) {
			continue
		}
		path := filepath.Join(s.root, f.Name())
		var r Renaming
		err := record.ReadJSON(path, &r)
		if err == nil {
			_, err = os.Stat(filepath.Join(s.root, r.Old))
			if errors.Is(err, fs.ErrNotExist) {
				s.renames = append(s.renames, r)
				continue
			}
		}
		if err == nil || isDamaged(err) {
			err = os.Remove(path)
		}
		if err != nil {
			s.warn("volumes: a rename that was cut short: %v", err)
		}
	}
	return nil
}

// isDamaged says that a file's content is to blame, not the disk.
func isDamaged(err error) bool {
	var pathErr *fs.PathError
	return !errors.As(err, &pathErr)
}

// Unfinished are the renames of earlier engines whose containers have to be told.
// Call Renamed when they know.
func (s *Service) Unfinished() []Renaming {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.renames)
}

// Renamed forgets a rename of Unfinished.
func (s *Service) Renamed(r Renaming) error {
	err := os.Remove(filepath.Join(s.root, renamePrefix+r.New))
	if err == nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.renames = slices.DeleteFunc(s.renames, func(other Renaming) bool { return other == r })
	}
	return err
}
