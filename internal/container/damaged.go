package container

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/moby/moby/api/types/container"

	"github.com/cleatlabs/cleat/internal/failure"
)

// A container whose record cannot be used keeps neither the engine nor other containers from anything. It is there, under
// its name if its state tells it: what runs of it goes on, is listed, can be stopped and removed. Its record is not written
// again, so that a copy of it can be put back.

// upperDir is where a container's writable layer lies.
const upperDir = "upper"

// LogSuffix follows the container's id in the name of the file that is its log, as Docker names it.
const LogSuffix = "-json.log"

// Whole says, with the way out, why a container can only be looked at, stopped and removed: its definition is not at hand.
func (r *Record) Whole() error {
	if r.Damage == "" {
		return nil
	}
	return failure.Conflict("container %s", r.Damage)
}

// Warnings says what is out of order.
func (s *Store) Warnings() []string {
	all := append([]string(nil), s.strays...)
	for _, c := range s.All() {
		if d := c.Load().Damage; d != "" {
			all = append(all, "container "+d)
		}
	}
	return all
}

// unused says of what lies among the containers' directories, and is none, that nothing is done with it.
func (s *Store) unused(path string) {
	s.strays = append(s.strays, fmt.Sprintf("%s is not a container's directory: nothing is done with it, move it away", path))
}

// missing says why there is no record in dir. A create that has never answered leaves no state, nothing of the record's
// name, and no file in the writable layer: where there is one of these, there was a record.
func missing(dir string) error {
	path := filepath.Join(dir, configFile)
	for _, trace := range []string{path, filepath.Join(dir, stateFile)} {
		if _, err := os.Lstat(trace); !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s is missing", path)
		}
	}
	written, err := os.ReadDir(filepath.Join(dir, upperDir))
	if len(written) > 0 || err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s is missing", path)
	}
	return errUnmade
}

// shelve takes in a container whose record cannot be read, or whose name another one has. It comes after the others.
func (s *Store) shelve(f found) {
	dir := filepath.Join(s.root, f.name)
	r := f.record
	if r == nil {
		r = undefined(dir, f.name)
	}
	r.Name = s.freeName(r)
	r.Damage = fmt.Sprintf("%s (%s) is out of order, and can only be stopped and removed: %v: %s", r.Name, r.ID[:12], f.err, f.wayOut(dir))
	c := newContainer(dir, r)
	s.byID[r.ID] = c
	s.names[r.Name] = r.ID
}

// wayOut is what to do about a container that is out of order.
func (f found) wayOut(dir string) string {
	if f.record != nil {
		return "rename or remove the other one, and start cleatd again"
	}
	return "put a copy of that file back and start cleatd again, or remove the container (its files are in " + filepath.Join(dir, upperDir) + ")"
}

// undefined is what there is of the container id without its definition.
func undefined(dir, id string) *Record {
	r := &Record{State: readState(filepath.Join(dir, stateFile))}
	r.ID, r.Config, r.HostConfig = id, &container.Config{}, &container.HostConfig{}
	if info, err := os.Stat(dir); err == nil {
		r.Created = info.ModTime().UTC()
	}
	if sb := r.State.Sandbox; sb != nil {
		r.Name = sb.Name
	}
	// Any driver but none keeps one; what else was done with the lines nobody knows.
	r.HostConfig.LogConfig.Type = "none"
	if path := filepath.Join(dir, id+LogSuffix); isFile(path) {
		r.HostConfig.LogConfig.Type, r.LogPath = "json-file", path
	}
	return r
}

func isFile(path string) bool {
	info, err := os.Lstat(path)
	return err == nil && info.Mode().IsRegular()
}

// freeName is a name for a container whose own is not known, or another's.
func (s *Store) freeName(r *Record) string {
	if r.Name != "" && s.names[r.Name] == "" {
		return r.Name
	}
	name := "damaged_" + r.ID[:12]
	if s.names[name] == "" {
		return name
	}
	return "damaged_" + r.ID
}
