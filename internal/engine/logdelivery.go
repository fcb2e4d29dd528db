package engine

import (
	"time"

	"github.com/cleatlabs/cleat/internal/container"
	"github.com/cleatlabs/cleat/internal/logs"
	"github.com/cleatlabs/cleat/internal/stdio"
)

// unsentDir is where, below the data root, lines of removed containers wait that their
// log servers have not got yet.
const unsentDir = "unsent"

// logEngine is what the templates of log tags call the engine: filters of log servers
// are written for Docker's word.
const logEngine = "docker"

// logConfig describes where a container's output goes. Where nothing is written and nobody follows, bell may be nil.
func logConfig(r *container.Record, pool *stdio.Pool, bell *logs.Bell) logs.Config {
	return logs.Config{
		Driver: r.HostConfig.LogConfig.Type, Path: r.LogPath, Opts: r.HostConfig.LogConfig.Config,
		Labels: r.Config.Labels, Env: r.Config.Env, ContainerID: r.ID, ContainerName: r.Name,
		ImageID: r.Image.ID.String(), ImageName: r.Config.Image, DaemonName: logEngine, Pool: pool, Bell: bell,
		Command: append([]string{r.Path}, r.Args...), Created: r.Created,
		// A run is named by the end of the one before, which the state keeps until its own.
		Run: r.State.FinishedAt.UTC().Format(time.RFC3339Nano),
	}
}

// resumeLogs goes on sending what containers that do not run have left to be sent, and
// removed ones.
func (rc *Recovery) resumeLogs(all []*container.Container) {
	for _, c := range all {
		if rc.lives.of(c).current() != nil {
			continue // adopted: its writer sees to it
		}
		if err := rc.starter.delivery.Resume(logConfig(c.Load(), rc.starter.pool, nil)); err != nil {
			rc.deps.Log.Error("the last lines of a container are not sent to its log server", "container", c.ID(), "error", err)
		}
	}
	rc.starter.delivery.Recover()
}

// keepUnsent saves the lines of a container that is being removed and that its log
// server has not got yet.
func (rm *Remover) keepUnsent(r *container.Record) {
	if err := rm.stopper.starter.delivery.Remove(logConfig(r, nil, nil)); err != nil {
		rm.log.Error("the last lines of a container are not sent to its log server", "container", r.ID, "error", err)
	}
}
