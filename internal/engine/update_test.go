package engine

import (
	"testing"
	"time"

	api "github.com/moby/moby/api/types/container"
)

// TestMemoryIsUpdatedTogetherWithSwap: control groups of version 2 limit swap by itself, so a new limit of memory changes
// it although the sum of both stays.
func TestMemoryIsUpdatedTogetherWithSwap(t *testing.T) {
	const mb = 1 << 20
	for _, c := range []struct {
		name             string
		now, req         api.Resources
		memory, swap     int64 // of what is new
		hostMem, hostSum int64
	}{
		{"the sum is the same", api.Resources{Memory: 64 * mb, MemorySwap: 128 * mb}, api.Resources{Memory: 128 * mb, MemorySwap: 128 * mb}, 128 * mb, 128 * mb, 128 * mb, 128 * mb},
		{"the sum is not named", api.Resources{Memory: 64 * mb, MemorySwap: 128 * mb}, api.Resources{Memory: 100 * mb}, 100 * mb, 128 * mb, 100 * mb, 128 * mb},
		{"there was none", api.Resources{}, api.Resources{Memory: 100 * mb}, 100 * mb, 200 * mb, 100 * mb, 200 * mb},
		{"swap without end", api.Resources{Memory: 64 * mb, MemorySwap: -1}, api.Resources{Memory: 100 * mb}, 100 * mb, -1, 100 * mb, -1},
		{"only the sum", api.Resources{Memory: 64 * mb, MemorySwap: 128 * mb}, api.Resources{MemorySwap: 256 * mb}, 0, 256 * mb, 64 * mb, 256 * mb},
		{"as much as numbers hold", api.Resources{}, api.Resources{Memory: 1<<63 - 4096}, 1<<63 - 4096, -1, 1<<63 - 4096, -1},
		{"nothing of it", api.Resources{Memory: 64 * mb, MemorySwap: 128 * mb}, api.Resources{CPUShares: 100}, 0, 0, 64 * mb, 128 * mb},
	} {
		host := &api.HostConfig{Resources: c.now}
		delta, err := merge(host, &api.UpdateConfig{Resources: c.req})
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if delta.Memory != c.memory || delta.MemorySwap != c.swap || host.Memory != c.hostMem || host.MemorySwap != c.hostSum {
			t.Errorf("%s: new %d, %d; then %d, %d", c.name, delta.Memory, delta.MemorySwap, host.Memory, host.MemorySwap)
		}
	}
}

// TestMemoryAsOfAGroupWithoutLimit: twice as much as a number holds is no limit of swap, not a negative one.
func TestMemoryAsOfAGroupWithoutLimit(t *testing.T) {
	for memory, want := range map[int64]int64{1 << 30: 2 << 30, 1<<62 - 1: 1<<63 - 2, 1 << 62: -1, 1<<63 - 4096: -1} {
		h := &api.HostConfig{Resources: api.Resources{Memory: memory}}
		if err := (&ContainerDefaults{}).fill(h, true); err != nil || h.MemorySwap != want {
			t.Errorf("%d: %d, %v; want %d", memory, h.MemorySwap, err, want)
		}
	}
}

// TestNegativeQuotas: with Docker any of them is none, in whichever version of control groups.
func TestNegativeQuotas(t *testing.T) {
	for quota, want := range map[int64]int64{-1 << 63: -1, -5: -1, -1: -1, 0: 0, 5000: 5000} {
		h := &api.HostConfig{Resources: api.Resources{CPUQuota: quota}}
		if _, err := checkResources(h); err != nil {
			t.Errorf("%d is refused: %v", quota, err)
		}
		if r, err := cgroupResources(h); err != nil || r.CPUQuota != want {
			t.Errorf("%d: %d, %v; want %d", quota, r.CPUQuota, err, want)
		}
	}
}

func TestSeconds(t *testing.T) {
	const most = 9223372036 * time.Second
	for n, want := range map[int]time.Duration{10: 10 * time.Second, 0: 0, -1: -time.Second, -1 << 62: -time.Second, 18446744074: most, 1<<63 - 1: most} {
		if got := seconds(n); got != want {
			t.Errorf("%d are %s, want %s", n, got, want)
		}
	}
}
