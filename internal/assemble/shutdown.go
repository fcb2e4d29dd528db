package assemble

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"github.com/containerd/errdefs"

	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/systemd"
)

// askPatience bounds the question whether the machine goes down.
const askPatience = 5 * time.Second

// endWithMachine stops the containers if the engine is ended because the machine goes down: nobody else asks them, and
// what is left when the network and the disks have gone is killed. Otherwise they go on.
func (s *services) endWithMachine() {
	ctx, cancel := context.WithTimeout(context.Background(), askPatience)
	defer cancel()
	down, err := systemd.ShuttingDown(ctx)
	if err != nil {
		s.log.Warn("whether the machine goes down is not known", "error", err)
	}
	if !down {
		s.log.Info("the containers go on")
		return
	}
	if err := s.stopContainers(context.Background()); err != nil {
		s.log.Error("a container could not be stopped", "error", err)
	}
}

// stopContainers stops what runs, and has systemd wait for it.
func (s *services) stopContainers(ctx context.Context) error {
	patience := s.engine.LongestStop()
	s.log.Info("the machine goes down: the containers are stopped", "at most", patience.String())
	notify(fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", (patience + askPatience).Microseconds()))
	return s.engine.StopAll(ctx)
}

// Shutdown stops the containers that an engine with this configuration has left running, as the engine does when the
// machine goes down: by their stop signals, with their timeouts, and restart policies hold after the boot. It serves
// nobody, starts nothing, and is quick where nothing runs. It is an error if the engine runs, which stops them itself.
// As a unit of systemd, and without flags, it takes those that the engine had.
func Shutdown(ctx context.Context, own Config) error {
	if os.Geteuid() != 0 {
		return errors.New("stopping containers needs root: start it with sudo")
	}
	left, err := own.leftFlags()
	if err != nil {
		return err
	}
	c := *left
	running, err := c.leftRunning()
	if err != nil || !running {
		return err
	}
	level, err := c.level()
	if err != nil {
		return err
	}
	adjustable := &slog.LevelVar{}
	adjustable.Set(level)
	c.onlyStops = true
	s, err := open(ctx, c, newLogger(c.LogFormat, adjustable), adjustable)
	if err != nil {
		return err
	}
	defer s.close()
	return s.stopContainers(ctx)
}

// leftRunning says whether a container runs without its engine.
func (c *Config) leftRunning() (bool, error) {
	if _, err := os.Stat(c.DataRoot); errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	lock, err := lockDir(c.DataRoot)
	var inUse *errInUse
	if errors.As(err, &inUse) {
		return false, failure.Conflict("the engine is running (PID %d): it stops its containers itself when the machine goes down", inUse.pid)
	}
	if err != nil {
		return false, err
	}
	defer lock.Close()
	group, err := c.ownGroup()
	if err != nil {
		return false, err
	}
	// A container whose keeper was killed has processes all the same.
	err = errors.Join(c.refuseRunning(), refusePopulated(group))
	if errors.Is(err, errdefs.ErrConflict) {
		return true, nil
	}
	return false, err
}
