package engine

import (
	"context"
	"strconv"

	apievents "github.com/moby/moby/api/types/events"
	apivolume "github.com/moby/moby/api/types/volume"

	"github.com/cleatlabs/cleat/internal/container"
	"github.com/cleatlabs/cleat/internal/volume"
)

// Volumes is the volume service with its events.
type Volumes struct {
	service    *volume.Service
	containers *container.Store
	still      *stillness
	say        *announcer
}

// Create returns the volume of that name, made if there was none.
func (v *Volumes) Create(ctx context.Context, r volume.Request) (*apivolume.Volume, error) {
	vol, made, err := v.service.Create(ctx, r)
	if made {
		v.say.volume(vol, apievents.ActionCreate)
	}
	return vol, err
}

// List returns the volumes that filters select, sorted by name; never nil.
func (v *Volumes) List(ctx context.Context, filters map[string][]string) (list []*apivolume.Volume, warnings []string, err error) {
	return v.service.List(ctx, filters)
}

// Inspect returns the volume of that name.
func (v *Volumes) Inspect(ctx context.Context, name string) (*apivolume.Volume, error) {
	return v.service.Inspect(ctx, name)
}

// Remove deletes a volume that no container uses.
func (v *Volumes) Remove(ctx context.Context, name string, force bool) error {
	vol, inspectErr := v.service.Inspect(ctx, name)
	if inspectErr == nil {
		if err := checkWhole(v.containers); err != nil {
			return err
		}
	}
	if err := v.service.Remove(ctx, name, force); err != nil {
		return err
	}
	if inspectErr == nil {
		v.say.volume(vol, apievents.ActionDestroy)
	}
	return nil
}

// Prune removes the volumes that nobody uses, as volume.Service.Prune says.
func (v *Volumes) Prune(ctx context.Context, filters map[string][]string) (*apivolume.PruneReport, error) {
	if err := checkWhole(v.containers); err != nil {
		return nil, err
	}
	removed, reclaimed, err := v.service.Prune(ctx, filters)
	for _, vol := range removed {
		v.say.volume(vol, apievents.ActionDestroy)
	}
	if err != nil {
		return nil, err
	}
	v.say.publish(apievents.VolumeEventType, apievents.ActionPrune, "", map[string]string{"reclaimed": strconv.FormatUint(reclaimed, 10)})
	report := &apivolume.PruneReport{VolumesDeleted: []string{}, SpaceReclaimed: reclaimed}
	for _, vol := range removed {
		report.VolumesDeleted = append(report.VolumesDeleted, vol.Name)
	}
	return report, nil
}

// Usage returns all volumes with their sizes, as volume.Service.Usage says.
func (v *Volumes) Usage(ctx context.Context) ([]*apivolume.Volume, error) {
	return v.service.Usage(ctx)
}
