package engine

import (
	"path/filepath"

	"github.com/cleatlabs/cleat/internal/bootorder"
	"github.com/cleatlabs/cleat/internal/cgroup"
	"github.com/cleatlabs/cleat/internal/logship"
	"github.com/cleatlabs/cleat/internal/seccomp"
	"github.com/cleatlabs/cleat/internal/stats"
	"github.com/cleatlabs/cleat/internal/stdio"
	"github.com/cleatlabs/cleat/internal/supervise"
)

// New wires the verbs. It starts nothing: call Recovery.Run before the first
// request is served.
func New(d Deps) *Engine {
	s := newParts(&d)
	dirs := newDirectories(&d)
	c := newCycle(&d, s, dirs)
	queries := &Queries{containers: d.Containers, networks: d.Networks, images: d.Images, lives: s.lives}
	volumes := &Volumes{service: d.Volumes, containers: d.Containers, still: s.still, say: s.say}
	images := &Images{Service: d.Images, containers: d.Containers}
	updater := &Updater{
		containers: d.Containers, runtime: d.Runtime, lives: s.lives, specs: s.specs, features: d.Features, limits: s.limits, say: s.say, log: d.Log,
	}
	return &Engine{
		Creator: &Creator{
			containers: d.Containers, images: d.Images, volumes: d.Volumes, networks: d.Networks, lives: s.lives, say: s.say, features: d.Features,
			files: s.filesystems, specs: s.specs, dirs: dirs, cgroupV2: d.Cgroups.Version() == 2, limits: s.limits, layers: s.layers, heads: s.heads,
		},
		Starter:    c.starter,
		Stopper:    c.stopper,
		Pauser:     c.pauser,
		Remover:    c.remover,
		Execs:      c.execs,
		Updater:    updater,
		Meter:      stats.NewMeter(d.Containers, &measuredRuns{lives: s.lives, specs: s.specs, runtime: d.Runtime}, d.Cgroups.Version() == 2, d.Tasks),
		Tops:       &Tops{containers: d.Containers, runtime: d.Runtime, specs: s.specs, say: s.say},
		Renamer:    &Renamer{containers: d.Containers, networks: d.Networks, say: s.say, writers: &s.filesystems.writers},
		Waiter:     &Waiter{containers: d.Containers, lives: s.lives},
		Streams:    &Streams{containers: d.Containers, lives: s.lives, say: s.say, pool: s.pool, log: d.Log},
		Queries:    queries,
		Copier:     &Copier{fs: s.filesystems, say: s.say},
		OwnFiles:   &OwnFiles{containers: d.Containers},
		Commits:    &Commits{fs: s.filesystems, images: d.Images, still: s.still, say: s.say},
		Pruner:     &Pruner{containers: d.Containers, images: images, remover: c.remover, say: s.say},
		DiskUsages: &DiskUsages{queries: queries, images: images, volumes: volumes, cache: d.BuildCache},
		NetCheck:   &NetCheck{containers: d.Containers, networks: d.Networks},
		System: &System{
			containers: d.Containers, volumes: d.Volumes, images: d.Images, networks: d.Networks, cgroups: d.Cgroups, features: d.Features,
			profiles: d.AppArmor, settings: d.Settings, adjustable: s.adjusted,
		},
		Images:   images,
		Volumes:  volumes,
		Networks: &Networks{service: d.Networks, containers: d.Containers, say: s.say},
		Recovery: &Recovery{
			deps: d, dirs: dirs, lives: s.lives, starter: c.starter, exits: c.exits, stopper: c.stopper, pauser: c.pauser,
			updater: updater, execs: c.execs, volumes: volumes, boot: c.exits.boot,
		},
		Debug: &Debug{containers: d.Containers, starter: c.starter, runtime: d.Runtime},
	}
}

// parts are what verbs of several families use.
type parts struct {
	lives       *lives
	adjusted    *adjustable
	say         *announcer
	pool        *stdio.Pool
	ground      *ground
	specs       *specBuilder
	heads       *headStarts
	limits      cgroup.Support
	layers      *layerQuota
	filesystems *filesystems
	still       *stillness
}

func newParts(d *Deps) *parts {
	s := &parts{
		lives: newLives(), adjusted: &adjustable{}, say: &announcer{bus: d.Events}, pool: &stdio.Pool{}, ground: newGround(d.Settings.DataRoot, d.Images),
		specs:  &specBuilder{containers: d.Containers, features: d.Features, settings: d.Settings, seccomp: &seccomp.Cache{}, profiles: d.AppArmor},
		limits: d.Cgroups.Support(), layers: &layerQuota{root: d.Settings.DataRoot},
	}
	s.adjusted.Store(&d.Settings.Adjustable)
	s.heads = newHeadStarts(d, s.specs)
	s.filesystems = &filesystems{
		containers: d.Containers, images: d.Images, ground: s.ground, volumes: d.Volumes, lives: s.lives, specs: s.specs, features: d.Features,
		log: d.Log, heads: s.heads,
	}
	s.still = &stillness{
		containers: d.Containers, group: d.Runtime.Group, specs: s.specs, log: d.Log, dir: filepath.Join(d.Settings.ExecRoot, "still"), held: map[string]*standing{},
	}
	return s
}

// cycle is what a container's life goes round through: starts, probes and their execs, stops, exits, restarts, removals.
// Each leads to others of them.
type cycle struct {
	starter *Starter
	pauser  *Pauser
	stopper *Stopper
	exits   *exiter
	remover *Remover
	execs   *Execs
}

func newCycle(d *Deps, s *parts, dirs *directories) *cycle {
	c := &cycle{
		remover: &Remover{
			containers: d.Containers, volumes: d.Volumes, networks: d.Networks, lives: s.lives, say: s.say, log: d.Log, sweeper: newSweeper(d, dirs),
			settings: &d.Settings, layers: s.layers, writers: &s.filesystems.writers, files: s.filesystems,
		},
		pauser: &Pauser{containers: d.Containers, runtime: d.Runtime, lives: s.lives, specs: s.specs, still: s.still, say: s.say, log: d.Log},
		execs: &Execs{
			containers: d.Containers, runtime: d.Runtime, lives: s.lives, say: s.say, specs: s.specs, tasks: d.Tasks, pool: s.pool,
			log: d.Log, byID: map[string]*execution{}, still: s.still, preparing: make(chan struct{}, preparedMost),
		},
	}
	c.exits = &exiter{
		runtime: d.Runtime, networks: d.Networks, volumes: d.Volumes, lives: s.lives, say: s.say, tasks: d.Tasks, log: d.Log, remover: c.remover,
		specs: s.specs, leftovers: supervise.NewLull("tidy up", d.Tasks, leftoverBatch, tidyAll),
		boot: bootorder.New(d.Events, d.Log, neededRunning(d.Containers)),
	}
	c.starter = &Starter{
		containers: d.Containers, images: d.Images, ground: s.ground, networks: d.Networks, volumes: d.Volumes, runtime: d.Runtime, features: d.Features,
		settings: d.Settings, specs: s.specs, lives: s.lives, say: s.say, log: d.Log, exits: c.exits, pool: s.pool, heads: s.heads,
		delivery: logship.New(d.Tasks, d.Log, filepath.Join(d.Settings.DataRoot, unsentDir)), remover: c.remover, writers: &s.filesystems.writers,
		files: s.filesystems,
	}
	s.heads.starter = c.starter
	c.exits.start, c.exits.stdioDir, c.exits.awaitDonors = c.starter.restart, c.starter.stdioDir, c.starter.awaitDonors
	c.stopper = &Stopper{
		containers: d.Containers, runtime: d.Runtime, lives: s.lives, say: s.say, starter: c.starter, pauser: c.pauser, exits: c.exits, boot: c.exits.boot,
		adjustable: s.adjusted,
	}
	c.remover.stopper = c.stopper
	c.starter.prober = newProber(c.execs, c.stopper, s.say, d)
	return c
}
