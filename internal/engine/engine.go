package engine

import (
	"log/slog"

	"github.com/cleatlabs/cleat/internal/apparmor"
	"github.com/cleatlabs/cleat/internal/cgroup"
	"github.com/cleatlabs/cleat/internal/container"
	"github.com/cleatlabs/cleat/internal/events"
	"github.com/cleatlabs/cleat/internal/image"
	"github.com/cleatlabs/cleat/internal/kernel"
	"github.com/cleatlabs/cleat/internal/network"
	"github.com/cleatlabs/cleat/internal/runtime"
	"github.com/cleatlabs/cleat/internal/stats"
	"github.com/cleatlabs/cleat/internal/supervise"
	"github.com/cleatlabs/cleat/internal/volume"
)

// Deps are the services that the verbs stand on. All must be set.
type Deps struct {
	Containers *container.Store
	Images     *image.Service
	Networks   *network.Service
	Volumes    *volume.Service
	Events     *events.Bus
	Runtime    *runtime.Runtime
	Cgroups    *cgroup.Hierarchy
	Features   kernel.Features
	AppArmor   *apparmor.Profiles // nil where it is off
	Tasks      *supervise.Group
	Log        *slog.Logger
	Settings   Settings
	// BuildCache is measured with the rest of the disk's use.
	BuildCache BuildCache
}

// Settings are the choices of the engine's user.
type Settings struct {
	DataRoot string
	ExecRoot string
	// CgroupParent is where containers' groups lie, "/cleat"; a request may name
	// another.
	CgroupParent string
	// Slices says that a parent such as "a.slice" is systemd's.
	Slices     bool
	Version    string // Docker-shaped, as "29.9.3"
	Build      string // the engine's own, as cleatd --version has it
	GitCommit  string
	BuildTime  string
	APIVersion string
	MinAPI     string
	CDIDirs    []string // where vendors' devices are described
	// Containers are the defaults of what a container may choose.
	Containers ContainerDefaults
	// Adjustable are the settings to begin with.
	Adjustable
}

// Engine is the verbs, wired. Each field may be used on its own.
type Engine struct {
	*Creator
	*Starter
	*Stopper
	*Pauser
	*Tops
	*stats.Meter
	*Updater
	*Remover
	*Renamer
	*NetCheck
	*Waiter
	*Streams
	*Execs
	*Queries
	*System
	*Copier
	*OwnFiles
	*Commits
	*Pruner
	*DiskUsages
	Images   *Images
	Volumes  *Volumes
	Networks *Networks
	Recovery *Recovery
	Debug    *Debug
}
