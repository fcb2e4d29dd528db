package volume

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/docker/go-units"

	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/mount"
)

// Project ids of volumes are looked for from firstProject on: above those that an
// administrator gives in /etc/projid.
const (
	firstProject = 0x436c0000
	maxProjects  = 1 << 16
)

// parseSize reads the option size: bytes, with k, m, g … as multiples of 1024.
func parseSize(s string) (uint64, error) {
	n, err := units.RAMInBytes(s)
	if err != nil || n <= 0 {
		return 0, fmt.Errorf("invalid size %q", s)
	}
	return uint64(n), nil
}

// checkQuota says whether a volume of the size that was asked for can be made.
func (s *Service) checkQuota(name, size string) error {
	if size == "" {
		return nil
	}
	if _, err := parseSize(size); err != nil {
		return failure.Invalid("create %s: %w", name, err)
	}
	p, err := mount.OpenProject(s.root, firstProject)
	if err != nil {
		return failure.NotImplemented("create %s: quota size requested but no quota support: %w", name, err)
	}
	return p.Close()
}

// limit gives a volume's empty data directory a project of its own with the size
// that the options ask for, and notes the project in meta.
func (s *Service) limit(data string, meta *metadata) error {
	if meta.Driver != "" || meta.Options[optSize] == "" { // what a plugin's options mean is its business
		return nil
	}
	size, err := parseSize(meta.Options[optSize])
	if err != nil {
		return err
	}
	s.projects.Lock()
	defer s.projects.Unlock()
	meta.Project, err = mount.ClaimProject([]string{data}, firstProject, maxProjects, size)
	return err
}

// setLimit changes the limit of a volume's project: to its size, or to none.
func (s *Service) setLimit(meta *metadata, limited bool) error {
	if meta.Project == 0 {
		return nil
	}
	p, err := mount.OpenProject(s.root, meta.Project)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var size uint64
	if limited {
		if size, err = parseSize(meta.Options[optSize]); err != nil {
			return errors.Join(err, p.Close())
		}
	}
	return errors.Join(p.Limit(size), p.Close())
}

// share gives a second directory of a volume to its project, without a limit as long
// as there are two.
func (s *Service) share(dir string, meta *metadata) error {
	if meta.Project == 0 {
		return nil
	}
	if err := s.setLimit(meta, false); err != nil {
		return err
	}
	p, err := mount.OpenProject(dir, meta.Project)
	if err != nil {
		return err
	}
	return errors.Join(p.Adopt(), p.Close())
}
