package volume

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/cleatlabs/cleat/internal/mount"
	"github.com/cleatlabs/cleat/internal/record"
)

const (
	dataDir  = "_data"
	metaFile = "volume.json"
	// Volumes that are being made or removed have names that no volume can
	// have.
	newPrefix    = ".new-"
	doomedPrefix = ".del-"
)

// metadata is what volume.json holds.
type metadata struct {
	Labels    map[string]string
	Options   map[string]string `json:",omitempty"`
	Driver    string            `json:",omitempty"` // of a plugin; "" is local
	Scope     string            `json:",omitempty"` // of a plugin's volume
	Project   uint32            `json:",omitempty"` // of the quota, if the volume has a size
	CreatedAt time.Time
}

// load reads all volumes and removes what a crash left half made or half
// removed.
func (s *Service) load() error {
	if err := os.MkdirAll(s.root, 0o711); err != nil {
		return fmt.Errorf("volumes: %w", err)
	}
	if err := s.resumeRenames(); err != nil {
		return err
	}
	dirs, err := os.ReadDir(s.root)
	if err != nil {
		return fmt.Errorf("volumes: %w", err)
	}
	for _, d := range dirs {
		name := d.Name()
		switch {
		case strings.HasPrefix(name, newPrefix), strings.HasPrefix(name, doomedPrefix):
			if err := removeTree(filepath.Join(s.root, name)); err != nil {
				s.warn("volumes: remove what is left of a volume: %v", err)
			}
		case d.IsDir() && validName.MatchString(name):
			s.loadOne(name)
		}
	}
	return nil
}

// loadOne takes in a volume. A directory without volume.json but with data, made
// by hand or by another engine, is a volume too, without labels.
func (s *Service) loadOne(name string) {
	dir := filepath.Join(s.root, name)
	var meta metadata
	err := record.ReadJSON(filepath.Join(dir, metaFile), &meta)
	if err == nil && meta.Driver != "" {
		s.take(name, meta)
		return
	}
	data, derr := os.Stat(s.mountpoint(name))
	switch {
	case err == nil && errors.Is(derr, fs.ErrNotExist):
		if err := os.Mkdir(s.mountpoint(name), 0o755); err != nil {
			s.warn("volume %s has lost its data directory: %v", name, err)
			return
		}
		s.warn("volume %s had lost its data directory: it is empty now", name)
	case derr != nil || !data.IsDir():
		return // something else
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		s.warn("volume %s keeps its data but has lost its labels: %v", name, err)
	}
	if meta.CreatedAt.IsZero() && derr == nil {
		meta.CreatedAt = data.ModTime().UTC()
	}
	s.take(name, meta)
}

// take takes in what lies in a volume's directory besides its data.
func (s *Service) take(name string, meta metadata) {
	dir := filepath.Join(s.root, name)
	e := newEntry(meta)
	var err error
	if e.snapshots, err = loadSnapshots(dir); err != nil {
		s.warn("volume %s: its snapshots cannot be read: %v", name, err)
	}
	// A restore that was cut short: either its copy, or the data that it replaced.
	if err := removeTree(filepath.Join(dir, restoreDir)); err != nil {
		s.warn("volume %s: what is left of a restore: %v", name, err)
	}
	// A restore or a crash may have left it without.
	if err := s.setLimit(&e.meta, true); err != nil {
		s.warn("volume %s: its size is not limited: %v", name, err)
	}
	s.entries[name] = e
}

func (s *Service) warn(format string, args ...any) {
	s.warnings = append(s.warnings, fmt.Sprintf(format, args...))
}

// makeDirs makes a volume's directory: whole or not at all.
// fill, if not nil, puts data into its empty data directory.
func (s *Service) makeDirs(name string, meta *metadata, durable bool, fill func(data string) error) (err error) {
	tmp := filepath.Join(s.root, newPrefix+name)
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("create volume %s: %w", name, err), removeTree(tmp))
		}
	}()
	if err := removeTree(tmp); err != nil {
		return err
	}
	if err := os.Mkdir(tmp, 0o711); err != nil {
		return err
	}
	// Mkdir's mode is cut by the umask, but containers of any user must get
	// through.
	data := filepath.Join(tmp, dataDir)
	if err := os.Chmod(tmp, 0o711); err != nil {
		return err
	}
	if meta.Driver == "" {
		if err := errors.Join(os.Mkdir(data, 0o755), os.Chmod(data, 0o755)); err != nil {
			return err
		}
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.setLimit(meta, false))
		}
	}()
	if err := s.limit(data, meta); err != nil {
		return err
	}
	record.Failpoint("volume.create.after-limit")
	if fill != nil {
		if err := fill(data); err != nil {
			return err
		}
	}
	raw, err := json.Marshal(meta)
	if err != nil {
		return err
	}
	write := record.Write
	if durable {
		write = record.WriteDurable
	}
	if err := write(filepath.Join(tmp, metaFile), raw, 0o600); err != nil {
		return err
	}
	record.Failpoint("volume.create.before-rename")
	return os.Rename(tmp, filepath.Join(s.root, name))
}

// discard takes a volume's directory out of the way, in one step, and returns
// its new name.
func (s *Service) discard(name string) (string, error) {
	doomed := filepath.Join(s.root, doomedPrefix+randomName()[:16])
	if err := os.Rename(filepath.Join(s.root, name), doomed); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("remove volume %s: %w", name, err)
	}
	record.Failpoint("volume.remove.after-rename")
	return doomed, nil
}

// erase deletes a discarded volume.
func (s *Service) erase(name, doomed string) error {
	if err := removeTree(doomed); err != nil {
		return fmt.Errorf("volume %s is removed, but not all of its files could be deleted; the rest is tried again when the engine starts: %w", name, err)
	}
	return nil
}

// removeTree deletes a directory of ours with all in it. What is mounted there is
// somebody's data: it is unmounted first, and nothing is deleted if that fails.
// os.RemoveAll works on directory descriptors and follows no symbolic link, so
// that nothing outside can be reached.
func removeTree(dir string) error {
	real, err := filepath.EvalSymlinks(dir) // as the kernel's mount table has it
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for {
		mounted, err := mount.Below(real)
		if err != nil {
			return err
		}
		if len(mounted) == 0 {
			return os.RemoveAll(dir)
		}
		if err := mount.UnmountAll(real); err != nil {
			return err
		}
	}
}
