package kernel_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/kernel"
)

func TestProbe(t *testing.T) {
	f, err := kernel.Probe()
	if err != nil {
		t.Fatal(err)
	}
	if f.Major < 5 || f.Release == "" || !strings.HasPrefix(f.Release, strings.Join([]string{itoa(f.Major), itoa(f.Minor)}, ".")) {
		t.Errorf("version %d.%d of release %q", f.Major, f.Minor, f.Release)
	}
	if f.LastCap < unix.CAP_CHECKPOINT_RESTORE || f.LastCap > 63 {
		t.Errorf("LastCap = %d", f.LastCap)
	}
	if f.FsconfigSetFD && !f.OverlayAppendLower {
		t.Error("layers by descriptor without lowerdir+")
	}
	if newer := f.Major > 6 || f.Major == 6 && f.Minor >= 13; newer && !f.FsconfigSetFD {
		t.Errorf("Linux %s takes layers by descriptor, but that was not found", f.Release)
	}
	if !f.Seccomp {
		t.Error("no seccomp filters")
	}
}

func itoa(n int) string {
	if n < 10 {
		return string(rune('0' + n))
	}
	return itoa(n/10) + itoa(n%10)
}

func TestProbeLeavesNoDescriptor(t *testing.T) {
	count := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	if _, err := kernel.Probe(); err != nil { // what is opened once and kept (epoll) is open now
		t.Fatal(err)
	}
	before := count()
	if _, err := kernel.Probe(); err != nil {
		t.Fatal(err)
	}
	if after := count(); after > before { // fewer may be open: the collector closes what other tests have left
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

func TestCheckOverlay(t *testing.T) {
	good := t.TempDir()
	if err := kernel.CheckOverlay(good); err != nil {
		t.Errorf("%s: %v", good, err)
	}
	if left, _ := os.ReadDir(good); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestCheckOverlayOnUnusableFilesystems(t *testing.T) {
	t.Run("overlay", func(t *testing.T) {
		base, at := t.TempDir(), t.TempDir()
		for _, d := range []string{"l", "u", "w"} {
			if err := os.Mkdir(filepath.Join(base, d), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		opts := "lowerdir=" + base + "/l,upperdir=" + base + "/u,workdir=" + base + "/w"
		checkRefused(t, at, "overlay", "overlay", opts, "overlay")
	})
	t.Run("ramfs", func(t *testing.T) { checkRefused(t, t.TempDir(), "ramfs", "ramfs", "", "ramfs") })
	t.Run("missing", func(t *testing.T) {
		err := kernel.CheckOverlay(filepath.Join(t.TempDir(), "none"))
		if !errors.Is(err, os.ErrNotExist) {
			t.Errorf("error %v", err)
		}
	})
}

// checkRefused mounts a filesystem at dir and wants CheckOverlay to refuse it by name.
func checkRefused(t *testing.T, dir, source, fstype, opts, want string) {
	t.Helper()
	if err := unix.Mount(source, dir, fstype, 0, opts); err != nil {
		t.Fatalf("mount %s: %v", fstype, err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	err := kernel.CheckOverlay(dir)
	if err == nil {
		t.Fatalf("%s taken for a place of upper directories", fstype)
	}
	if !errors.Is(err, errdefs.ErrFailedPrecondition) || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "ext4") || !strings.Contains(err.Error(), dir) {
		t.Errorf("error %q: class or the names of directory, filesystem and alternatives missing", err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestBootIDIsStable(t *testing.T) {
	a, err := kernel.BootID()
	if err != nil {
		t.Fatal(err)
	}
	b, _ := kernel.BootID()
	if a != b || len(a) != 36 {
		t.Errorf("boot ids %q and %q", a, b)
	}
}

func TestStartTime(t *testing.T) {
	self, err := kernel.StartTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	// A command name with spaces and parentheses must not shift the fields.
	dir := t.TempDir()
	odd := filepath.Join(dir, "a) S 1 (b")
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Skip("no sleep on this host")
	}
	b, err := os.ReadFile(sleep)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(odd, b, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(odd, "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	child, err := kernel.StartTime(cmd.Process.Pid)
	cmd.Process.Kill()
	cmd.Wait()
	if err != nil || child < self {
		t.Errorf("child started at %d, its parent at %d: %v", child, self, err)
	}
	if _, err := kernel.StartTime(cmd.Process.Pid); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("reaped process: %v", err)
	}
}

func BenchmarkProbe(b *testing.B) {
	for b.Loop() {
		if _, err := kernel.Probe(); err != nil {
			b.Fatal(err)
		}
	}
}
