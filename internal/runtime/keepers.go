package runtime

import (
	"time"

	"github.com/cleatlabs/cleat/internal/launch"
	"github.com/cleatlabs/cleat/internal/supervise"
)

const (
	// spareKeepers bounds the idle processes, each of some 100 kB of the kernel's memory.
	spareKeepers = 4
	// keeperQuiet is longer than a short exec takes: one after the other has them made by twos and threes.
	keeperQuiet = 4 * time.Millisecond
)

// newKeepers keeps a few keepers waiting for their programs: fork and execve are the longest steps of an exec, after those of its command.
func newKeepers(stub *launch.Stub) *supervise.Reserve[*launch.Parked] {
	fill := func(missing int, put func(*launch.Parked)) {
		for range missing {
			k, err := stub.Park()
			if err != nil {
				return // a start makes its own, or meets the same and reports it
			}
			put(k)
		}
	}
	return supervise.NewReserve(spareKeepers, keeperQuiet, fill, (*launch.Parked).Close)
}
