package cgroup

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/containerd/errdefs"
)

func TestMeasureV2(t *testing.T) {
	h := fakeV2(t)
	g, err := h.Create("/cleat/x", Resources{AllowAllDevices: true})
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"cpu.stat":       "usage_usec 3000\nuser_usec 1000\nsystem_usec 2000\nnr_periods 5\nnr_throttled 2\nthrottled_usec 70\n",
		"memory.current": "8192\n", "memory.max": "65536\n", "memory.stat": "anon 4096\ninactive_file 1024\n",
		"memory.events": "low 1\nhigh 2\nmax 7\noom 4\noom_kill 9\n",
		"pids.current":  "3\n", "io.stat": "8:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0 dios=0\n253:1 \n",
	} {
		if err := os.WriteFile(filepath.Join(h.unified, "cleat/x", name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := g.Measure()
	want := &Measure{
		CPU: 3 * time.Millisecond, CPUUser: time.Millisecond, CPUSystem: 2 * time.Millisecond, Periods: 5, Throttled: 2, ThrottledTime: 70 * time.Microsecond,
		Memory: 8192, MemoryLimit: 65536, MemoryStat: map[string]uint64{"anon": 4096, "inactive_file": 1024}, MemoryFailures: 4, Pids: 3, PidsLimit: math.MaxUint64,
		IOBytes: []BlockIO{{8, 0, "read", 10}, {8, 0, "write", 20}}, IOCount: []BlockIO{{8, 0, "read", 1}, {8, 0, "write", 2}},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v\nwant %+v", got, err, want)
	}
	gone := &Group{h: h, path: "/cleat/none"}
	if _, err := gone.Measure(); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("a group that is gone: %v", err)
	}
}

func TestParseBlockIO(t *testing.T) {
	got := parseBlockIO("8:0 Read 4096\n8:0 Write 0\n8:0 Total 4096\nx:y Read 1\n8:1 Read x\nTotal 4096\n")
	want := []BlockIO{{8, 0, "Read", 4096}, {8, 0, "Write", 0}, {8, 0, "Total", 4096}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v", got)
	}
}

func FuzzParseIO(f *testing.F) {
	f.Add("8:0 rbytes=1 wbytes=2\n")
	f.Add("8:0 Read 1\nTotal 1")
	f.Fuzz(func(t *testing.T, text string) {
		bytes, count := parseIOStat(text)
		if bytes == nil || count == nil || parseBlockIO(text) == nil {
			t.Error("nil would be null to clients")
		}
	})
}
