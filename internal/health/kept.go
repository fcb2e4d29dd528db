package health

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	api "github.com/moby/moby/api/types/container"

	"github.com/cleatlabs/cleat/internal/container"
	"github.com/cleatlabs/cleat/internal/record"
	"github.com/cleatlabs/cleat/internal/supervise"
)

// Monitors are those of all containers, and what they have found: one small file for each container on tmpfs, so that
// the next engine goes on where this one ended and no disk is written to for it.
type Monitors struct {
	tasks *supervise.Group
	log   *slog.Logger
	dir   string
}

// NewMonitors keeps what is found in dir, on tmpfs, which is made at need. Probes run as tasks.
func NewMonitors(tasks *supervise.Group, log *slog.Logger, dir string) *Monitors {
	return &Monitors{tasks: tasks, log: log, dir: dir}
}

// kept is what lies on tmpfs.
type kept struct {
	StartedAt time.Time // of the run that Health is about
	Health    *api.Health
}

func (w *Monitors) path(id string) string { return filepath.Join(w.dir, id) }

// save writes a container's health down for the next engine.
func (w *Monitors) save(c *container.Container) {
	st := &c.Load().State
	if st.Health == nil || c.Gone() {
		return
	}
	err := record.WriteJSON(w.path(c.ID()), kept{st.StartedAt, st.Health}, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		if err = os.MkdirAll(w.dir, 0o700); err == nil {
			err = record.WriteJSON(w.path(c.ID()), kept{st.StartedAt, st.Health}, 0o600)
		}
	}
	if err != nil {
		w.log.Warn("the health of a container is not kept over an end of the engine", "container", c.ID(), "error", err)
	}
}

// Load brings back what earlier engines have found, and removes what belongs to none of these containers, which are all
// that there are.
func (w *Monitors) Load(all []*container.Container) {
	known := map[string]bool{}
	for _, c := range all {
		r := c.Load()
		if Of(r) == nil {
			continue
		}
		known[c.ID()] = true
		var f kept
		if err := record.ReadJSON(w.path(c.ID()), &f); err != nil {
			f.Health = nil
		}
		c.SetStateInMemory(func(st *container.State) {
			switch {
			case !st.Alive() && st.Status != api.StateRestarting:
				st.Health = Ended(f.Health)
			case f.Health != nil && f.StartedAt.Equal(st.StartedAt):
				st.Health = f.Health
			default: // it was not written any more, or the machine was restarted
				st.Health = Started(r, f.Health)
			}
		})
	}
	entries, _ := os.ReadDir(w.dir)
	for _, e := range entries {
		if !known[e.Name()] {
			_ = os.Remove(w.path(e.Name()))
		}
	}
}

// Forget drops what was found of a removed container.
func (w *Monitors) Forget(r *container.Record) {
	if Of(r) != nil {
		_ = os.Remove(w.path(r.ID))
	}
}
