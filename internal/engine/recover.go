package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	api "github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/bootorder"
	"github.com/cleatlabs/cleat/internal/container"
	"github.com/cleatlabs/cleat/internal/keeper"
	"github.com/cleatlabs/cleat/internal/network"
)

// Recovery brings a new engine and what earlier ones left into line.
type Recovery struct {
	deps    Deps
	lives   *lives
	dirs    *directories
	starter *Starter
	exits   *exiter
	stopper *Stopper
	execs   *Execs
	pauser  *Pauser
	updater *Updater
	volumes *Volumes
	boot    *bootorder.Queue
}

// Run adopts running containers, learns the exits that happened meanwhile,
// removes what belongs to nothing and then, in the background, carries out
// restart policies and --rm. Call it once, before any request is served.
func (rc *Recovery) Run(ctx context.Context) error {
	if err := rc.starter.ground.make(); err != nil {
		return err
	}
	if err := makeSignposts(rc.deps.Settings.DataRoot, rc.deps.Containers); err != nil { // a full disk, for one
		rc.deps.Log.Warn("monitoring programs such as cAdvisor may not find containers' files", "error", err)
	}
	rc.volumes.still.recover()
	if err := rc.volumes.recover(); err != nil {
		rc.deps.Log.Error("volumes", "error", err)
	}
	for _, w := range rc.deps.Volumes.Warnings() {
		rc.deps.Log.Warn(w)
	}
	for _, w := range rc.deps.Containers.Warnings() {
		rc.deps.Log.Error(w)
	}
	found, err := rc.takeOver(ctx)
	if err != nil {
		return err // before the sweep, which ends what was not adopted
	}
	rc.sweep(ctx, found)
	rc.boot.Plan(found.all, rc.starting(found.all, found.due))
	rc.watch(found.all)
	rc.dirs.keepReady()
	rc.awaitKnownExits(found.all)
	rc.deps.Tasks.Go("recovery", func(ctx context.Context) { rc.settle(ctx, found.due) })
	rc.deps.Tasks.Go("warnings", func(context.Context) {
		for _, w := range rc.deps.Networks.Warnings() {
			rc.deps.Log.Warn(w)
		}
	})
	rc.deps.Tasks.Go("volume plugins", func(ctx context.Context) {
		if found.damaged {
			return // as sweepVolumes
		}
		if err := rc.deps.Volumes.ReleaseStale(ctx); err != nil && ctx.Err() == nil {
			rc.deps.Log.Warn("volumes of plugins that containers do not use any more: the next start of the engine tries again", "error", err)
		}
	})
	return nil
}

// inventory is what earlier engines have left that somebody still has a right to.
type inventory struct {
	all, due       []*container.Container // due do not run
	keepers        []keeper.Record        // of containers that run, as are
	sandboxes      []*network.Sandbox
	images         map[string]struct{}
	damaged        bool                // there are containers of which nobody knows what they use
	volumes, inUse map[string][]string // their containers' ids, and those of the ones that run
}

// takeOver adopts the containers that run. It is an error if one cannot be for want of files that the engine may open.
func (rc *Recovery) takeOver(ctx context.Context) (*inventory, error) {
	found := &inventory{all: rc.deps.Containers.All(), images: map[string]struct{}{}, volumes: map[string][]string{}, inUse: map[string][]string{}}
	for _, c := range found.all {
		r := c.Load()
		for _, id := range imagesOf(r) {
			found.images[id] = struct{}{}
		}
		found.damaged = found.damaged || r.Damage != ""
		addVolumes(found.volumes, r)
		rc.lives.of(c)
		rc.deps.Networks.Expect(r.ID, endpointRequests(r.HostConfig.NetworkMode, r.Networks()))
		adopted, err := rc.adopt(ctx, c)
		if err != nil {
			return nil, err
		}
		if !adopted {
			found.due = append(found.due, c)
			continue
		}
		addVolumes(found.inUse, r)
		found.keepers = append(found.keepers, *r.State.Keeper)
		if r.State.Sandbox != nil {
			found.sandboxes = append(found.sandboxes, r.State.Sandbox)
		}
	}
	return found, nil
}

// addVolumes notes a container with its volumes.
func addVolumes(users map[string][]string, r *container.Record) {
	for _, m := range r.Mounts {
		if m.Name != "" {
			users[m.Name] = append(users[m.Name], r.ID)
		}
	}
}

// sweep removes what belongs to nothing of what was found. What stays is in nobody's way.
func (rc *Recovery) sweep(ctx context.Context, found *inventory) {
	rc.deps.Runtime.Sweep(append(found.keepers, rc.execs.adopt(ctx)...))
	rc.starter.prober.monitors.Load(found.all)
	rc.sweepGroups(found.all)
	rc.sweepJournals()
	rc.resumeLogs(found.all)
	rc.sweepOwnFiles()
	rc.sweepVolumes(ctx, found)
	if err := rc.deps.Networks.Reconcile(ctx, found.sandboxes); err != nil {
		rc.deps.Log.Error("what is left of the networks of containers that do not run", "error", err)
	}
	inUse := func(id string) bool { _, ok := found.images[id]; return ok || found.damaged }
	if err := rc.deps.Images.ReleaseUnused(ctx, inUse); err != nil {
		rc.deps.Log.Error("layers of unused images could not be released", "error", err)
	}
}

func (rc *Recovery) sweepVolumes(ctx context.Context, found *inventory) {
	if err := rc.deps.Volumes.Reconcile(found.volumes, found.inUse, found.damaged); err != nil {
		rc.deps.Log.Warn("volumes that no container runs with", "error", err)
	}
	for _, name := range rc.deps.Containers.Orphans() {
		if found.damaged { // what has no user may have one
			rc.deps.Log.Warn("anonymous volume of a removed container stays, for volume prune", "volume", name)
			continue
		}
		err := rc.deps.Volumes.Remove(ctx, name, true)
		if err != nil && !errors.Is(err, errdefs.ErrConflict) {
			rc.deps.Log.Warn("anonymous volume of a removed container", "volume", name, "error", err)
		}
	}
	if err := rc.deps.Containers.ForgetOrphans(); err != nil {
		rc.deps.Log.Warn("files of a removed container are left: the next start of the engine tries again", "error", err)
	}
}

// watch waits for the ends of what was adopted. It comes after the sweep, as an exit that is already known may restart
// or remove its container.
func (rc *Recovery) watch(all []*container.Container) {
	for _, c := range all {
		r := rc.lives.of(c).current()
		if r == nil {
			continue
		}
		if !isClosed(r.process.Done()) {
			rc.starter.prober.begin(c, r)
		}
		rc.exits.watch(c, r)
	}
}

// awaitKnownExits gives the exits that happened without an engine a moment to
// get into the state, so that the first answers do not call running what is
// dead. One that takes longer, over a slow disk, goes on by itself.
func (rc *Recovery) awaitKnownExits(all []*container.Container) {
	const patience = time.Second
	deadline := time.After(patience)
	for _, c := range all {
		r := rc.lives.of(c).current()
		if r == nil || !isClosed(r.process.Done()) {
			continue
		}
		select {
		case <-r.exited:
		case <-deadline:
			return
		}
	}
}

// adopt takes over the process of a container whose record names one. It
// reports false if there is none, after noting that in the state.
func (rc *Recovery) adopt(ctx context.Context, c *container.Container) (bool, error) {
	r := c.Load()
	if r.State.Keeper == nil {
		return false, nil
	}
	proc, err := rc.deps.Runtime.Adopt(ctx, *r.State.Keeper)
	if outOfFiles(err) {
		return false, cannotAdopt(c, err)
	}
	if err != nil {
		rc.lost(c, fmt.Sprintf("the process did not outlive the engine: %v", err))
		return false, nil
	}
	if sb := r.State.Sandbox; sb != nil {
		if sb.Name != "" && sb.Name != r.Name { // its engine died while it was renamed
			req := networkRequest(c, r)
			sb = sb.Renamed(&req)
			c.SetStateInMemory(func(st *container.State) { st.Sandbox = sb })
		}
		if now := rc.deps.Networks.Current(sb); now != sb {
			sb = now
			c.SetStateInMemory(func(st *container.State) { st.Sandbox = sb })
		}
		err := rc.deps.Networks.Adopt(ctx, sb, proc.LivePID(), proc.TakeHeld()...)
		if outOfFiles(err) {
			return false, cannotAdopt(c, err)
		}
		if err != nil {
			rc.deps.Log.Error("network of an adopted container: its ports may not work", "container", c.ID(), "error", err)
		}
	}
	if isClosed(proc.Done()) { // or nothing is known of it any more: its group must be empty for the next start
		rc.endGroup(rc.starter.specs.cgroupPath(r))
	}
	l := rc.lives.of(c)
	writer, err := rc.starter.delivery.Open(ctx, logConfig(r, rc.starter.pool, &l.bell), false)
	if outOfFiles(err) {
		return false, cannotAdopt(c, err)
	}
	if err != nil {
		rc.deps.Log.Error("log of an adopted container: its output is dropped", "container", c.ID(), "error", err)
	}
	run, err := rc.starter.follow(c, l, proc, writer)
	if outOfFiles(err) {
		return false, cannotAdopt(c, err)
	}
	if err != nil {
		rc.deps.Log.Error("output of an adopted container", "container", c.ID(), "error", err)
		closeLog(writer)
		proc.Detach()
		rc.lost(c, err.Error())
		return false, nil
	}
	run.overBefore = isClosed(proc.Done())
	if r.State.StoppedByHand {
		run.stopByHand()
	}
	l.setRun(run)
	rc.pauser.adopt(c)
	rc.updater.restore(c)
	return true, nil
}

// outOfFiles says whether an error is of the engine's own means: it says nothing of the container.
func outOfFiles(err error) bool { return errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) }

// cannotAdopt keeps the engine from its start: a container that it does not know would be ended, or get no output and no
// ports for the rest of its life.
func cannotAdopt(c *container.Container, err error) error {
	return fmt.Errorf("container %s cannot be taken over: %w: the engine opens some files for each that runs, and may have no more: start it with a higher limit (LimitNOFILE of its unit, ulimit -n). The containers go on", c.ID(), err)
}

// lost notes the end of a container whose exit code is unknown.
func (rc *Recovery) lost(c *container.Container, reason string) {
	err := c.SetExited(func(st *container.State) {
		st.Status, st.ExitCode, st.Error = api.StateExited, container.LostCode, reason
		st.FinishedAt = time.Now().UTC()
		st.Keeper, st.Sandbox = nil, nil
	}, nil)
	if err != nil {
		rc.deps.Log.Error("the state of a container could not be written", "container", c.ID(), "error", err)
	}
}

// sweepGroups ends and removes the cgroups of containers that do not run: of
// starts that were cut short and of removals that did not get to it.
func (rc *Recovery) sweepGroups(all []*container.Container) {
	parent := filepath.Join("/", rc.deps.Settings.CgroupParent)
	keep := map[string]bool{}
	leftover := map[string]bool{} // those below parent are listed: most that were created have none
	for _, c := range all {
		path := rc.starter.specs.cgroupPath(c.Load())
		if rc.lives.of(c).current() != nil {
			keep[path] = true
		} else if filepath.Dir(path) != parent {
			leftover[path] = true
		}
	}
	for _, id := range cgroupChildren(parent) {
		if path := filepath.Join(parent, id); !keep[path] {
			leftover[path] = true
		}
	}
	for path := range leftover {
		if holdsAny(path, keep) {
			continue
		}
		rc.endGroup(path)
		if err := rc.starter.specs.removeGroup(rc.deps.Runtime, path); err != nil {
			rc.deps.Log.Warn("left-over cgroup", "cgroup", path, "error", err)
		}
	}
}

// holdsAny says whether a group has one of the others inside: a container can have another one's group for its parent,
// and outlive that.
func holdsAny(group string, others map[string]bool) bool {
	for other := range others {
		if strings.HasPrefix(other, group+"/") {
			return true
		}
	}
	return false
}

// endGroup kills what is in a control group, if there is one. A start that was cut short may have made it in some
// hierarchies only.
func (rc *Recovery) endGroup(path string) {
	if group, err := rc.deps.Runtime.Group(path); err == nil {
		if err := group.Kill(); err != nil {
			rc.deps.Log.Warn("left-over processes", "cgroup", path, "error", err)
		}
	}
}

// cgroupChildren lists the container groups below parent in any hierarchy.
func cgroupChildren(parent string) []string {
	seen := map[string]bool{}
	var ids []string
	mounts, _ := filepath.Glob("/sys/fs/cgroup/*")
	for _, mount := range append(mounts, "/sys/fs/cgroup") {
		dirs, _ := os.ReadDir(mount + parent)
		for _, d := range dirs {
			if id := d.Name(); len(id) == 64 && !seen[id] {
				seen[id] = true
				ids = append(ids, id)
			}
		}
	}
	return ids
}

// sweepJournals removes the journals of containers that do not run, after what
// they hold is in the log.
func (rc *Recovery) sweepJournals() {
	dir := filepath.Join(rc.deps.Settings.ExecRoot, "stdio")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		if c, err := rc.deps.Containers.Find(e.Name()); err == nil {
			if rc.lives.of(c).current() != nil {
				continue
			}
			if err := rc.starter.replay(c); err != nil {
				rc.deps.Log.Error("the last output of a container is missing in its log", "container", c.ID(), "error", err)
			}
		}
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			rc.deps.Log.Warn("left-over journals", "dir", e.Name(), "error", err)
		}
	}
}

// sweepOwnFiles removes what removed containers had in memory.
func (rc *Recovery) sweepOwnFiles() {
	for _, dir := range strayOwnFiles(&rc.deps.Settings, rc.deps.Containers) {
		if err := os.RemoveAll(dir); err != nil {
			rc.deps.Log.Warn("left-over files of a container", "dir", dir, "error", err)
		}
	}
}

// starting are the containers that policies start with the engine, and those whose end it
// has found, which may be.
func (rc *Recovery) starting(all, due []*container.Container) []*container.Container {
	var found []*container.Container
	for _, c := range afterDonors(due) {
		if r := c.Load(); !removedWithEngine(r) && startsWithEngine(r) {
			found = append(found, c)
		}
	}
	for _, c := range all {
		if r := rc.lives.of(c).current(); r != nil && isClosed(r.process.Done()) {
			found = append(found, c)
		}
	}
	return found
}

// settle carries out what policies ask of containers that do not run. Each start is for itself: one may take minutes, as
// of a container whose volume lies on a server that does not answer, and only those that depend on it wait for it.
func (rc *Recovery) settle(ctx context.Context, due []*container.Container) {
	var over []*container.Container
	for _, c := range due {
		if ctx.Err() != nil || rc.exits.machineEnds.Load() {
			return
		}
		r := c.Load()
		switch {
		case removedWithEngine(r):
			over = append(over, c)
		case startsWithEngine(r):
			rc.deps.Tasks.Go("start with the engine", func(ctx context.Context) { rc.startInTurn(ctx, c, r) })
			continue
		case r.State.Status == api.StateRestarting:
			settleRestart(c)
		}
		rc.boot.Had(c) // also if it is not to start any more: nobody need wait for it
	}
	for _, c := range over { // last, as this may take as long
		if ctx.Err() != nil || rc.exits.machineEnds.Load() {
			return
		}
		rc.exits.autoRemove(c)
	}
}

// startInTurn starts a container when it is its turn, unless somebody has taken it out of the queue by then.
func (rc *Recovery) startInTurn(ctx context.Context, c *container.Container, seen *container.Record) {
	defer rc.boot.Had(c)
	rc.boot.Await(ctx, c)
	if ctx.Err() == nil && !rc.exits.machineEnds.Load() && rc.boot.Take(c) {
		rc.startByPolicy(ctx, c, seen)
	}
}

func (rc *Recovery) startByPolicy(ctx context.Context, c *container.Container, seen *container.Record) {
	if err := rc.starter.startWithEngine(ctx, c, seen); err != nil && ctx.Err() == nil {
		rc.deps.Log.Error("a container with a restart policy could not be started", "container", c.ID(), "error", err)
	}
}

// removedWithEngine says whether a container that does not run is to be removed.
func removedWithEngine(r *container.Record) bool {
	return r.HostConfig.AutoRemove && !r.State.StartedAt.IsZero() && !r.State.HealthRestart
}

// startsWithEngine applies the restart policy to a container that does not run
// when the engine starts.
func startsWithEngine(r *container.Record) bool {
	if r.State.StartedAt.IsZero() {
		return false // never started: nobody has asked for it yet
	}
	p := r.HostConfig.RestartPolicy
	switch {
	case r.State.HealthRestart && !r.State.StoppedByHand:
		return true
	case p.IsAlways():
		return true
	case p.IsUnlessStopped():
		return !r.State.StoppedByHand
	case p.IsOnFailure():
		return r.State.ExitCode != 0 && !r.State.StoppedByHand &&
			(p.MaximumRetryCount == 0 || r.State.RestartCount < p.MaximumRetryCount)
	}
	return false
}
