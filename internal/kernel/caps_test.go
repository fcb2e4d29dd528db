package kernel_test

import (
	"errors"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/kernel"
)

func TestDefaultCaps(t *testing.T) {
	want := []string{"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID", "CAP_SETUID", "CAP_SETPCAP",
		"CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SYS_CHROOT", "CAP_MKNOD", "CAP_AUDIT_WRITE", "CAP_SETFCAP"}
	mask := uint64(0)
	for _, name := range want {
		n, err := kernel.CapNumber(name)
		if err != nil {
			t.Error(err)
		}
		mask |= 1 << n
	}
	if mask != kernel.DefaultCaps {
		t.Errorf("the default capabilities are %#x, not %v", kernel.DefaultCaps, want)
	}
	if kernel.DefaultCaps != 0xa80425fb {
		t.Errorf("mask %#x differs from the one in /proc/PID/status of Docker's containers", kernel.DefaultCaps)
	}
}

func TestCapNumber(t *testing.T) {
	for name, want := range map[string]int{"NET_ADMIN": 12, "CAP_NET_ADMIN": 12, "cap_net_admin": 12, "net_Admin": 12, "CHOWN": 0, "CHECKPOINT_RESTORE": 40} {
		if got, err := kernel.CapNumber(name); err != nil || got != want {
			t.Errorf("CapNumber(%q) = %d, %v; want %d", name, got, err, want)
		}
	}
	for _, name := range []string{"", "CAP_", "NET", "ALL", "CAP_CAP_CHOWN", " CHOWN", "CHOWN\x00"} {
		if n, err := kernel.CapNumber(name); !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("CapNumber(%q) = %d, %v", name, n, err)
		}
	}
}

func TestEffectiveCaps(t *testing.T) {
	const last = 40
	all := kernel.AllCaps(last)
	for _, tc := range []struct {
		name       string
		add, drop  []string
		privileged bool
		want       uint64
	}{
		{"default", nil, nil, false, kernel.DefaultCaps},
		{"add", []string{"SYS_ADMIN"}, nil, false, kernel.DefaultCaps | 1<<unix.CAP_SYS_ADMIN},
		{"drop", nil, []string{"cap_kill"}, false, kernel.DefaultCaps &^ (1 << unix.CAP_KILL)},
		{"drop what is not there", nil, []string{"SYS_ADMIN"}, false, kernel.DefaultCaps},
		{"add wins over drop", []string{"KILL"}, []string{"KILL"}, false, kernel.DefaultCaps},
		{"drop all", nil, []string{"ALL"}, false, 0},
		{"drop all, add some", []string{"NET_BIND_SERVICE"}, []string{"all"}, false, 1 << unix.CAP_NET_BIND_SERVICE},
		{"add all", []string{"ALL"}, nil, false, all},
		{"add all, drop some", []string{"all"}, []string{"SYS_ADMIN"}, false, all &^ (1 << unix.CAP_SYS_ADMIN)},
		{"add all, drop all", []string{"ALL"}, []string{"ALL"}, false, all},
		{"privileged ignores drop", nil, []string{"ALL"}, true, all},
	} {
		got, err := kernel.EffectiveCaps(tc.add, tc.drop, tc.privileged, last)
		if err != nil || got != tc.want {
			t.Errorf("%s: %#x, %v; want %#x", tc.name, got, err, tc.want)
		}
	}
}

func TestEffectiveCapsRefusals(t *testing.T) {
	for _, tc := range []struct {
		add, drop []string
		last      int
		text      string
	}{
		{[]string{"NOSUCH"}, nil, 40, `invalid capability: "NOSUCH"`},
		{nil, []string{"CAP_NOSUCH"}, 40, `invalid capability: "CAP_NOSUCH"`},
		{[]string{"bpf"}, nil, 37, `capability not supported by your kernel or not available in the current environment: "CAP_BPF"`},
	} {
		_, err := kernel.EffectiveCaps(tc.add, tc.drop, false, tc.last)
		if !errors.Is(err, errdefs.ErrInvalidArgument) || err.Error() != tc.text {
			t.Errorf("add %v drop %v: %v", tc.add, tc.drop, err)
		}
	}
}

func TestDefaultCapsOnAnOldKernel(t *testing.T) {
	got, err := kernel.EffectiveCaps(nil, nil, false, 20)
	if err != nil || got&^kernel.AllCaps(20) != 0 {
		t.Errorf("%#x, %v: holds capabilities that the kernel does not have", got, err)
	}
	if kernel.AllCaps(63) != ^uint64(0) {
		t.Error("64 capabilities overflow")
	}
}
