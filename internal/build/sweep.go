package build

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/buildkit/cache/metadata"

	"github.com/cleatlabs/cleat/internal/mount"
	"github.com/cleatlabs/cleat/internal/record"
)

// Sweep takes down what an engine that was killed while it built has left mounted: below
// temporary, the directory that this process makes its temporary files in, and below
// the builder's root. It costs next to nothing if there is nothing to sweep. Call it
// before anything is built.
func Sweep(root, temporary string) error {
	return errors.Join(sweep(filepath.Join(root, mountsDir)), sweep(temporary))
}

// sweep empties a directory whose entries may be mounts.
func sweep(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(entries) == 0 {
		return nil
	}
	if err != nil {
		return fmt.Errorf("sweep after builds: %w", err)
	}
	if err := mount.UnmountAll(dir); err != nil {
		return fmt.Errorf("sweep after builds: %w", err)
	}
	var errs []error
	for _, e := range entries {
		errs = append(errs, os.RemoveAll(filepath.Join(dir, e.Name())))
	}
	return errors.Join(errs...)
}

// Check says what an earlier engine's builds have left mounted, one sentence each. While
// something may be built here it says nothing: builds mount things.
func (b *Builder) Check() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.opened != nil {
		return nil
	}
	return Check(b.cfg.Root, os.TempDir())
}

// Check is [Builder.Check] for an engine that does not run.
func Check(root, temporary string) (left []string) {
	for _, dir := range []string{filepath.Join(root, mountsDir), temporary} {
		points, err := mount.Below(dir)
		if err != nil {
			left = append(left, fmt.Sprintf("mounts of builds below %s: %v", dir, err))
		}
		for _, p := range points {
			left = append(left, fmt.Sprintf("%s is mounted for a build that is not under way", p))
		}
	}
	return left
}

// recover brings the cache into order after the last builder, whatever its end was.
func (b *Builder) recover(ctx context.Context, refs *metadata.Store, s *settler, killed, crashed bool) error {
	forgotten := false
	if killed {
		var err error
		if forgotten, err = b.distrust(ctx, refs, s.settled, crashed); err != nil {
			return err
		}
	}
	if err := b.sweepLeases(ctx, refs); err != nil {
		return err
	}
	if forgotten {
		// A layer that is there would be found by its name and built upon.
		if err := b.cfg.Store.GC(ctx); err != nil {
			return fmt.Errorf("remove what is not certain of the build cache: %w", err)
		}
	}
	record.Failpoint("build.recover.before-note")
	return s.begin(killed, crashed)
}

// sweepLeases deletes the leases of cache records that do not exist: an engine that was
// killed has made the one and not yet the other. They would hold their layers for ever.
// BuildKit deletes those of records whose layers do not exist.
func (b *Builder) sweepLeases(ctx context.Context, records *metadata.Store) error {
	list, err := b.cfg.Store.Leases.List(ctx, fmt.Sprintf("labels.%q", recordLease))
	if err != nil {
		return fmt.Errorf("list the leases of the build cache: %w", err)
	}
	swept := false
	for _, l := range list {
		id := strings.TrimSuffix(l.ID, variantsSuffix)
		if _, known := records.Get(id); known {
			continue
		}
		if err := b.cfg.Store.Leases.Delete(ctx, l); err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("delete the lease %s: %w", l.ID, err)
		}
		swept = true
	}
	if swept {
		b.cfg.Store.ScheduleGC()
	}
	return nil
}

const (
	// recordLease is the label of leases that BuildKit makes for its records.
	recordLease = "containerd.io/gc.flat"
	// variantsSuffix ends the id of the second lease that a record may have.
	variantsSuffix = "-variants"
)
