package runtime_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/cleatlabs/cleat/internal/rootpath"
	"github.com/cleatlabs/cleat/internal/runtime"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

func TestNamespacesAreItsOwn(t *testing.T) {
	l := newLab(t)
	out := l.sh("for n in mnt uts ipc pid net cgroup; do readlink /proc/self/ns/$n; done")
	for _, n := range lines(out) {
		kind, _, _ := strings.Cut(n, ":")
		host, err := os.Readlink("/proc/self/ns/" + kind)
		l.check(err)
		if n == host {
			t.Errorf("the container is in the host's %s namespace", kind)
		}
	}
	s := l.spec("sh", "-c", "for n in mnt uts ipc pid net cgroup; do readlink /proc/self/ns/$n; done")
	s.HostPID, s.HostIPC, s.HostUTS, s.HostCgroupNS, s.NetNS, s.Hostname = true, true, true, true, runtime.HostNetwork, ""
	for _, n := range lines(l.run(s)) {
		kind, _, _ := strings.Cut(n, ":")
		host, _ := os.Readlink("/proc/self/ns/" + kind)
		if (n == host) != (kind != "mnt") {
			t.Errorf("%s: host has %s, container %s", kind, host, n)
		}
	}
}

// descriptors counts what a container's keeper holds.
func descriptors(t *testing.T, r *running) int {
	t.Helper()
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", r.Record().KeeperPID))
	if err != nil {
		t.Fatal(err)
	}
	return len(fds)
}

func TestJoinNamespaces(t *testing.T) {
	l := newLab(t)
	first := l.start(l.spec("sleep", "1000"))
	l.check(os.WriteFile(fmt.Sprintf("/proc/%d/root/dev/shm/shared", first.PID()), []byte("seen\n"), 0o644))
	s := l.spec("sh", "-c", "readlink /proc/self/ns/pid; readlink /proc/self/ns/ipc; ps | grep -c 'sleep 100[0]'; cat /dev/shm/shared; touch /dev/shm/back")
	s.JoinPID, s.JoinIPC = first.Process, first.Process
	got := lines(l.run(s))
	for i, kind := range []string{"pid", "ipc"} {
		want, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", first.PID(), kind))
		if got[i] != want {
			t.Errorf("%s namespace %s, want %s", kind, got[i], want)
		}
	}
	if got[2] != "1" {
		t.Errorf("the other container's process is not seen: %v", got)
	}
	if got[3] != "seen" {
		t.Errorf("its /dev/shm: %v", got[3:])
	}
	s = l.spec("sleep", "1000")
	s.JoinPID, s.JoinIPC = first.Process, first.Process
	second := l.start(s)
	if one, two := descriptors(t, first), descriptors(t, second); one != two {
		t.Errorf("its keeper holds %d descriptors, another's %d", two, one)
	}
	if _, err := os.Stat(fmt.Sprintf("/proc/%d/root/dev/shm/back", first.PID())); err != nil {
		t.Errorf("what the second wrote: %v", err)
	}
	ns, err := unix.Open(fmt.Sprintf("/proc/%d/ns/net", first.PID()), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	l.check(err)
	defer unix.Close(ns)
	s = l.spec("readlink", "/proc/self/ns/net")
	s.NetNS = ns
	want, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", first.PID()))
	if got := strings.TrimSpace(l.run(s)); got != want {
		t.Errorf("net namespace %s, want %s", got, want)
	}
}

func TestDev(t *testing.T) {
	l := newLab(t)
	out := l.sh(`stat -c '%n %a %F %t:%T' /dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty /dev/shm /dev/pts /dev/mqueue /dev
		for f in fd stdin stdout stderr ptmx; do readlink /dev/$f; done; ls /dev | wc -l; grep -c . /proc/self/mountinfo
		grep -E ' /dev(/[a-z]+)? ' /proc/mounts | cut -d' ' -f1-4`)
	for _, want := range []string{
		"/dev/null 666 character special file 1:3", "/dev/zero 666 character special file 1:5", "/dev/full 666 character special file 1:7",
		"/dev/random 666 character special file 1:8", "/dev/urandom 666 character special file 1:9", "/dev/tty 666 character special file 5:0",
		"/dev/shm 1777 directory", "/dev/pts 755 directory", "/dev 755 directory",
		"/proc/self/fd\n/proc/self/fd/0\n/proc/self/fd/1\n/proc/self/fd/2\npts/ptmx\n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}

// An engine that may not make nodes (in a user namespace, or without CAP_MKNOD) binds the host's.
func TestDevWithoutMknod(t *testing.T) {
	l := newLab(t)
	runtime.WithoutMknod(l.r)
	out := l.sh("stat -c '%n %t:%T' /dev/null /dev/urandom; echo x > /dev/null && cat /proc/keys | wc -c")
	if out != "/dev/null 1:3\n/dev/urandom 1:9\n0\n" {
		t.Error(out)
	}
}

func TestShmSize(t *testing.T) {
	l := newLab(t)
	s := l.spec("grep", "/dev/shm", "/proc/mounts")
	s.ShmSize = 1 << 20
	if out := l.run(s); !strings.Contains(out, "size=1024k") || !strings.Contains(out, "nosuid,nodev,noexec") {
		t.Error(out)
	}
}

func TestProcAndSys(t *testing.T) {
	l := newLab(t)
	out := l.sh(`cat /proc/keys /proc/kcore /proc/timer_list 2>/dev/null | wc -c; ls -A /sys/firmware | wc -l
		echo x > /proc/sysrq-trigger; echo 1 > /proc/sys/kernel/panic; touch /sys/kernel/x; grep -E ' (/proc|/sys) ' /proc/mounts`)
	if !strings.HasPrefix(out, "0\n0\n") {
		t.Errorf("masked paths show something: %s", out)
	}
	for _, want := range []string{"proc /proc proc rw,nosuid,nodev,noexec", "sysfs /sys sysfs ro,nosuid,nodev,noexec"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in %s", want, out)
		}
	}
	c := l.start(l.spec("sh", "-c", "echo 1 > /proc/sys/kernel/panic"))
	if c.wait(); !strings.Contains(c.stderr.String(), "ead-only") {
		t.Errorf("/proc/sys: %s", c.stderr.String())
	}
	s := l.spec("sh", "-c", "grep ' /sys ' /proc/mounts; echo 0 > /proc/sys/kernel/domainname; ls /sys/firmware | wc -l")
	s.Privileged, s.MaskedPaths, s.ReadonlyPaths, s.Capabilities = true, nil, nil, 1<<41-1
	if out := l.run(s); !strings.Contains(out, "sysfs rw,") {
		t.Errorf("privileged: %s", out)
	}
}

func TestCgroups(t *testing.T) {
	l := newLab(t)
	s := l.spec("sh", "-c", "cat /proc/self/cgroup; ls /sys/fs/cgroup; cat /sys/fs/cgroup/memory/memory.limit_in_bytes; echo 1 > /sys/fs/cgroup/memory/memory.limit_in_bytes; true")
	s.Resources.Memory = 64 << 20
	c := l.start(s)
	if c.wait().Code != 0 {
		t.Fatal(c.stderr.String())
	}
	out := c.stdout.String()
	if l.c.Cgroups.Version() == 1 {
		if !strings.Contains(out, ":memory:/\n") || strings.Contains(out, s.ID) {
			t.Errorf("the container sees where its groups are: %s", out)
		}
		if !strings.Contains(out, strconv.Itoa(64<<20)) {
			t.Errorf("memory limit: %s", out)
		}
		if !strings.Contains(c.stderr.String(), "ead-only") {
			t.Errorf("the cgroup mount can be written to: %s", c.stderr.String())
		}
	}
	s = l.spec("cat", "/proc/self/cgroup")
	s.HostCgroupNS = true
	for line := range strings.Lines(l.run(s)) {
		if !strings.HasSuffix(line, s.CgroupPath+"\n") {
			t.Errorf("the process is not in its group of the hierarchy %s", line)
		}
	}
}

func TestIdentity(t *testing.T) {
	l := newLab(t)
	const status = "grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp:|Umask)' /proc/self/status"
	field := func(out, name string) string {
		m := regexp.MustCompile(`(?m)^` + name + `:[ \t]*(.*?)[ \t]*$`).FindStringSubmatch(out)
		if m == nil {
			t.Fatalf("no %s in %s", name, out)
		}
		return strings.Join(strings.Fields(m[1]), " ")
	}
	expect := func(s *runtime.Spec, want map[string]string) {
		t.Helper()
		out := l.run(s)
		for k, v := range want {
			if got := field(out, k); got != v {
				t.Errorf("%s is %s, want %s", k, got, v)
			}
		}
	}
	const none, docker = "0000000000000000", "00000000a80425fb"
	s := l.spec("sh", "-c", status)
	expect(s, map[string]string{"Uid": "0 0 0 0", "Gid": "0 0 0 0", "Groups": "", "CapInh": none, "CapPrm": docker, "CapEff": docker, "CapBnd": docker, "CapAmb": none, "NoNewPrivs": "0", "Seccomp": "0", "Umask": "0022"})

	s = l.spec("sh", "-c", status)
	s.User = rootpath.User{UID: 1000, GID: 100, Groups: []int{100, 27, 44}}
	umask := uint32(0o077)
	s.Umask, s.NoNewPrivs, s.Seccomp = &umask, true, allowAll
	expect(s, map[string]string{"Uid": "1000 1000 1000 1000", "Gid": "100 100 100 100", "Groups": "27 44 100", "CapInh": none, "CapPrm": none, "CapEff": none, "CapBnd": docker, "CapAmb": none, "NoNewPrivs": "1", "Seccomp": "2", "Umask": "0077"})

	// Docker's default: a filter without no_new_privs, also without CAP_SYS_ADMIN.
	s = l.spec("sh", "-c", status)
	s.Seccomp = allowAll
	expect(s, map[string]string{"CapPrm": docker, "CapEff": docker, "CapBnd": docker, "NoNewPrivs": "0", "Seccomp": "2"})
	s = l.spec("sh", "-c", status)
	s.Seccomp, s.Capabilities, s.User = allowAll, 0, rootpath.User{UID: 7, GID: 7}
	expect(s, map[string]string{"CapPrm": none, "CapEff": none, "CapBnd": none, "Seccomp": "2"})
}

// allowAll is a filter of one instruction: BPF_RET, SECCOMP_RET_ALLOW.
var allowAll = []byte{6, 0, 0, 0, 0, 0, 0xff, 0x7f}

func TestRlimits(t *testing.T) {
	l := newLab(t)
	s := l.spec("sh", "-c", "ulimit -n; ulimit -Hn; ulimit -c")
	s.Rlimits = []runtime.Rlimit{{Type: "nofile", Soft: 321, Hard: 654}, {Type: "RLIMIT_CORE", Soft: 0, Hard: 0}}
	if out := l.run(s); out != "321\n654\n0\n" {
		t.Error(out)
	}
	s = l.spec("true")
	s.Rlimits = []runtime.Rlimit{{Type: "nosuch"}}
	if err := l.startFails(s); err.Error() != "invalid ulimit type: nosuch" {
		t.Error(err)
	}
}

func TestNamesAndSysctls(t *testing.T) {
	l := newLab(t)
	s := l.spec("sh", "-c", "hostname; cat /proc/sys/kernel/domainname /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/net/ipv4/ping_group_range /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shmmni; ip -o link show lo; cat /proc/self/oom_score_adj")
	s.Hostname, s.Domainname, s.OOMScoreAdj = "box", "example.org", 321
	s.Sysctls = map[string]string{"net/ipv4/ip_forward": "1", "kernel.shmmni": "123"} // slashes are as good as dots
	out := l.run(s)
	if !strings.HasPrefix(out, "box\nexample.org\n0\n0\t2147483647\n1\n123\n") {
		t.Error(out)
	}
	if !strings.Contains(out, "LOOPBACK,UP") {
		t.Errorf("lo is not up: %s", out)
	}
	if !strings.HasSuffix(out, "\n321\n") {
		t.Errorf("oom_score_adj: %s", out)
	}
	for _, k := range []string{"kernel.panic", "vm.swappiness", "kernel.hostname", "net.../kernel.panic", "net./../kernel/panic"} {
		s := l.spec("true")
		s.Sysctls = map[string]string{k: "1"}
		if err := l.startFails(s); !strings.Contains(err.Error(), "sysctl") {
			t.Errorf("%s: %v", k, err)
		}
	}
	s = l.spec("true")
	s.Sysctls = map[string]string{"net.no.such": "1"}
	if err := l.startFails(s); !strings.Contains(err.Error(), "sysctl net.no.such: this kernel has no such setting") {
		t.Error(err)
	}
	s = l.spec("true")
	s.NetNS, s.Sysctls = runtime.HostNetwork, map[string]string{"net.ipv4.ip_forward": "1"}
	if err := l.startFails(s); !strings.Contains(err.Error(), "host's network") {
		t.Error(err)
	}
}

func TestTmpfsOptions(t *testing.T) {
	l := newLab(t)
	s := l.spec("sh", "-c", "grep -E ' /(t|u)' /proc/self/mountinfo | cut -d' ' -f 5-8,10-")
	s.Mounts = []runtime.Mount{
		{Target: "/t", Type: "tmpfs", Propagation: "rshared", Options: []string{"defaults", "noatime", "atime", "sync", "mpol=default"}},
		{Target: "/u", Type: "tmpfs", Propagation: "slave", Options: []string{"sync", "async", "dirsync", "noexec", "nosuid"}},
	}
	out := l.run(s)
	lines := strings.Split(out, "\n")
	if !strings.HasPrefix(lines[0], "/t rw,nosuid,nodev,noexec,relatime shared:") || !strings.Contains(lines[0], "tmpfs rw,sync") ||
		lines[1] == "" || strings.Contains(lines[1], "shared:") || !strings.Contains(lines[1], "rw,dirsync") {
		t.Errorf("%s", out)
	}
	s = l.spec("true")
	s.Mounts = []runtime.Mount{{Target: "/proc", Type: "tmpfs"}}
	if err := l.startFails(s); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "/proc cannot be a tmpfs") {
		t.Error(err)
	}
}

func TestMounts(t *testing.T) {
	l := newLab(t)
	src := filepath.Join(l.dir, "src")
	l.check(os.MkdirAll(filepath.Join(src, "sub"), 0o755))
	l.check(os.WriteFile(filepath.Join(src, "file"), []byte("hello\n"), 0o644))
	l.check(unix.Mount("tmpfs", filepath.Join(src, "sub"), "tmpfs", 0, ""))
	defer unix.Unmount(filepath.Join(src, "sub"), unix.MNT_DETACH)
	l.check(os.WriteFile(filepath.Join(src, "sub/below"), []byte("below\n"), 0o644))
	l.check(os.Symlink("/var/lib", filepath.Join(l.image, "link")))
	l.check(os.MkdirAll(filepath.Join(l.image, "var/lib"), 0o755))
	s := l.spec("sh", "-c", `cat /data/file /data/sub/below; ls /flat/sub; cat /etc/one; echo x > /ro/file; echo x > /ro/sub/deep; echo x > /rro/sub/deep;
		grep -E ' /(t|t/in/side) ' /proc/mounts; echo y > /t/in/side/z && cat /var/lib/made/file /dev/extra/file; touch /data/written; cat /newcwd/sub/below`)
	s.Mounts = []runtime.Mount{
		{Target: "/data", Type: "bind", Source: src},
		{Target: "/flat", Type: "bind", Source: src, NonRecursive: true},
		{Target: "/etc/one", Type: "bind", Source: filepath.Join(src, "file"), IsFile: true, ReadOnly: true},
		{Target: "/ro", Type: "bind", Source: src, ReadOnly: true},
		{Target: "/rro", Type: "bind", Source: src, ReadOnly: true, RecursiveReadOnly: true},
		{Target: "/t", Type: "tmpfs", Options: []string{"size=1m", "mode=700", "exec"}},
		{Target: "/t/in/side", Type: "tmpfs", Options: []string{"size=64k"}},
		{Target: "/link/made", Type: "bind", Source: src},
		{Target: "/dev/extra", Type: "bind", Source: src},
		{Target: "/newcwd", Type: "bind", Source: src, Propagation: "private"},
	}
	c := l.start(s)
	if c.wait().Code != 0 {
		t.Error(c.Status(), c.stderr.String())
	}
	out := c.stdout.String()
	if !strings.HasPrefix(out, "hello\nbelow\nhello\n") || !strings.HasSuffix(out, "hello\nhello\nbelow\n") {
		t.Errorf("contents: %s", out)
	}
	if !strings.Contains(out, "/t tmpfs rw,nosuid,nodev,relatime,size=1024k,mode=700") || !strings.Contains(out, "/t/in/side tmpfs rw,nosuid,nodev,noexec,relatime,size=64k 0 0") {
		t.Errorf("tmpfs: %s", out)
	}
	if e := c.stderr.String(); strings.Count(e, "ead-only") != 2 {
		t.Errorf("read-only mounts: %s", e)
	}
	for _, f := range []string{"written", "sub/deep"} {
		if _, err := os.Stat(filepath.Join(src, f)); err != nil {
			t.Error(err)
		}
	}
}

func TestReadonlyRootfs(t *testing.T) {
	l := newLab(t)
	s := l.spec("sh", "-c", "touch /x; touch /tmp/y && touch /dev/shm/z && pwd")
	s.ReadonlyRootfs, s.Cwd = true, "/made/here"
	s.Mounts = []runtime.Mount{{Target: "/tmp", Type: "tmpfs"}}
	c := l.start(s)
	if c.wait().Code != 0 || c.stdout.String() != "/made/here\n" || !strings.Contains(c.stderr.String(), "/x: Read-only") {
		t.Error(c.stdout.String(), c.stderr.String())
	}
}

func TestPropagation(t *testing.T) {
	l := newLab(t)
	src := filepath.Join(l.dir, "shared")
	l.check(os.Mkdir(src, 0o755))
	l.check(unix.Mount(src, src, "", unix.MS_BIND, ""))
	defer unix.Unmount(src, unix.MNT_DETACH)
	l.check(unix.Mount("", src, "", unix.MS_SHARED, ""))
	private := filepath.Join(l.dir, "private")
	l.check(os.Mkdir(private, 0o755))
	for _, propagation := range []string{"shared", "rslave"} {
		s := l.spec("true")
		s.Mounts = []runtime.Mount{{Target: "/m", Type: "bind", Source: private, Propagation: propagation}}
		if err := l.startFails(s); !strings.Contains(err.Error(), "path "+private+" is mounted on "+l.dir+" but it is not a shared") {
			t.Errorf("%s of a private mount: %v", propagation, err)
		}
	}
	for propagation, reaches := range map[string]bool{"": false, "rslave": false, "rshared": true} {
		s := l.spec("sh", "-c", "mkdir -p /m/d && mount -t tmpfs x /m/d && touch /m/d/seen")
		s.Capabilities |= 1 << unix.CAP_SYS_ADMIN
		s.Mounts = []runtime.Mount{{Target: "/m", Type: "bind", Source: src, Propagation: propagation}}
		l.run(s)
		_, err := os.Stat(filepath.Join(src, "d/seen"))
		if (err == nil) != reaches {
			t.Errorf("%q: a mount in the container reaches the host: %v", propagation, err == nil)
		}
		unix.Unmount(filepath.Join(src, "d"), unix.MNT_DETACH)
	}
	c := l.start(func() *runtime.Spec {
		s := l.spec("sh", "-c", "echo ready; until [ -e /m/d/new ]; do sleep 0.01; done")
		s.Mounts = []runtime.Mount{{Target: "/m", Type: "bind", Source: src, Propagation: "rslave"}}
		return s
	}())
	l.check(unix.Mount("tmpfs", filepath.Join(src, "d"), "tmpfs", 0, ""))
	l.check(os.WriteFile(filepath.Join(src, "d/new"), nil, 0o644))
	c.wait()
	unix.Unmount(filepath.Join(src, "d"), unix.MNT_DETACH)
}

func TestReplacedDefaults(t *testing.T) {
	l := newLab(t)
	s := l.spec("sh", "-c", "ls /dev/kmsg /sys/fs/cgroup/mine; grep ' /dev/shm ' /proc/mounts; cat /proc/keys | wc -c; cat /proc/cpuinfo")
	cg := filepath.Join(l.dir, "cg")
	l.check(os.MkdirAll(filepath.Join(cg, "mine"), 0o755))
	cpu := filepath.Join(l.dir, "cpuinfo")
	l.check(os.WriteFile(cpu, []byte("fake\n"), 0o644))
	s.Mounts = []runtime.Mount{
		{Target: "/dev", Type: "bind", Source: "/dev"},
		{Target: "/sys/fs/cgroup", Type: "bind", Source: cg},
		{Target: "/proc/cpuinfo", Type: "bind", Source: cpu, IsFile: true},
	}
	if out := l.run(s); !strings.Contains(out, "/dev/kmsg\n") || !strings.HasSuffix(out, "\n0\nfake\n") {
		t.Error(out)
	}
	for _, target := range []string{"/proc", "/proc/self", "/proc/sys/kernel"} {
		s := l.spec("true")
		s.Mounts = []runtime.Mount{{Target: target, Type: "bind", Source: cg}}
		if err := l.startFails(s); !strings.Contains(err.Error(), "inside /proc") {
			t.Errorf("%s: %v", target, err)
		}
	}
}

func TestDevices(t *testing.T) {
	l := newLab(t)
	s := l.spec("sh", "-c", "stat -c '%n %a %u:%g %F %t:%T' /dev/fuse2 /dev/sub/disk /opt/null; echo x > /opt/null")
	s.Devices = []runtime.Device{
		{Path: "/dev/fuse2", Type: 'c', Major: 10, Minor: 229, Mode: 0o660, UID: 5, GID: 6},
		{Path: "/dev/sub/disk", Type: 'b', Major: 7, Minor: 0, Mode: 0o600},
		{Path: "/opt/null", Type: 'c', Major: 1, Minor: 3, Mode: 0o666},
	}
	want := "/dev/fuse2 660 5:6 character special file a:e5\n/dev/sub/disk 600 0:0 block special file 7:0\n/opt/null 666 0:0 character special file 1:3\n"
	if out := l.run(s); out != want {
		t.Error(out)
	}
}

func TestWorkdirAndEnvironment(t *testing.T) {
	l := newLab(t)
	s := l.spec("sh", "-c", "pwd; echo $A")
	s.Cwd, s.Env = "/a/b/c", append(s.Env, "A=x y")
	if out := l.run(s); out != "/a/b/c\nx y\n" {
		t.Error(out)
	}
	s = l.spec("sh", "-c", "pwd; touch f && stat -c %u:%g . ")
	s.Mounts, s.Cwd = []runtime.Mount{{Target: "/t", Type: "tmpfs"}}, "/t/deep/er"
	if out := l.run(s); out != "/t/deep/er\n0:0\n" {
		t.Error(out)
	}
	s = l.spec("sh", "-c", "env | wc -l")
	for i := range 10000 {
		s.Env = append(s.Env, fmt.Sprintf("VARIABLE_%d=%s", i, strings.Repeat("v", 50)))
	}
	// The shell adds PWD and SHLVL.
	if out := l.run(s); out != "10004\n" {
		t.Error(out)
	}
}

func TestNothingLeaksIn(t *testing.T) {
	l := newLab(t)
	leak, err := os.Open("/etc/hostname")
	l.check(err)
	defer leak.Close()
	_, err = unix.FcntlInt(leak.Fd(), unix.F_SETFD, 0)
	l.check(err)
	s := l.spec("sh", "-c", "ls -l /proc/self/fd; grep -E '^Sig(Blk|Ign)|^PPid|^TracerPid' /proc/self/status; cat /proc/self/mountinfo")
	out := l.run(s)
	if strings.Contains(out, "hostname") || strings.Contains(out, "memfd") || strings.Contains(out, l.dir) && strings.Contains(out, l.c.Dir) {
		t.Errorf("something of the host's: %s", out)
	}
	if !strings.Contains(out, "SigBlk:\t0000000000000000") || !strings.Contains(out, "SigIgn:\t0000000000000000") {
		t.Errorf("signals: %s", out)
	}
	if c := l.start(l.spec("sh", "-c", "exec 9</proc/self/fd; cd /proc/self/fd && echo *")); c.wait().Code != 0 || strings.TrimSpace(c.stdout.String()) != "0 1 2 9" && strings.TrimSpace(c.stdout.String()) != "0 1 2 3 9" {
		t.Errorf("descriptors: %q %q", c.stdout.String(), c.stderr.String())
	}
}

// The container's mounts are its own whichever way it got there: none of the host's is left, and what lies above its
// root is its root.
func TestNothingOfTheHostIsMounted(t *testing.T) {
	const script = "cut -d' ' -f5 /proc/self/mountinfo | sort; cd /..; pwd; ls -d /*; cat /proc/self/oom_score_adj"
	var outputs []string
	for _, without := range []bool{false, true} {
		l := newLab(t)
		if without {
			runtime.WithoutBase(l.r)
		}
		for _, a := range []string{"cut", "sort"} {
			l.check(os.Symlink("busybox", filepath.Join(l.image, "bin", a)))
		}
		out := l.sh(script)
		for _, p := range lines(out) {
			ours := p == "/" || p == "0"
			for _, dir := range []string{"/proc", "/dev", "/sys", "/bin", "/etc", "/tmp", "/root"} {
				ours = ours || p == dir || strings.HasPrefix(p, dir+"/")
			}
			if !ours {
				t.Errorf("without base %v: %s is not the container's", without, p)
			}
		}
		outputs = append(outputs, out)
	}
	if outputs[0] != outputs[1] {
		t.Errorf("the two ways differ:\n%s\n%s", outputs[0], outputs[1])
	}
}
