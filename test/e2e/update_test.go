package e2e

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/cleatlabs/cleat/test/harness"
)

// limit reads a file of a container's control group: that of v1, else that of v2.
func limit(t *testing.T, e *harness.Engine, id, controller, v1, v2 string) string {
	t.Helper()
	for _, path := range []string{
		filepath.Join("/sys/fs/cgroup", controller, e.CgroupParent, id, v1), filepath.Join("/sys/fs/cgroup", e.CgroupParent, id, v2),
	} {
		if b, err := os.ReadFile(path); err == nil {
			return strings.TrimSpace(string(b))
		}
	}
	t.Fatalf("%s has neither %s nor %s", id, v1, v2)
	return ""
}

func TestUpdate(t *testing.T) {
	e := engine(t, "busybox")
	each(t, func(t *testing.T, program string) {
		n := name(t)
		remove(t, e, n)
		since := now()
		id := e.OK(t, program, "run", "-d", "--name", n, "-m", "64m", "busybox", "sleep", "600")
		v1 := func(controller, file string) string { return limit(t, e, id, controller, file, "?") }
		if got := e.OK(t, program, "update", "-m", "96m", "--memory-reservation", "32m", "--pids-limit", "33", "--cpus", "0.5", "--cpu-shares", "512",
			"--cpuset-cpus", "0", "--restart", "on-failure:3", n); got != n {
			t.Errorf("update prints %q", got)
		}
		if _, err := os.Stat("/sys/fs/cgroup/memory"); err == nil {
			for _, f := range [][3]string{
				{"memory", "memory.limit_in_bytes", "100663296"}, {"memory", "memory.soft_limit_in_bytes", "33554432"}, {"pids", "pids.max", "33"},
				{"cpu", "cpu.cfs_quota_us", "50000"}, {"cpu", "cpu.shares", "512"}, {"cpuset", "cpuset.cpus", "0"},
				{"memory", "memory.memsw.limit_in_bytes", "134217728"},
			} {
				if got := v1(f[0], f[1]); got != f[2] {
					t.Errorf("%s is %s, want %s", f[1], got, f[2])
				}
			}
		}
		const shown = "{{.HostConfig.Memory}} {{.HostConfig.MemorySwap}} {{.HostConfig.MemoryReservation}} {{.HostConfig.PidsLimit}} {{.HostConfig.NanoCpus}} {{.HostConfig.CpuShares}} {{.HostConfig.CpusetCpus}} {{.HostConfig.RestartPolicy.Name}}"
		if got := e.OK(t, program, "inspect", "-f", shown, n); got != "100663296 134217728 33554432 33 500000000 512 0 on-failure" {
			t.Errorf("inspect: %s", got)
		}
		for _, refused := range []struct{ flags, text string }{
			{"-m 200m", "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time"},
			{"-m 1m", "Minimum memory limit allowed is 6MB"},
			{"-m 96m --memory-swap 64m", "Minimum memoryswap limit should be larger than memory limit, see usage"},
			{"--cpu-quota 20000", "CPU Quota cannot be updated as NanoCPUs has already been set"},
			{"--cpuset-cpus 900", "Requested CPUs are not available"},
			{"--restart sometimes", "invalid restart policy"},
		} {
			r := e.Do(t, program, "", append(append([]string{"update"}, strings.Fields(refused.flags)...), n)...)
			if r.Code != 1 || !strings.Contains(r.Stderr, refused.text) {
				t.Errorf("%s: %s", refused.flags, r)
			}
		}
		if got := e.OK(t, program, "inspect", "-f", shown, n); got != "100663296 134217728 33554432 33 500000000 512 0 on-failure" {
			t.Errorf("after what was refused: %s", got)
		}
		e.OK(t, program, "update", "-m", "200m", "--memory-swap", "-1", "--pids-limit", "-1", n)
		if got := limit(t, e, id, "pids", "pids.max", "pids.max"); got != "max" {
			t.Errorf("no limit of PIDs is %s", got)
		}
		if r := e.Do(t, program, "", "update", n); r.Code == 0 || !strings.Contains(r.Stderr, "one or more flags") {
			t.Errorf("%s", r)
		}
		if r := e.Do(t, program, "", "update", "--cpus", "1", "nosuch"); r.Code != 1 || !strings.Contains(r.Stderr, "No such container: nosuch") {
			t.Errorf("%s", r)
		}
		// A stopped one takes it at its next start.
		e.OK(t, program, "stop", "-t", "0", n)
		e.OK(t, program, "container", "update", "--pids-limit", "44", n)
		e.OK(t, program, "start", n)
		if got := limit(t, e, id, "pids", "pids.max", "pids.max"); got != "44" {
			t.Errorf("after a restart: %s", got)
		}
		if got := e.OK(t, program, "events", "--since", since, "--until", now(), "--filter", "container="+id, "--filter", "event=update", "--format", "{{.Action}}"); got != "update\nupdate\nupdate" {
			t.Errorf("events: %q", got)
		}
	})
}

// TestUpdateBelowUsage: a limit that cannot be had changes nothing.
func TestUpdateBelowUsage(t *testing.T) {
	g := gophers(t, engine(t, "busybox"))
	e := engine(t)
	id := g.create(client.ContainerCreateOptions{
		Config:     &container.Config{Image: "busybox", Cmd: []string{"sh", "-c", "dd if=/dev/zero of=/dev/shm/x bs=1M count=40 2>/dev/null; touch /ready; sleep 600"}},
		HostConfig: &container.HostConfig{Resources: container.Resources{Memory: 64 << 20, MemorySwap: 64 << 20}},
	})
	g.start(id)
	harness.Eventually(t, func() (bool, string) { return e.Docker(t, "exec", id, "test", "-e", "/ready").Code == 0, "not ready" })
	update := func(r container.Resources) error {
		_, err := g.ContainerUpdate(g.ctx, id, client.ContainerUpdateOptions{Resources: &r})
		return err
	}
	err := update(container.Resources{Memory: 16 << 20, MemorySwap: 16 << 20, PidsLimit: new(int64)})
	if err == nil || !strings.Contains(err.Error(), "Cannot update container "+id+": ") || !strings.Contains(err.Error(), "choose a higher limit") {
		t.Errorf("below what is used: %v", err)
	}
	if got := g.inspect(id).HostConfig.Memory; got != 64<<20 {
		t.Errorf("after a failed update the record says %d", got)
	}
	if got := limit(t, e, id, "memory", "memory.limit_in_bytes", "memory.max"); got != "67108864" {
		t.Errorf("after a failed update the limit is %s", got)
	}
	have := func() (all []string) {
		for _, f := range [][3]string{
			{"cpu", "cpu.shares", "cpu.weight"}, {"cpu", "cpu.cfs_period_us", "cpu.max"}, {"cpuset", "cpuset.cpus", "cpuset.cpus"},
			{"memory", "memory.soft_limit_in_bytes", "memory.low"}, {"pids", "pids.max", "pids.max"},
		} {
			all = append(all, f[1]+" "+limit(t, e, id, f[0], f[1], f[2]))
		}
		return all
	}
	before := have()
	tooMany := int64(1) << 40
	err = update(container.Resources{CPUShares: 512, CPUPeriod: 50000, CpusetCpus: "0", MemoryReservation: 20 << 20, PidsLimit: &tooMany})
	if err == nil || !strings.Contains(err.Error(), "the kernel refuses the PIDs limit") {
		t.Errorf("more processes than there can be: %v", err)
	}
	if after := have(); !slices.Equal(after, before) {
		t.Errorf("after an update whose last limit cannot be had: %q, before %q", after, before)
	}
	if err := update(container.Resources{Devices: []container.DeviceMapping{{PathOnHost: "/dev/null"}}}); !errdefs.IsNotImplemented(err) || !strings.Contains(err.Error(), "Devices") {
		t.Errorf("devices: %v", err)
	}
	removed := g.create(client.ContainerCreateOptions{Config: &container.Config{Image: "busybox"}, HostConfig: &container.HostConfig{AutoRemove: true}})
	_, err = g.ContainerUpdate(g.ctx, removed, client.ContainerUpdateOptions{RestartPolicy: &container.RestartPolicy{Name: "always"}})
	if !errdefs.IsConflict(err) || !strings.Contains(err.Error(), "because AutoRemove is enabled") {
		t.Errorf("restart policy of --rm: %v", err)
	}
}

// TestUpdateCutShort: the next engine brings what runs into line with the record.
func TestUpdateCutShort(t *testing.T) {
	e := harness.Start(t, harness.Options{})
	e.Load(t, "busybox")
	id := e.OK(t, "docker", "run", "-d", "--name", "runs", "--pids-limit", "50", "busybox", "sleep", "600")
	e.Stop(t)
	e.SetEnv("CLEAT_FAILPOINTS=engine.update.after-config")
	e.Run(t)
	e.SetEnv()
	e.Docker(t, "update", "--pids-limit", "60", "runs")
	<-e.Exited()
	if got := limit(t, e, id, "pids", "pids.max", "pids.max"); got != "50" {
		t.Fatalf("the engine did not die in time: the limit is %s", got)
	}
	e.Run(t)
	if got := limit(t, e, id, "pids", "pids.max", "pids.max"); got != "60" {
		t.Errorf("the limit is %s", got)
	}
	if got := e.OK(t, "docker", "inspect", "-f", "{{.HostConfig.PidsLimit}}", "runs"); got != "60" {
		t.Errorf("the record says %s", got)
	}
}
