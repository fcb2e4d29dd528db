package assemble

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
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

// id is the engine's; "" before its first start, and where a crash of the machine has left an empty file.
func (c *Config) id() (string, error) {
	b, err := os.ReadFile(c.idFile())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("the engine's id cannot be read, and is not replaced, as containers may run that are its own by it: %w; see to the disk, or, when no containers run, remove it and the engine makes another", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// makeID gives an engine that has no id one. One that is damaged is not replaced where anything is left of it: containers
// may run that are the engine's by it.
func (c *Config) makeID(log *slog.Logger) error {
	id, err := c.id()
	if err != nil {
		return err
	}
	if id == "" {
		if _, err := os.Stat(c.idFile()); err == nil {
			log.Warn("the file with the engine's id is empty, as a crash of the machine may leave it: the engine gets a new one", "file", c.idFile())
		}
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
func (c *Config) groupIn(h *cgroup.Hierarchy, id string) string {
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
func (c *Config) ownGroup() (string, error) {
	id, err := c.id()
	if err != nil {
		return "", err
	}
	h, err := cgroup.Detect()
	if err != nil {
		return c.CgroupParent, nil // there is nothing in it
	}
	return c.groupIn(h, id), nil
}

// claimGroup settles which control group is this engine's, for the services that are opened next.
func (s *services) claimGroup() error {
	told := s.config.CgroupParent
	id, err := s.config.id()
	if err != nil {
		return err
	}
	group := s.config.groupIn(s.cgroups, id)
	err = s.cgroups.Claim(group, id)
	if errdefs.IsConflict(err) { // another engine was quicker
		group = s.config.groupIn(s.cgroups, id)
		err = s.cgroups.Claim(group, id)
	}
	if err != nil {
		return err
	}
	if group != told {
		s.log.Warn("another engine has its containers in the control group that was meant for this one's",
			"meant", told, "used", group, "engine", s.cgroups.Foreign(told, id))
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
