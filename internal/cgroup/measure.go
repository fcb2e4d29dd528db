package cgroup

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Measure is what a group has used until now. What the host has no controller for is zero or nil.
type Measure struct {
	CPU, CPUUser, CPUSystem time.Duration
	CPUEach                 []time.Duration // by CPU; v1 only
	Periods, Throttled      uint64          // of the CPU quota: all, and those in which it was used up
	ThrottledTime           time.Duration

	Memory, MemoryMax uint64 // bytes; the most there was, v1 only
	// MemoryFailures is how often the limit was hit, and on v2, where Docker says so too, how often in vain: nothing could
	// be reclaimed.
	MemoryFailures uint64
	MemoryLimit    uint64 // bytes; huge without one
	MemoryStat     map[string]uint64

	Pids, PidsLimit uint64 // the limit is the largest number without one

	// IOBytes and IOCount are what was moved to and from block devices; an operation is in the kernel's words on v1
	// ("Read", "Total"), "read" or "write" on v2.
	IOBytes, IOCount []BlockIO
}

// BlockIO is how much of one operation a device has done.
type BlockIO struct {
	Major, Minor uint64
	Op           string
	Value        uint64
}

// userTicks are the ticks a second in which cpuacct.stat counts; part of the kernel's ABI.
const userTicks = 100

// Measure reads what the group has used. A group that is gone is errdefs.ErrNotFound.
func (g *Group) Measure() (*Measure, error) {
	if !exists(g.in(g.h.primary())) {
		return nil, g.gone(os.ErrNotExist)
	}
	if g.h.mode == "v2" {
		return g.measureV2(), nil
	}
	return g.measureV1(), nil
}

func (g *Group) measureV1() *Measure {
	m := &Measure{PidsLimit: math.MaxUint64, MemoryLimit: math.MaxUint64}
	if dir, ok := g.controller("cpuacct"); ok {
		m.CPU = time.Duration(uintOr(dir, "cpuacct.usage", 0))
		stat := keys(dir, "cpuacct.stat")
		m.CPUUser = time.Duration(stat["user"]) * (time.Second / userTicks)
		m.CPUSystem = time.Duration(stat["system"]) * (time.Second / userTicks)
		each, _ := readString(dir, "cpuacct.usage_percpu")
		for n := range strings.FieldsSeq(each) {
			ns, _ := strconv.ParseUint(n, 10, 64)
			m.CPUEach = append(m.CPUEach, time.Duration(ns))
		}
	}
	if dir, ok := g.controller("cpu"); ok {
		stat := keys(dir, "cpu.stat")
		m.Periods, m.Throttled, m.ThrottledTime = stat["nr_periods"], stat["nr_throttled"], time.Duration(stat["throttled_time"])
	}
	if dir, ok := g.controller("memory"); ok {
		m.Memory, m.MemoryMax = uintOr(dir, "memory.usage_in_bytes", 0), uintOr(dir, "memory.max_usage_in_bytes", 0)
		m.MemoryFailures, m.MemoryLimit = uintOr(dir, "memory.failcnt", 0), uintOr(dir, memoryLimit, math.MaxUint64)
		m.MemoryStat = keys(dir, "memory.stat")
	}
	if dir, ok := g.controller("pids"); ok {
		m.Pids, m.PidsLimit = uintOr(dir, "pids.current", 0), uintOr(dir, "pids.max", math.MaxUint64)
	}
	if dir, ok := g.controller("blkio"); ok {
		m.IOBytes, m.IOCount = blockIO(dir, "io_service_bytes"), blockIO(dir, "io_serviced")
	}
	return m
}

func (g *Group) measureV2() *Measure {
	dir := g.in(g.h.unified)
	cpu := keys(dir, "cpu.stat")
	us := func(key string) time.Duration { return time.Duration(cpu[key]) * time.Microsecond }
	m := &Measure{
		CPU: us("usage_usec"), CPUUser: us("user_usec"), CPUSystem: us("system_usec"),
		Periods: cpu["nr_periods"], Throttled: cpu["nr_throttled"], ThrottledTime: us("throttled_usec"),
		Memory: uintOr(dir, "memory.current", 0), MemoryLimit: uintOr(dir, "memory.max", math.MaxUint64), MemoryStat: keys(dir, "memory.stat"),
		MemoryFailures: keys(dir, "memory.events")["oom"],
		Pids:           uintOr(dir, "pids.current", 0), PidsLimit: uintOr(dir, "pids.max", math.MaxUint64),
	}
	text, _ := readString(dir, "io.stat")
	m.IOBytes, m.IOCount = parseIOStat(text)
	return m
}

// blockIO reads one of v1's counters. That of the throttling layer counts every device; before Linux 4.18 it has no
// recursive form, and a scheduler's own is there only while it is used.
func blockIO(dir, counter string) []BlockIO {
	for _, name := range []string{"blkio.throttle." + counter + "_recursive", "blkio.throttle." + counter, "blkio." + counter + "_recursive"} {
		text, err := readString(dir, name)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		return parseBlockIO(text)
	}
	return []BlockIO{}
}

// parseBlockIO reads lines "major:minor operation number". The sum over all devices, which has none, is left out.
func parseBlockIO(text string) []BlockIO {
	out := []BlockIO{}
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) != 3 {
			continue
		}
		major, minor, ok := parseDevice(f[0])
		n, err := strconv.ParseUint(f[2], 10, 64)
		if ok && err == nil {
			out = append(out, BlockIO{Major: major, Minor: minor, Op: f[1], Value: n})
		}
	}
	return out
}

// parseIOStat reads v2's lines "major:minor rbytes=1 wbytes=2 rios=3 wios=4 …".
func parseIOStat(text string) (bytes, count []BlockIO) {
	bytes, count = []BlockIO{}, []BlockIO{}
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		major, minor, ok := parseDevice(f[0])
		if !ok {
			continue
		}
		for _, pair := range f[1:] {
			key, value, _ := strings.Cut(pair, "=")
			n, err := strconv.ParseUint(value, 10, 64)
			if err != nil {
				continue
			}
			io := BlockIO{Major: major, Minor: minor, Op: "read", Value: n}
			if strings.HasPrefix(key, "w") {
				io.Op = "write"
			}
			switch key {
			case "rbytes", "wbytes":
				bytes = append(bytes, io)
			case "rios", "wios":
				count = append(count, io)
			}
		}
	}
	return bytes, count
}

func parseDevice(s string) (major, minor uint64, ok bool) {
	a, b, ok := strings.Cut(s, ":")
	major, err := strconv.ParseUint(a, 10, 32)
	if err != nil || !ok {
		return 0, 0, false
	}
	minor, err = strconv.ParseUint(b, 10, 32)
	return major, minor, err == nil
}

// uintOr is a number of a file, or otherwise if the file is not there.
func uintOr(dir, name string, otherwise uint64) uint64 {
	n, err := readUint(dir, name)
	if err != nil {
		return otherwise
	}
	return n
}

// keys reads a file of "key number" lines; nil if it is not there.
func keys(dir, name string) map[string]uint64 {
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return nil
	}
	out := make(map[string]uint64, 64)
	for line := range strings.Lines(string(b)) {
		key, value, ok := strings.Cut(strings.TrimSpace(line), " ")
		if n, err := strconv.ParseUint(value, 10, 64); ok && err == nil {
			out[key] = n
		}
	}
	return out
}
