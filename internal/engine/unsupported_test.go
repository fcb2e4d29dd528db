package engine

import (
	"reflect"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"

	"github.com/cleatlabs/cleat/internal/cgroup"
)

// every is a host that carries every limit.
func every() cgroup.Support {
	var s cgroup.Support
	v := reflect.ValueOf(&s).Elem()
	for i := range v.NumField() {
		v.Field(i).SetBool(true)
	}
	return s
}

func TestLimitsThatTheHostCannotCarry(t *testing.T) {
	asked := func() container.Resources {
		yes, swappiness, pids := true, int64(10), int64(100)
		return container.Resources{Memory: 64 << 20, MemorySwap: 128 << 20, MemorySwappiness: &swappiness, MemoryReservation: 32 << 20, OomKillDisable: &yes,
			PidsLimit: &pids, CPUShares: 512, CPUQuota: 5000, CpusetCpus: "0", BlkioWeight: 100}
	}
	all := asked()
	if w, err := adaptLimits(&all, every()); len(w) > 0 || err != nil || !reflect.DeepEqual(all, asked()) {
		t.Errorf("all are there: %q, %v", w, err)
	}
	for _, c := range []struct {
		lacks   string
		warning string
		left    func(r *container.Resources)
	}{
		{"Swap", "Memory limited without swap", func(r *container.Resources) { r.MemorySwap = -1 }},
		{"Swappiness", "Memory swappiness discarded", func(r *container.Resources) { r.MemorySwappiness = nil }},
		{"MemoryReservation", "memory soft limit", func(r *container.Resources) { r.MemoryReservation = 0 }},
		{"OOMKillDisable", "OomKillDisable discarded", func(r *container.Resources) { r.OomKillDisable = nil }},
		{"Pids", "PIDs limit discarded", func(r *container.Resources) { r.PidsLimit = nil }},
		{"CPUShares", "Shares discarded", func(r *container.Resources) { r.CPUShares = 0 }},
		{"CPUQuota", "period and quota discarded", func(r *container.Resources) { r.CPUQuota = 0 }},
		{"Cpuset", "CPUset discarded", func(r *container.Resources) { r.CpusetCpus = "" }},
		{"BlkioWeight", "Weight discarded", func(r *container.Resources) { r.BlkioWeight = 0 }},
	} {
		can := every()
		reflect.ValueOf(&can).Elem().FieldByName(c.lacks).SetBool(false)
		got, want := asked(), asked()
		c.left(&want)
		w, err := adaptLimits(&got, can)
		if err != nil || len(w) != 1 || !strings.Contains(w[0], c.warning) || !reflect.DeepEqual(got, want) {
			t.Errorf("without %s: %q, %v, %+v", c.lacks, w, err, got)
		}
	}
	none := container.Resources{}
	if w, err := adaptLimits(&none, cgroup.Support{}); len(w) > 0 || err != nil {
		t.Errorf("nothing is asked for: %q, %v", w, err)
	}
	if _, err := adaptLimits(&container.Resources{NanoCPUs: 5e8}, cgroup.Support{}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("--cpus: %v", err)
	}
}

// TestNothingIsDroppedWithoutAWord: control groups of version 2 know no --oom-kill-disable; filling in the defaults must
// leave it for the check that says so.
func TestNothingIsDroppedWithoutAWord(t *testing.T) {
	for _, asked := range []bool{true, false} {
		host := &container.HostConfig{Resources: container.Resources{Memory: 64 << 20, OomKillDisable: &asked}}
		if err := (&ContainerDefaults{}).fill(host, true); err != nil {
			t.Fatal(err)
		}
		can := cgroup.Support{Memory: true, Swap: true}
		warnings, err := adaptLimits(&host.Resources, can)
		if err != nil || host.OomKillDisable != nil {
			t.Errorf("asked %v: %v, %v", asked, host.OomKillDisable, err)
		}
		if warned := len(warnings) == 1 && strings.Contains(warnings[0], "OomKillDisable"); warned != asked {
			t.Errorf("asked %v: the warnings are %q", asked, warnings)
		}
	}
}
