package buildexec

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"

	"github.com/containerd/errdefs"

	"github.com/cleatlabs/cleat/internal/cgroup"
	"github.com/cleatlabs/cleat/internal/runtime"
)

// groupName is the group that steps lie below, inside the engine's own; one that asks for another parent has a group of
// this name and its id there.
const groupName = "build"

// groups are the control groups of steps, and what kills them when the engine has gone.
type groups struct {
	runtime *runtime.Runtime
	own     string // "/cleat/build"
	notes   string // a directory with a file for each group that lies elsewhere, which holds its path

	mu      sync.Mutex
	guarded bool
	guard   *runtime.Guard
}

// groupBelow is the group of a step that asks for another parent.
func groupBelow(parent, id string) string { return path.Join("/", parent, groupName+"-"+id, "step") }

// keepGuard sees that the guard of the engine's own group is there. It is started with the first step: who does not
// build has none.
func (g *groups) keepGuard(ctx context.Context) (err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.guarded {
		return nil
	}
	if g.guard, err = g.runtime.StartGuard(ctx, g.own); err == nil {
		g.guarded = true
	}
	return err
}

// note makes a group outside of the engine's own known to a later engine.
func (g *groups) note(id, group string) error {
	if err := os.WriteFile(filepath.Join(g.notes, id), []byte(group), 0o600); err != nil {
		return fmt.Errorf("control group %s: %w", group, err)
	}
	return nil
}

// drop removes the group of a step that has ended.
func (g *groups) drop(s *step) error {
	err := ignoreNotFound(g.runtime.RemoveCgroup(s.groupPath))
	if s.meta.CgroupParent == "" {
		return err
	}
	err = errors.Join(err, s.guard.Close(), g.runtime.RemoveMadeParent(path.Dir(s.groupPath)))
	if err == nil {
		err = os.Remove(filepath.Join(g.notes, s.id))
	}
	return err
}

func ignoreNotFound(err error) error {
	if errdefs.IsNotFound(err) {
		return nil
	}
	return err
}

// sweep ends what an earlier engine's steps have left, and removes their groups.
func (g *groups) sweep() error {
	var errs []error
	for _, name := range childGroups(g.own) {
		errs = append(errs, g.remove(path.Join(g.own, name)))
	}
	entries, err := os.ReadDir(g.notes)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		errs = append(errs, err)
	}
	for _, e := range entries {
		group, err := os.ReadFile(filepath.Join(g.notes, e.Name()))
		// A note that was cut short, or is none, names no group of ours.
		if err != nil || !strings.HasSuffix(string(group), "/"+groupName+"-"+e.Name()+"/step") {
			continue
		}
		errs = append(errs, g.remove(string(group)), g.runtime.RemoveMadeParent(path.Dir(string(group))))
	}
	return errors.Join(errs...)
}

func (g *groups) remove(group string) error {
	if left, err := g.runtime.Group(group); err == nil {
		if err := left.Kill(); err != nil {
			return err
		}
	}
	return ignoreNotFound(g.runtime.RemoveCgroup(group))
}

// childGroups lists the groups below path in any hierarchy.
func childGroups(group string) []string {
	seen := map[string]bool{}
	var names []string
	for _, pattern := range []string{"/sys/fs/cgroup" + group, "/sys/fs/cgroup/*" + group} {
		dirs, _ := filepath.Glob(pattern) // the pattern is well formed
		for _, d := range dirs {
			entries, _ := os.ReadDir(d) // it is gone
			for _, e := range entries {
				if e.IsDir() && !seen[e.Name()] {
					seen[e.Name()] = true
					names = append(names, e.Name())
				}
			}
		}
	}
	return names
}

// close ends the guard, and removes the engine's group of steps, which are over.
func (g *groups) close() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	err := g.guard.Close()
	g.guard, g.guarded = nil, false
	return errors.Join(err, g.runtime.RemoveMadeParent(g.own))
}

// stepDevices are the rules for devices: those of every container.
func stepDevices() []cgroup.DeviceRule { return cgroup.DefaultDeviceRules() }
