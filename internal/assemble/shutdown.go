package assemble

import (
	"context"
	"fmt"
	"time"

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
	patience := s.engine.LongestStop()
	s.log.Info("the machine goes down: the containers are stopped", "at most", patience.String())
	notify(fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", (patience + askPatience).Microseconds()))
	if err := s.engine.StopAll(context.Background()); err != nil {
		s.log.Error("a container could not be stopped", "error", err)
	}
}
