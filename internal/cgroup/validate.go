package cgroup

import (
	"math"

	"github.com/cleatlabs/cleat/internal/failure"
)

// validate refuses values that the kernel would clamp, misunderstand or (on this version) has no file for.
func (r Resources) validate(version int) error {
	for _, v := range []struct {
		name  string
		value int64
	}{
		{"memory limit", r.Memory}, {"memory+swap limit", r.MemorySwap}, {"memory reservation", r.MemoryReservation},
		{"CPU quota", r.CPUQuota}, {"PIDs limit", r.PidsLimit},
	} {
		if v.value < -1 {
			return failure.Invalid("invalid %s %d: it must be positive, or -1 for no limit", v.name, v.value)
		}
	}
	if r.CPUShares != 0 && (r.CPUShares < minShares || r.CPUShares > maxShares) {
		return failure.Invalid("invalid CPU shares %d: they range from %d to %d", r.CPUShares, minShares, maxShares)
	}
	if r.CPUPeriod < 0 || r.CPURtPeriod < 0 {
		return failure.Invalid("invalid CPU period %d: it must be positive", min(r.CPUPeriod, r.CPURtPeriod))
	}
	if r.MemorySwap > 0 && r.Memory > 0 && r.MemorySwap < r.Memory {
		return failure.Invalid("the memory+swap limit (%d) must not be smaller than the memory limit (%d)", r.MemorySwap, r.Memory)
	}
	if s := r.MemorySwappiness; s != nil && (*s < -1 || *s > 100) {
		return failure.Invalid("invalid memory swappiness %d: it ranges from 0 to 100", *s)
	}
	if err := r.validateBlkio(); err != nil {
		return err
	}
	for _, d := range r.Devices {
		if err := d.validate(); err != nil {
			return err
		}
	}
	if version == 2 {
		return r.validateV2()
	}
	return nil
}

const (
	minShares, maxShares = 2, 262144
	defaultShares        = 1024
	defaultPeriod        = 100_000 // microseconds
	minWeight, maxWeight = 10, 1000
)

func (r Resources) validateBlkio() error {
	weights := []uint16{r.BlkioWeight}
	for _, d := range r.BlkioWeightDevice {
		if d.Weight == 0 {
			return failure.Invalid("the blkio weight of device %d:%d is missing", d.Major, d.Minor)
		}
		weights = append(weights, d.Weight)
	}
	for _, w := range weights {
		if w != 0 && (w < minWeight || w > maxWeight) {
			return failure.Invalid("invalid blkio weight %d: it ranges from %d to %d", w, minWeight, maxWeight)
		}
	}
	return nil
}

func (r Resources) validateV2() error {
	switch {
	case r.MemorySwappiness != nil && *r.MemorySwappiness != -1:
		return failure.NotImplemented("memory swappiness is a setting of cgroup v1: this host has v2")
	case r.OOMKillDisable:
		return failure.NotImplemented("disabling the OOM killer is a setting of cgroup v1: this host has v2")
	case r.CPURtPeriod != 0 || r.CPURtRuntime != 0:
		return failure.NotImplemented("realtime scheduling limits are a setting of cgroup v1: this host has v2")
	}
	return nil
}

// weightFromShares turns v1's CPU shares (2 to 262144, 1024 by default) into v2's weight (1 to 10000, 100 by default),
// by the quadratic function through these three points that OCI runtimes use.
func weightFromShares(shares int64) int64 {
	switch {
	case shares <= minShares:
		return 1
	case shares >= maxShares:
		return 10000
	}
	l := math.Log2(float64(shares))
	return int64(math.Ceil(math.Pow(10, (l*l+125*l)/612-7.0/34)))
}

// ioWeight turns v1's blkio weight (10 to 1000) into v2's (1 to 10000).
func ioWeight(w uint16) uint64 { return 1 + (uint64(w)-minWeight)*9999/(maxWeight-minWeight) }
