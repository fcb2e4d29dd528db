package runtime

import (
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/kernel"
)

func TestCandidates(t *testing.T) {
	tests := []struct {
		command string
		env     []string
		want    string
	}{
		{"x", []string{"PATH=/a:/b/"}, "/a/x /b/x"},
		{"x", nil, "/usr/local/sbin/x /usr/local/bin/x /usr/sbin/x /usr/bin/x /sbin/x /bin/x"},
		{"x", []string{"PATH=/a", "PATH=/b"}, "/b/x"},
		{"x", []string{"PATH=.:rel::/a"}, "/a/x"},
		{"x", []string{"PATH="}, ""},
		{"./x", []string{"PATH=/a"}, "./x"},
		{"/x", nil, "/x"},
	}
	for _, tt := range tests {
		if got := strings.Join(candidates(tt.command, tt.env), " "); got != tt.want {
			t.Errorf("%q %v: %q, want %q", tt.command, tt.env, got, tt.want)
		}
	}
}

func TestMountOptions(t *testing.T) {
	tests := []struct {
		kind, opts string
		set, clear uint64
		data       string
		bad        bool
	}{
		{"tmpfs", "size=64m,mode=700,exec", 0, attrNX, "size=64m mode=700", false},
		{"tmpfs", "", 0, 0, "", false},
		{"tmpfs", "ro,noexec,exec", attrRO, attrNX, "", false},
		{"tmpfs", "noatime", unix.MOUNT_ATTR_NOATIME, unix.MOUNT_ATTR__ATIME, "", false},
		{"tmpfs", "relatime", 0, unix.MOUNT_ATTR__ATIME, "", false},
		{"tmpfs", "noatime,atime", 0, unix.MOUNT_ATTR__ATIME, "", false},
		{"tmpfs", "defaults,sync,mpol=default", 0, 0, "sync= mpol=default", false},
		{"bind", "sync", 0, 0, "", true},
		{"tmpfs", "size=", 0, 0, "", true},
		{"tmpfs", "lowerdir=/x", 0, 0, "", true},
		{"bind", "ro,nosuid", attrRO | attrNS, 0, "", false},
		{"bind", "size=1m", 0, 0, "", true},
		{"bind", "nonsense", 0, 0, "", true},
	}
	for _, tt := range tests {
		o, err := parseMountOptions(&Mount{Type: tt.kind, Options: strings.Split(tt.opts, ",")})
		if (err != nil) != tt.bad {
			t.Errorf("%s %q: %v", tt.kind, tt.opts, err)
			continue
		}
		var data []string
		for _, d := range o.data {
			data = append(data, d.key+"="+d.value)
		}
		if !tt.bad && (o.set != tt.set || o.clear != tt.clear || strings.Join(data, " ") != tt.data) {
			t.Errorf("%s %q: %+v", tt.kind, tt.opts, o)
		}
	}
}

const mountinfo = `28 23 0:24 / /sys/fs/cgroup rw shared:8 - tmpfs tmpfs rw,mode=755
29 28 0:25 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
30 28 0:26 / /sys/fs/cgroup/memory rw shared:9 - cgroup cgroup rw,memory
31 28 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
32 28 0:27 / /mnt/else/memory rw - cgroup cgroup rw,memory
`

func TestHierarchies(t *testing.T) {
	got := v1Hierarchies(kernel.ParseMountTable(mountinfo))
	if len(got) != 2 || got[0].name != "cpu,cpuacct" || !slices.Equal(got[0].links, []string{"cpu", "cpuacct"}) || got[1].dir != "/sys/fs/cgroup/memory" || got[1].links != nil {
		t.Errorf("%+v", got)
	}
}

func TestIDs(t *testing.T) {
	for id, ok := range map[string]bool{
		"abc": true, "a.b_c-D9": true, strings.Repeat("a", 64): true, "": false, ".": false, "..": false, ".x": false, "a/b": false,
		strings.Repeat("a", 65): false, "a b": false, "a\x00": false,
	} {
		if (checkID(id) == nil) != ok {
			t.Errorf("%q: accepted %v", id, !ok)
		}
	}
	// The runtime's own directories lie beside those of the processes.
	for _, own := range []string{"root", "private"} {
		if checkID(own) == nil {
			t.Errorf("%q is taken by the runtime itself", own)
		}
	}
}

func TestMasks(t *testing.T) {
	const status = "Name:\tx\nNSpid:\t100\t1\nSigBlk:\t0000000000000000\nSigCgt:\t0000000000004001\n"
	if !maskHas(status, "SigCgt:", 15) || !maskHas(status, "SigCgt:", 1) || maskHas(status, "SigCgt:", 2) || maskHas(status, "SigBlk:", 15) {
		t.Error("masks are misread")
	}
	if !maskHas("", "SigCgt:", 15) || !maskHas("SigCgt:\tzz\n", "SigCgt:", 15) {
		t.Error("in doubt a signal must count as caught")
	}
	if !firstOfNamespace(status) || firstOfNamespace("NSpid:\t1\n") || firstOfNamespace("NSpid:\t9\t2\n") || firstOfNamespace("") {
		t.Error("PID 1 is mistaken")
	}
}

func TestCovers(t *testing.T) {
	l := mountLayout{covered: map[string]bool{"/proc": true, "/a/b": true}}
	for p, want := range map[string]bool{"/": false, "/proc": true, "/proc/sys/x": true, "/procs": false, "/a": false, "/a/b": true, "/a/b/c/": true, "/a/bc": false, "x": false} {
		if l.covers(p) != want {
			t.Errorf("%s: covered is %v", p, !want)
		}
	}
	l.covered["/"] = true
	if !l.covers("/x/y") {
		t.Error("a mount at / does not cover what is below")
	}
}
