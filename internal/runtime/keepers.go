package runtime

import (
	"time"

	"github.com/cleatlabs/cleat/internal/kernel"
	"github.com/cleatlabs/cleat/internal/launch"
	"github.com/cleatlabs/cleat/internal/supervise"
)

const (
	// spareKeepers bounds the idle processes, each of some 100 kB of the kernel's memory.
	spareKeepers = 4
	// keeperQuiet is longer than a short exec takes: one after the other has them made by twos and threes.
	keeperQuiet = 4 * time.Millisecond
)

// A spareKeeper is a keeper without a program.
type spareKeeper struct {
	*launch.Parked
	start uint64 // its start time; 0 is unknown
}

// newKeepers keeps a few keepers waiting for their programs: fork and execve are the longest steps of an exec, after
// those of its command.
func newKeepers(stub *launch.Stub) *supervise.Reserve[spareKeeper] {
	fill := func(missing int, put func(spareKeeper)) {
		made, _ := stub.Park(missing) // a start makes its own, or meets the same and reports it
		for _, k := range made {
			start, _ := kernel.StartTime(k.PID())
			put(spareKeeper{k, start})
		}
	}
	return supervise.NewReserve(spareKeepers, spareKeepers, keeperQuiet, fill, func(k spareKeeper) { k.Close() })
}

// placeKeepers has keepers be born outside of the engine's own control group. They outlive the engine, and what is left
// in a service's group when it starts or ends is what systemd warns of, for each process, and counts as the service's.
func (r *Runtime) placeKeepers() error {
	if r.c.Cgroups == nil || r.c.KeeperGroup == "" {
		return nil
	}
	fd, err := r.c.Cgroups.Outside(r.c.KeeperGroup)
	if err != nil {
		return err
	}
	r.stub.In(fd)
	return nil
}

// leaveKeepers removes the keepers' group if none is in it.
func (r *Runtime) leaveKeepers() error {
	if r.c.KeeperGroup == "" {
		return nil
	}
	return r.RemoveMadeParent(r.c.KeeperGroup)
}
