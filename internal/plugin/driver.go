package plugin

import (
	"context"
	"path"
	"strings"
	"time"

	"github.com/cleatlabs/cleat/internal/failure"
)

// Volume is what a driver says of a volume.
type Volume struct {
	Name       string
	Mountpoint string // "" unless it is mounted
	CreatedAt  time.Time
	Status     map[string]any
}

// Create makes a volume. The time limit is the slow one.
func (d *Driver) Create(ctx context.Context, name string, opts map[string]string) error {
	if opts == nil {
		opts = map[string]string{}
	}
	return d.call(ctx, d.config.Slow, "VolumeDriver.Create", map[string]any{"Name": name, "Opts": opts}, nil)
}

// Remove removes a volume. The time limit is the slow one.
func (d *Driver) Remove(ctx context.Context, name string) error {
	return d.call(ctx, d.config.Slow, "VolumeDriver.Remove", map[string]any{"Name": name}, nil)
}

// Mount mounts a volume for the user id and returns the absolute path of its files.
func (d *Driver) Mount(ctx context.Context, name, id string) (string, error) {
	var out struct{ Mountpoint string }
	if err := d.call(ctx, d.config.Slow, "VolumeDriver.Mount", map[string]any{"Name": name, "ID": id}, &out); err != nil {
		return "", err
	}
	return d.checkPath("VolumeDriver.Mount", out.Mountpoint)
}

// Unmount says that the user id does not need the volume any more.
func (d *Driver) Unmount(ctx context.Context, name, id string) error {
	return d.call(ctx, d.config.Slow, "VolumeDriver.Unmount", map[string]any{"Name": name, "ID": id}, nil)
}

// Path returns where a volume is mounted, "" if it is not.
func (d *Driver) Path(ctx context.Context, name string) (string, error) {
	var out struct{ Mountpoint string }
	err := d.call(ctx, d.config.Quick, "VolumeDriver.Path", map[string]any{"Name": name}, &out)
	if err != nil || out.Mountpoint == "" {
		return "", err
	}
	return d.checkPath("VolumeDriver.Path", out.Mountpoint)
}

// Get describes a volume; nil means that the driver knows of none.
func (d *Driver) Get(ctx context.Context, name string) (*Volume, error) {
	var out struct{ Volume *wireVolume }
	if err := d.call(ctx, d.config.Quick, "VolumeDriver.Get", map[string]any{"Name": name}, &out); err != nil {
		return nil, err
	}
	if out.Volume == nil {
		return nil, nil
	}
	if out.Volume.Name != name {
		return nil, failure.Unavailable("plugin %q: VolumeDriver.Get: it was asked for volume %s and answers with another", d.name, name)
	}
	return out.Volume.volume(), nil
}

// List describes all volumes of the driver. Those with names that no volume can have
// are left out.
func (d *Driver) List(ctx context.Context) ([]*Volume, error) {
	var out struct{ Volumes []*wireVolume }
	if err := d.call(ctx, d.config.Quick, "VolumeDriver.List", map[string]any{}, &out); err != nil {
		return nil, err
	}
	list := make([]*Volume, 0, len(out.Volumes))
	for _, v := range out.Volumes {
		if v != nil && validName.MatchString(v.Name) {
			list = append(list, v.volume())
		}
	}
	return list, nil
}

// Scope is local, or global for a driver whose volumes are the same on all hosts. A
// driver that does not say is local.
func (d *Driver) Scope(ctx context.Context) string {
	var out struct{ Capabilities struct{ Scope string } }
	if err := d.call(ctx, d.config.Quick, "VolumeDriver.Capabilities", nil, &out); err == nil && strings.EqualFold(out.Capabilities.Scope, "global") {
		return "global"
	}
	return "local"
}

// wireVolume is a volume as drivers send it; their times are not to be relied upon.
type wireVolume struct {
	Name, Mountpoint, CreatedAt string
	Status                      map[string]any
}

func (w *wireVolume) volume() *Volume {
	v := &Volume{Name: w.Name, Status: w.Status}
	if path.IsAbs(w.Mountpoint) && !strings.ContainsRune(w.Mountpoint, 0) {
		v.Mountpoint = path.Clean(w.Mountpoint)
	}
	if at, err := time.Parse(time.RFC3339, w.CreatedAt); err == nil {
		v.CreatedAt = at
	}
	return v
}

// checkPath holds a path that is to be mounted to what one must be.
func (d *Driver) checkPath(method, p string) (string, error) {
	if !path.IsAbs(p) || strings.ContainsRune(p, 0) || path.Clean(p) == "/" {
		return "", failure.Unavailable("plugin %q: %s: %q is not the path of a volume", d.name, method, clean(p))
	}
	return path.Clean(p), nil
}
