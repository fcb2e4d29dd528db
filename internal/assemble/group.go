package assemble

import (
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/cleatlabs/cleat/internal/cgroup"
	"github.com/cleatlabs/cleat/internal/container"
	"github.com/cleatlabs/cleat/internal/record"
)

// idFile holds the engine's id, which is made at its first start.
func (c *Config) idFile() string { return filepath.Join(c.DataRoot, "engine-id") }

// id is the engine's; "" before its first start.
func (c *Config) id() string {
	b, err := os.ReadFile(c.idFile())
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// makeID gives an engine that has no id one. One that is damaged is not replaced where anything is left of it: containers
// may run that are the engine's by it.
func (c *Config) makeID() error {
	id := c.id()
	if id == "" {
		return record.WriteDurable(c.idFile(), []byte(container.NewID()[:32]+"\n"), 0o600)
	}
	if b, err := hex.DecodeString(id); err != nil || len(b) != 16 {
		return fmt.Errorf("%s is damaged: it is to hold 32 hexadecimal digits; when no containers run, remove it and the engine makes another", c.idFile())
	}
	return nil
}

// shortID is as much of an engine's id as the names of control groups hold.
const shortID = 12

// groupIn is the control group that the engine's containers lie below: the one that it was told, or, where another engine
// has its containers in that, one next to it with the engine's id in its name. It stays there as long as that exists, as
// containers that go on without their engine lie in it.
func (c *Config) groupIn(h *cgroup.Hierarchy) string {
	id := c.id()
	if len(id) < shortID {
		return c.CgroupParent
	}
	beside := c.CgroupParent + "-" + id[:shortID]
	if h.Exists(beside) || h.Foreign(c.CgroupParent, id) != "" {
		return beside
	}
	return c.CgroupParent
}

// ownGroup is groupIn for commands that work without the engine.
func (c *Config) ownGroup() string {
	h, err := cgroup.Detect()
	if err != nil {
		return c.CgroupParent // there is nothing in it
	}
	return c.groupIn(h)
}

// claimGroup settles which control group is this engine's, for the services that are opened next.
func (s *services) claimGroup() error {
	told := s.config.CgroupParent
	group := s.config.groupIn(s.cgroups)
	err := s.cgroups.Claim(group, s.config.id())
	if errdefs.IsConflict(err) { // another engine was quicker
		group = s.config.groupIn(s.cgroups)
		err = s.cgroups.Claim(group, s.config.id())
	}
	if err != nil {
		return err
	}
	if group != told {
		s.log.Warn("another engine has its containers in the control group that was meant for this one's",
			"meant", told, "used", group, "engine", s.cgroups.Foreign(told, s.config.id()))
	}
	s.config.CgroupParent = group
	s.claimed = true
	return nil
}

// unclaimGroup removes the control group of an engine that has failed to start, if nothing is in it.
func (s *services) unclaimGroup() {
	if !s.claimed {
		return
	}
	if err := s.cgroups.RemoveMadeParent(s.config.CgroupParent); err != nil {
		s.log.Warn("the control group of an engine that has not started is left", "error", err)
	}
}
