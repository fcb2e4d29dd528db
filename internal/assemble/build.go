package assemble

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/containerd/v2/core/mount"

	"github.com/cleatlabs/cleat/internal/build"
	"github.com/cleatlabs/cleat/internal/buildexec"
)

// useTemporary makes a directory of the engine's own the one for temporary files, as
// dockerd does: builds mount there, secrets too, and an engine that was killed must find
// again what it has left.
func (s *services) useTemporary() error {
	dir := s.config.temporary()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the directory for temporary files: %w", err)
	}
	if err := os.Setenv("TMPDIR", dir); err != nil {
		return err
	}
	return mount.SetTempMountLocation(dir)
}

func (c *Config) temporary() string { return filepath.Join(c.DataRoot, "tmp") }
func (c *Config) buildRoot() string { return filepath.Join(c.DataRoot, "build") }

// sweepBuilds takes down what a killed engine's builds have left mounted.
func (s *services) sweepBuilds() {
	if err := build.Sweep(s.config.buildRoot(), s.config.temporary()); err != nil {
		s.log.Warn("something of an interrupted build is left", "error", err)
	}
}

// openBuilder makes the builder, which opens its databases when it is first used.
func (s *services) openBuilder() (err error) {
	steps := func(context.Context) (build.Steps, error) {
		return build.Steps{Executor: s.steps, Networks: s.steps.Networks(), Snapshots: s.steps.Snapshots, Settle: s.steps.Settle, Wrote: s.steps.Wrote}, nil
	}
	hostNetwork, insecure := s.config.builder.allows()
	budget, err := s.config.builder.budget()
	if err != nil {
		return err
	}
	history, err := s.config.builder.history()
	if err != nil {
		return err
	}
	s.builder, err = build.New(build.Config{
		Root: s.config.buildRoot(), Store: s.store, Registries: s.registry.Hosts, Steps: steps,
		HostGateway: s.networks.HostGateway(), AllowHostNetwork: hostNetwork, AllowInsecure: insecure, Budget: budget, History: history,
		Images: s.images, Log: s.log,
	})
	return err
}

// openSteps makes the executor of build steps, which sweeps what those of an earlier
// engine have left. The runtime has done so before.
func (s *services) openSteps() (err error) {
	s.steps, err = buildexec.New(buildexec.Config{
		Runtime: s.runtime, Networks: s.networks, Features: s.features, AppArmor: s.profiles, CgroupParent: s.config.CgroupParent,
		Dir: filepath.Join(s.config.ExecRoot, "build"), Log: s.log,
	})
	return err
}
