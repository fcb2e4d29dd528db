// Package volume keeps local volumes: directories that outlive containers.
//
// A volume is the directory <root>/<name>: its data lie in _data, its labels and
// creation time in volume.json. It is made under a temporary name and renamed,
// and removed the other way round, so that a crash at any instant leaves a whole
// volume or none; what is left under temporary names is removed at the next
// Open. A volume cannot be removed while a container refers to it, whether that
// runs or not.
package volume

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/moby/moby/api/types/volume"

	"github.com/cleatlabs/cleat/internal/failure"
)

const (
	// Driver is the name of the only driver.
	Driver = "local"
	// AnonymousLabel marks volumes that were made without a name.
	AnonymousLabel = "com.docker.volume.anonymous"

	nameChars = "[a-zA-Z0-9][a-zA-Z0-9_.-]"
	maxName   = 240 // room for the temporary names in NAME_MAX
)

var validName = regexp.MustCompile("^" + nameChars + "+$")

// Service keeps the volumes under one directory. Its methods may be called
// concurrently; no lock is held during file operations.
type Service struct {
	root     string
	warnings []string

	mu      sync.Mutex
	entries map[string]*entry
}

// entry is one volume. Its fields are guarded by Service.mu; meta does not
// change once the volume is there.
type entry struct {
	meta metadata
	refs map[string]struct{} // container ids
	busy chan struct{}       // being made or removed; closed afterwards; nil: there
}

// Open loads the volumes under root, which is made if it is missing.
func Open(root string) (*Service, error) {
	s := &Service{root: root, entries: map[string]*entry{}}
	if err := s.load(); err != nil {
		return nil, err
	}
	return s, nil
}

// Warnings says what was not as it should be when the volumes were loaded.
func (s *Service) Warnings() []string { return s.warnings }

// Create returns the volume of that name and makes it if there is none; labels
// of an existing one do not change. "" makes an anonymous volume with a random
// name. The driver is local or "". It costs one fdatasync.
func (s *Service) Create(ctx context.Context, name, driver string, opts, labels map[string]string) (*volume.Volume, error) {
	labels = maps.Clone(labels)
	if name == "" {
		name = randomName()
		if labels == nil {
			labels = map[string]string{}
		}
		labels[AnonymousLabel] = ""
	}
	if err := checkName(name); err != nil {
		return nil, err
	}
	if v, err := s.existing(ctx, name, driver); v != nil || err != nil {
		return v, err
	}
	if driver != "" && driver != Driver {
		return nil, failure.NotFound("create %s: error looking up volume plugin %s: plugin %q not found: use the driver local", name, driver, driver)
	}
	if err := checkOptions(name, opts); err != nil {
		return nil, err
	}
	return s.create(ctx, name, labels, true)
}

// CreateEphemeral makes an anonymous volume that is removed with its container
// (--rm), under a random name of 64 hex digits: it is not synced to the disk.
func (s *Service) CreateEphemeral(ctx context.Context, name string) (*volume.Volume, error) {
	return s.create(ctx, name, map[string]string{AnonymousLabel: ""}, false)
}

func (s *Service) create(ctx context.Context, name string, labels map[string]string, durable bool) (*volume.Volume, error) {
	for {
		if v, err := s.existing(ctx, name, ""); v != nil || err != nil {
			return v, err
		}
		e := &entry{refs: map[string]struct{}{}, busy: make(chan struct{})}
		s.mu.Lock()
		if s.entries[name] != nil { // another was quicker
			s.mu.Unlock()
			continue
		}
		s.entries[name] = e
		s.mu.Unlock()

		meta := metadata{Labels: labels, CreatedAt: time.Now().UTC()}
		err := s.makeDirs(name, meta, durable)
		s.mu.Lock()
		defer s.mu.Unlock()
		busy := e.busy
		defer close(busy)
		if err != nil {
			delete(s.entries, name)
			return nil, err
		}
		e.meta, e.busy = meta, nil
		return s.describe(name, e), nil
	}
}

// existing waits until nobody makes or removes the volume and returns it, nil if
// there is none.
func (s *Service) existing(ctx context.Context, name, driver string) (*volume.Volume, error) {
	for {
		s.mu.Lock()
		e := s.entries[name]
		if e == nil || e.busy == nil {
			defer s.mu.Unlock()
			if e == nil {
				return nil, nil
			}
			if driver != "" && driver != Driver {
				return nil, failure.Conflict("create %s: a volume of this name exists with the driver %s: volume name must be unique", name, Driver)
			}
			return s.describe(name, e), nil
		}
		busy := e.busy
		s.mu.Unlock()
		select {
		case <-busy:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// List returns the volumes that filters select, sorted by name; never nil.
// Filters are dangling, driver, label, label! and name.
func (s *Service) List(_ context.Context, filters map[string][]string) ([]*volume.Volume, error) {
	match, err := parseFilters(filters)
	if err != nil {
		return nil, err
	}
	list := []*volume.Volume{}
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, e := range s.entries {
		if e.busy == nil && match(name, e) {
			list = append(list, s.describe(name, e))
		}
	}
	slices.SortFunc(list, func(a, b *volume.Volume) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}

// Inspect returns the volume of that name.
func (s *Service) Inspect(_ context.Context, name string) (*volume.Volume, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entries[name]
	if e == nil || e.busy != nil {
		return nil, missing(name)
	}
	return s.describe(name, e), nil
}

// Remove deletes a volume with its data; with force an unknown name is no error.
// One that containers refer to stays, with force too. The volume is gone from
// lists as soon as its removal is decided.
func (s *Service) Remove(ctx context.Context, name string, force bool) error {
	v, err := s.existing(ctx, name, "")
	if err != nil {
		return err
	}
	s.mu.Lock()
	e := s.entries[name]
	if v == nil || e == nil || e.busy != nil {
		s.mu.Unlock()
		if force {
			return nil
		}
		return missing(name)
	}
	if len(e.refs) > 0 {
		users := strings.Join(s.users(e), ", ")
		s.mu.Unlock()
		return failure.Conflict("remove %s: volume is in use - [%s]", name, users)
	}
	busy := make(chan struct{})
	e.busy = busy
	s.mu.Unlock()

	doomed, err := s.discard(name)
	s.mu.Lock()
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
	return s.erase(name, doomed)
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
	e.refs[containerID] = struct{}{}
	return s.mountpoint(name), nil
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

// Reconcile sets all references at once (volume name → container ids), at
// engine start.
func (s *Service) Reconcile(refs map[string][]string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, e := range s.entries {
		clear(e.refs)
		for _, id := range refs[name] {
			e.refs[id] = struct{}{}
		}
	}
}

// IsAnonymous says whether the volume was made without a name.
func (s *Service) IsAnonymous(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entries[name]
	if e == nil {
		return false
	}
	_, ok := e.meta.Labels[AnonymousLabel]
	return ok
}

// users lists a volume's containers; s.mu is held.
func (s *Service) users(e *entry) []string { return slices.Sorted(maps.Keys(e.refs)) }

func (s *Service) mountpoint(name string) string { return filepath.Join(s.root, name, dataDir) }

// describe is the API's view of a volume; s.mu is held.
func (s *Service) describe(name string, e *entry) *volume.Volume {
	return &volume.Volume{
		Name: name, Driver: Driver, Scope: "local", Mountpoint: s.mountpoint(name),
		CreatedAt: e.meta.CreatedAt.Format(time.RFC3339), Labels: maps.Clone(e.meta.Labels),
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

func checkOptions(name string, opts map[string]string) error {
	for _, o := range slices.Sorted(maps.Keys(opts)) {
		switch o {
		case "type", "o", "device", "size":
			return failure.NotImplemented("create %s: volume option %q is not supported: mount the file system on the host and bind-mount it", name, o)
		}
		return failure.Invalid("create %s: invalid option: %q", name, o)
	}
	return nil
}

func randomName() string {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails: it ends the program instead
	return hex.EncodeToString(b[:])
}
