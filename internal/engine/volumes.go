package engine

import (
	"context"

	apievents "github.com/moby/moby/api/types/events"
	apivolume "github.com/moby/moby/api/types/volume"

	"github.com/cleatlabs/cleat/internal/volume"
)

// Volumes is the volume service with its events.
type Volumes struct {
	service *volume.Service
	say     *announcer
}

// Create returns the volume of that name, made if there was none.
func (v *Volumes) Create(ctx context.Context, name, driver string, opts, labels map[string]string) (*apivolume.Volume, error) {
	existed := false
	if name != "" {
		_, err := v.service.Inspect(ctx, name)
		existed = err == nil
	}
	vol, err := v.service.Create(ctx, name, driver, opts, labels)
	if err == nil && !existed {
		v.say.volume(vol.Name, apievents.ActionCreate)
	}
	return vol, err
}

// List returns the volumes that filters select, sorted by name; never nil.
func (v *Volumes) List(ctx context.Context, filters map[string][]string) ([]*apivolume.Volume, error) {
	return v.service.List(ctx, filters)
}

// Inspect returns the volume of that name.
func (v *Volumes) Inspect(ctx context.Context, name string) (*apivolume.Volume, error) {
	return v.service.Inspect(ctx, name)
}

// Remove deletes a volume that no container uses.
func (v *Volumes) Remove(ctx context.Context, name string, force bool) error {
	_, inspectErr := v.service.Inspect(ctx, name)
	if err := v.service.Remove(ctx, name, force); err != nil {
		return err
	}
	if inspectErr == nil {
		v.say.volume(name, apievents.ActionDestroy)
	}
	return nil
}
