package engine

import (
	"context"

	apievents "github.com/moby/moby/api/types/events"

	"github.com/cleatlabs/cleat/internal/container"
	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/network"
)

// Renamer renames containers.
type Renamer struct {
	containers *container.Store
	networks   *network.Service
	say        *announcer
	writers    *writers
}

// Rename gives a container a new name, running or not; ErrConflict if another has it.
func (rn *Renamer) Rename(ctx context.Context, name, newName string) error {
	if newName == "" || newName == "/" {
		return failure.Invalid("Neither old nor new names may be empty")
	}
	c, err := rn.containers.Find(name)
	if err != nil {
		return err
	}
	bare, err := checkName(newName)
	if err != nil {
		return err
	}
	unlock, err := rn.writers.lock(ctx, c)
	if err != nil {
		return err
	}
	defer unlock()
	old := c.Load().Name
	switch {
	case c.Gone():
		return failure.NotFound("No such container: %s", name)
	case bare == old:
		return failure.Invalid("Renaming a container with the same name as its current name")
	}
	if err := rn.containers.Rename(c, bare); err != nil {
		return err
	}
	req := networkRequest(c, c.Load())
	if sb := rn.networks.Rename(&req); sb != nil {
		if err := c.SetState(func(st *container.State) {
			if st.Sandbox != nil {
				st.Sandbox = sb
			}
		}); err != nil {
			return err
		}
	}
	rn.say.container(c, apievents.ActionRename, "oldName", "/"+old)
	return nil
}
