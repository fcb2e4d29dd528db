package runtime

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/cleatlabs/cleat/internal/kernel"
	"github.com/cleatlabs/cleat/internal/launch"
	"github.com/cleatlabs/cleat/internal/seccomp"
	"golang.org/x/sys/unix"
)

// What the engine does for a start between its decisions and the fork, without the control group.
func BenchmarkBuild(b *testing.B) {
	f, err := kernel.Probe()
	if err != nil {
		b.Fatal(err)
	}
	bpf, err := seccomp.Default(kernel.DefaultCaps, f.Major, f.Minor)
	if err != nil {
		b.Fatal(err)
	}
	root, err := unix.Open(b.TempDir(), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer unix.Close(root)
	r := &Runtime{c: Config{Features: f}, base: -1, programs: launch.NewPool(2), held: ^uint64(0)}
	file := filepath.Join(b.TempDir(), "x")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		b.Fatal(err)
	}
	s := &Spec{ID: "abcdefabcdefabcdefabcdef", RootFD: root, Args: []string{"true"}, Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"}, NetNS: NewNetwork, Hostname: "abc", Capabilities: kernel.DefaultCaps, Seccomp: bpf,
		MaskedPaths:   []string{"/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/no-such-thing", "/sys/firmware"},
		ReadonlyPaths: []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
		Mounts: []Mount{
			{Target: "/etc/hosts", Type: "bind", Source: file, IsFile: true, Engine: true},
			{Target: "/etc/hostname", Type: "bind", Source: file, IsFile: true, Engine: true},
		},
	}
	b.ReportAllocs()
	for b.Loop() {
		bl := &builder{plan: r.newPlan(), s: s, r: r, spareNet: -1, opener: -1}
		bl.p = bl.plan.p
		if err := bl.arrange(); err != nil {
			b.Fatal(err)
		}
		if err := bl.build(); err != nil {
			b.Fatal(err)
		}
		if _, err := bl.p.Encode(); err != nil {
			b.Fatal(err)
		}
		bl.close()
	}
}
