// Package volume keeps volumes: directories that outlive containers.
//
// A volume of the driver local is the directory <root>/<name>: its data lie in
// _data, its labels, options and creation time in volume.json. It is made under a
// temporary name and renamed, and removed the other way round, so that a crash at
// any instant leaves a whole volume or none; what is left under temporary names is
// removed at the next Open.
//
// Promises:
//   - A volume cannot be removed while a container refers to it, whether that runs
//     or not. Making a volume and referring to it is one step: no prune comes
//     between.
//   - A volume whose options name a filesystem (type, o, device) is mounted on its
//     _data when the first container that uses it starts and unmounted when the last
//     has ended, whichever engine lives then. Removing a volume never reaches what is
//     mounted there.
//   - A volume of a plugin is kept by that; here lies what it cannot keep: labels, and
//     which containers it was asked to mount the volume for.
//   - No lock is held during file operations; one on one volume makes no one wait who
//     uses another.
package volume

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/moby/moby/api/types/volume"

	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/plugin"
)

const (
	// Driver is the name of the engine's own driver.
	Driver = "local"
	// AnonymousLabel marks volumes that were made without a name.
	AnonymousLabel = "com.docker.volume.anonymous"

	nameChars = "[a-zA-Z0-9][a-zA-Z0-9_.-]"
	maxName   = 240 // room for the temporary names in NAME_MAX
)

var validName = regexp.MustCompile("^" + nameChars + "+$")

// Config is what a Service works with.
type Config struct {
	// Root is the directory that holds the volumes; it is made if it is missing.
	Root string
	// Plugins are the other drivers; nil is none.
	Plugins *plugin.Registry
}

// Service keeps the volumes under one directory. Its methods may be called
// concurrently; no lock is held during file operations.
type Service struct {
	root     string
	plugins  *plugin.Registry
	warnings []string

	projects sync.Mutex // held while a project id is chosen

	mu      sync.Mutex
	renames []Renaming // that containers do not all know
	entries map[string]*entry
	unknown bool // there are containers of which nobody knows what they run with
}

// entry is one volume. Its fields are guarded by Service.mu; meta does not
// change once the volume is there.
type entry struct {
	meta   metadata
	path   string              // where a plugin has mounted it
	refs   map[string]struct{} // ids of the containers that have it
	active map[string]struct{} // ids of those that run, or are being started
	busy   chan struct{}       // being made or removed; closed afterwards; nil: there
	starts uint64              // how often a container was started with it
	held   chan struct{}       // being mounted, unmounted or copied; closed afterwards
	open   bool                // held, but containers may be started with it
	// filling holds a token while the volume is filled from an image.
	filling chan struct{}
	// snapshots are the copies that are kept with the volume, and when they were made.
	snapshots map[string]time.Time
}

func newEntry(m metadata) *entry {
	return &entry{
		meta: m, refs: map[string]struct{}{}, active: map[string]struct{}{}, filling: make(chan struct{}, 1), snapshots: map[string]time.Time{},
	}
}

// Open loads the volumes and finishes or takes back what an engine that was killed has left half done. What is
// not as it should be is told by Warnings.
func Open(c Config) (*Service, error) {
	s := &Service{root: c.Root, plugins: c.Plugins, entries: map[string]*entry{}}
	if err := s.load(); err != nil {
		return nil, err
	}
	return s, nil
}

// Warnings says what was not as it should be when the volumes were loaded.
func (s *Service) Warnings() []string { return s.warnings }

// Request asks for a volume.
type Request struct {
	Name    string // "" makes an anonymous volume with a random name
	Driver  string // "" is local
	Options map[string]string
	Labels  map[string]string
	// User is the id of the container that is to refer to the volume from the
	// beginning; "" is none.
	User string
	// Ephemeral volumes go with their container (--rm): they are not synced to
	// the disk.
	Ephemeral bool
}

// Create returns the volume of that name and makes it if there is none, which
// made says; labels and options of an existing one do not change. It costs one
// fdatasync.
func (s *Service) Create(ctx context.Context, r Request) (v *volume.Volume, made bool, err error) {
	labels := maps.Clone(r.Labels)
	if r.Name == "" {
		r.Name = randomName()
		if labels == nil {
			labels = map[string]string{}
		}
		labels[AnonymousLabel] = ""
	}
	r.Labels = labels
	if err := checkName(r.Name); err != nil {
		return nil, false, err
	}
	if v, err := s.existing(ctx, &r); v != nil || err != nil {
		return v, false, err
	}
	if _, anonymous := r.Labels[AnonymousLabel]; r.Driver == "" && !anonymous {
		r.Driver, _ = s.ownerOf(ctx, r.Name)
	}
	if r.Driver == "" || r.Driver == Driver {
		r.Driver = ""
		if err := checkOptions(r.Name, r.Options); err != nil {
			return nil, false, err
		}
		if err := s.checkQuota(r.Name, r.Options[optSize]); err != nil {
			return nil, false, err
		}
	}
	return s.create(ctx, &r)
}

func (s *Service) create(ctx context.Context, r *Request) (*volume.Volume, bool, error) {
	for {
		if v, err := s.existing(ctx, r); v != nil || err != nil {
			return v, false, err
		}
		meta := metadata{Labels: r.Labels, Options: maps.Clone(r.Options), CreatedAt: time.Now().UTC()}
		e := newEntry(meta)
		e.busy = make(chan struct{})
		s.mu.Lock()
		if s.entries[r.Name] != nil { // another was quicker
			s.mu.Unlock()
			continue
		}
		if err := s.mayTake(r.Name); err != nil {
			s.mu.Unlock()
			return nil, false, fmt.Errorf("create %s: %w", r.Name, err)
		}
		s.entries[r.Name] = e
		s.mu.Unlock()

		var err error
		if r.Driver != "" {
			err = s.createIn(ctx, r, &meta)
		}
		if err == nil {
			err = s.makeDirs(r.Name, &meta, !r.Ephemeral, nil)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		close(e.busy)
		if err != nil {
			delete(s.entries, r.Name)
			return nil, false, err
		}
		e.meta, e.busy = meta, nil
		e.refer(r.User)
		return s.describe(r.Name, e), true, nil
	}
}

// refer notes a container; s.mu is held.
func (e *entry) refer(user string) {
	if user != "" {
		e.refs[user] = struct{}{}
	}
}

// existing waits until nobody makes or removes the volume, notes the request's
// user and returns the volume, nil if there is none.
func (s *Service) existing(ctx context.Context, r *Request) (*volume.Volume, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, err := s.settled(ctx, r.Name)
	if e == nil || err != nil {
		return nil, err
	}
	if r.Driver != "" && r.Driver != e.driver() {
		return nil, failure.Conflict("create %s: a volume of this name exists with the driver %s: volume name must be unique", r.Name, e.driver())
	}
	e.refer(r.User)
	return s.describe(r.Name, e), nil
}

// settled returns the volume once nobody makes or removes it; nil if there is
// none. s.mu is held, but not while it waits.
func (s *Service) settled(ctx context.Context, name string) (*entry, error) {
	for {
		e := s.entries[name]
		if e == nil || e.busy == nil {
			return e, nil
		}
		if err := s.await(ctx, e.busy); err != nil {
			return nil, err
		}
	}
}

// await waits without s.mu, which the caller holds.
func (s *Service) await(ctx context.Context, done <-chan struct{}) error {
	s.mu.Unlock()
	defer s.mu.Lock()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// List returns the volumes that filters select, sorted by name; never nil. Those
// that only a plugin knows are among them. Filters are dangling, driver, label,
// label! and name. warnings say which plugins did not answer.
func (s *Service) List(ctx context.Context, filters map[string][]string) (list []*volume.Volume, warnings []string, err error) {
	match, err := parseFilters(filters)
	if err != nil {
		return nil, nil, err
	}
	foreign, warnings := s.foreign(ctx)
	list = []*volume.Volume{}
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, e := range s.entries {
		if e.busy == nil && match(name, e) {
			list = append(list, s.describe(name, e))
		}
		delete(foreign, name)
	}
	for name, e := range foreign {
		if match(name, e) {
			list = append(list, s.describe(name, e))
		}
	}
	slices.SortFunc(list, func(a, b *volume.Volume) int { return strings.Compare(a.Name, b.Name) })
	return list, warnings, nil
}

// Inspect returns the volume of that name. Plugins are asked for what they know.
func (s *Service) Inspect(ctx context.Context, name string) (*volume.Volume, error) {
	v := s.known(name)
	if v == nil {
		driver, found := s.ownerOf(ctx, name)
		if driver == "" {
			return nil, missing(name)
		}
		e := newEntry(metadata{Driver: driver, CreatedAt: found.CreatedAt})
		e.path = found.Mountpoint
		v = s.describe(name, e)
		v.Status = found.Status
		return v, nil
	}
	if v.Driver != Driver {
		s.refresh(ctx, v)
	}
	return v, nil
}

// known describes a volume that is recorded here; nil if there is none.
func (s *Service) known(name string) *volume.Volume {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entries[name]
	if e == nil || e.busy != nil {
		return nil
	}
	return s.describe(name, e)
}

// Remove deletes a volume with its data; with force an unknown name is no error
// and its snapshots go, too, which keep it otherwise. One that containers refer to
// stays, with force too. The volume is gone from
// lists as soon as its removal is decided.
func (s *Service) Remove(ctx context.Context, name string, force bool) error {
	e, err := s.doom(ctx, name, force)
	if err != nil {
		return err
	}
	if e == nil {
		if force {
			return nil
		}
		return missing(name)
	}
	var doomed string
	if e.isPlugins() {
		err = s.removeIn(ctx, name, e, force)
	}
	if err == nil {
		doomed, err = s.discard(name)
	}
	s.mu.Lock()
	busy := e.busy
	if err != nil {
		e.busy = nil
	} else {
		delete(s.entries, name)
	}
	close(busy)
	s.mu.Unlock()
	if err != nil {
		return err
	}
	return errors.Join(s.erase(name, doomed), s.setLimit(&e.meta, false))
}

// doom decides that a volume is to be removed: nobody else does so, nobody
// refers to it and nothing is done with it. It is nil if there is none.
func (s *Service) doom(ctx context.Context, name string, force bool) (*entry, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		e, err := s.settled(ctx, name)
		if e == nil || err != nil {
			return nil, err
		}
		if len(e.refs) > 0 {
			return nil, failure.Conflict("remove %s: volume is in use - [%s]", name, strings.Join(s.users(e), ", "))
		}
		if len(e.snapshots) > 0 && !force {
			return nil, failure.Conflict("remove %s: volume has snapshots - [%s]: remove them first, or all with force",
				name, strings.Join(slices.Sorted(maps.Keys(e.snapshots)), ", "))
		}
		if e.held == nil {
			e.busy = make(chan struct{})
			return e, nil
		}
		if err := s.await(ctx, e.held); err != nil {
			return nil, err
		}
	}
}

// Acquire notes that a container uses a volume and returns its data directory.
// Doing so twice counts once.
func (s *Service) Acquire(name, containerID string) (path string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entries[name]
	if e == nil || e.busy != nil {
		return "", missing(name)
	}
	e.refer(containerID)
	return s.pathOf(name, e), nil
}

// Release takes back an Acquire. Unknown pairs are ignored.
func (s *Service) Release(name, containerID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.entries[name]; e != nil {
		delete(e.refs, containerID)
	}
}

// References returns the ids of the containers that use a volume, sorted.
func (s *Service) References(name string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.entries[name]; e != nil {
		return s.users(e)
	}
	return nil
}

// users lists a volume's containers; s.mu is held.
func (s *Service) users(e *entry) []string { return slices.Sorted(maps.Keys(e.refs)) }

// pathOf is where a volume's data are, as far as that is known; s.mu is held.
func (s *Service) pathOf(name string, e *entry) string {
	if e.isPlugins() {
		return e.path
	}
	return s.mountpoint(name)
}

func (s *Service) mountpoint(name string) string { return filepath.Join(s.root, name, dataDir) }

// describe is the API's view of a volume; s.mu is held.
func (s *Service) describe(name string, e *entry) *volume.Volume {
	return &volume.Volume{
		Name: name, Driver: e.driver(), Scope: cmp.Or(e.meta.Scope, "local"), Mountpoint: s.pathOf(name, e),
		CreatedAt: e.meta.CreatedAt.Format(time.RFC3339), Labels: maps.Clone(e.meta.Labels), Options: maps.Clone(e.meta.Options),
	}
}

func missing(name string) error { return failure.NotFound("get %s: no such volume", name) }

func checkName(name string) error {
	switch {
	case len(name) == 1:
		return failure.Invalid("create %s: volume name is too short, names should be at least two alphanumeric characters", name)
	case !validName.MatchString(name):
		return failure.Invalid("create %s: %q includes invalid characters for a local volume name, only %q are allowed. If you intended to pass a host directory, use absolute path", name, name, nameChars)
	case len(name) > maxName:
		return failure.Invalid("create %s: volume name is too long, names may have %d characters", name, maxName)
	}
	return nil
}

func randomName() string {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails: it ends the program instead
	return hex.EncodeToString(b[:])
}
