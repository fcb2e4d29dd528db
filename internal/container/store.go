package container

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/moby/moby/api/types/container"
	"golang.org/x/sync/errgroup"

	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/keeper"
	"github.com/cleatlabs/cleat/internal/record"
)

// A removed container's directory is renamed to one of these and its id; the
// second says that its anonymous volumes go with it.
const (
	trashPrefix        = ".removed-"
	trashVolumesPrefix = ".removed-volumes-"

	// intentFile names the anonymous volumes of a container in the making.
	intentFile = "volumes.json"
)

// LostCode is the exit code of a container whose real one nobody knows.
const LostCode = 255

// Store is the set of all containers. Look-ups never wait for I/O.
type Store struct {
	root    string
	orphans []string
	trash   []string // directories that name the orphans, or would not go
	strays  []string // sentences about what is no container's directory

	mu    sync.RWMutex
	byID  map[string]*Container
	names map[string]string // name → id; also of creates not yet finished
}

// Open loads all containers under root, which is made if missing. Directories
// that a crash left half-made or half-removed are deleted; those that will not go
// are left to ForgetOrphans. Containers whose records cannot be read are there all
// the same (see Whole); only one of a later layout is an error.
func Open(root string) (*Store, error) {
	if err := os.MkdirAll(root, 0o710); err != nil {
		return nil, fmt.Errorf("container directory: %w", err)
	}
	Spread(root)
	s := &Store{root: root, byID: map[string]*Container{}, names: map[string]string{}}
	entries, err := os.ReadDir(root)
	if err != nil {
		return nil, fmt.Errorf("container directory: %w", err)
	}
	var damaged []found
	for i, read := range readAll(root, entries) {
		err := s.load(entries[i].Name(), read)
		if errors.Is(err, errLater) {
			return nil, err
		}
		if err != nil {
			damaged = append(damaged, found{entries[i].Name(), read.record, err})
		}
	}
	for _, d := range damaged {
		s.shelve(d)
	}
	return s, nil
}

// readers is how many containers' records are read at a time. More than there are processors, as the first start after a
// boot waits for the disk.
const readers = 16

// found is what a directory holds: a record, or why there is none.
type found struct {
	name   string
	record *Record
	err    error
}

// readAll reads the directories that are containers'.
func readAll(root string, entries []os.DirEntry) []found {
	all := make([]found, len(entries))
	var g errgroup.Group
	g.SetLimit(readers)
	for i, e := range entries {
		if name := e.Name(); validID(name) {
			g.Go(func() error {
				r, err := readRecord(filepath.Join(root, name), name)
				all[i] = found{name, r, err}
				return nil
			})
		}
	}
	_ = g.Wait() // each error lies with its directory
	return all
}

// load takes in what a directory holds. An error says why its container is not whole.
func (s *Store) load(name string, read found) error {
	dir := filepath.Join(s.root, name)
	switch r := read.record; {
	case strings.HasPrefix(name, trashPrefix):
		s.sweep(name)
		return nil
	case !validID(name) || !isDir(dir):
		s.unused(dir)
		return nil
	case errors.Is(read.err, errUnmade):
		s.abandon(dir)
		return nil
	case read.err != nil:
		return read.err
	case s.names[r.Name] != "":
		return fmt.Errorf("container %s has the name %q, too", s.names[r.Name], r.Name)
	default:
		c := newContainer(dir, r)
		c.persisted = r
		s.byID[r.ID] = c
		s.names[r.Name] = r.ID
		return nil
	}
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

var (
	// errUnmade is of a create that never answered.
	errUnmade = errors.New("there is no record")
	// errLater is of a record that is not damaged, but a later engine's: as all may be, this is not the one to start.
	errLater = errors.New("start a newer engine")
)

// readRecord reads the record of the container id in dir, and removes what an interrupted write has left there.
func readRecord(dir, id string) (*Record, error) {
	var r Record
	path := filepath.Join(dir, configFile)
	err := record.ReadJSON(path, &r.Definition)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, missing(dir)
	case err != nil:
		return nil, err
	case r.Layout > Layout:
		return nil, fmt.Errorf("container %s: its record (layout %d) is not one that this engine can read: %w, or move the directory %s away", id, r.Layout, errLater, dir)
	case r.ID != id || r.Config == nil || r.HostConfig == nil:
		return nil, fmt.Errorf("%s is not the record of container %s", path, id)
	}
	r.Definition.settle(dir)
	_ = record.SweepTemp(dir) // what stays is in the way of a later write, which says so
	r.State = readState(filepath.Join(dir, stateFile))
	return &r, nil
}

// settle gives the paths of the container's own files as they are in dir, wherever it lay when they were written down:
// a data root that was moved, or copied and started from its new place, must not use the old one.
func (d *Definition) settle(dir string) {
	if d.LogPath != "" {
		d.LogPath = filepath.Join(dir, filepath.Base(d.LogPath))
	}
	for i := range d.Mounts {
		m := &d.Mounts[i]
		// A file that is kept in memory is called ID/N, elsewhere.
		if _, below, own := strings.Cut(m.Source, "/"+d.ID+"/"); own && m.Type == "file" && strings.Contains(below, "/") {
			m.Source = filepath.Join(dir, below)
		}
	}
}

// readState reads a container's state. Only loss of power leaves no whole file (it is renamed without a sync), and no
// process survives that. Where there is none the container is as created; where there is one that is damaged it was
// started, and when it ended nobody knows.
func readState(path string) (st State) {
	err := record.ReadJSON(path, &st)
	if errors.Is(err, fs.ErrNotExist) {
		return State{Status: container.StateCreated}
	}
	if err != nil {
		st, ended := State{Status: container.StateExited, ExitCode: LostCode, Error: err.Error()}, time.Now().UTC()
		if info, err := os.Stat(path); err == nil {
			ended = info.ModTime().UTC()
		}
		st.StartedAt, st.FinishedAt = ended, ended
		return st
	}
	if st.Keeper != nil {
		// It may have been written while the process was being set up.
		whole := keeper.Complete(*st.Keeper)
		st.Keeper = &whole
	}
	return st
}

// sweep deletes the rest of a removed container.
func (s *Store) sweep(name string) {
	dir := filepath.Join(s.root, name)
	var def Definition
	if strings.HasPrefix(name, trashVolumesPrefix) && record.ReadJSON(filepath.Join(dir, configFile), &def) == nil {
		var names []string
		for _, m := range def.Mounts {
			if m.Anonymous && m.Name != "" {
				names = append(names, m.Name)
			}
		}
		if len(names) > 0 {
			s.orphans, s.trash = append(s.orphans, names...), append(s.trash, dir)
			return
		}
	}
	s.discard(dir)
}

// discard deletes what nobody needs. A file that cannot be deleted, as a container that may make files immutable can
// leave it, must not keep the engine from starting.
func (s *Store) discard(dir string) {
	if EmptyTrash(dir) != nil {
		s.trash = append(s.trash, dir)
	}
}

// abandon puts what an interrupted create has made aside. Loss of power may leave nothing whole of its list of volumes,
// which is not synced: those that are on the disk all the same are then anonymous volumes that nobody uses.
func (s *Store) abandon(dir string) {
	var names []string
	if err := record.ReadJSON(filepath.Join(dir, intentFile), &names); err != nil || len(names) == 0 {
		s.discard(dir)
		return
	}
	s.orphans = append(s.orphans, names...)
	s.trash = append(s.trash, dir)
}

// Intend writes down which anonymous volumes are being made for the container id,
// whose directory exists: until Add they are nobody's.
func (s *Store) Intend(id string, volumes []string) error {
	return record.WriteJSON(filepath.Join(s.DirOf(id), intentFile), volumes, 0o600)
}

// Orphans returns the anonymous volumes that a crash kept from being removed
// together with their containers, or from getting one. They may be in use by
// others, or gone.
func (s *Store) Orphans() []string { return s.orphans }

// ForgetOrphans deletes what names the orphans, once they are removed, and what Open
// could not delete.
func (s *Store) ForgetOrphans() error {
	var err error
	for _, dir := range s.trash {
		err = errors.Join(err, EmptyTrash(dir))
	}
	s.orphans, s.trash = nil, nil
	return err
}

func validID(s string) bool {
	if len(s) != 64 {
		return false
	}
	_, err := hex.DecodeString(s)
	return err == nil && strings.ToLower(s) == s
}

// NewID returns a fresh random id. Its short form is never all digits, which
// shells and clients would take for a number.
func NewID() string {
	var b [32]byte
	for {
		_, _ = rand.Read(b[:]) // never fails, by its documentation
		id := hex.EncodeToString(b[:])
		if strings.Trim(id[:12], "0123456789") != "" {
			return id
		}
	}
}

// ReserveName takes name for id, or says who holds it. Release with FreeName
// unless Add follows.
func (s *Store) ReserveName(name, id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if holder, taken := s.names[name]; taken {
		return failure.Conflict("Conflict. The container name %q is already in use by container %q. "+
			"You have to remove (or rename) that container to be able to reuse that name.", "/"+name, holder)
	}
	s.names[name] = id
	return nil
}

// FreeName undoes ReserveName.
func (s *Store) FreeName(name, id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.names[name] == id {
		delete(s.names, name)
	}
}

// DirOf returns the directory of the container id, existing or not.
func (s *Store) DirOf(id string) string { return filepath.Join(s.root, id) }

// Draft is the container of r before Add: nobody finds it, and nothing of it is on
// the disk but its directory.
func (s *Store) Draft(r *Record) *Container {
	r.Layout = Layout
	return newContainer(s.DirOf(r.ID), r)
}

// Add makes what Draft has returned, whose name is reserved and whose directory
// exists, durable and visible. With durable false its record survives the
// engine's death but not loss of power.
func (s *Store) Add(c *Container, durable bool) error {
	r := c.Load()
	data, err := json.Marshal(&r.Definition)
	if err != nil {
		return fmt.Errorf("container %s: %w", r.Name, err)
	}
	write := record.Write
	if durable {
		write = record.WritePrepared
	}
	if err := write(c.Path(configFile), data, 0o600); err != nil {
		return err
	}
	record.Failpoint("container.add.after-config")
	s.mu.Lock()
	defer s.mu.Unlock()
	s.byID[r.ID] = c
	return nil
}

// Find looks a container up by full id, then exact name (a leading slash is
// optional), then unique id prefix.
func (s *Store) Find(ref string) (*Container, error) {
	if ref == "" {
		return nil, failure.Invalid("no container name or ID supplied")
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if c := s.byID[ref]; c != nil {
		return c, nil
	}
	// A name may be reserved for a container that is not there yet.
	if c := s.byID[s.names[strings.TrimPrefix(ref, "/")]]; c != nil {
		return c, nil
	}
	var found *Container
	for id, c := range s.byID {
		if !strings.HasPrefix(id, ref) {
			continue
		}
		if found != nil {
			return nil, failure.Invalid("multiple IDs found with provided prefix: %s", ref)
		}
		found = c
	}
	if found == nil {
		return nil, failure.NotFound("No such container: %s", ref)
	}
	return found, nil
}

// Hold finds a container as Find does and takes its lock. One that was removed while
// this waited is not found. The caller calls unlock.
func (s *Store) Hold(ctx context.Context, ref string) (c *Container, unlock func(), err error) {
	if c, err = s.Find(ref); err != nil {
		return nil, nil, err
	}
	if unlock, err = c.Lock(ctx); err != nil {
		return nil, nil, err
	}
	if c.Gone() {
		unlock()
		return nil, nil, failure.NotFound("No such container: %s", ref)
	}
	return c, unlock, nil
}

// All returns every container, newest first.
func (s *Store) All() []*Container {
	s.mu.RLock()
	all := make([]*Container, 0, len(s.byID))
	for _, c := range s.byID {
		all = append(all, c)
	}
	s.mu.RUnlock()
	slices.SortFunc(all, func(a, b *Container) int {
		if o := b.Load().Created.Compare(a.Load().Created); o != 0 {
			return o
		}
		return strings.Compare(a.id, b.id)
	})
	return all
}

// Rename gives c a new name, which must be free. The caller holds c's lock.
func (s *Store) Rename(c *Container, name string) error {
	if err := c.Load().Whole(); err != nil {
		return err
	}
	old := c.Load().Name
	if err := s.ReserveName(name, c.id); err != nil {
		return err
	}
	if err := c.define(func(d *Definition) { d.Name = name }, func() { record.Failpoint("container.rename.after-config") }); err != nil {
		s.FreeName(name, c.id)
		return fmt.Errorf("rename %s: %w", old, err)
	}
	s.FreeName(old, c.id)
	return nil
}

// Redefine changes what c is, but for its name, for which there is Rename. change
// gets a copy of the definition and must not modify what that points to. The caller
// holds c's lock.
func (s *Store) Redefine(c *Container, change func(*Definition)) error {
	if err := c.define(change, func() { record.Failpoint("container.redefine.after-config") }); err != nil {
		return fmt.Errorf("container %s: %w", c.Load().Name, err)
	}
	return nil
}

// define writes a changed definition, which readers see after that.
func (c *Container) define(change func(*Definition), written func()) error {
	if err := c.Load().Whole(); err != nil {
		return err
	}
	def := c.Load().Definition
	change(&def)
	data, err := json.Marshal(&def)
	if err != nil {
		return err
	}
	if err := record.WriteDurable(c.Path(configFile), data, 0o600); err != nil {
		return err
	}
	written()
	c.mu.Lock()
	defer c.mu.Unlock()
	next := *c.snapshot.Load()
	next.Definition = def
	c.snapshot.Store(&next)
	return nil
}

// Remove makes c and its files disappear: its directory is renamed, which is
// final, and trash is its new path, for EmptyTrash in the caller's own time.
// volumes notes that its anonymous volumes are to go too, should the engine die
// before that is done. The caller holds c's lock and calls Removed when
// everything that c used is free.
func (s *Store) Remove(c *Container, volumes bool) (trash string, err error) {
	prefix := trashPrefix
	if volumes {
		prefix = trashVolumesPrefix
	}
	trash = filepath.Join(s.root, prefix+c.id)
	// Nobody may be writing state.json while its directory moves.
	if err := c.disk.lock(context.Background()); err != nil {
		return "", err
	}
	defer c.disk.unlock()
	err = os.Rename(c.dir, trash)
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // deleted under us: nothing left to lose
		return "", fmt.Errorf("remove container %s: %w", c.Load().Name, err)
	}
	record.Failpoint("container.remove.after-rename")
	c.mu.Lock()
	c.gone = true
	c.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.byID, c.id)
	if name := c.Load().Name; s.names[name] == c.id {
		delete(s.names, name)
	}
	return trash, nil
}
