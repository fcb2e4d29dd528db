package cgroup

import (
	"time"
)

// CPUUsage is the CPU time that the group has used since it was made, ended processes included.
func (g *Group) CPUUsage() (time.Duration, error) {
	if g.h.mode == "v2" {
		us, err := readKey(g.in(g.h.unified), "cpu.stat", "usage_usec")
		return time.Duration(us) * time.Microsecond, g.gone(err)
	}
	dir, ok := g.controller("cpuacct")
	if !ok {
		return 0, missing("or measure CPU time", "it has no cpuacct control group")
	}
	ns, err := readUint(dir, "cpuacct.usage")
	return time.Duration(ns), g.gone(err)
}

// OOMKills counts the processes of the group that the kernel has killed because the group or the host had no memory left.
// Without a memory controller it is 0.
func (g *Group) OOMKills() (uint64, error) {
	if g.h.mode == "v2" {
		n, err := readKey(g.in(g.h.unified), "memory.events", "oom_kill")
		if ignoreNotExist(err) == nil && exists(g.in(g.h.unified)) {
			return n, nil
		}
		return n, g.gone(err)
	}
	dir, ok := g.controller("memory")
	if !ok {
		return 0, nil
	}
	n, err := readKey(dir, "memory.oom_control", "oom_kill")
	return n, g.gone(err)
}
