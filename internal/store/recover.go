package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"
)

// recover ends what a killed predecessor had under way. Nothing is under way now, so
// every ingest and every temporary lease is a leftover. It reports whether there was
// one, in which case a collection shall follow: it removes what the leases held.
func (s *Store) recover(ctx context.Context) (found bool, err error) {
	spaces, err := s.namespaces(ctx)
	if err != nil {
		return false, err
	}
	for _, space := range spaces {
		here, err := s.recoverIn(namespaces.WithNamespace(ctx, space))
		if err != nil {
			return false, err
		}
		found = found || here
	}
	// A kill before an ingest had its name in the database leaves a directory only.
	if err := empty(filepath.Join(s.root, "content", "ingest")); err != nil {
		return false, err
	}
	parts, err := filepath.Glob(filepath.Join(s.root, "content", wovenDir, "*"+wovenPart))
	for _, name := range parts {
		err = errors.Join(err, os.Remove(name))
	}
	if err != nil {
		return false, err
	}
	orphans, err := s.orphans(ctx, spaces)
	if err != nil {
		return false, err
	}
	if found || orphans {
		if err := s.clearLayers(ctx); err != nil {
			return false, fmt.Errorf("remove directories of unknown layers: %w", err)
		}
		if err := s.markDirty(ctx); err != nil {
			return false, err
		}
	}
	return found || orphans, nil
}

// namespaces lists those that hold something: the engine's own, and one that BuildKit
// makes of it for its history.
func (s *Store) namespaces(ctx context.Context) (list []string, err error) {
	err = s.meta.View(func(tx *bolt.Tx) error {
		list, err = metadata.NewNamespaceStore(tx).List(ctx)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list namespaces: %w", err)
	}
	if !slices.Contains(list, Namespace) {
		list = append(list, Namespace)
	}
	return list, nil
}

// buildkitTemporary marks leases of BuildKit's that end with the operation that made
// them.
const buildkitTemporary = "buildkit/lease.temporary"

// recoverIn does it in one namespace.
func (s *Store) recoverIn(ctx context.Context) (found bool, err error) {
	ingests, err := s.Content.ListStatuses(ctx)
	if err != nil {
		return false, fmt.Errorf("list partial blobs: %w", err)
	}
	for _, st := range ingests {
		found = true
		if err := s.Content.Abort(ctx, st.Ref); err != nil && !errdefs.IsNotFound(err) {
			return false, fmt.Errorf("remove the partial blob %s: %w", st.Ref, err)
		}
	}
	temporary, err := s.Leases.List(ctx, fmt.Sprintf("labels.%q", TemporaryLabel), fmt.Sprintf("labels.%q", buildkitTemporary))
	if err != nil {
		return false, fmt.Errorf("list temporary leases: %w", err)
	}
	for _, l := range temporary {
		found = true
		if err := s.Leases.Delete(ctx, l); err != nil && !errdefs.IsNotFound(err) {
			return false, fmt.Errorf("delete the lease %s: %w", l.ID, err)
		}
	}
	return found, nil
}

// orphans reports whether files lie in the store that the database does not know: a
// kill between the two leaves them, and a collection looks for them only if it knows
// that there is something to look for. It compares counts and reads no file.
func (s *Store) orphans(ctx context.Context, spaces []string) (bool, error) {
	blobsKnown := map[digest.Digest]bool{}
	layersKnown := &backendKeys{all: map[string]bool{}} // a layer may have several names
	for _, space := range spaces {
		ctx := namespaces.WithNamespace(ctx, space)
		if err := s.Content.Walk(ctx, func(i content.Info) error { blobsKnown[i.Digest] = true; return nil }); err != nil {
			return false, fmt.Errorf("list blobs: %w", err)
		}
		ctx = context.WithValue(ctx, keysKey{}, layersKnown)
		if err := s.Snapshots.Walk(ctx, func(context.Context, snapshots.Info) error { return nil }); err != nil {
			return false, fmt.Errorf("list layers: %w", err)
		}
	}
	blobs, err := countEntries(filepath.Join(s.root, "content", "blobs", digest.SHA256.String()))
	if err != nil {
		return false, err
	}
	woven, err := countEntries(filepath.Join(s.root, "content", wovenDir))
	if err != nil {
		return false, err
	}
	dirs, err := countEntries(filepath.Join(s.root, "snapshots", "snapshots"))
	if err != nil {
		return false, err
	}
	return blobs+woven > len(blobsKnown) || dirs > len(layersKnown.all), nil
}

// clearLayers removes the directories that the snapshotter does not know. A kill may
// leave that of a layer whose number was never taken; the next layer would get that
// number and fail on the directory.
func (s *Store) clearLayers(ctx context.Context) error {
	c, ok := s.overlay.(snapshots.Cleaner)
	if !ok {
		return nil
	}
	err := c.Cleanup(ctx)
	if errdefs.IsNotFound(err) {
		// It has never had a layer, so it knows none of them.
		return empty(filepath.Join(s.root, "snapshots", "snapshots"))
	}
	return err
}

// empty removes what is in a directory.
func empty(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		err = errors.Join(err, os.RemoveAll(filepath.Join(dir, e.Name())))
	}
	return err
}

func countEntries(dir string) (int, error) {
	d, err := os.Open(dir)
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	return len(names), err
}

// markDirty makes the next collection compare the files with the database. The
// database looks only where something was removed since it was opened, so something is
// made and removed.
func (s *Store) markDirty(ctx context.Context) error {
	const name = "cleat-sweep"
	ctx, done, err := s.WithTemporaryLease(ctx)
	if err != nil {
		return err
	}
	defer done()
	if _, err := s.Snapshots.Prepare(ctx, name, ""); err != nil && !errdefs.IsAlreadyExists(err) {
		return fmt.Errorf("mark layers for a sweep: %w", err)
	}
	if err := s.Snapshots.Remove(ctx, name); err != nil {
		return fmt.Errorf("mark layers for a sweep: %w", err)
	}
	blob := []byte(name)
	desc := ocispec.Descriptor{Digest: digest.FromBytes(blob), Size: int64(len(blob))}
	if err := content.WriteBlob(ctx, s.Content, name, bytes.NewReader(blob), desc); err != nil {
		return fmt.Errorf("mark blobs for a sweep: %w", err)
	}
	if err := s.Content.Delete(ctx, desc.Digest); err != nil {
		return fmt.Errorf("mark blobs for a sweep: %w", err)
	}
	return nil
}

// knowsBlob reports whether the database knows a blob.
func (s *Store) knowsBlob(d digest.Digest) (bool, error) {
	ctx := s.Context(context.Background())
	spaces, err := s.namespaces(ctx)
	if err != nil {
		return false, err
	}
	for _, space := range spaces {
		if _, err := s.Content.Info(namespaces.WithNamespace(ctx, space), d); !errdefs.IsNotFound(err) {
			return err == nil, err
		}
	}
	return false, nil
}
