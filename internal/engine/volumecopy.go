package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"time"

	apievents "github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/mount"
	apivolume "github.com/moby/moby/api/types/volume"

	"github.com/cleatlabs/cleat/internal/container"
	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/volume"
)

// lockPatience is how long a rename waits for a container that is being started,
// stopped or removed.
const lockPatience = 10 * time.Second

// Clone makes a volume with the data of another, as volume.Service.Clone says.
func (v *Volumes) Clone(ctx context.Context, r volume.CloneRequest) (*apivolume.Volume, volume.Copying, error) {
	vol, how, err := v.service.Clone(ctx, r, v.still.quiesce)
	if err == nil {
		v.say.volume(vol, apievents.ActionCreate)
	}
	return vol, how, err
}

// Snapshot keeps a copy of a volume's data with it, as volume.Service.Snapshot says.
func (v *Volumes) Snapshot(ctx context.Context, name, snapshot string) (volume.Snapshot, volume.Copying, error) {
	return v.service.Snapshot(ctx, name, snapshot, v.still.quiesce)
}

// Snapshots lists a volume's snapshots, the oldest first.
func (v *Volumes) Snapshots(ctx context.Context, name string) ([]volume.Snapshot, error) {
	return v.service.Snapshots(ctx, name)
}

// RemoveSnapshot deletes one snapshot; ErrNotFound if there is none of that name.
func (v *Volumes) RemoveSnapshot(ctx context.Context, name, snapshot string) error {
	return v.service.RemoveSnapshot(ctx, name, snapshot)
}

// Restore replaces a volume's data by a snapshot's, as volume.Service.Restore says.
func (v *Volumes) Restore(ctx context.Context, name, snapshot string) (volume.Copying, error) {
	if err := checkWhole(v.containers); err != nil {
		return volume.Copying{}, fmt.Errorf("restore volume %s: %w", name, err)
	}
	return v.service.Restore(ctx, name, snapshot)
}

// Export prepares a volume's data to be packed, as volume.Service.Export says.
func (v *Volumes) Export(ctx context.Context, name, snapshot string) (*volume.Export, error) {
	return v.service.Export(ctx, name, snapshot, v.still.quiesce)
}

// Import makes a new volume of a tar stream, as volume.Service.Import says.
func (v *Volumes) Import(ctx context.Context, name string, labels map[string]string, r io.Reader) (*apivolume.Volume, error) {
	vol, err := v.service.Import(ctx, name, labels, r)
	if err == nil {
		v.say.volume(vol, apievents.ActionCreate)
	}
	return vol, err
}

// Rename gives a volume another name, which the containers that have it learn,
// running or not.
func (v *Volumes) Rename(ctx context.Context, old, name string) (*apivolume.Volume, error) {
	if err := checkWhole(v.containers); err != nil {
		return nil, fmt.Errorf("rename %s: %w", old, err)
	}
	users, unlock, err := v.lockUsers(ctx, old)
	if err != nil {
		return nil, err
	}
	defer unlock()
	vol, err := v.service.Rename(ctx, old, name, users, func() error { return v.relabel(volume.Renaming{Old: old, New: name}) })
	if err != nil {
		return nil, err
	}
	v.say.publish(apievents.VolumeEventType, apievents.ActionRename, vol.Name, map[string]string{"driver": vol.Driver, "oldName": old})
	return vol, nil
}

// lockUsers locks all containers that have a volume: one that is being started
// looks for the volume under the name that it knows. It does not wait for ever, as
// such a container may itself wait for a copy of the volume.
func (v *Volumes) lockUsers(ctx context.Context, name string) (users []string, unlock func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, lockPatience)
	defer cancel()
	var unlocks []func()
	unlock = func() {
		for _, u := range unlocks {
			u()
		}
	}
	for _, id := range v.service.References(name) {
		c, err := v.containers.Find(id)
		if err != nil {
			continue // it is being made or removed: the rename says so
		}
		u, err := c.Lock(ctx)
		if err != nil {
			unlock()
			if errors.Is(err, context.DeadlineExceeded) {
				return nil, nil, failure.Conflict("rename %s: container %s is being started, stopped or removed: try again", name, c.Load().Name)
			}
			return nil, nil, err
		}
		users, unlocks = append(users, id), append(unlocks, u)
	}
	return users, unlock, nil
}

// relabel changes the records of the containers that have a renamed volume. Their
// locks are held.
func (v *Volumes) relabel(r volume.Renaming) error {
	var errs []error
	for _, c := range v.containers.All() {
		if !slices.Contains(volumeNames(c.Load()), r.Old) || c.Gone() {
			continue
		}
		errs = append(errs, v.containers.Redefine(c, func(d *container.Definition) { relabelDefinition(d, r) }))
	}
	return errors.Join(errs...)
}

func relabelDefinition(d *container.Definition, r volume.Renaming) {
	d.Mounts = slices.Clone(d.Mounts)
	for i := range d.Mounts {
		m := &d.Mounts[i]
		if m.Name != r.Old {
			continue
		}
		m.Name = r.New
		// <root>/<name>/_data is where the volume lies.
		if dir, data := filepath.Split(m.Source); filepath.Base(dir) == r.Old {
			m.Source = filepath.Join(filepath.Dir(filepath.Clean(dir)), r.New, data)
		}
	}
	// So that whoever makes the container anew from what inspect says gets the
	// volume under its new name.
	host := *d.HostConfig
	host.Binds = slices.Clone(host.Binds)
	for i, b := range host.Binds {
		if rest, ok := strings.CutPrefix(b, r.Old+":"); ok {
			host.Binds[i] = r.New + ":" + rest
		}
	}
	host.Mounts = slices.Clone(host.Mounts)
	for i := range host.Mounts {
		if m := &host.Mounts[i]; m.Type == mount.TypeVolume && m.Source == r.Old {
			m.Source = r.New
		}
	}
	d.HostConfig = &host
}

// recover completes the renames that an earlier engine has begun.
func (v *Volumes) recover() error {
	var errs []error
	for _, r := range v.service.Unfinished() {
		err := v.relabel(r)
		if err == nil {
			err = v.service.Renamed(r)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("rename of volume %s to %s: %w", r.Old, r.New, err))
		}
	}
	return errors.Join(errs...)
}
