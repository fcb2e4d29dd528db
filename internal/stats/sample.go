package stats

import (
	"bytes"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	api "github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/cgroup"
	"github.com/cleatlabs/cleat/internal/container"
)

// userHertz are the ticks a second in which /proc/stat counts; part of the kernel's ABI.
const userHertz = 100

// hostCPU is the CPU time of the host.
type hostCPU struct {
	used   uint64 // nanoseconds of all CPUs, idle ones included
	online uint32
}

// readHostCPU reads the times that clients divide a container's by.
func readHostCPU() hostCPU {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return hostCPU{}
	}
	return parseHostCPU(string(b))
}

func parseHostCPU(stat string) hostCPU {
	// user, nice, system, idle, iowait, irq, softirq, as Docker adds them up.
	const counted = 7
	var h hostCPU
	for line := range strings.Lines(stat) {
		f := strings.Fields(line)
		if len(f) <= counted || !strings.HasPrefix(f[0], "cpu") {
			continue
		}
		if f[0] != "cpu" {
			h.online++
			continue
		}
		for _, n := range f[1 : counted+1] {
			ticks, _ := strconv.ParseUint(n, 10, 64)
			h.used += ticks * uint64(time.Second/userHertz)
		}
	}
	return h
}

// sample measures a container now. One that does not run gives its names only.
func (m *Meter) sample(c *container.Container, host hostCPU) *api.StatsResponse {
	rec := c.Load()
	s := &api.StatsResponse{ID: rec.ID, Name: "/" + rec.Name, OSType: "linux"}
	if c.Gone() {
		return s
	}
	r := m.runs.Run(c)
	if r == nil {
		return s
	}
	group, err := r.Group()
	if err != nil {
		return s // it has just ended
	}
	used, err := group.Measure()
	if err != nil {
		return s
	}
	s.Read = time.Now().UTC()
	s.CPUStats = cpuStats(used, host)
	s.MemoryStats = memoryStats(used)
	s.PidsStats = pidsStats(used, m.cgroupV2)
	s.BlkioStats = blkioStats(used, m.cgroupV2)
	if table, err := r.Links(); err == nil {
		s.Networks = parseNetDev(table)
	}
	return s
}

func cpuStats(m *cgroup.Measure, host hostCPU) api.CPUStats {
	s := api.CPUStats{
		CPUUsage: api.CPUUsage{
			TotalUsage: uint64(m.CPU), UsageInUsermode: uint64(m.CPUUser), UsageInKernelmode: uint64(m.CPUSystem),
		},
		SystemUsage: host.used, OnlineCPUs: host.online,
		ThrottlingData: api.ThrottlingData{Periods: m.Periods, ThrottledPeriods: m.Throttled, ThrottledTime: uint64(m.ThrottledTime)},
	}
	for _, d := range m.CPUEach {
		s.CPUUsage.PercpuUsage = append(s.CPUUsage.PercpuUsage, uint64(d))
	}
	return s
}

// memoryStats shows the host's memory as the limit of one that has none.
func memoryStats(m *cgroup.Measure) api.MemoryStats {
	limit := m.MemoryLimit
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err == nil {
		limit = min(limit, uint64(info.Totalram)*uint64(info.Unit))
	}
	return api.MemoryStats{Usage: m.Memory, MaxUsage: m.MemoryMax, Failcnt: m.MemoryFailures, Limit: limit, Stats: m.MemoryStat}
}

// pidsStats tells "no limit" as Docker does: by 0 on v1, by the largest number on v2.
func pidsStats(m *cgroup.Measure, v2 bool) api.PidsStats {
	s := api.PidsStats{Current: m.Pids, Limit: m.PidsLimit}
	if !v2 && s.Limit == 1<<64-1 {
		s.Limit = 0
	}
	return s
}

// blkioStats fills in what the kernel counts; the other lists are empty on v1, null
// on v2.
func blkioStats(m *cgroup.Measure, v2 bool) api.BlkioStats {
	entries := func(list []cgroup.BlockIO) []api.BlkioStatEntry {
		out := make([]api.BlkioStatEntry, 0, len(list))
		for _, e := range list {
			out = append(out, api.BlkioStatEntry{Major: e.Major, Minor: e.Minor, Op: e.Op, Value: e.Value})
		}
		return out
	}
	s := api.BlkioStats{IoServiceBytesRecursive: entries(m.IOBytes), IoServicedRecursive: entries(m.IOCount)}
	if v2 {
		return s
	}
	for _, list := range []*[]api.BlkioStatEntry{
		&s.IoQueuedRecursive, &s.IoServiceTimeRecursive, &s.IoWaitTimeRecursive, &s.IoMergedRecursive, &s.IoTimeRecursive, &s.SectorsRecursive,
	} {
		*list = []api.BlkioStatEntry{}
	}
	return s
}

// kernelLinks are links that the kernel puts into every network namespace; they
// carry nothing of the container's.
var kernelLinks = []string{"lo", "tunl0", "gre0", "gretap0", "erspan0", "ip_vti0", "ip6_vti0", "sit0", "ip6tnl0", "ip6gre0"}

// parseNetDev reads /proc/PID/net/dev, the table of a network namespace's links; nil
// if there are none to be shown.
func parseNetDev(table []byte) map[string]api.NetworkStats {
	const columns = 16
	var out map[string]api.NetworkStats
	for line := range bytes.Lines(table) {
		// A name may hold a colon: the last one ends it.
		at := bytes.LastIndexByte(line, ':')
		if at < 0 {
			continue
		}
		name, f := string(bytes.TrimSpace(line[:at])), bytes.Fields(line[at+1:])
		if len(f) < columns || slices.Contains(kernelLinks, name) {
			continue
		}
		n := func(i int) uint64 {
			v, _ := strconv.ParseUint(string(f[i]), 10, 64)
			return v
		}
		if out == nil {
			out = map[string]api.NetworkStats{}
		}
		out[name] = api.NetworkStats{
			RxBytes: n(0), RxPackets: n(1), RxErrors: n(2), RxDropped: n(3), TxBytes: n(8), TxPackets: n(9), TxErrors: n(10), TxDropped: n(11),
		}
	}
	return out
}
