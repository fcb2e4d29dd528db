package engine

import (
	"path/filepath"
	"sync"

	"github.com/docker/go-units"

	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/mount"
)

// Project ids of writable layers: those of volumes lie just below.
const (
	firstLayerProject = 0x436d0000
	maxLayerProjects  = 1 << 16
	optLayerSize      = "size" // of --storage-opt
)

// layerQuota limits the size of writable layers, where their filesystem can.
type layerQuota struct {
	root string // on the filesystem of the layers

	mu sync.Mutex // held while an id is chosen
}

// size reads --storage-opt; 0 is no limit. What cannot be done is an error.
func (q *layerQuota) size(opts map[string]string) (uint64, error) {
	for key := range opts {
		if key != optLayerSize {
			return 0, failure.Invalid("Unknown option %s (--storage-opt): there is size", key)
		}
	}
	text, asked := opts[optLayerSize]
	if !asked {
		return 0, nil
	}
	n, err := units.RAMInBytes(text)
	if err != nil || n <= 0 {
		return 0, failure.Invalid("--storage-opt size=%s: invalid size: give a positive number with a unit such as 500m or 10g", text)
	}
	if err := mount.LimitsLayers(q.root); err != nil {
		return 0, failure.NotImplemented("--storage-opt is supported only for overlay over xfs with 'pquota' mount option: %w", err)
	}
	return uint64(n), nil
}

// claim limits the empty layer of a new container, whose directory dir is, and returns
// the project that it has got.
func (q *layerQuota) claim(dir string, opts map[string]string) (project uint32, err error) {
	size, err := q.size(opts)
	if err != nil || size == 0 {
		return 0, err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	// Files are made in the one and moved into the other, which they can only within a project.
	return mount.ClaimProject([]string{filepath.Join(dir, upperDir), filepath.Join(dir, workDir)}, firstLayerProject, maxLayerProjects, size)
}

// release takes the limit from a project. Its id is nobody's until the files are deleted.
func (q *layerQuota) release(project uint32) error {
	if project == 0 {
		return nil
	}
	p, err := mount.OpenProject(q.root, project)
	if err != nil {
		return err
	}
	err = p.Limit(0)
	if cerr := p.Close(); err == nil {
		err = cerr
	}
	return err
}
