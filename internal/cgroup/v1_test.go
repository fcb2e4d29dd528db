package cgroup_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/cleatlabs/cleat/internal/cgroup"
	"github.com/cleatlabs/cleat/test/expect"
)

// parentDir is where the tests of this process make their groups.
func parentDir() string { return fmt.Sprintf("/cleat-cgroup-test-%d", os.Getpid()) }

func TestMain(m *testing.M) {
	code := m.Run()
	h, err := cgroup.Detect()
	if err == nil {
		err = errors.Join(h.RemoveParent(parentDir()+"/p"), h.RemoveParent(parentDir()))
	}
	left, _ := filepath.Glob("/sys/fs/cgroup/*" + parentDir())
	if err != nil || len(left) > 0 {
		fmt.Fprintln(os.Stderr, "left behind:", left, err)
		code = 1
	}
	os.Exit(code)
}

func hierarchy(t testing.TB) *cgroup.Hierarchy {
	t.Helper()
	h, err := cgroup.Detect()
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// v1 skips on hosts whose limits are not those of v1.
func v1(t testing.TB) *cgroup.Hierarchy {
	t.Helper()
	h := hierarchy(t)
	if h.Version() != 1 {
		t.Skip("this host has cgroup v2")
	}
	return h
}

func create(t testing.TB, h *cgroup.Hierarchy, name string, r cgroup.Resources) *cgroup.Group {
	t.Helper()
	g, err := h.Create(parentDir()+"/"+name, r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(g.Kill(), g.Remove()); err != nil {
			t.Error(err)
		}
	})
	return g
}

// run starts a shell in the group, which enters it as a container does, and runs script then. The shell is reaped after
// the test.
func run(t testing.TB, g *cgroup.Group, script string) *exec.Cmd {
	t.Helper()
	fds, err := g.TaskFDs()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := g.DirFD()
	if err != nil {
		t.Fatal(err)
	}
	defer g.CloseFDs()
	var files []*os.File
	enter := ""
	for i, fd := range fds {
		dup, err := syscall.Dup(fd)
		if err != nil {
			t.Fatal(err)
		}
		f := os.NewFile(uintptr(dup), "tasks")
		defer f.Close()
		files = append(files, f)
		enter += fmt.Sprintf("printf 0 > /proc/self/fd/%d || exit 99; ", i+3)
	}
	// One shell enters and then becomes another, which has none of the files open.
	cmd := exec.Command("/bin/bash", "-c", enter+`exec /bin/bash -c "$0"`, "echo ready; "+script)
	cmd.ExtraFiles = files
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	if dir >= 0 {
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, dir
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	if n, err := out.Read(make([]byte, 6)); n == 0 {
		t.Fatalf("the process did not get into its group: %v", err)
	}
	return cmd
}

func file(t testing.TB, g *cgroup.Group, controller, name string) string {
	t.Helper()
	b, err := os.ReadFile("/sys/fs/cgroup/" + controller + g.Path() + "/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

func TestDetectFindsEveryHierarchy(t *testing.T) {
	h := v1(t)
	g := create(t, h, "everywhere", cgroup.Resources{AllowAllDevices: true})
	cmd := run(t, g, "exec sleep 1000")
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if h.Mode() == "v1" && strings.HasPrefix(line, "0::") {
			continue
		}
		if !strings.HasSuffix(strings.TrimSpace(line), g.Path()) {
			t.Errorf("not in the group: %s", line)
		}
	}
	if pids, err := g.Procs(); err != nil || !slices.Equal(pids, []int{cmd.Process.Pid}) {
		t.Errorf("Procs = %v, %v", pids, err)
	}
}

func TestV1Limits(t *testing.T) {
	h := v1(t)
	swappiness := int64(10)
	g := create(t, h, "limits", cgroup.Resources{
		Memory: 64 << 20, MemorySwap: 96 << 20, MemoryReservation: 32 << 20, MemorySwappiness: &swappiness,
		CPUShares: 512, CPUPeriod: 50000, CPUQuota: 25000, CpusetCpus: "0", CpusetMems: "0", PidsLimit: 33,
		Devices: cgroup.DefaultDeviceRules(),
	})
	check := func(controller, name, want string) {
		t.Helper()
		if got := file(t, g, controller, name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	check("memory", "memory.limit_in_bytes", "67108864")
	check("memory", "memory.memsw.limit_in_bytes", "100663296")
	check("memory", "memory.soft_limit_in_bytes", "33554432")
	check("memory", "memory.swappiness", "10")
	check("cpu", "cpu.shares", "512")
	check("cpu", "cpu.cfs_period_us", "50000")
	check("cpu", "cpu.cfs_quota_us", "25000")
	check("cpuset", "cpuset.cpus", "0")
	check("pids", "pids.max", "33")
	if list := file(t, g, "devices", "devices.list"); !strings.Contains(list, "c 1:3 rwm") || !strings.Contains(list, "b *:* m") || strings.Contains(list, "a *:* rwm") {
		t.Errorf("devices.list:\n%s", list)
	}

	// Growing both limits must not fail half-way, nor shrinking them.
	if err := g.Update(cgroup.Resources{Memory: 256 << 20, MemorySwap: 512 << 20, PidsLimit: -1}); err != nil {
		t.Fatal(err)
	}
	check("memory", "memory.limit_in_bytes", "268435456")
	check("memory", "memory.memsw.limit_in_bytes", "536870912")
	check("pids", "pids.max", "max")
	check("cpu", "cpu.shares", "512")
	if err := g.Update(cgroup.Resources{Memory: 32 << 20, MemorySwap: 32 << 20}); err != nil {
		t.Fatal(err)
	}
	check("memory", "memory.memsw.limit_in_bytes", "33554432")
	err := g.Update(cgroup.Resources{Memory: 64 << 20})
	if !errors.Is(err, errdefs.ErrInvalidArgument) || !strings.Contains(err.Error(), "update the memory+swap limit at the same time") {
		t.Errorf("growing memory above memory+swap: %v", err)
	}
	if err := g.Update(cgroup.Resources{Memory: -1}); err != nil {
		t.Errorf("no limit: %v", err)
	}
	// A period that does not fit the old quota, but does the new one.
	if err := g.Update(cgroup.Resources{CPUPeriod: 1000000, CPUQuota: 1500}); err != nil {
		t.Errorf("period and quota: %v", err)
	}
}

// What an update that was undone has set, and the record has not, is as in a new group again.
func TestV1Restore(t *testing.T) {
	h := v1(t)
	g := create(t, h, "restored", cgroup.Resources{})
	usual := file(t, g, "memory", "memory.swappiness")
	tried := int64(7)
	if err := g.Update(cgroup.Resources{MemorySwappiness: &tried, Memory: 64 << 20}); err != nil {
		t.Fatal(err)
	}
	if err := g.Restore(cgroup.Resources{}); err != nil {
		t.Fatal(err)
	}
	if got := file(t, g, "memory", "memory.swappiness"); got != usual {
		t.Errorf("swappiness is %s, want %s", got, usual)
	}
}

// So are the rates of single disks: one that the record has comes back, others go.
func TestV1RestoreOfRates(t *testing.T) {
	h := v1(t)
	major, minor := aDisk(t)
	kept := []cgroup.DeviceLimit{{Major: major, Minor: minor, Rate: 1 << 20}}
	g := create(t, h, "rates", cgroup.Resources{BlkioThrottleReadBps: kept})
	tried := []cgroup.DeviceLimit{{Major: major, Minor: minor, Rate: 77}}
	if err := g.Update(cgroup.Resources{BlkioThrottleReadBps: tried, BlkioThrottleWriteBps: tried, BlkioThrottleReadIOPS: tried, BlkioThrottleWriteIOPS: tried}); err != nil {
		t.Fatal(err)
	}
	if err := g.Restore(cgroup.Resources{BlkioThrottleReadBps: kept}); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"read_bps": fmt.Sprintf("%d:%d 1048576", major, minor), "write_bps": "", "read_iops": "", "write_iops": "",
	} {
		if got := file(t, g, "blkio", "blkio.throttle."+name+"_device"); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
}

// aDisk is the number of a whole disk of this machine.
func aDisk(t *testing.T) (major, minor int64) {
	t.Helper()
	disks, _ := filepath.Glob("/sys/block/[!lrz]*/dev") // no loop, ram or zram, which may be nothing yet
	for _, d := range disks {
		b, err := os.ReadFile(d)
		if _, serr := fmt.Sscanf(string(b), "%d:%d", &major, &minor); err == nil && serr == nil {
			return major, minor
		}
	}
	t.Skip("this machine has no disk of its own")
	return 0, 0
}

func TestV1Refusals(t *testing.T) {
	h := v1(t)
	big := int64(200)
	for name, tc := range map[string]struct {
		r     cgroup.Resources
		class error
		words string
	}{
		"shares":         {cgroup.Resources{CPUShares: 1}, errdefs.ErrInvalidArgument, "262144"},
		"negative":       {cgroup.Resources{Memory: -5}, errdefs.ErrInvalidArgument, "memory limit -5"},
		"swap below":     {cgroup.Resources{Memory: 64 << 20, MemorySwap: 32 << 20}, errdefs.ErrInvalidArgument, "smaller"},
		"swappiness":     {cgroup.Resources{MemorySwappiness: &big}, errdefs.ErrInvalidArgument, "100"},
		"cpus":           {cgroup.Resources{CpusetCpus: "4095"}, errdefs.ErrInvalidArgument, "available: 0"},
		"cpus malformed": {cgroup.Resources{CpusetCpus: "x"}, errdefs.ErrInvalidArgument, "requested x"},
		"mems":           {cgroup.Resources{CpusetMems: "63"}, errdefs.ErrInvalidArgument, "memory nodes"},
		"period":         {cgroup.Resources{CPUPeriod: 10}, errdefs.ErrInvalidArgument, "1000"},
		"weight":         {cgroup.Resources{BlkioWeight: 5}, errdefs.ErrInvalidArgument, "10"},
		"device rule":    {cgroup.Resources{Devices: []cgroup.DeviceRule{{Type: 'x', Access: "r"}}}, errdefs.ErrInvalidArgument, "'x'"},
		"device access":  {cgroup.Resources{Devices: []cgroup.DeviceRule{{Type: 'c', Access: "rx"}}}, errdefs.ErrInvalidArgument, `"rx"`},
		"block device":   {cgroup.Resources{BlkioThrottleReadBps: []cgroup.DeviceLimit{{Major: 4095, Minor: 1, Rate: 1}}}, errdefs.ErrInvalidArgument, "4095:1"},
	} {
		g, err := h.Create(parentDir()+"/refused", tc.r)
		if err == nil {
			g.Remove()
			t.Errorf("%s: accepted", name)
			continue
		}
		if !errors.Is(err, tc.class) || !strings.Contains(err.Error(), tc.words) {
			t.Errorf("%s: error %q is not %v with %q", name, err, tc.class, tc.words)
		}
		left, _ := filepath.Glob("/sys/fs/cgroup/*" + parentDir() + "/refused")
		if len(left) != 0 {
			t.Fatalf("%s: left behind %v", name, left)
		}
	}
}

// A parent can be called as a file that the kernel has there: in v1's hierarchies there is one that unified ones have not.
func TestParentThatIsAFile(t *testing.T) {
	h := hierarchy(t)
	for _, p := range []string{"/cgroup.procs/a", "/cgroup.procs/b/a"} {
		g, err := h.Create(p, cgroup.Resources{})
		if err == nil {
			g.Remove()
		}
		if !errors.Is(err, errdefs.ErrInvalidArgument) || !strings.Contains(err.Error(), "the name of a file") {
			t.Errorf("Create(%q): %v", p, err)
		}
		if err := h.Remove(p); err != nil {
			t.Errorf("Remove(%q): %v", p, err)
		}
		if err := h.RemoveMadeParent(filepath.Dir(p)); err != nil {
			t.Errorf("RemoveMadeParent(%q): %v", filepath.Dir(p), err)
		}
	}
}

func TestPathsThatLeadElsewhere(t *testing.T) {
	h := hierarchy(t)
	for _, p := range []string{"", "/", "cleat", "/../x", "/a/../b", "/a//b", "/a/", "/a\n", "/./a", strings.Repeat("/"+strings.Repeat("n", 200), 20)} {
		if _, err := h.Create(p, cgroup.Resources{}); !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("Create(%q): %v", p, err)
		}
		if _, err := h.Open(p); !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("Open(%q): %v", p, err)
		}
	}
	if _, err := h.Open(parentDir() + "/none"); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("Open of none: %v", err)
	}
}

func TestV1DevicesAreDenied(t *testing.T) {
	h := v1(t)
	g := create(t, h, "devices", cgroup.Resources{Devices: cgroup.DefaultDeviceRules()})
	dir := t.TempDir()
	out := dir + "/out"
	// Making a node of any kind is allowed, opening one that is not in the list is not.
	cmd := run(t, g, fmt.Sprintf(`mknod %[1]s/mem c 1 1 && head -c1 /dev/zero >/dev/null && { head -c1 %[1]s/mem >/dev/null 2>&1 && echo opened || echo denied; } > %[2]s.tmp; mv %[2]s.tmp %[2]s`, dir, out))
	expect.Eventually(t, "the shell", func() bool { _, err := os.Stat(out); return err == nil })
	cmd.Wait()
	if b, _ := os.ReadFile(out); string(b) != "denied\n" {
		t.Errorf("opening /dev/mem: %q", b)
	}
}

func TestFreezeThawKill(t *testing.T) {
	g := create(t, hierarchy(t), "freeze", cgroup.Resources{AllowAllDevices: true})
	cmd := run(t, g, "while :; do :; done")
	if err := g.Freeze(); err != nil {
		t.Fatal(err)
	}
	if frozen, err := g.Frozen(); !frozen || err != nil {
		t.Errorf("Frozen = %v, %v", frozen, err)
	}
	before, err := g.CPUUsage()
	if err != nil {
		t.Fatal(err)
	}
	if after, _ := g.CPUUsage(); after != before {
		t.Errorf("frozen, but used %v", after-before)
	}
	if err := g.Thaw(); err != nil {
		t.Fatal(err)
	}
	expect.Eventually(t, "CPU time to be used again", func() bool { now, _ := g.CPUUsage(); return now > before })
	if err := g.Freeze(); err != nil {
		t.Fatal(err)
	}
	if err := g.Kill(); err != nil {
		t.Fatal(err)
	}
	if state, _ := cmd.Process.Wait(); state.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Errorf("ended with %v", state)
	}
	if frozen, err := g.Frozen(); frozen || err != nil {
		t.Errorf("still frozen after Kill: %v, %v", frozen, err)
	}
}

func TestFreezeOfForkers(t *testing.T) {
	g := create(t, hierarchy(t), "forkers", cgroup.Resources{AllowAllDevices: true, PidsLimit: 100})
	run(t, g, "while :; do (:) & done 2>/dev/null")
	for range 20 {
		if err := g.Freeze(); err != nil {
			t.Fatal(err)
		}
		before, err := g.Procs()
		if err != nil || len(before) == 0 {
			t.Fatalf("frozen processes: %v, %v", before, err)
		}
		if after, err := g.Procs(); !slices.Equal(before, after) {
			t.Errorf("frozen, but forked: %v became %v, %v", before, after, err)
		}
		if err := g.Thaw(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestKillReachesNestedGroupsAndForkers(t *testing.T) {
	h := v1(t)
	g := create(t, h, "forker", cgroup.Resources{AllowAllDevices: true, PidsLimit: 200})
	nested := "/sys/fs/cgroup/freezer" + g.Path() + "/inner"
	run(t, g, "mkdir "+nested+"; sleep 1000 & echo $! > "+nested+"/cgroup.procs; f() { f & f & }; f 2>/dev/null; wait")
	expect.Eventually(t, "some forks", func() bool { pids, _ := g.Procs(); return len(pids) > 50 })
	if err := g.Kill(); err != nil {
		t.Fatal(err)
	}
	expect.Eventually(t, "the last process to be gone", func() bool {
		pids, err := g.Procs()
		return err == nil && len(pids) == 0
	})
	if err := g.Remove(); err != nil {
		t.Error(err)
	}
}

func TestRemoveWaitsForProcesses(t *testing.T) {
	g := create(t, hierarchy(t), "remove", cgroup.Resources{AllowAllDevices: true})
	cmd := run(t, g, "exec sleep 1000")
	start := time.Now()
	err := g.Remove()
	if !errors.Is(err, errdefs.ErrConflict) || !strings.Contains(err.Error(), fmt.Sprint(cmd.Process.Pid)) {
		t.Errorf("with a process inside: %v", err)
	}
	if d := time.Since(start); d < 500*time.Millisecond || d > expect.Patience {
		t.Errorf("waited %v for a process that does not end", d)
	}
	done := make(chan error)
	go func() { done <- g.Remove() }()
	cmd.Process.Kill()
	cmd.Wait()
	if err := <-done; err != nil {
		t.Errorf("after its end: %v", err)
	}
	if err := g.Remove(); err != nil {
		t.Errorf("again: %v", err)
	}
	if err := g.Kill(); err != nil {
		t.Errorf("kill of a removed group: %v", err)
	}
	if err := g.Thaw(); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("thaw of a removed group: %v", err)
	}
	if pids, err := g.Procs(); len(pids) != 0 || err != nil {
		t.Errorf("processes of a removed group: %v, %v", pids, err)
	}
}

func TestCreateReplacesAnEmptyGroupOnly(t *testing.T) {
	h := v1(t)
	g := create(t, h, "again", cgroup.Resources{AllowAllDevices: true, PidsLimit: 7})
	if _, err := h.Create(g.Path(), cgroup.Resources{AllowAllDevices: true}); err != nil {
		t.Fatal(err)
	}
	if got := file(t, g, "pids", "pids.max"); got != "max" {
		t.Errorf("the new group inherits the old one's limit: %s", got)
	}
	run(t, g, "exec sleep 1000")
	if _, err := h.Create(g.Path(), cgroup.Resources{}); !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("over a group with processes: %v", err)
	}
	if pids, _ := g.Procs(); len(pids) != 1 {
		t.Errorf("the process is gone: %v", pids)
	}
	other, err := h.Open(g.Path())
	if err != nil {
		t.Fatal(err)
	}
	if pids, _ := other.Procs(); len(pids) != 1 {
		t.Errorf("opened group holds %v", pids)
	}
}

func TestCreateAfterTheParentWasRemoved(t *testing.T) {
	h := hierarchy(t)
	sub := "/" + "deep"
	g := create(t, h, "p"+sub, cgroup.Resources{AllowAllDevices: true})
	if err := g.Remove(); err != nil {
		t.Fatal(err)
	}
	dirs, _ := filepath.Glob("/sys/fs/cgroup/*" + parentDir() + "/p")
	if len(dirs) == 0 {
		dirs = []string{"/sys/fs/cgroup" + parentDir() + "/p"}
	}
	for _, d := range dirs {
		if err := syscall.Rmdir(d); err != nil {
			t.Fatal(err)
		}
	}
	g = create(t, h, "p"+sub, cgroup.Resources{AllowAllDevices: true})
	run(t, g, "exec sleep 1000") // a cpuset without CPUs would refuse it
}

// runOutOfMemory runs what needs more memory than the group may have, and sees that it is told of.
func runOutOfMemory(t *testing.T, g *cgroup.Group, events <-chan struct{}) {
	t.Helper()
	cmd := run(t, g, `x=y; while :; do x="$x$x"; done`)
	select {
	case _, ok := <-events:
		if !ok {
			t.Fatal("watch ended early")
		}
	case <-time.After(expect.Patience):
		t.Fatal("no event")
	}
	cmd.Wait()
	if n, err := g.OOMKills(); n == 0 || err != nil {
		t.Errorf("OOMKills = %d, %v", n, err)
	}
}

func TestOOM(t *testing.T) {
	h := v1(t)
	g := create(t, h, "oom", cgroup.Resources{AllowAllDevices: true, Memory: 16 << 20, MemorySwap: 16 << 20})
	if n, err := g.OOMKills(); n != 0 || err != nil {
		t.Errorf("OOMKills at first: %d, %v", n, err)
	}
	stop := make(chan struct{})
	events, err := g.WatchOOM(stop)
	if err != nil {
		t.Fatal(err)
	}
	runOutOfMemory(t, g, events)
	close(stop)
	expect.Eventually(t, "the channel to close", func() bool {
		select {
		case _, ok := <-events:
			return !ok
		default:
			return false
		}
	})
}

// A group's end is no lack of memory, and stop ends the watch of a group that is no more.
func TestWatchOOMOfARemovedGroup(t *testing.T) {
	g := create(t, hierarchy(t), "watch", cgroup.Resources{AllowAllDevices: true})
	stop := make(chan struct{})
	events, err := g.WatchOOM(stop)
	if err != nil {
		t.Fatal(err)
	}
	cmd := run(t, g, "exec sleep 1000")
	cmd.Process.Kill()
	cmd.Wait()
	if err := g.Remove(); err != nil {
		t.Fatal(err)
	}
	close(stop)
	select {
	case _, ok := <-events:
		if ok {
			t.Error("an event for a removed group")
		}
	case <-time.After(expect.Patience):
		t.Error("the watch goes on")
	}
}

func TestLimitBelowUsage(t *testing.T) {
	h := v1(t)
	g := create(t, h, "usage", cgroup.Resources{AllowAllDevices: true, Memory: 256 << 20, MemorySwap: 256 << 20})
	run(t, g, `x=$(head -c 60000000 /dev/zero | tr '\0' x); read y < <(sleep 1000)`)
	expect.Eventually(t, "memory to be used", func() bool {
		s := file(t, g, "memory", "memory.stat")
		var n int64
		for line := range strings.Lines(s) {
			if v, ok := strings.CutPrefix(line, "rss "); ok {
				fmt.Sscan(v, &n)
			}
		}
		return n > 40<<20
	})
	err := g.Update(cgroup.Resources{Memory: 8 << 20, MemorySwap: 8 << 20})
	if !errors.Is(err, errdefs.ErrConflict) || !strings.Contains(err.Error(), "choose a higher limit") {
		t.Errorf("limit below usage: %v", err)
	}
}

func BenchmarkCreateRemove(b *testing.B) {
	h := hierarchy(b)
	for name, r := range map[string]cgroup.Resources{
		"bare":    {AllowAllDevices: true},
		"default": {Devices: cgroup.DefaultDeviceRules(), PidsLimit: 1000},
	} {
		b.Run(name, func(b *testing.B) {
			var made, removed []time.Duration
			for b.Loop() {
				start := time.Now()
				g, err := h.Create(parentDir()+"/bench", r)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := g.TaskFDs(); err != nil {
					b.Fatal(err)
				}
				if _, err := g.DirFD(); err != nil {
					b.Fatal(err)
				}
				made = append(made, time.Since(start))
				g.CloseFDs()
				start = time.Now()
				if err := g.Remove(); err != nil {
					b.Fatal(err)
				}
				removed = append(removed, time.Since(start))
			}
			b.ReportMetric(median(made), "µs-create")
			b.ReportMetric(median(removed), "µs-remove")
		})
	}
}

// median is in microseconds.
func median(d []time.Duration) float64 {
	slices.Sort(d)
	return float64(d[len(d)/2]) / float64(time.Microsecond)
}

func TestMeasure(t *testing.T) {
	// So little that it is throttled however little a busy machine gives to so many. It is more than a tick of the slowest
	// kernel: time that is over before the next tick comes is counted for nobody, and each period begins at a tick.
	g := create(t, v1(t), "measure", cgroup.Resources{AllowAllDevices: true, Memory: 64 << 20, PidsLimit: 50, CPUQuota: 12000, CPUPeriod: 100000})
	run(t, g, "for i in 1 2 3 4 5 6; do while :; do :; done & done; wait")
	var m *cgroup.Measure
	expect.Eventually(t, "CPU time and a throttled period", func() bool {
		var err error
		if m, err = g.Measure(); err != nil {
			t.Fatal(err)
		}
		return m.CPU > 0 && m.CPUUser+m.CPUSystem > 0 && m.Throttled > 0 && m.ThrottledTime > 0
	})
	var sum time.Duration
	for _, d := range m.CPUEach {
		sum += d
	}
	if sum <= 0 || m.Periods < m.Throttled {
		t.Errorf("%+v", m)
	}
	if m.Memory == 0 || m.MemoryMax < m.Memory || m.MemoryLimit != 64<<20 || m.MemoryStat["hierarchical_memory_limit"] != 64<<20 {
		t.Errorf("memory: %+v", m)
	}
	if _, ok := m.MemoryStat["total_inactive_file"]; !ok {
		t.Errorf("what clients subtract is missing: %v", m.MemoryStat)
	}
	if m.Pids == 0 || m.PidsLimit != 50 || m.IOBytes == nil || m.IOCount == nil {
		t.Errorf("%+v", m)
	}
}
