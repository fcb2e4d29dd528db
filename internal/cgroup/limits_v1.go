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

// apply sets the limits of a new group.
func (g *Group) apply(r Resources) error {
	if err := g.setLimits(r); err != nil {
		return err
	}
	if r.AllowAllDevices {
		return nil // what a new group inherits
	}
	if g.h.mode == "v2" {
		return g.filterDevices(r.Devices)
	}
	return g.setDevicesV1(r.Devices)
}

// Update changes the limits that are set in r, and leaves the others. Device rules cannot be changed. A memory limit
// that the processes already exceed is errdefs.ErrConflict.
func (g *Group) Update(r Resources) error {
	if len(r.Devices) > 0 || r.AllowAllDevices {
		return failure.NotImplemented("the devices of a running container cannot be changed: create it anew with them")
	}
	if err := r.validate(g.h.Version()); err != nil {
		return err
	}
	return g.gone(g.setLimits(r))
}

func (g *Group) setLimits(r Resources) error {
	if g.h.mode == "v2" {
		return g.setLimitsV2(r)
	}
	for _, set := range []func(Resources) error{g.setMemoryV1, g.setCPUV1, g.setCpusetV1, g.setPidsV1, g.setBlkioV1} {
		if err := set(r); err != nil {
			return err
		}
	}
	return nil
}

// missing is the error for a limit whose controller or file the host does not have.
func missing(what, how string) error {
	return failure.NotImplemented("this host cannot limit %s: %s", what, how)
}

func format(n int64) string { return strconv.FormatInt(n, 10) }

func (g *Group) setMemoryV1(r Resources) error {
	swappiness := r.MemorySwappiness != nil && *r.MemorySwappiness != -1
	if r.Memory == 0 && r.MemorySwap == 0 && r.MemoryReservation == 0 && !swappiness && !r.OOMKillDisable {
		return nil
	}
	dir, ok := g.controller("memory")
	if !ok {
		return missing("memory", "it has no memory control group (boot with cgroup_enable=memory)")
	}
	if err := g.setMemoryAndSwapV1(dir, r); err != nil {
		return err
	}
	if r.MemoryReservation != 0 {
		if err := writeFile(dir, "memory.soft_limit_in_bytes", format(r.MemoryReservation)); err != nil {
			return fmt.Errorf("memory reservation: %w", err)
		}
	}
	if r.OOMKillDisable {
		if err := writeFile(dir, "memory.oom_control", "1"); err != nil {
			return fmt.Errorf("disabling the OOM killer: %w", err)
		}
	}
	if swappiness {
		if err := writeFile(dir, "memory.swappiness", format(*r.MemorySwappiness)); err != nil {
			return fmt.Errorf("memory swappiness: %w", err)
		}
	}
	return nil
}

const (
	memoryLimit = "memory.limit_in_bytes"
	swapLimit   = "memory.memsw.limit_in_bytes"
)

// setMemoryAndSwapV1 writes the two limits in the order that keeps memory <= memory+swap at every moment, as the kernel
// demands: when the total grows, the total first.
func (g *Group) setMemoryAndSwapV1(dir string, r Resources) error {
	swap := r.MemorySwap
	accounted := swap != 0 && exists(filepath.Join(dir, swapLimit))
	switch {
	case swap > 0 && !accounted:
		return missing("swap", "its kernel does not account for it (boot with swapaccount=1)")
	case swap == 0 && r.Memory == -1 && exists(filepath.Join(dir, swapLimit)):
		swap, accounted = -1, true // no limit of memory makes sense only without one of memory and swap
	}
	if !accounted {
		return g.writeMemory(dir, memoryLimit, r.Memory)
	}
	swapFirst := false
	if !g.fresh {
		now, err := readUint(dir, swapLimit)
		if err != nil {
			return err
		}
		swapFirst = swap == -1 || uint64(swap) > now
	}
	if swapFirst {
		if err := g.writeMemory(dir, swapLimit, swap); err != nil {
			return err
		}
	}
	if err := g.writeMemory(dir, memoryLimit, r.Memory); err != nil {
		return err
	}
	if swapFirst {
		return nil
	}
	return g.writeMemory(dir, swapLimit, swap)
}

// writeMemory writes one of the two limits and says in its error what the kernel's number means.
func (g *Group) writeMemory(dir, file string, limit int64) error {
	if limit == 0 {
		return nil
	}
	err := writeFile(dir, file, format(limit))
	switch {
	case errors.Is(err, unix.EBUSY):
		usage, _ := readUint(dir, "memory.usage_in_bytes")
		return failure.Conflict("cannot set the memory limit to %d bytes: the container uses %d bytes that cannot be reclaimed; choose a higher limit", limit, usage)
	case errors.Is(err, unix.EINVAL) && file == memoryLimit:
		now, _ := readUint(dir, swapLimit)
		return failure.Invalid("memory limit (%d) should be smaller than the already set memory+swap limit (%d): update the memory+swap limit at the same time", limit, now)
	case errors.Is(err, unix.EINVAL):
		now, _ := readUint(dir, memoryLimit)
		return failure.Invalid("memory+swap limit (%d) must not be smaller than the memory limit (%d)", limit, now)
	case err != nil:
		return fmt.Errorf("memory limit: %w", err)
	}
	return nil
}

func (g *Group) setCPUV1(r Resources) error {
	if r.CPUShares == 0 && r.CPUPeriod == 0 && r.CPUQuota == 0 && r.CPURtPeriod == 0 && r.CPURtRuntime == 0 {
		return nil
	}
	dir, ok := g.controller("cpu")
	if !ok {
		return missing("CPU time", "it has no cpu control group")
	}
	if r.CPUShares != 0 {
		if err := writeFile(dir, "cpu.shares", format(r.CPUShares)); err != nil {
			return fmt.Errorf("CPU shares: %w", err)
		}
	}
	if err := setPair(dir, "cpu.cfs_period_us", r.CPUPeriod, "cpu.cfs_quota_us", r.CPUQuota); err != nil {
		return explainCPU("CPU quota", err, "period from 1000 to 1000000 and quota at least 1000 microseconds")
	}
	if err := setPair(dir, "cpu.rt_period_us", r.CPURtPeriod, "cpu.rt_runtime_us", r.CPURtRuntime); err != nil {
		return explainCPU("realtime CPU limit", err, "not more than the control group above has in its cpu.rt_runtime_us")
	}
	return nil
}

func explainCPU(what string, err error, rule string) error {
	switch {
	case errors.Is(err, unix.EINVAL):
		return failure.Invalid("the kernel refuses the %s (%w): %s", what, err, rule)
	case errors.Is(err, os.ErrNotExist):
		return missing(what, "its kernel is built without it")
	}
	return fmt.Errorf("%s: %w", what, err)
}

// setPair writes two values that the kernel checks against each other; 0 is not written. If the first is refused next to
// the old second, it is tried again after that.
func setPair(dir, first string, a int64, second string, b int64) error {
	var again bool
	if a != 0 {
		err := writeFile(dir, first, format(a))
		again = errors.Is(err, unix.EINVAL) && b != 0
		if err != nil && !again {
			return err
		}
	}
	if b != 0 {
		if err := writeFile(dir, second, format(b)); err != nil {
			return err
		}
	}
	if again {
		return writeFile(dir, first, format(a))
	}
	return nil
}

func (g *Group) setCpusetV1(r Resources) error {
	if r.CpusetCpus == "" && r.CpusetMems == "" {
		return nil
	}
	dir, ok := g.controller("cpuset")
	if !ok {
		return missing("the choice of CPUs", "it has no cpuset control group")
	}
	return setCpuset(dir, r, "cpuset.cpus", "cpuset.mems")
}

// setCpuset works for both versions; the last two arguments are the parent's files that tell what can be chosen from.
func setCpuset(dir string, r Resources, allCPUs, allMems string) error {
	for _, s := range []struct{ file, value, what, all string }{
		{"cpuset.cpus", r.CpusetCpus, "CPUs", allCPUs},
		{"cpuset.mems", r.CpusetMems, "memory nodes", allMems},
	} {
		if s.value == "" {
			continue
		}
		err := writeFile(dir, s.file, s.value)
		switch {
		case err == nil:
		case errors.Is(err, os.ErrNotExist):
			return missing("the choice of "+s.what, "it has no cpuset control group")
		case errors.Is(err, unix.EBUSY):
			return failure.Conflict("the container cannot be left without %s: %w", s.what, err)
		default:
			all, _ := readString(filepath.Dir(dir), s.all)
			return failure.Invalid("requested %s are not available - requested %s, available: %s (%w)", s.what, s.value, all, err)
		}
	}
	return nil
}

func (g *Group) setPidsV1(r Resources) error {
	if r.PidsLimit == 0 {
		return nil
	}
	dir, ok := g.controller("pids")
	if !ok {
		return missing("the number of processes", "it has no pids control group")
	}
	return setPids(dir, r.PidsLimit)
}

func setPids(dir string, limit int64) error {
	value := "max"
	if limit > 0 {
		value = format(limit)
	}
	err := writeFile(dir, "pids.max", value)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return missing("the number of processes", "it has no pids control group")
	case errors.Is(err, unix.EINVAL):
		return failure.Invalid("the kernel refuses the PIDs limit %d: it is larger than process ids can be", limit)
	case err != nil:
		return fmt.Errorf("PIDs limit: %w", err)
	}
	return nil
}

func (g *Group) setBlkioV1(r Resources) error {
	throttles := []struct {
		file  string
		rates []DeviceLimit
	}{
		{"blkio.throttle.read_bps_device", r.BlkioThrottleReadBps}, {"blkio.throttle.write_bps_device", r.BlkioThrottleWriteBps},
		{"blkio.throttle.read_iops_device", r.BlkioThrottleReadIOPS}, {"blkio.throttle.write_iops_device", r.BlkioThrottleWriteIOPS},
	}
	dir, ok := g.controller("blkio")
	write := func(file, value string) error {
		if !ok {
			return missing("block I/O", "it has no blkio control group")
		}
		return explainBlkio(file, value, writeFile(dir, file, value))
	}
	prefix := "blkio."
	if (r.BlkioWeight != 0 || len(r.BlkioWeightDevice) > 0) && ok && !exists(filepath.Join(dir, "blkio.weight")) {
		prefix = "blkio.bfq."
	}
	if r.BlkioWeight != 0 {
		if err := write(prefix+"weight", format(int64(r.BlkioWeight))); err != nil {
			return err
		}
	}
	for _, d := range r.BlkioWeightDevice {
		if err := write(prefix+"weight_device", fmt.Sprintf("%d:%d %d", d.Major, d.Minor, d.Weight)); err != nil {
			return err
		}
	}
	for _, t := range throttles {
		for _, d := range t.rates {
			if err := write(t.file, fmt.Sprintf("%d:%d %d", d.Major, d.Minor, d.Rate)); err != nil {
				return err
			}
		}
	}
	return nil
}

func explainBlkio(file, value string, err error) error {
	switch {
	case errors.Is(err, os.ErrNotExist):
		return missing("block I/O", "its kernel has no "+file)
	case errors.Is(err, unix.ENODEV):
		return failure.Invalid("block I/O limit %q: no such block device, or only a part of one: limits are of whole disks", value)
	case errors.Is(err, unix.EOPNOTSUPP):
		device, _, _ := strings.Cut(value, " ")
		return failure.Invalid("block I/O limit %q: the kernel weighs a disk's users only where its scheduler is bfq, which this one's is not: "+
			"echo bfq >/sys/dev/block/%s/queue/scheduler", value, device)
	case err != nil:
		return fmt.Errorf("block I/O limit: %w", err)
	}
	return nil
}
