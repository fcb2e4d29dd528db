package engine

import (
	"log/slog"
	"path/filepath"

	"github.com/cleatlabs/cleat/internal/apparmor"
	"github.com/cleatlabs/cleat/internal/cgroup"
	"github.com/cleatlabs/cleat/internal/container"
	"github.com/cleatlabs/cleat/internal/events"
	"github.com/cleatlabs/cleat/internal/image"
	"github.com/cleatlabs/cleat/internal/kernel"
	"github.com/cleatlabs/cleat/internal/logship"
	"github.com/cleatlabs/cleat/internal/network"
	"github.com/cleatlabs/cleat/internal/runtime"
	"github.com/cleatlabs/cleat/internal/seccomp"
	"github.com/cleatlabs/cleat/internal/stdio"
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
	*Meter
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

// New wires the verbs. It starts nothing: call Recovery.Run before the first
// request is served.
func New(d Deps) *Engine {
	lives := newLives()
	adjusted := &adjustable{}
	adjusted.Store(&d.Settings.Adjustable)
	say := &announcer{bus: d.Events}
	pool := &stdio.Pool{}
	dirs := newDirectories(&d)
	ground := newGround(d.Settings.DataRoot, d.Images)
	specs := &specBuilder{containers: d.Containers, features: d.Features, settings: d.Settings, seccomp: &seccomp.Cache{}, profiles: d.AppArmor}
	heads := newHeadStarts(&d, specs)
	remover := &Remover{
		containers: d.Containers, volumes: d.Volumes, networks: d.Networks, lives: lives, say: say, log: d.Log,
		sweeper: newSweeper(&d), settings: &d.Settings,
	}
	exits := &exiter{
		runtime: d.Runtime, networks: d.Networks, volumes: d.Volumes, lives: lives, say: say, tasks: d.Tasks, log: d.Log, remover: remover,
		specs: specs, roots: newLull("unmount", d.Tasks, unmountBatch, unmountAll),
		boot: &bootOrder{bus: d.Events, log: d.Log, patience: bootPatience},
	}
	starter := &Starter{
		containers: d.Containers, images: d.Images, ground: ground, networks: d.Networks, volumes: d.Volumes, runtime: d.Runtime, features: d.Features,
		settings: d.Settings, specs: specs, lives: lives, say: say, log: d.Log, exits: exits, pool: pool, heads: heads,
		delivery: logship.New(d.Tasks, d.Log, filepath.Join(d.Settings.DataRoot, unsentDir)),
	}
	exits.start, exits.stdioDir, exits.awaitDonors = starter.restart, starter.stdioDir, starter.awaitDonors
	starter.remover, heads.starter = remover, starter
	limits := d.Cgroups.Support()
	layers := &layerQuota{root: d.Settings.DataRoot}
	remover.layers = layers
	updater := &Updater{
		containers: d.Containers, runtime: d.Runtime, lives: lives, specs: specs, features: d.Features, limits: limits, say: say, log: d.Log,
	}
	pauser := &Pauser{containers: d.Containers, runtime: d.Runtime, lives: lives, specs: specs, say: say, log: d.Log}
	stopper := &Stopper{
		containers: d.Containers, runtime: d.Runtime, lives: lives, say: say, starter: starter, pauser: pauser, exits: exits, boot: exits.boot, adjustable: adjusted,
	}
	remover.stopper = stopper
	filesystems := &filesystems{
		containers: d.Containers, images: d.Images, ground: ground, volumes: d.Volumes, lives: lives, specs: specs, features: d.Features, log: d.Log, heads: heads,
	}
	remover.writers, starter.writers = &filesystems.writers, &filesystems.writers
	queries := &Queries{containers: d.Containers, networks: d.Networks, images: d.Images, lives: lives, features: d.Features}
	still := &stillness{
		containers: d.Containers, runtime: d.Runtime, specs: specs, log: d.Log, dir: filepath.Join(d.Settings.ExecRoot, "still"), held: map[string]*standing{},
	}
	execs := &Execs{
		containers: d.Containers, runtime: d.Runtime, lives: lives, say: say, specs: specs, settings: d.Settings,
		tasks: d.Tasks, pool: pool, log: d.Log, byID: map[string]*execution{}, still: still,
		preparing: make(chan struct{}, preparedMost),
	}
	volumes := &Volumes{service: d.Volumes, containers: d.Containers, still: still, say: say}
	starter.prober = newProber(execs, stopper, say, d)
	images := &Images{Service: d.Images, containers: d.Containers}
	return &Engine{
		Creator: &Creator{
			containers: d.Containers, images: d.Images, volumes: d.Volumes, networks: d.Networks, lives: lives, say: say,
			features: d.Features, specs: specs, dirs: dirs, cgroupV2: d.Cgroups.Version() == 2, limits: limits, layers: layers, heads: heads, log: d.Log,
		},
		Starter: starter,
		Stopper: stopper,
		Pauser:  pauser,
		Updater: updater,
		Meter: &Meter{
			containers: d.Containers, lives: lives, specs: specs, runtime: d.Runtime, cgroupV2: d.Cgroups.Version() == 2, tasks: d.Tasks,
			gauges: map[string]*gauge{},
		},
		Tops:     &Tops{containers: d.Containers, runtime: d.Runtime, specs: specs, say: say},
		Remover:  remover,
		Renamer:  &Renamer{containers: d.Containers, networks: d.Networks, say: say, writers: &filesystems.writers},
		Waiter:   &Waiter{containers: d.Containers},
		Streams:  &Streams{containers: d.Containers, lives: lives, say: say, pool: pool},
		Execs:    execs,
		Queries:  queries,
		Copier:   &Copier{fs: filesystems, say: say},
		OwnFiles: &OwnFiles{containers: d.Containers},
		Pruner:   &Pruner{containers: d.Containers, images: images, remover: remover, say: say},

		DiskUsages: &DiskUsages{queries: queries, images: images, volumes: volumes, cache: d.BuildCache},

		NetCheck: &NetCheck{containers: d.Containers, networks: d.Networks},

		Commits:  &Commits{fs: filesystems, images: d.Images, still: still, say: say},
		System:   &System{containers: d.Containers, volumes: d.Volumes, images: d.Images, networks: d.Networks, cgroups: d.Cgroups, features: d.Features, profiles: d.AppArmor, settings: d.Settings, adjustable: adjusted, bus: d.Events},
		Images:   images,
		Volumes:  volumes,
		Networks: &Networks{service: d.Networks, containers: d.Containers, say: say, log: d.Log},
		Recovery: &Recovery{deps: d, dirs: dirs, lives: lives, starter: starter, exits: exits, remover: remover, stopper: stopper, pauser: pauser, updater: updater, execs: execs, volumes: volumes, boot: exits.boot},
		Debug:    &Debug{containers: d.Containers, starter: starter, runtime: d.Runtime, networks: d.Networks},
	}
}
