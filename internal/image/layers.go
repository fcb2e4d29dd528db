package image

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/store"
)

// holdLabel marks the lease that holds the layers of one image; its value is the id.
const holdLabel = "dev.cleat/holds-image"

func holdLease(id digest.Digest) string { return "image-" + id.Encoded() }

// viewPrefix begins the names of views of images' layers.
const viewPrefix = "image-"

// viewKey names the view through which the directories of a chain are learnt, and by
// which the lease keeps them. Two images with the same layers have a view each.
func viewKey(id, chain digest.Digest) string {
	return viewPrefix + id.Encoded() + "-" + chain.Encoded()
}

// layers is what the service knows of layers in use. Its lock is held for map
// operations only.
type layers struct {
	mu sync.Mutex
	// dirs are the lower directories handed out, by image and chain.
	dirs map[chainOf][]string
	// leased are the images that have a lease.
	leased map[digest.Digest]bool
	// holds counts the containers in the making.
	holds map[digest.Digest]int
	// removing are the images that are being removed with all of their names, which nobody holds then; each is closed
	// when that has ended.
	removing map[digest.Digest]chan struct{}
	removals uint64 // that have ended

	// turns keeps making and dropping the lease of one image apart.
	turns store.KeyedLock
}

type chainOf struct{ image, chain digest.Digest }

// loadLayers reads which images have a lease from an earlier engine.
func (s *Service) loadLayers(ctx context.Context) error {
	s.layers.dirs = map[chainOf][]string{}
	s.layers.leased = map[digest.Digest]bool{}
	s.layers.holds = map[digest.Digest]int{}
	s.layers.removing = map[digest.Digest]chan struct{}{}
	list, err := s.store.Leases.List(ctx)
	if err != nil {
		return fmt.Errorf("list the leases of images: %w", err)
	}
	for _, l := range list {
		if id, ok := l.Labels[holdLabel]; ok {
			s.layers.leased[digest.Digest(id)] = true
		}
	}
	return nil
}

// Lower gives the directories that are the image's layers, topmost first, for the
// lower side of an overlay. It makes sure that they are unpacked, and keeps them on
// disk, whatever becomes of the image's names, until [Service.ReleaseUnused]
// finds the image unused and without a name. Only ID, ChainID and,
// for an image that was never unpacked, Manifest of img are read, so a container's
// record need keep no more. The first call for an image writes to the database (one
// lease for the image); all others look in memory. The returned slice must not be
// changed.
func (s *Service) Lower(ctx context.Context, img *Image) ([]string, error) {
	if img.ChainID == "" {
		dir, err := s.store.EmptyLayer()
		return []string{dir}, err
	}
	key := chainOf{img.ID, img.ChainID}
	s.layers.mu.Lock()
	dirs := s.layers.dirs[key]
	s.layers.mu.Unlock()
	if dirs != nil {
		return dirs, nil
	}
	return s.openLayers(s.store.Context(ctx), img, key)
}

func (s *Service) openLayers(ctx context.Context, img *Image, key chainOf) ([]string, error) {
	if err := s.layers.turns.Lock(ctx, img.ID.String()); err != nil {
		return nil, err
	}
	defer s.layers.turns.Unlock(img.ID.String())

	dirs, err := s.leaseLayers(ctx, key)
	if errdefs.IsNotFound(err) {
		if img.Manifest.Digest == "" {
			return nil, failure.NotFound("the layers of the image %s are gone; pull the image again", img.ID)
		}
		err = s.unpackNow(ctx, img.Manifest)
		var missing *missingBlobError
		if errors.As(err, &missing) {
			return nil, failure.NotFound("the layers of the image %s are gone, and %w; pull the image again", img.ID, missing)
		}
		if err != nil {
			return nil, fmt.Errorf("unpack the image %s: %w", img.ID, err)
		}
		dirs, err = s.leaseLayers(ctx, key)
	}
	if err != nil {
		return nil, fmt.Errorf("open the layers of the image %s: %w", img.ID, err)
	}
	s.layers.mu.Lock()
	s.layers.dirs[key] = dirs
	s.layers.mu.Unlock()
	return dirs, nil
}

// leaseLayers makes the lease of an image, and the view of a chain under it; both may
// be there already. A kill between the two leaves a lease of nothing, which the next
// Reconcile finds.
func (s *Service) leaseLayers(ctx context.Context, key chainOf) ([]string, error) {
	view := viewKey(key.image, key.chain)
	s.layers.mu.Lock()
	leased := s.layers.leased[key.image]
	s.layers.mu.Unlock()
	if leased {
		// From an earlier engine: reading is enough. A view exists only under its lease.
		if m, err := s.store.Snapshots.Mounts(ctx, view); err == nil {
			return s.store.LowerDirs(m)
		}
	}
	_, err := s.store.Leases.Create(ctx, leases.WithID(holdLease(key.image)), leases.WithLabel(holdLabel, key.image.String()))
	if err != nil && !errdefs.IsAlreadyExists(err) {
		return nil, err
	}
	s.layers.mu.Lock()
	s.layers.leased[key.image] = true // also if the layers prove to be gone: it will be dropped
	s.layers.mu.Unlock()
	ctx = leases.WithLease(ctx, holdLease(key.image))
	m, err := s.store.Snapshots.View(ctx, view, key.chain.String())
	if errdefs.IsAlreadyExists(err) {
		// Left by an earlier lease; this one holds it now.
		m, err = s.store.Snapshots.Mounts(ctx, view)
	}
	if err != nil {
		return nil, err
	}
	return s.store.LowerDirs(m)
}

// Take resolves a name and holds the image, as [Service.Hold] does, with no removal in
// between.
func (s *Service) Take(ctx context.Context, ref, platform string) (img *Image, release func(), err error) {
	for {
		s.layers.mu.Lock()
		before := s.layers.removals
		s.layers.mu.Unlock()
		if img, err = s.Resolve(ctx, ref, platform); err != nil {
			return nil, nil, err
		}
		s.layers.mu.Lock()
		removed := s.layers.removing[img.ID]
		taken := removed == nil && s.layers.removals == before
		if taken {
			s.layers.holds[img.ID]++
		}
		s.layers.mu.Unlock()
		if taken {
			return img, s.releaser(img.ID), nil
		}
		if removed == nil {
			continue // it may have gone since it was resolved
		}
		select {
		case <-removed:
		case <-ctx.Done():
			return nil, nil, context.Cause(ctx)
		}
	}
}

// releaser ends a hold, once.
func (s *Service) releaser(id digest.Digest) func() {
	return sync.OnceFunc(func() {
		s.layers.mu.Lock()
		defer s.layers.mu.Unlock()
		if s.layers.holds[id]--; s.layers.holds[id] == 0 {
			delete(s.layers.holds, id)
		}
	})
}

// beginRemoval keeps [Service.Take] from an image, unless somebody holds it, until end is called.
func (s *Service) beginRemoval(ctx context.Context, id digest.Digest) (end func(), held bool, err error) {
	for {
		s.layers.mu.Lock()
		other, held := s.layers.removing[id], s.layers.holds[id] > 0
		if other == nil && !held {
			s.layers.removing[id] = make(chan struct{})
		}
		s.layers.mu.Unlock()
		switch {
		case held:
			return func() {}, true, nil
		case other == nil:
			return func() { s.endRemoval(id) }, false, nil
		}
		select {
		case <-other:
		case <-ctx.Done():
			return nil, false, context.Cause(ctx)
		}
	}
}

func (s *Service) endRemoval(id digest.Digest) {
	s.layers.mu.Lock()
	defer s.layers.mu.Unlock()
	s.layers.removals++
	close(s.layers.removing[id])
	delete(s.layers.removing, id)
}

// Hold counts a container in the making as a user of the image, so that a removal
// before the container's record is written cannot take the layers away; of an image
// that nobody uses yet, [Service.Take] sees to it that none was before. The returned
// function ends it; it may be called more than once.
func (s *Service) Hold(imageID digest.Digest) func() {
	s.layers.mu.Lock()
	s.layers.holds[imageID]++
	s.layers.mu.Unlock()
	return s.releaser(imageID)
}

// ReleaseUnused lets go of the layers of images that have no name any more and for
// which inUse is false. Call it after containers were removed; it looks in memory only
// when there is nothing to let go of. Space is freed in the background.
func (s *Service) ReleaseUnused(ctx context.Context, inUse func(imageID string) bool) error {
	ctx = s.store.Context(ctx)
	c, err := s.catalog(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, id := range s.nameless(c) {
		if !inUse(id.String()) {
			errs = append(errs, s.dropLease(ctx, id))
		}
	}
	return errors.Join(errs...)
}

// nameless lists the images that have a lease but no name and nobody to hold them.
func (s *Service) nameless(c *catalog) []digest.Digest {
	s.layers.mu.Lock()
	defer s.layers.mu.Unlock()
	var ids []digest.Digest
	for id := range s.layers.leased {
		if len(c.byID[id]) == 0 && s.layers.holds[id] == 0 {
			ids = append(ids, id)
		}
	}
	return ids
}

// dropLease lets the collector have the layers of an image.
func (s *Service) dropLease(ctx context.Context, id digest.Digest) error {
	if err := s.layers.turns.Lock(ctx, id.String()); err != nil {
		return err
	}
	defer s.layers.turns.Unlock(id.String())

	s.layers.mu.Lock()
	if s.layers.holds[id] > 0 {
		s.layers.mu.Unlock()
		return nil
	}
	delete(s.layers.leased, id)
	for key := range s.layers.dirs {
		if key.image == id {
			delete(s.layers.dirs, key)
		}
	}
	s.layers.mu.Unlock()

	err := s.store.Leases.Delete(ctx, leases.Lease{ID: holdLease(id)})
	if err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("let go of the image %s: %w", id, err)
	}
	s.store.ScheduleGC()
	return nil
}

// unpacked reports whether a chain is on disk.
func (s *Service) unpacked(ctx context.Context, chain digest.Digest) (bool, error) {
	if chain == "" {
		return true, nil
	}
	info, err := s.store.Snapshots.Stat(ctx, chain.String())
	if errdefs.IsNotFound(err) {
		return false, nil
	}
	return err == nil && info.Kind == snapshots.KindCommitted, err
}
