package cgroup

import (
	"errors"
	"path/filepath"
	"strings"
)

// Restore is Update with what a new group has for each limit that r does not set: an update that was undone may have set it.
func (g *Group) Restore(r Resources) error {
	for _, limit := range []*int64{&r.Memory, &r.MemoryReservation, &r.PidsLimit, &r.CPUQuota} {
		if *limit == 0 {
			*limit = -1
		}
	}
	if r.CPUShares == 0 {
		r.CPUShares = defaultShares
	}
	if r.CPUPeriod == 0 {
		r.CPUPeriod = defaultPeriod
	}
	if r.CpusetCpus == "" {
		r.CpusetCpus = g.inherited("cpuset.cpus")
	}
	if r.CpusetMems == "" {
		r.CpusetMems = g.inherited("cpuset.mems")
	}
	if r.MemorySwappiness == nil {
		r.MemorySwappiness = g.inheritedSwappiness()
	}
	err := errors.Join(g.gone(g.resetDevices()), g.Update(r))
	if r.BlkioWeight == 0 {
		err = errors.Join(err, g.gone(g.resetWeight()))
	}
	return err
}

// inheritedSwappiness is the parent's, which a new group takes over; nil where there is none.
func (g *Group) inheritedSwappiness() *int64 {
	dir, ok := g.controller("memory")
	if !ok {
		return nil
	}
	n, err := readUint(filepath.Dir(dir), "memory.swappiness")
	if err != nil {
		return nil
	}
	return new(int64(n))
}

// resetWeight gives the group a new one's weight in block I/O, by whatever the host has for it.
func (g *Group) resetWeight() error {
	dir, ok := g.blockIO()
	if !ok {
		return nil
	}
	for _, file := range []string{"blkio.bfq.weight", "io.bfq.weight", "io.weight"} {
		const usual = "100"
		now, err := readString(dir, file)
		now, _, _ = strings.Cut(strings.TrimPrefix(now, "default "), "\n")
		if err != nil || now == usual {
			continue
		}
		if err := explainBlkio(file, usual, writeFile(dir, file, usual)); err != nil {
			return err
		}
	}
	return nil
}

// blockIO is the directory that has the limits of block I/O.
func (g *Group) blockIO() (string, bool) {
	if g.h.mode == "v2" {
		return g.in(g.h.unified), true
	}
	return g.controller("blkio")
}

// deviceFiles are those that have a line for each block device with a weight or rates of its own, and what is written
// behind the device to have none.
var deviceFiles = []struct{ file, none string }{
	{"blkio.weight_device", "default"}, {"blkio.bfq.weight_device", "default"}, {"io.bfq.weight", "default"}, {"io.weight", "default"},
	{"blkio.throttle.read_bps_device", "0"}, {"blkio.throttle.write_bps_device", "0"},
	{"blkio.throttle.read_iops_device", "0"}, {"blkio.throttle.write_iops_device", "0"},
	{"io.max", "rbps=max wbps=max riops=max wiops=max"},
}

// resetDevices takes the weights and rates of single block devices away, before those of the record are set.
func (g *Group) resetDevices() error {
	dir, ok := g.blockIO()
	if !ok {
		return nil
	}
	for _, f := range deviceFiles {
		lines, err := readString(dir, f.file)
		if err != nil {
			continue // the host has no such file
		}
		for line := range strings.Lines(lines) {
			device, _, _ := strings.Cut(line, " ")
			if !strings.Contains(device, ":") {
				continue // "default"
			}
			value := device + " " + f.none
			if err := explainBlkio(f.file, value, writeFile(dir, f.file, value)); err != nil {
				return err
			}
		}
	}
	return nil
}

// inherited is what to write to a file of the cpuset controller for the choice that the parent has; "" without one.
func (g *Group) inherited(file string) string {
	if g.h.mode == "v2" {
		if !exists(filepath.Join(g.in(g.h.unified), file)) {
			return ""
		}
		return "\n"
	}
	dir, ok := g.controller("cpuset")
	if !ok {
		return ""
	}
	all, _ := readString(filepath.Dir(dir), file)
	return all
}
