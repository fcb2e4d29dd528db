package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	api "github.com/moby/moby/api/types/container"
	apievents "github.com/moby/moby/api/types/events"
	apiimage "github.com/moby/moby/api/types/image"

	"github.com/cleatlabs/cleat/internal/container"
	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/filter"
	"github.com/cleatlabs/cleat/internal/image"
	"github.com/cleatlabs/cleat/internal/record"
)

// Pruner removes containers and images that are not in use, all at once.
type Pruner struct {
	containers *container.Store
	images     *Images
	remover    *Remover
	say        *announcer

	containersBusy, imagesBusy sync.Mutex // one prune of a kind at a time
}

// pruneChoice selects what a prune removes.
type pruneChoice struct {
	until         time.Time // only what was made before; zero is no limit
	with, without []string  // labels
}

// newPruneChoice reads until, label and label!.
func newPruneChoice(filters map[string][]string) (*pruneChoice, error) {
	until, err := filter.Until("until", filters["until"], time.Now())
	return &pruneChoice{until: until, with: filters["label"], without: filters["label!"]}, err
}

func (f *pruneChoice) match(created time.Time, labels map[string]string) bool {
	if !f.until.IsZero() && created.After(f.until) || !filter.HasLabels(labels, f.with) {
		return false
	}
	return !slices.ContainsFunc(f.without, func(unwanted string) bool { return filter.HasLabel(labels, unwanted) })
}

var errPruning = failure.Conflict("a prune operation is already running: try again when it has ended")

// checkWhole refuses to decide what no container uses where nobody knows what one of them does.
func checkWhole(s *container.Store) error {
	for _, c := range s.All() {
		if err := c.Load().Whole(); err != nil {
			return fmt.Errorf("what is in use is not known: %w", err)
		}
	}
	return nil
}

// PruneContainers removes the containers that do not run, but not their volumes.
func (p *Pruner) PruneContainers(ctx context.Context, filters map[string][]string) (*api.PruneReport, error) {
	f, err := newPruneChoice(filters)
	if err != nil {
		return nil, err
	}
	if !p.containersBusy.TryLock() {
		return nil, errPruning
	}
	defer p.containersBusy.Unlock()
	report := &api.PruneReport{ContainersDeleted: []string{}}
	var errs []error
	for _, c := range p.containers.All() {
		if ctx.Err() != nil {
			break // what is done is reported
		}
		r := c.Load()
		if r.State.Running() || r.State.Status == api.StateRemoving || r.Damage != "" || !f.match(r.Created, r.Config.Labels) {
			continue
		}
		size := diskUsage(c.Path(upperDir))
		switch err := p.remover.Remove(ctx, c.ID(), RemoveOptions{}); {
		case err == nil:
			report.ContainersDeleted = append(report.ContainersDeleted, c.ID())
			report.SpaceReclaimed += uint64(size)
			record.Failpoint("engine.prune.after-container")
		case errdefs.IsNotFound(err), errdefs.IsConflict(err):
			// Removed or started meanwhile.
		default:
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	p.pruned(apievents.ContainerEventType, report.SpaceReclaimed)
	return report, nil
}

// BuildCachePruned tells of a prune of the build cache, which freed so many bytes.
func (p *Pruner) BuildCachePruned(reclaimed uint64) { p.pruned(apievents.BuilderEventType, reclaimed) }

func (p *Pruner) pruned(kind apievents.Type, reclaimed uint64) {
	p.say.publish(kind, apievents.ActionPrune, "", map[string]string{"reclaimed": strconv.FormatUint(reclaimed, 10)})
}

// PruneImages removes images that no container uses: those without a name or, with the
// filter dangling=false, all of them. The space is free when it returns.
func (p *Pruner) PruneImages(ctx context.Context, filters map[string][]string) (*apiimage.PruneReport, error) {
	f, err := newPruneChoice(filters)
	if err == nil {
		err = checkWhole(p.containers)
	}
	if err != nil {
		return nil, err
	}
	dangling := true
	if asked := filters["dangling"]; len(asked) > 0 {
		if dangling, err = filter.Bool("dangling", asked); err != nil {
			return nil, err
		}
	}
	if !p.imagesBusy.TryLock() {
		return nil, errPruning
	}
	defer p.imagesBusy.Unlock()
	before, err := p.images.Occupied(ctx)
	if err != nil {
		return nil, err
	}
	report := &apiimage.PruneReport{ImagesDeleted: []apiimage.DeleteResponse{}}
	list, err := p.images.List(ctx, image.ListRequest{})
	if err != nil {
		return nil, err
	}
	var errs []error
	for i := range list {
		img := &list[i]
		if ctx.Err() != nil {
			break
		}
		unnamed := len(img.RepoTags) == 0 && len(img.RepoDigests) == 0
		if img.Containers > 0 || dangling && !unnamed || !f.match(time.Unix(img.Created, 0), img.Labels) {
			continue
		}
		// It may have got a name or a container since it was listed.
		removed, err := p.images.Remove(ctx, img.ID, image.RemoveOptions{Unused: true, Nameless: dangling})
		report.ImagesDeleted = append(report.ImagesDeleted, removed...)
		if err != nil && !errdefs.IsNotFound(err) && !errdefs.IsConflict(err) {
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	if len(report.ImagesDeleted) > 0 {
		after, err := p.images.Collect(ctx)
		if err != nil {
			return nil, err
		}
		report.SpaceReclaimed = uint64(max(0, before-after))
	}
	p.pruned(apievents.ImageEventType, report.SpaceReclaimed)
	return report, nil
}
