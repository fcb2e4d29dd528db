package engine

import (
	"github.com/moby/moby/api/types/container"

	"github.com/cleatlabs/cleat/internal/cgroup"
	"github.com/cleatlabs/cleat/internal/failure"
)

// adaptLimits takes out of a request the limits that this host cannot carry, with a
// warning for each in Docker's words. Debian's kernels, for one, count no swap with
// control groups of version 1, and every limit of memory asks for one of swap.
func adaptLimits(r *container.Resources, can cgroup.Support) (warnings []string, err error) {
	discard := func(asked, possible bool, warning string, drop func()) {
		if asked && !possible {
			warnings = append(warnings, warning)
			drop()
		}
	}
	discard(r.Memory > 0, can.Memory, "Your kernel does not support memory limit capabilities or the cgroup is not mounted. Limitation discarded.",
		func() { r.Memory, r.MemorySwap = 0, -1 })
	discard(r.Memory > 0 && r.MemorySwap != -1, can.Swap, "Your kernel does not support swap limit capabilities or the cgroup is not mounted. Memory limited without swap.",
		func() { r.MemorySwap = -1 })
	discard(r.MemorySwappiness != nil && *r.MemorySwappiness != -1, can.Swappiness,
		"Your kernel does not support memory swappiness capabilities or the cgroup is not mounted. Memory swappiness discarded.",
		func() { r.MemorySwappiness = nil })
	discard(r.MemoryReservation > 0, can.MemoryReservation, "Your kernel does not support memory soft limit capabilities or the cgroup is not mounted. Limitation discarded.",
		func() { r.MemoryReservation = 0 })
	discard(r.OomKillDisable != nil && *r.OomKillDisable, can.OOMKillDisable, "Your kernel does not support OomKillDisable. OomKillDisable discarded.",
		func() { r.OomKillDisable = nil })
	discard(r.PidsLimit != nil && *r.PidsLimit > 0, can.Pids, "Your kernel does not support PIDs limit capabilities or the cgroup is not mounted. PIDs limit discarded.",
		func() { r.PidsLimit = nil })
	if r.NanoCPUs > 0 && !can.CPUQuota {
		return warnings, failure.Invalid("NanoCPUs can not be set, as your kernel does not support CPU CFS scheduler or the cgroup is not mounted")
	}
	discard(r.CPUShares > 0, can.CPUShares, "Your kernel does not support CPU shares or the cgroup is not mounted. Shares discarded.",
		func() { r.CPUShares = 0 })
	discard(r.CPUPeriod > 0 || r.CPUQuota > 0, can.CPUQuota, "Your kernel does not support CPU CFS scheduler or the cgroup is not mounted. CPU period and quota discarded.",
		func() { r.CPUPeriod, r.CPUQuota = 0, 0 })
	discard(r.CpusetCpus != "" || r.CpusetMems != "", can.Cpuset, "Your kernel does not support cpuset or the cgroup is not mounted. CPUset discarded.",
		func() { r.CpusetCpus, r.CpusetMems = "", "" })
	discard(r.BlkioWeight > 0, can.BlkioWeight, "Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded.",
		func() { r.BlkioWeight = 0 })
	return warnings, nil
}
