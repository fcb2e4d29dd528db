package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/volume"

	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/plugin"
	"github.com/cleatlabs/cleat/internal/record"
)

const (
	// mountsDir holds a file for each container that a plugin has been asked to mount
	// the volume for.
	mountsDir = "mounts"
	// copier is who a plugin mounts a volume for while it is copied.
	copier = "cleat-copy"
	// listPatience is how long a list waits for each plugin.
	listPatience = 5 * time.Second
)

// driver is the name of the volume's driver.
func (e *entry) driver() string {
	if e.meta.Driver == "" {
		return Driver
	}
	return e.meta.Driver
}

// isPlugins says whether the volume is kept by a plugin.
func (e *entry) isPlugins() bool { return e.meta.Driver != "" }

// Plugins names the plugins that there are, without asking them anything.
func (s *Service) Plugins() []string {
	if s.plugins == nil {
		return nil
	}
	return s.plugins.Names()
}

func (s *Service) pluginDriver(ctx context.Context, name string) (*plugin.Driver, error) {
	if s.plugins == nil {
		return nil, failure.NotFound("error looking up volume plugin %s: plugin %q not found", name, name)
	}
	d, err := s.plugins.Driver(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("error looking up volume plugin %s: %w", name, err)
	}
	return d, nil
}

// createIn makes the volume in a plugin, unless that has it already, and returns
// what is to be recorded of it.
func (s *Service) createIn(ctx context.Context, r *Request, meta *metadata) error {
	d, err := s.pluginDriver(ctx, r.Driver)
	if err != nil {
		return fmt.Errorf("create %s: %w", r.Name, err)
	}
	// A driver that does not know the volume may say so by an error.
	if v, err := d.Get(ctx, r.Name); err != nil || v == nil {
		if err := d.Create(ctx, r.Name, r.Options); err != nil {
			return fmt.Errorf("create %s: %w", r.Name, err)
		}
		record.Failpoint("volume.create.after-plugin")
	}
	meta.Driver, meta.Scope = r.Driver, d.Scope(ctx)
	return nil
}

// ownerOf asks the plugins which of them has a volume that is not recorded here; ""
// if none has. Those that do not answer are taken not to have it.
func (s *Service) ownerOf(ctx context.Context, name string) (driver string, v *plugin.Volume) {
	if s.plugins == nil || !validName.MatchString(name) {
		return "", nil
	}
	ctx, cancel := context.WithTimeout(ctx, listPatience)
	defer cancel()
	for _, p := range s.plugins.Names() {
		d, err := s.plugins.Driver(ctx, p)
		if err != nil {
			continue
		}
		if v, err := d.Get(ctx, name); err == nil && v != nil {
			return p, v
		}
	}
	return "", nil
}

// foreign lists the volumes that plugins have and that are not recorded here.
func (s *Service) foreign(ctx context.Context) (found map[string]*entry, warnings []string) {
	found = map[string]*entry{}
	if s.plugins == nil {
		return found, nil
	}
	ctx, cancel := context.WithTimeout(ctx, listPatience)
	defer cancel()
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, name := range s.plugins.Names() {
		wg.Go(func() {
			d, err := s.plugins.Driver(ctx, name)
			var volumes []*plugin.Volume
			if err == nil {
				volumes, err = d.List(ctx)
			}
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				if !errdefs.IsNotFound(err) { // a plugin of another kind, or just gone
					warnings = append(warnings, err.Error())
				}
				return
			}
			for _, v := range volumes {
				if found[v.Name] == nil {
					found[v.Name] = newEntry(metadata{Driver: name, CreatedAt: v.CreatedAt})
					found[v.Name].path = v.Mountpoint
				}
			}
		})
	}
	wg.Wait()
	slices.Sort(warnings)
	return found, warnings
}

// mountIn has a plugin mount a held volume for id.
func (s *Service) mountIn(ctx context.Context, name string, e *entry, id string) (path string, err error) {
	dir := filepath.Join(s.root, name, mountsDir)
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", err
	}
	// Noted first: an engine that dies after the plugin has mounted it must take that back.
	note := filepath.Join(dir, id)
	if err := record.Write(note, nil, 0o600); err != nil {
		return "", err
	}
	d, err := s.pluginDriver(ctx, e.meta.Driver)
	if err == nil {
		path, err = d.Mount(ctx, name, id)
		record.Failpoint("volume.mount.after-plugin")
	}
	if err == nil {
		_, err = os.Stat(path)
	}
	if errdefs.IsUnavailable(err) {
		return "", err // it may have mounted it all the same: the note stays
	}
	if err != nil {
		return "", errors.Join(err, os.Remove(note))
	}
	return path, nil
}

// unmountIn takes back a mountIn.
func (s *Service) unmountIn(ctx context.Context, name string, e *entry, id string) error {
	d, err := s.pluginDriver(ctx, e.meta.Driver)
	if err == nil {
		err = d.Unmount(ctx, name, id)
	}
	if err != nil {
		return fmt.Errorf("unmount volume %s: %w", name, err)
	}
	if err := os.Remove(filepath.Join(s.root, name, mountsDir, id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// ReleaseStale tells plugins that containers do not run any more for which an
// earlier engine has had volumes mounted. It may take as long as plugins do, and
// what fails is tried again at the next start of the engine.
func (s *Service) ReleaseStale(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []string
	for name, e := range s.entries {
		if e.isPlugins() {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	var errs []error
	for _, name := range names {
		e, err := s.free(ctx, name)
		if err != nil {
			continue // it has been removed
		}
		errs = append(errs, s.hold(e, func() error { return s.releaseStale(ctx, name, e) }))
	}
	return errors.Join(errs...)
}

func (s *Service) releaseStale(ctx context.Context, name string, e *entry) error {
	notes, err := os.ReadDir(filepath.Join(s.root, name, mountsDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	users := s.Users(name)
	var errs []error
	for _, n := range notes {
		if !slices.Contains(users, n.Name()) {
			errs = append(errs, s.unmountIn(ctx, name, e, n.Name()))
		}
	}
	return errors.Join(errs...)
}

// removeIn removes a volume from its plugin. With force a plugin that is gone is
// not missed.
func (s *Service) removeIn(ctx context.Context, name string, e *entry, force bool) error {
	d, err := s.pluginDriver(ctx, e.meta.Driver)
	if err == nil {
		err = d.Remove(ctx, name)
		if err != nil && isGone(ctx, d, name) {
			err = nil // an engine died before it could note that
		}
	} else if force {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	record.Failpoint("volume.remove.after-plugin")
	return nil
}

// isGone says whether the plugin answers and has no such volume.
func isGone(ctx context.Context, d *plugin.Driver, name string) bool {
	all, err := d.List(ctx)
	return err == nil && !slices.ContainsFunc(all, func(v *plugin.Volume) bool { return v.Name == name })
}

// refresh adds to the description of a plugin's volume what the plugin says now.
func (s *Service) refresh(ctx context.Context, v *volume.Volume) {
	d, err := s.pluginDriver(ctx, v.Driver)
	var now *plugin.Volume
	if err == nil {
		now, err = d.Get(ctx, v.Name)
	}
	switch {
	case err != nil:
		v.Status = map[string]any{"error": err.Error()}
	case now != nil:
		v.Status = now.Status
		if now.Mountpoint != "" {
			v.Mountpoint = now.Mountpoint
		}
	}
}
