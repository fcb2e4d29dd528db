package e2e

import (
	"os"
	"strings"
	"testing"
)

// kernelLimit is what a flag of run makes the kernel hold: a file of the container's control group and its text, on v1
// and on v2; no file is none there.
type kernelLimit struct {
	flags          string
	controller     string // of v1
	v1, v1Text     string
	v2, v2Text     string
	needsBlockDisk bool
}

// TestLimitsOfRun: each limit is where the kernel takes it from, not only in inspect.
func TestLimitsOfRun(t *testing.T) {
	t.Parallel()
	e := engine(t, "busybox")
	_, err := os.Stat("/sys/fs/cgroup/cgroup.controllers")
	unified := err == nil
	for _, l := range []kernelLimit{
		{"-m 64m", "memory", "memory.limit_in_bytes", "67108864", "memory.max", "67108864", false},
		{"-m 64m", "memory", "memory.memsw.limit_in_bytes", "134217728", "memory.swap.max", "67108864", false},
		{"-m 64m --memory-swap 96m", "memory", "memory.memsw.limit_in_bytes", "100663296", "memory.swap.max", "33554432", false},
		{"-m 64m --memory-reservation 32m", "memory", "memory.soft_limit_in_bytes", "33554432", "memory.low", "33554432", false},
		{"-m 64m --memory-swappiness 10", "memory", "memory.swappiness", "10", "", "", false},
		{"-m 64m --oom-kill-disable", "memory", "memory.oom_control", "oom_kill_disable 1", "", "", false},
		{"--cpus 0.5", "cpu", "cpu.cfs_quota_us", "50000", "cpu.max", "50000 100000", false},
		{"--cpu-quota 20000 --cpu-period 50000", "cpu", "cpu.cfs_quota_us", "20000", "cpu.max", "20000 50000", false},
		{"--cpu-quota 20000 --cpu-period 50000", "cpu", "cpu.cfs_period_us", "50000", "cpu.max", "20000 50000", false},
		{"-c 512", "cpu", "cpu.shares", "512", "", "", false},
		{"--cpu-shares 1024", "cpu", "cpu.shares", "1024", "cpu.weight", "100", false},
		{"--cpuset-cpus 0", "cpuset", "cpuset.cpus", "0", "cpuset.cpus", "0", false},
		{"--cpuset-mems 0", "cpuset", "cpuset.mems", "0", "cpuset.mems", "0", false},
		{"--pids-limit 33", "pids", "pids.max", "33", "pids.max", "33", false},
		{"--pids-limit -1", "pids", "pids.max", "max", "pids.max", "max", false},
		{"--device-read-bps DISK:1mb", "blkio", "blkio.throttle.read_bps_device", "NUMBER 1048576", "io.max", "NUMBER rbps=1048576 wbps=max riops=max wiops=max", true},
		{"--device-write-bps DISK:2mb", "blkio", "blkio.throttle.write_bps_device", "NUMBER 2097152", "io.max", "NUMBER rbps=max wbps=2097152 riops=max wiops=max", true},
		{"--device-read-iops DISK:300", "blkio", "blkio.throttle.read_iops_device", "NUMBER 300", "io.max", "NUMBER rbps=max wbps=max riops=300 wiops=max", true},
		{"--device-write-iops DISK:400", "blkio", "blkio.throttle.write_iops_device", "NUMBER 400", "io.max", "NUMBER rbps=max wbps=max riops=max wiops=400", true},
	} {
		disk, number := "", ""
		if l.needsBlockDisk {
			disk, number = aDisk(t)
		}
		file, text := l.v1, l.v1Text
		if unified {
			file, text = l.v2, l.v2Text
		}
		if file == "" {
			continue
		}
		each(t, func(t *testing.T, program string) {
			n := name(t)
			remove(t, e, n)
			flags := strings.Fields(strings.ReplaceAll(l.flags, "DISK", disk))
			id := e.OK(t, program, append(append([]string{"run", "-d", "--name", n}, flags...), "busybox", "sleep", "600")...)
			got, _, _ := strings.Cut(limit(t, e, id, l.controller, l.v1, l.v2), "\n")
			if want := strings.ReplaceAll(text, "NUMBER", number); got != want {
				t.Errorf("%s: %s is %q, want %q", l.flags, file, got, want)
			}
		})
	}
}

// aDisk is a block device of this machine that limits can name, with its numbers.
func aDisk(t *testing.T) (path, number string) {
	t.Helper()
	disks, err := os.ReadDir("/sys/block")
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range disks {
		path = "/dev/" + d.Name()
		if _, err := os.Stat(path); err == nil && !strings.HasPrefix(d.Name(), "loop") && !strings.HasPrefix(d.Name(), "ram") {
			return path, readFile("/sys/block/" + d.Name() + "/dev")
		}
	}
	t.Fatal("this machine has no disk")
	return "", ""
}
