package stats

import (
	"maps"
	"slices"
	"testing"
	"time"

	api "github.com/moby/moby/api/types/container"
)

func TestParseHostCPU(t *testing.T) {
	const stat = "cpu  10 20 30 40 50 60 70 1000 2000 3000\ncpu0 1 1 1 1 1 1 1 1 1 1\ncpu3 1 1 1 1 1 1 1 1 1 1\nintr 5 5 5 5 5 5 5 5 5\nctxt 7\n"
	if got, want := parseHostCPU(stat), (hostCPU{used: 280 * uint64(10*time.Millisecond), online: 2}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if now := readHostCPU(); now.used == 0 || now.online == 0 {
		t.Errorf("this host: %+v", now)
	}
}

func TestParseNetDev(t *testing.T) {
	const table = `Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:     100       1    0    0    0     0          0         0     100       1    0    0    0     0       0          0
  sit0:       0       0    0    0    0     0          0         0       0       0    0    0    0     0       0          0
  eth0:    1000      10    1    2    0     0          0         0    2000      20    3    4    0     0       0          0
eth1:1:5 6 7 8 0 0 0 0 9 10 11 12 0 0 0 0
 short: 1 2
`
	want := map[string]api.NetworkStats{
		"eth0":   {RxBytes: 1000, RxPackets: 10, RxErrors: 1, RxDropped: 2, TxBytes: 2000, TxPackets: 20, TxErrors: 3, TxDropped: 4},
		"eth1:1": {RxBytes: 5, RxPackets: 6, RxErrors: 7, RxDropped: 8, TxBytes: 9, TxPackets: 10, TxErrors: 11, TxDropped: 12},
	}
	if got := parseNetDev([]byte(table)); !maps.Equal(got, want) {
		t.Errorf("%+v", got)
	}
	if got := parseNetDev([]byte("    lo: 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1\n")); got != nil {
		t.Errorf("a container without a network: %v", got)
	}
}

func FuzzParseNetDev(f *testing.F) {
	f.Add([]byte("eth0: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n"))
	f.Fuzz(func(t *testing.T, table []byte) {
		for name := range parseNetDev(table) {
			if slices.Contains(kernelLinks, name) {
				t.Errorf("%q is the kernel's", name)
			}
		}
	})
}

// Streams go on when the host's clock was set back since their last record, and those that have just begun wait for the
// next tick whatever was done to it.
func TestWhoseRecordIsDueGoesByNoClockThatIsSet(t *testing.T) {
	now := time.Now()
	of := func(read, taken time.Time) *gauge { return &gauge{last: &api.StatsResponse{Read: read}, taken: taken} }
	m := &Meter{gauges: map[string]*gauge{
		"set back":    of(now.Add(24*time.Hour), now.Add(-interval)),
		"set forward": of(now.Add(-24*time.Hour), now.Add(interval)), // it has just begun
	}}
	if due := m.due(); len(due) != 1 || due[0] != m.gauges["set back"] {
		t.Errorf("due: %v", due)
	}
}

func TestAfterTakesTheCPUTimesOfTheSampleBefore(t *testing.T) {
	now := time.Now()
	before := &api.StatsResponse{Read: now, CPUStats: api.CPUStats{SystemUsage: 5}}
	if got := after(before, &api.StatsResponse{Read: now.Add(time.Second)}); got.PreRead != now || got.PreCPUStats.SystemUsage != 5 {
		t.Errorf("%+v", got)
	}
	for _, pair := range [][2]*api.StatsResponse{{before, {}}, {{}, before}} { // it had stopped; it had not started
		if got := after(pair[0], pair[1]); !got.PreRead.IsZero() {
			t.Errorf("%+v", got)
		}
	}
}
