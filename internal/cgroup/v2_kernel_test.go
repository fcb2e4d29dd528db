package cgroup_test

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/cleatlabs/cleat/internal/cgroup"
	"github.com/cleatlabs/cleat/test/expect"
)

// v2 skips on hosts whose limits are those of v1.
func v2(t testing.TB) *cgroup.Hierarchy {
	t.Helper()
	h := hierarchy(t)
	if h.Version() != 2 {
		t.Skip("this host has cgroup v1")
	}
	return h
}

func TestV2LimitsInTheKernel(t *testing.T) {
	h := v2(t)
	g := create(t, h, "limits", cgroup.Resources{
		Memory: 64 << 20, MemoryReservation: 32 << 20, CPUShares: 512, CPUPeriod: 50000, CPUQuota: 25000, CpusetCpus: "0", CpusetMems: "0", PidsLimit: 33,
		Devices: cgroup.DefaultDeviceRules(),
	})
	check := func(name, want string) {
		t.Helper()
		if got := file(t, g, "", name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	check("memory.max", "67108864")
	check("memory.low", "33554432")
	check("cpu.weight", "59")
	check("cpu.max", "25000 50000")
	check("cpuset.cpus", "0")
	check("cpuset.cpus.effective", "0")
	check("pids.max", "33")
	if err := g.Update(cgroup.Resources{Memory: 128 << 20, PidsLimit: -1, CPUQuota: -1, CPUShares: 1024}); err != nil {
		t.Fatal(err)
	}
	check("memory.max", "134217728")
	check("pids.max", "max")
	check("cpu.max", "max 50000")
	check("cpu.weight", "100")
	if err := g.Update(cgroup.Resources{CPUPeriod: 20000}); err != nil {
		t.Fatal(err)
	}
	check("cpu.max", "max 20000")
	for name, r := range map[string]cgroup.Resources{"CPUs": {CpusetCpus: "900"}, "list": {CpusetCpus: "x"}, "period": {CPUPeriod: 5}} {
		if err := g.Update(r); !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("%s: %v", name, err)
		}
	}
	cmd := run(t, g, "exec sleep 1000")
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", cmd.Process.Pid))
	if err != nil || string(b) != "0::"+g.Path()+"\n" {
		t.Errorf("the process is in %q, %v", b, err)
	}
	if pids, err := g.Procs(); err != nil || !slices.Equal(pids, []int{cmd.Process.Pid}) {
		t.Errorf("Procs = %v, %v", pids, err)
	}
}

func TestV2DevicesAreDenied(t *testing.T) {
	g := create(t, v2(t), "devices", cgroup.Resources{Devices: cgroup.DefaultDeviceRules()})
	dir := t.TempDir()
	cmd := run(t, g, fmt.Sprintf(`mknod %[1]s/mem c 1 1 && head -c1 /dev/zero >/dev/null && { head -c1 %[1]s/mem >/dev/null 2>&1 && echo opened || echo denied; } > %[1]s/out`, dir))
	cmd.Wait()
	if b, _ := os.ReadFile(dir + "/out"); string(b) != "denied\n" {
		t.Errorf("opening /dev/mem: %q", b)
	}
}

func TestV2KillReachesNestedGroupsAndForkers(t *testing.T) {
	g := create(t, v2(t), "forker", cgroup.Resources{AllowAllDevices: true, PidsLimit: 200})
	nested := "/sys/fs/cgroup" + g.Path() + "/inner"
	run(t, g, "mkdir "+nested+"; sleep 1000 & echo $! > "+nested+"/cgroup.procs; f() { f & f & }; f 2>/dev/null; wait")
	expect.Eventually(t, "some forks", func() bool { pids, _ := g.Procs(); return len(pids) > 50 })
	if err := g.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := g.Remove(); err != nil {
		t.Error(err)
	}
}

func TestV2OOM(t *testing.T) {
	g := create(t, v2(t), "oom", cgroup.Resources{AllowAllDevices: true, Memory: 16 << 20})
	stop := make(chan struct{})
	defer close(stop)
	events, err := g.WatchOOM(stop)
	if err != nil {
		t.Fatal(err)
	}
	runOutOfMemory(t, g, events)
}

func TestV2LimitBelowUsage(t *testing.T) {
	g := create(t, v2(t), "usage", cgroup.Resources{AllowAllDevices: true, Memory: 256 << 20})
	run(t, g, `x=$(head -c 10000000 /dev/zero | tr '\0' x); read y < <(sleep 1000)`)
	expect.Eventually(t, "memory to be used", func() bool {
		var n int64
		for line := range strings.Lines(file(t, g, "", "memory.stat")) {
			if v, ok := strings.CutPrefix(line, "anon "); ok {
				fmt.Sscan(v, &n)
			}
		}
		return n > 9<<20
	})
	if err := g.Update(cgroup.Resources{Memory: 2 << 20, MemorySwap: 2 << 20}); !errors.Is(err, errdefs.ErrConflict) || !strings.Contains(err.Error(), "choose a higher limit") {
		t.Errorf("limit below usage: %v", err)
	}
	if cpu, err := g.CPUUsage(); cpu <= 0 || err != nil {
		t.Errorf("CPUUsage = %v, %v", cpu, err)
	}
}
