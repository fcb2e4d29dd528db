package buildexec

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"sync"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/moby/buildkit/executor"
	"github.com/moby/buildkit/solver/pb"
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/failure"
	cmount "github.com/cleatlabs/cleat/internal/mount"
	"github.com/cleatlabs/cleat/internal/rootpath"
	"github.com/cleatlabs/cleat/internal/runtime"
)

const sigKill = int(unix.SIGKILL)

// step is one run: what it has made so far. It belongs to the goroutine of Run, but for kill.
type step struct {
	e    *Executor
	id   string
	meta executor.Meta

	group     *runtime.GroupInMaking
	groupPath string
	guard     *runtime.Guard // of a group outside of the engine's own

	place *place // nil with the host's network, or none

	rootFD   int // the root filesystem, writable
	bound    int // what the process gets of it: the same, or another mount that becomes read-only
	readonly bool
	upper    string // where what is written to it goes; "" without an overlay
	user     rootpath.User
	mounts   []runtime.Mount
	trees    []int // of mounts
	stubs    *stubs
	files    []string       // of this step alone
	release  []func() error // BuildKit's mounts, in the order in which they were made

	process *runtime.Process
}

// prepare makes all that the process is to be put into.
func (s *step) prepare(ctx context.Context, root executor.Mount, mounts []executor.Mount) error {
	if err := s.beginGroup(ctx); err != nil {
		return err
	}
	if err := s.openNetwork(ctx); err != nil {
		return err
	}
	if err := s.openRoot(ctx, root); err != nil {
		return err
	}
	if err := s.addFiles(); err != nil {
		return err
	}
	if err := s.openMounts(ctx, mounts); err != nil {
		return err
	}
	var err error
	if s.user, err = rootpath.LookupUser(s.rootFD, s.meta.User, nil); err != nil {
		return err
	}
	if s.stubs, err = makeStubs(s.rootFD, s.mounts, s.meta.RemoveMountStubsRecursive); err != nil {
		return err
	}
	return s.makeWorkdir()
}

// beginGroup has the control group made beside all else.
func (s *step) beginGroup(ctx context.Context) (err error) {
	res, err := resources(&s.meta)
	if err != nil {
		return err
	}
	g := &s.e.groups
	s.groupPath = path.Join(g.own, s.id)
	if s.meta.CgroupParent == "" {
		err = g.keepGuard(ctx)
	} else {
		// In a group of its own making, which the guard can kill without touching others.
		s.groupPath = groupBelow(s.meta.CgroupParent, s.id)
		if err = g.note(s.id, s.groupPath); err == nil {
			s.guard, err = s.e.c.Runtime.StartGuard(ctx, path.Dir(s.groupPath))
		}
	}
	if err != nil {
		return err
	}
	s.group = s.e.c.Runtime.PrepareGroup(s.groupPath, res, s.insecure())
	return nil
}

func (s *step) insecure() bool { return s.meta.SecurityMode == pb.SecurityMode_INSECURE }

// openRoot makes the root filesystem.
func (s *step) openRoot(ctx context.Context, root executor.Mount) error {
	if !root.Readonly {
		ctx = context.WithValue(ctx, forStep{}, true)
	}
	list, err := s.mountsOf(ctx, root.Src, false)
	if err != nil {
		return fmt.Errorf("root filesystem: %w", err)
	}
	if len(list) != 1 {
		return fmt.Errorf("root filesystem: %d mounts over each other are not supported", len(list))
	}
	if s.rootFD, err = openTree(list[0], s.rootOverlay); err != nil {
		return fmt.Errorf("root filesystem: %w", err)
	}
	s.bound = s.rootFD
	s.readonly = root.Readonly || s.meta.ReadonlyRootFS || slices.Contains(list[0].Options, "ro")
	if !s.readonly {
		return nil
	}
	if s.bound, err = cmount.Subtree(s.rootFD, "/"); err != nil {
		return fmt.Errorf("root filesystem: %w", err)
	}
	s.trees = append(s.trees, s.bound)
	return nil
}

// mountsOf asks BuildKit for a mount. It is released with the step.
func (s *step) mountsOf(ctx context.Context, src executor.Mountable, readonly bool) ([]mount.Mount, error) {
	if src == nil {
		return nil, errors.New("the mount has no source")
	}
	ref, err := src.Mount(ctx, readonly)
	if err != nil {
		return nil, err
	}
	if m := ref.IdentityMapping(); m != nil && (len(m.UIDMaps) > 0 || len(m.GIDMaps) > 0) {
		return nil, failure.NotImplemented("build steps with mapped user ids are not supported")
	}
	list, release, err := ref.Mount()
	if err != nil {
		return nil, err
	}
	if release != nil {
		s.release = append(s.release, release)
	}
	return list, nil
}

// makeWorkdir makes a missing working directory, which is the user's as BuildKit has it. One below a mount is the
// runtime's to make.
func (s *step) makeWorkdir() error {
	cwd := path.Clean("/" + s.meta.Cwd)
	if cwd == "/" || below(cwd, s.mounts) {
		return nil
	}
	if fd, err := rootpath.Open(s.rootFD, cwd, unix.O_PATH|unix.O_DIRECTORY, 0); err == nil {
		return unix.Close(fd)
	}
	fd, err := rootpath.MkdirAll(s.rootFD, cwd, 0o755, s.user.UID, s.user.GID)
	if err != nil {
		return fmt.Errorf("failed to create working directory %s: %w", cwd, err)
	}
	return unix.Close(fd)
}

// kill ends all processes of the step: its first one is that of their PID namespace.
func (s *step) kill() {
	if err := s.process.Signal(sigKill); err == nil {
		return
	}
	if g, err := s.e.c.Runtime.Group(s.groupPath); err == nil {
		_ = g.Kill() // nothing is left of it
	}
}

// ranOutOfMemory says whether a process of the step was killed for want of memory.
func (s *step) ranOutOfMemory() bool {
	if s.process.Status().Code == 0 {
		return false
	}
	g, err := s.e.c.Runtime.Group(s.groupPath)
	if err != nil {
		return false
	}
	n, err := g.OOMKills()
	return err == nil && n > 0
}

// closeTrees closes what is attached in the step by now, or will not be: a mount that the engine has open cannot be
// taken off by the step.
func (s *step) closeTrees() error {
	var errs []error
	for _, fd := range s.trees {
		errs = append(errs, unix.Close(fd))
	}
	s.trees = nil
	return errors.Join(errs...)
}

// close takes down what is left of the step, which has ended.
func (s *step) close() error {
	var errs []error
	if s.process != nil {
		errs = append(errs, s.process.Release())
		var mounts sync.WaitGroup // to take them down waits for all processors of the machine: the rest is done meanwhile
		mounts.Go(s.process.LetMountsGo)
		defer mounts.Wait()
	}
	errs = append(errs, s.group.Discard())
	if s.groupPath != "" {
		errs = append(errs, s.e.groups.drop(s))
	}
	if s.place != nil {
		s.e.bridge.give(s.place, !s.insecure())
	}
	if s.stubs != nil {
		errs = append(errs, s.stubs.clean())
	}
	errs = append(errs, s.closeTrees())
	if s.rootFD >= 0 {
		errs = append(errs, unix.Close(s.rootFD))
	}
	if s.upper != "" && s.process != nil {
		errs = append(errs, s.e.settling.wrote(s.upper))
	}
	for _, f := range s.files {
		errs = append(errs, os.Remove(f))
	}
	for _, release := range slices.Backward(s.release) {
		errs = append(errs, release())
	}
	return errors.Join(errs...)
}
