// Package volume keeps local volumes: directories that outlive containers.
//
// A volume is <root>/<name>/_data. What cannot be read from the directory
// itself (labels, creation time) is in one file beside it that is replaced
// atomically. A volume cannot be removed while a container refers to it, whether
// that runs or not.
package volume

import (
	"context"
	"errors"

	"github.com/moby/moby/api/types/volume"
)

// Service keeps the volumes under one directory. Its methods may be called
// concurrently.
type Service struct{}

// Open loads the volumes under root, which is made if it is missing.
func Open(root string) (*Service, error) { return &Service{}, nil }

// Create returns the volume of that name and makes it if there is none. ""
// makes an anonymous one. The driver is local or "".
func (s *Service) Create(ctx context.Context, name, driver string, opts, labels map[string]string) (*volume.Volume, error) {
	return nil, errors.New("volume: not built yet")
}

// CreateEphemeral makes an anonymous volume that is removed with its container
// (--rm): it is not synced to the disk.
func (s *Service) CreateEphemeral(ctx context.Context) (*volume.Volume, error) {
	return nil, errors.New("volume: not built yet")
}

// List returns the volumes that filters select, sorted by name; never nil.
func (s *Service) List(ctx context.Context, filters map[string][]string) ([]volume.Volume, error) {
	return nil, errors.New("volume: not built yet")
}

// Inspect returns the volume of that name.
func (s *Service) Inspect(ctx context.Context, name string) (*volume.Volume, error) {
	return nil, errors.New("volume: not built yet")
}

// Remove deletes a volume with its data. Unknown names are errors unless force.
func (s *Service) Remove(ctx context.Context, name string, force bool) error {
	return errors.New("volume: not built yet")
}

// Acquire notes that a container uses a volume and returns its data directory.
func (s *Service) Acquire(name, containerID string) (path string, err error) {
	return "", errors.New("volume: not built yet")
}

// Release takes back an Acquire. Unknown pairs are ignored.
func (s *Service) Release(name, containerID string) {}

// References returns the ids of the containers that use a volume, sorted.
func (s *Service) References(name string) []string { return nil }

// Reconcile sets all references at once (volume name → container ids), at
// engine start, and removes what a killed engine left half made or half removed.
func (s *Service) Reconcile(refs map[string][]string) {}

// IsAnonymous says whether the volume was made without a name.
func (s *Service) IsAnonymous(name string) bool { return false }
