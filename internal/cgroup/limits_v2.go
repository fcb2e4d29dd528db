package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/failure"
)

func (g *Group) setLimitsV2(r Resources) error {
	dir := g.in(g.h.unified)
	for _, set := range []func(string, Resources) error{setMemoryV2, setCPUV2, setIOV2} {
		if err := set(dir, r); err != nil {
			return err
		}
	}
	if err := setCpuset(dir, r, "cpuset.cpus.effective", "cpuset.mems.effective"); err != nil {
		return err
	}
	if r.PidsLimit != 0 {
		return setPids(dir, r.PidsLimit)
	}
	return nil
}

// orMax formats a limit for v2's files.
func orMax(n int64) string {
	if n == -1 {
		return "max"
	}
	return format(n)
}

// writeV2 writes a limit; a file that is not there means that its controller is not.
func writeV2(dir, file, value, what string) error {
	err := writeFile(dir, file, value)
	controller, _, _ := strings.Cut(file, ".")
	if errors.Is(err, os.ErrNotExist) && file == swapMax && exists(filepath.Join(dir, "memory.max")) {
		return missing(what, "its kernel does not account for it (boot with swapaccount=1)")
	}
	if errors.Is(err, os.ErrNotExist) {
		return missing(what, "the "+controller+" controller is not enabled for the control group (see cgroup.subtree_control above it)")
	}
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// swapMax limits swap alone, not its sum with memory as v1's file does.
const swapMax = "memory.swap.max"

func setMemoryV2(dir string, r Resources) error {
	swap, err := swapOnly(dir, r)
	if err != nil {
		return err
	}
	if r.Memory > 0 {
		if err := checkUsageV2(dir, r.Memory, swapRoom(dir, r, swap)); err != nil {
			return err
		}
	}
	if swap == -1 && !exists(filepath.Join(dir, swapMax)) {
		swap = 0 // the kernel counts no swap: nothing limits it
	}
	if swap != 0 {
		if err := writeV2(dir, swapMax, orMax(max(swap, -1)), "swap"); err != nil {
			return err
		}
	} else if r.MemorySwap > 0 { // as much as the memory: no swap at all
		if err := writeV2(dir, swapMax, "0", "swap"); err != nil {
			return err
		}
	}
	if r.Memory != 0 {
		if err := writeV2(dir, "memory.max", orMax(r.Memory), "memory"); err != nil {
			return err
		}
	}
	if r.MemoryReservation != 0 {
		low := max(r.MemoryReservation, 0)
		return writeV2(dir, "memory.low", format(low), "memory")
	}
	return nil
}

// swapOnly turns the limit of memory plus swap into v2's limit of swap; -1 for none, 0 for leave alone or (with
// MemorySwap set) no swap.
func swapOnly(dir string, r Resources) (int64, error) {
	switch {
	case r.MemorySwap == 0 && r.Memory == -1:
		return -1, nil
	case r.MemorySwap <= 0:
		return r.MemorySwap, nil
	}
	now, err := uint64(r.Memory), error(nil) // -1 is the largest number
	if r.Memory == 0 {
		now, err = readUint(dir, "memory.max")
	}
	if err != nil || now > uint64(r.MemorySwap) {
		return 0, failure.Invalid("a memory+swap limit (%d) needs a memory limit that is not larger: set both at the same time", r.MemorySwap)
	}
	return r.MemorySwap - int64(now), nil
}

// swapRoom is how much of the group could be swapped out: what its limit (the new one, if one is set) and the host's free
// swap space allow.
func swapRoom(dir string, r Resources, swap int64) uint64 {
	free, err := readKey("/proc", "meminfo", "SwapFree:")
	if err != nil {
		return 0
	}
	limit := uint64(swap) // -1 is the largest number
	if r.MemorySwap == 0 && swap == 0 {
		if limit, err = readUint(dir, swapMax); err != nil {
			return 0
		}
	}
	used, err := readUint(dir, "memory.swap.current")
	if err != nil {
		used = 0
	}
	return min(limit-min(limit, used), free)
}

// checkUsageV2 refuses a limit below what the processes hold and the kernel can neither reclaim nor swap out. v1
// refuses it by itself; v2 would kill processes until it fits.
func checkUsageV2(dir string, limit int64, swapRoom uint64) error {
	var held uint64
	for _, key := range []string{"anon", "shmem", "kernel_stack", "slab_unreclaimable"} {
		n, err := readKey(dir, "memory.stat", key)
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err == nil { // a kernel may lack one of the keys
			held += n
		}
	}
	held -= min(held, swapRoom)
	if held > uint64(limit) {
		return failure.Conflict("cannot set the memory limit to %d bytes: the container uses %d bytes that cannot be reclaimed; choose a higher limit", limit, held)
	}
	return nil
}

func setCPUV2(dir string, r Resources) error {
	if r.CPUShares != 0 {
		if err := writeV2(dir, "cpu.weight", format(weightFromShares(r.CPUShares)), "CPU time"); err != nil {
			return err
		}
	}
	if r.CPUQuota == 0 && r.CPUPeriod == 0 {
		return nil
	}
	value := ""
	switch {
	case r.CPUQuota != 0 && r.CPUPeriod != 0:
		value = orMax(r.CPUQuota) + " " + format(r.CPUPeriod)
	case r.CPUQuota != 0: // the kernel keeps the period
		value = orMax(r.CPUQuota)
	default: // a period alone: the quota is kept
		now, err := readString(dir, "cpu.max")
		if err != nil {
			return missing("CPU time", "the cpu controller is not enabled for the control group (see cgroup.subtree_control above it)")
		}
		quota, _, _ := strings.Cut(now, " ")
		value = quota + " " + format(r.CPUPeriod)
	}
	err := writeV2(dir, "cpu.max", value, "CPU time")
	if errors.Is(err, unix.EINVAL) {
		return explainCPU("CPU quota", err, "period from 1000 to 1000000 and quota at least 1000 microseconds")
	}
	return err
}

func setIOV2(dir string, r Resources) error {
	if r.BlkioWeight != 0 {
		if err := setIOWeight(dir, r.BlkioWeight); err != nil {
			return err
		}
	}
	for _, d := range r.BlkioWeightDevice {
		if err := setIOWeightOf(dir, d); err != nil {
			return err
		}
	}
	for _, t := range []struct {
		key   string
		rates []DeviceLimit
	}{
		{"rbps", r.BlkioThrottleReadBps}, {"wbps", r.BlkioThrottleWriteBps},
		{"riops", r.BlkioThrottleReadIOPS}, {"wiops", r.BlkioThrottleWriteIOPS},
	} {
		for _, d := range t.rates {
			value := fmt.Sprintf("%d:%d %s=%s", d.Major, d.Minor, t.key, rate(d.Rate))
			if err := explainBlkio("io.max", value, writeFile(dir, "io.max", value)); err != nil {
				return err
			}
		}
	}
	return nil
}

// rate formats a rate; 0 means none.
func rate(n uint64) string {
	if n == 0 {
		return "max"
	}
	return strconv.FormatUint(n, 10)
}

// setIOWeight uses BFQ's file where that scheduler runs (it takes v1's range), and the cost model's otherwise.
func setIOWeight(dir string, weight uint16) error {
	err := writeFile(dir, "io.bfq.weight", format(int64(weight)))
	if err == nil || !errors.Is(err, os.ErrNotExist) {
		return explainBlkio("io.bfq.weight", format(int64(weight)), err)
	}
	value := "default " + strconv.FormatUint(ioWeight(weight), 10)
	return explainBlkio("io.weight", value, writeFile(dir, "io.weight", value))
}

// setIOWeightOf is setIOWeight for one device: BFQ's file takes those that it schedules, and answers EOPNOTSUPP for others.
func setIOWeightOf(dir string, d DeviceWeight) error {
	value := fmt.Sprintf("%d:%d %d", d.Major, d.Minor, d.Weight)
	err := writeFile(dir, "io.bfq.weight", value)
	if err == nil || !exists(filepath.Join(dir, "io.weight")) && !errors.Is(err, os.ErrNotExist) {
		return explainBlkio("io.bfq.weight", value, err)
	}
	value = fmt.Sprintf("%d:%d %d", d.Major, d.Minor, ioWeight(d.Weight))
	return explainBlkio("io.weight", value, writeFile(dir, "io.weight", value))
}
