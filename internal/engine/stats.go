package engine

import (
	"github.com/cleatlabs/cleat/internal/cgroup"
	"github.com/cleatlabs/cleat/internal/container"
	"github.com/cleatlabs/cleat/internal/runtime"
	"github.com/cleatlabs/cleat/internal/stats"
)

// measuredRuns finds runs for who measures them.
type measuredRuns struct {
	lives   *lives
	specs   *specBuilder
	runtime *runtime.Runtime
}

// Run implements stats.Runs.
func (m *measuredRuns) Run(c *container.Container) stats.Run {
	r := m.lives.of(c).live()
	if r == nil {
		return nil
	}
	return &measuredRun{m, c, r}
}

type measuredRun struct {
	*measuredRuns
	c *container.Container
	r *run
}

func (m *measuredRun) Group() (*cgroup.Group, error) {
	return m.runtime.Group(m.specs.cgroupPath(m.c.Load()))
}
func (m *measuredRun) Links() ([]byte, error) { return m.runtime.Links(m.r.process) }
func (m *measuredRun) Ended() <-chan struct{} { return m.r.exited }
