package cgroup

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
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/kernel"
)

// v2Files are what the kernel puts into a new group, with its defaults.
var v2Files = map[string]string{
	"cgroup.procs": "", "cgroup.events": "populated 0\nfrozen 0\n", "cgroup.freeze": "0", "cgroup.kill": "", "cgroup.subtree_control": "",
	"cgroup.controllers": "cpuset cpu io memory hugetlb pids", "memory.max": "max", "memory.swap.max": "max", "memory.low": "0",
	"memory.stat": "anon 0\nfile 4096\nshmem 0\nkernel_stack 0\nslab_unreclaimable 0\n", "memory.events": "low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\n",
	"cpu.max": "max 100000", "cpu.weight": "100", "cpu.stat": "usage_usec 1500\nuser_usec 1000\n", "cpuset.cpus": "", "cpuset.mems": "",
	"cpuset.cpus.effective": "0-1", "cpuset.mems.effective": "0", "pids.max": "max", "io.weight": "default 100", "io.max": "",
}

// fakeV2 is a hierarchy in a plain directory: files instead of the kernel's, filled as it would fill them.
func fakeV2(t *testing.T, without ...string) *Hierarchy {
	t.Helper()
	root := t.TempDir()
	fill := func(dir string) error {
		for name, content := range v2Files {
			if slices.Contains(without, name) {
				continue
			}
			if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
				return err
			}
		}
		return nil
	}
	if err := fill(root); err != nil {
		t.Fatal(err)
	}
	return &Hierarchy{mode: "v2", unified: root, parents: map[string]parent{}, mkdir: func(path string) error {
		if err := makeDir(path); err != nil {
			return err
		}
		return fill(path)
	}}
}

// overwrite changes a file as the kernel does: a reader sees the old text or the new one, never an empty file.
func overwrite(t *testing.T, path, content string) {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Error(err)
		return
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte(content), 0); err != nil {
		t.Error(err)
	}
}

func TestV2Limits(t *testing.T) {
	h := fakeV2(t)
	g, err := h.Create("/cleat/x", Resources{
		Memory: 64 << 20, MemorySwap: 96 << 20, MemoryReservation: 32 << 20, CPUShares: 512, CPUPeriod: 50000, CPUQuota: 25000,
		CpusetCpus: "0", CpusetMems: "0", PidsLimit: 33, BlkioWeight: 500, BlkioThrottleReadBps: []DeviceLimit{{8, 0, 1000}},
		AllowAllDevices: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	check := func(name, want string) {
		t.Helper()
		b, err := os.ReadFile(h.unified + "/cleat/x/" + name)
		if err != nil || string(b) != want {
			t.Errorf("%s holds %q, %v; want %q", name, b, err, want)
		}
	}
	check("memory.max", "67108864")
	check("memory.swap.max", "33554432")
	check("memory.low", "33554432")
	check("cpu.weight", "59")
	check("cpu.max", "25000 50000")
	check("cpuset.cpus", "0")
	check("pids.max", "33")
	check("io.weight", "default 4950")
	check("io.max", "8:0 rbps=1000")
	for _, dir := range []string{"/", "/cleat"} {
		b, _ := os.ReadFile(h.unified + dir + "/cgroup.subtree_control")
		if string(b) != "+cpuset +cpu +io +memory +hugetlb +pids" {
			t.Errorf("controllers of the children of %s: %q", dir, b)
		}
	}
	for _, step := range []struct {
		r          Resources
		file, want string
	}{
		{Resources{MemorySwap: 64 << 20}, "memory.swap.max", "0"},
		{Resources{MemorySwap: -1}, "memory.swap.max", "max"},
		{Resources{CPUQuota: 10000}, "cpu.max", "10000"},
		{Resources{Memory: -1}, "memory.max", "max"},
		{Resources{PidsLimit: -1}, "pids.max", "max"},
		{Resources{CPUQuota: -1, CPUPeriod: 20000}, "cpu.max", "max 20000"},
		{Resources{CPUPeriod: 30000}, "cpu.max", "max 30000"},
		{Resources{MemoryReservation: -1}, "memory.low", "0"},
	} {
		if err := g.Update(step.r); err != nil {
			t.Errorf("%+v: %v", step.r, err)
		}
		check(step.file, step.want)
	}
}

func TestV2Refusals(t *testing.T) {
	h := fakeV2(t, "io.weight")
	swappiness := int64(60)
	g, err := h.Create("/c", Resources{AllowAllDevices: true})
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		r     Resources
		class error
		words string
	}{
		"swappiness":  {Resources{MemorySwappiness: &swappiness}, errdefs.ErrNotImplemented, "swappiness"},
		"oom killer":  {Resources{OOMKillDisable: true}, errdefs.ErrNotImplemented, "OOM killer"},
		"realtime":    {Resources{CPURtRuntime: 5}, errdefs.ErrNotImplemented, "realtime"},
		"weight":      {Resources{BlkioWeight: 100}, errdefs.ErrNotImplemented, "io.weight"},
		"swap alone":  {Resources{MemorySwap: 1 << 20}, errdefs.ErrInvalidArgument, "set both"},
		"swap of all": {Resources{Memory: -1, MemorySwap: 1 << 20}, errdefs.ErrInvalidArgument, "set both"},
		"swap below":  {Resources{Memory: 2 << 20, MemorySwap: 1 << 20}, errdefs.ErrInvalidArgument, "smaller"},
		"below none":  {Resources{PidsLimit: -2}, errdefs.ErrInvalidArgument, "PIDs limit -2"},
		"too swappy":  {Resources{MemorySwappiness: new(int64(101))}, errdefs.ErrInvalidArgument, "from 0 to 100"},
		"devices":     {Resources{Devices: DefaultDeviceRules()}, errdefs.ErrNotImplemented, "devices"},
		"all devices": {Resources{AllowAllDevices: true}, errdefs.ErrNotImplemented, "devices"},
	} {
		if err := g.Update(tc.r); !errors.Is(err, tc.class) || !strings.Contains(err.Error(), tc.words) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := os.WriteFile(h.unified+"/c/memory.stat", []byte("anon 50000000\nshmem 1000000\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := g.Update(Resources{Memory: 10 << 20, MemorySwap: 10 << 20}); !errors.Is(err, errdefs.ErrConflict) || !strings.Contains(err.Error(), "51000000") {
		t.Errorf("limit below what is held: %v", err)
	}
	far := []DeviceRule{{Type: 'c', Major: 1 << 32, Minor: -1, Access: "r"}}
	if _, err := h.Create("/d", Resources{Devices: far}); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "4294967296:-1") {
		t.Errorf("a device number of 33 bits: %v", err)
	}
	noSwap := fakeV2(t, "memory.swap.max")
	if _, err := noSwap.Create("/x", Resources{Memory: 1 << 30, MemorySwap: 2 << 30, AllowAllDevices: true}); !errors.Is(err, errdefs.ErrNotImplemented) || !strings.Contains(err.Error(), "swapaccount") {
		t.Errorf("swap is not counted: %v", err)
	}
	if _, err := noSwap.Create("/y", Resources{Memory: 1 << 30, MemorySwap: -1, AllowAllDevices: true}); err != nil {
		t.Errorf("swap is not counted, nor to be limited: %v", err)
	}
	none := fakeV2(t, "memory.max", "memory.swap.max")
	if _, err := none.Create("/x", Resources{Memory: 1 << 30, AllowAllDevices: true}); !errors.Is(err, errdefs.ErrNotImplemented) || !strings.Contains(err.Error(), "cgroup.subtree_control") {
		t.Errorf("no memory controller: %v", err)
	}
}

// BFQ's file is written where there is one, for all devices alike; the cost model's otherwise.
func TestV2Weights(t *testing.T) {
	for name, tc := range map[string]struct{ file, want string }{
		"cost model": {"io.weight", "8:0 10000"},
		"bfq":        {"io.bfq.weight", "8:0 1000"},
	} {
		t.Run(name, func(t *testing.T) {
			h := fakeV2(t)
			g, err := h.Create("/c", Resources{AllowAllDevices: true})
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(h.unified, "c", tc.file)
			if err := os.WriteFile(file, nil, 0o644); err != nil {
				t.Fatal(err)
			}
			if err := g.Update(Resources{BlkioWeightDevice: []DeviceWeight{{8, 0, 1000}}}); err != nil {
				t.Fatal(err)
			}
			if b, err := os.ReadFile(file); string(b) != tc.want {
				t.Errorf("%s holds %q, %v; want %q", tc.file, b, err, tc.want)
			}
		})
	}
}

func TestV2SwapRoom(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "memory.stat"), []byte("anon 50000000\nshmem 1000000\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for room, fits := range map[uint64]bool{0: false, 40_999_999: false, 41_000_000: true, 1 << 40: true} {
		if err := checkUsageV2(dir, 10_000_000, room); (err == nil) != fits || err != nil && !errdefs.IsConflict(err) {
			t.Errorf("51 MB, of which %d can be swapped out, in 10: %v", room, err)
		}
	}
	if swapRoom(dir, Resources{}, 1<<20) > 1<<20 {
		t.Error("more room than the limit")
	}
	if err := os.WriteFile(filepath.Join(dir, "memory.swap.current"), []byte("2097152"), 0o644); err != nil {
		t.Fatal(err)
	}
	if room := swapRoom(dir, Resources{}, 1<<20); room != 0 {
		t.Errorf("a limit that is used up leaves room for %d bytes", room)
	}
}

func TestV2FreezeAndKill(t *testing.T) {
	h := fakeV2(t)
	g, err := h.Create("/c", Resources{AllowAllDevices: true})
	if err != nil {
		t.Fatal(err)
	}
	dir := h.unified + "/c/"
	if fds, err := g.TaskFDs(); fds != nil || err != nil {
		t.Errorf("TaskFDs = %v, %v", fds, err)
	}
	if fd, err := g.DirFD(); fd < 0 || err != nil {
		t.Errorf("DirFD = %d, %v", fd, err)
	}
	g.CloseFDs()
	// The kernel's part: processes stand still some time after the write.
	go func() {
		for {
			if b, _ := os.ReadFile(dir + "cgroup.freeze"); string(b) == "1" {
				overwrite(t, dir+"cgroup.events", "populated 1\nfrozen 1\n")
				return
			}
			time.Sleep(time.Millisecond)
		}
	}()
	if err := g.Freeze(); err != nil {
		t.Fatal(err)
	}
	if frozen, err := g.Frozen(); !frozen || err != nil {
		t.Errorf("Frozen = %v, %v", frozen, err)
	}
	if err := g.Kill(); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"cgroup.kill": "1", "cgroup.freeze": "0"} {
		if b, _ := os.ReadFile(dir + name); string(b) != want {
			t.Errorf("%s holds %q", name, b)
		}
	}
	overwrite(t, dir+"cgroup.events", "populated 1\nfrozen 0\n")
	start := time.Now()
	if err := g.Freeze(); !errors.Is(err, errdefs.ErrUnavailable) {
		t.Errorf("processes that do not stand still: %v", err)
	}
	if d := time.Since(start); d < time.Second || d > time.Minute {
		t.Errorf("gave up after %v", d)
	}
	if b, _ := os.ReadFile(dir + "cgroup.freeze"); string(b) != "0" {
		t.Error("left half frozen")
	}
}

func TestV2Usage(t *testing.T) {
	h := fakeV2(t)
	g, err := h.Create("/c", Resources{AllowAllDevices: true})
	if err != nil {
		t.Fatal(err)
	}
	if d, err := g.CPUUsage(); d != 1500*time.Microsecond || err != nil {
		t.Errorf("CPUUsage = %v, %v", d, err)
	}
	if n, err := g.OOMKills(); n != 0 || err != nil {
		t.Errorf("OOMKills = %d, %v", n, err)
	}
	stop := make(chan struct{})
	events, err := g.WatchOOM(stop)
	if err != nil {
		t.Fatal(err)
	}
	set := func(content string) {
		t.Helper()
		// One write, as the kernel changes it.
		if err := writeFile(h.unified+"/c", "memory.events.new", ""); !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		overwrite(t, h.unified+"/c/memory.events", content)
	}
	set("low 0\nhigh 9\nmax 7\noom 0\noom_kill 0\n")
	set("low 0\nhigh 9\nmax 8\noom 1\noom_kill 1\n")
	select {
	case <-events:
	case <-time.After(time.Minute):
		t.Fatal("no event")
	}
	select {
	case <-events:
		t.Error("an event without lack of memory")
	default:
	}
	if n, err := g.OOMKills(); n != 1 || err != nil {
		t.Errorf("OOMKills = %d, %v", n, err)
	}
	close(stop)
	if _, ok := <-events; ok {
		t.Error("an event after the end")
	}
}

func TestV2Support(t *testing.T) {
	s := fakeV2(t).Support()
	if !s.Memory || !s.CPUQuota || !s.Pids || !s.Cpuset || s.Swappiness || s.OOMKillDisable {
		t.Errorf("%+v", s)
	}
	for _, counted := range []bool{true, false} {
		without := []string{}
		if !counted {
			without = append(without, "memory.swap.max")
		}
		h := fakeV2(t, without...)
		if err := h.mkdir(h.unified + "/system.slice"); err != nil {
			t.Fatal(err)
		}
		if got := h.Support().Swap; got != counted {
			t.Errorf("limits of swap: %v, where groups' files say %v", got, counted)
		}
	}
}

func TestWeights(t *testing.T) {
	for shares, want := range map[int64]int64{2: 1, 1024: 100, 262144: 10000} {
		if got := weightFromShares(shares); got != want {
			t.Errorf("%d shares are weight %d, want %d", shares, got, want)
		}
	}
	if ioWeight(10) != 1 || ioWeight(1000) != 10000 {
		t.Errorf("io weights %d to %d", ioWeight(10), ioWeight(1000))
	}
	last := int64(0)
	for s := int64(2); s <= 262144; s += 7 {
		w := weightFromShares(s)
		if w < last || w < 1 || w > 10000 {
			t.Fatalf("%d shares are weight %d after %d", s, w, last)
		}
		last = w
	}
}

func TestHierarchiesOfMountTables(t *testing.T) {
	const v1 = "30 25 0:26 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n" +
		"31 25 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n" +
		"32 25 0:28 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,release_agent=/x,name=systemd\n" +
		"33 25 0:27 / /mnt/again rw - cgroup cgroup rw,memory\n"
	const v2 = "40 25 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
	parse := func(table string) (*Hierarchy, error) { return among(kernel.ParseMountTable(table)) }
	h, err := parse(v1 + v2)
	if err != nil || h.Mode() != "hybrid" || h.Version() != 1 || len(h.v1) != 3 || h.unified != "/sys/fs/cgroup/unified" {
		t.Fatalf("%+v, %v", h, err)
	}
	if tr, ok := h.tree("cpuacct"); !ok || tr.mount != "/sys/fs/cgroup/cpu,cpuacct" {
		t.Errorf("cpuacct at %+v", tr)
	}
	if tr, ok := h.tree("memory"); !ok || tr.mount != "/sys/fs/cgroup/memory" {
		t.Errorf("memory at %+v: the first mount counts", tr)
	}
	if h, err := parse(v1); err != nil || h.Mode() != "v1" {
		t.Errorf("v1: %+v, %v", h, err)
	}
	if h, err := parse(v2); err != nil || h.Mode() != "v2" || h.Version() != 2 {
		t.Errorf("v2: %+v, %v", h, err)
	}
	const whole = "40 25 0:29 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n"
	const strays = "50 40 0:40 / /sys/fs/cgroup/net_cls rw - cgroup net_cls rw,net_cls\n51 25 0:41 / /opt/systemd rw - cgroup none rw,name=systemd\n"
	for _, table := range []string{whole + strays, strays + whole, "39 25 0:29 / /run/cilium/cgroupv2 rw - cgroup2 none rw\n" + whole + strays} {
		if h, err := parse(table); err != nil || h.Mode() != "v2" || h.unified != "/sys/fs/cgroup" || h.TaskFiles() != 0 {
			t.Errorf("v2 with hierarchies of v1 that others have mounted: %+v, %v", h, err)
		}
	}
	const hidden = "38 25 0:24 / /sys/fs/cgroup rw - tmpfs tmpfs ro\n"
	if h, err := parse(hidden + v1 + v2 + whole); err != nil || h.Mode() != "v2" {
		t.Errorf("v2 over what was there: %+v, %v", h, err)
	}
	if h, err := parse(whole + hidden + v1 + v2); err != nil || h.Mode() != "hybrid" {
		t.Errorf("hybrid over what was there: %+v, %v", h, err)
	}
	if _, err := parse("1 1 0:1 / / rw - ext4 /dev/x rw\n"); !errors.Is(err, errdefs.ErrUnavailable) {
		t.Errorf("none: %v", err)
	}
}

// decide runs a device program like the kernel.
func decide(t *testing.T, p []insn, kind, access, major, minor uint32) bool {
	t.Helper()
	ctx := [3]uint32{access<<16 | kind, major, minor}
	var r [11]uint32
	for pc := 0; pc < len(p); pc++ {
		i := p[pc]
		dst, src := i.regs&15, i.regs>>4
		switch i.code {
		case opLoadWord:
			r[dst] = ctx[i.off/4]
		case opMove:
			r[dst] = r[src]
		case opMoveImm:
			r[dst] = uint32(i.imm)
		case opAndImm:
			r[dst] &= uint32(i.imm)
		case opShiftImm:
			r[dst] >>= uint32(i.imm)
		case jumpNE:
			if r[dst] != uint32(i.imm) {
				pc += int(i.off)
			}
		case jumpEQ:
			if r[dst] == uint32(i.imm) {
				pc += int(i.off)
			}
		case opExit:
			return r[0] == 1
		default:
			t.Fatalf("instruction %d has the code %#x", pc, i.code)
		}
	}
	t.Fatal("ran off the end")
	return false
}

// To v1's files "a" is every device and access, whatever follows: a rule for both types of one device is two.
func TestRulesForBothTypesOfDevices(t *testing.T) {
	var got []string
	for _, r := range (DeviceRule{Type: 'a', Major: 7, Minor: -1, Access: "r"}).split() {
		got = append(got, r.String())
	}
	if !slices.Equal(got, []string{"b 7:* r", "c 7:* r"}) {
		t.Error(got)
	}
}

func TestKeysOfFiles(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "meminfo"), []byte("SwapTotal: 9 kB\nSwapFree: 2 kB\nHugePages: 3\nEmpty:\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]uint64{"SwapFree:": 2048, "HugePages:": 3} {
		if n, err := readKey(dir, "meminfo", key); n != want || err != nil {
			t.Errorf("%s %d %v, want %d", key, n, err, want)
		}
	}
	for _, key := range []string{"Swap", "Empty:"} {
		if _, err := readKey(dir, "meminfo", key); err == nil || !strings.Contains(err.Error(), dir) {
			t.Errorf("%s: %v", key, err)
		}
	}
}

func TestDeviceProgram(t *testing.T) {
	rules := append(DefaultDeviceRules(),
		DeviceRule{Allow: true, Type: 'b', Major: 8, Minor: -1, Access: "r"},
		DeviceRule{Allow: false, Type: 'c', Major: 136, Minor: 7, Access: "w"},
		DeviceRule{Allow: true, Type: 'a', Major: 200, Minor: 4000000000, Access: "rw"},
	)
	p := deviceProgram(rules)
	const r, w, m = accRead, accWrite, accMknod
	for _, tc := range []struct {
		kind, access, major, minor uint32
		want                       bool
	}{
		{devChar, r | w, 1, 3, true}, {devChar, r | w | m, 5, 2, true}, {devChar, r, 1, 1, false}, {devChar, m, 1, 1, true}, {devChar, m | r, 1, 1, false},
		{devBlock, m, 7, 0, true}, {devBlock, r, 1, 3, false}, {devBlock, r, 8, 16, true}, {devBlock, r | w, 8, 16, false}, {devChar, r, 8, 0, false},
		{devChar, r | w, 136, 6, true}, {devChar, r, 136, 7, true}, {devChar, w, 136, 7, false}, {devChar, r | w, 136, 7, false},
		{devBlock, r | w, 200, 4000000000, true}, {devChar, r | w, 200, 4000000000, true}, {devChar, r | w | m, 200, 4000000000, false},
	} {
		if got := decide(t, p, tc.kind, tc.access, tc.major, tc.minor); got != tc.want {
			t.Errorf("kind %d access %d device %d:%d: allowed %v", tc.kind, tc.access, tc.major, tc.minor, got)
		}
	}
	if decide(t, deviceProgram(nil), devChar, r, 1, 3) {
		t.Error("no rule allows")
	}
	all := deviceProgram(append(rules, DeviceRule{Allow: true, Type: 'a', Major: -1, Minor: -1, Access: "mwr"}))
	if !decide(t, all, devBlock, r|w|m, 1, 1) {
		t.Error("every device is allowed by the last rule")
	}
}

// The kernel's verifier and its decision, in the unified hierarchy of this host.
func TestDeviceProgramInTheKernel(t *testing.T) {
	h, err := Detect()
	if err != nil {
		t.Fatal(err)
	}
	if h.unified == "" {
		t.Skip("no unified hierarchy on this host")
	}
	g, err := h.Create(fmt.Sprintf("/cleat-cgroup-test-bpf-%d/c", os.Getpid()), Resources{AllowAllDevices: true})
	if err != nil {
		t.Fatal(err)
	}
	defer h.RemoveParent(filepath.Dir(g.path))
	defer func() {
		if err := g.Remove(); err != nil {
			t.Error(err)
		}
	}()
	if err := g.filterDevices(DefaultDeviceRules()); err != nil {
		t.Fatal(err)
	}
	dir, err := g.DirFD()
	if err != nil {
		t.Fatal(err)
	}
	defer g.CloseFDs()
	node := filepath.Join(t.TempDir(), "mem")
	cmd := exec.Command("/bin/sh", "-c", `mknod `+node+` c 1 1 && head -c1 /dev/zero >/dev/null && echo made; head -c1 `+node+` 2>&1 >/dev/null`)
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: dir}
	out, _ := cmd.CombinedOutput()
	if !strings.HasPrefix(string(out), "made\n") || !strings.Contains(string(out), unixMessage(unix.EPERM)) {
		t.Errorf("in the group: %s", out)
	}
	if f, err := os.Open(node); err == nil {
		f.Close()
	} else if errors.Is(err, unix.EPERM) {
		t.Errorf("outside of it: %v", err)
	}
	// A rule for everything leaves nothing to those before it, and the verifier takes nothing that is never reached.
	for _, rules := range [][]DeviceRule{
		append(DefaultDeviceRules(), DeviceRule{Allow: true, Type: 'a', Major: -1, Minor: -1, Access: "rwm"}),
		{{Allow: false, Type: 'a', Major: -1, Minor: -1, Access: "rwm"}, {Allow: true, Type: 'c', Major: 1, Minor: 3, Access: "r"}},
		{{Allow: true, Type: 'b', Major: -1, Minor: -1, Access: "rwm"}, {Allow: true, Type: 'c', Major: -1, Minor: -1, Access: "rwm"}},
		nil,
	} {
		fd, err := loadDeviceProgram(deviceProgram(rules))
		if err != nil {
			t.Errorf("the kernel does not take %v: %v", rules, err)
			continue
		}
		unix.Close(fd)
	}
	if fd, err := loadDeviceProgram([]insn{{opMoveImm, r0, 0, 1}}); err == nil {
		unix.Close(fd)
		t.Error("the kernel takes a program without an end")
	}
}

func unixMessage(e syscall.Errno) string { s := e.Error(); return strings.ToUpper(s[:1]) + s[1:] }

// What an update that was undone has set, and the record has not, is as in a new group again.
func TestV2Restore(t *testing.T) {
	h := fakeV2(t)
	g, err := h.Create("/engine/c", Resources{AllowAllDevices: true})
	if err != nil {
		t.Fatal(err)
	}
	tried := Resources{CPUShares: 2048, CPUPeriod: 50000, CpusetCpus: "0", CpusetMems: "0", MemoryReservation: 1 << 20, PidsLimit: 5, BlkioWeight: 300,
		BlkioThrottleWriteIOPS: []DeviceLimit{{8, 0, 1000}}}
	if err := g.Update(tried); err != nil {
		t.Fatal(err)
	}
	if err := g.Restore(Resources{CPUShares: 512}); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{
		"cpu.weight": "59", "cpu.max": "max 100000", "cpuset.cpus": "\n", "cpuset.mems": "\n", "memory.low": "0", "pids.max": "max", "io.weight": "100",
		"io.max": "8:0 rbps=max wbps=max riops=max wiops=max",
	} {
		if got, err := os.ReadFile(filepath.Join(h.unified, "engine/c", file)); err != nil || string(got) != want {
			t.Errorf("%s: %q, want %q (%v)", file, got, want, err)
		}
	}
}

// Of the devices that had weights or rates of their own, none has after an update that was undone.
func TestV2RestoreOfDevices(t *testing.T) {
	h := fakeV2(t)
	g, err := h.Create("/engine/c", Resources{AllowAllDevices: true})
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(h.unified, "engine/c")
	if err := g.Update(Resources{BlkioWeightDevice: []DeviceWeight{{8, 0, 300}}}); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "io.bfq.weight"), []byte("default 100\n8:16 300\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := g.resetDevices(); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{"io.weight": "8:0 default", "io.bfq.weight": "8:16 default", "io.max": ""} {
		if got, err := os.ReadFile(filepath.Join(dir, file)); err != nil || string(got) != want {
			t.Errorf("%s: %q, want %q (%v)", file, got, want, err)
		}
	}
}
