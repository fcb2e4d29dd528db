package mount_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/kernel"
	"github.com/cleatlabs/cleat/internal/mount"
)

func features(t testing.TB) kernel.Features {
	t.Helper()
	f, err := kernel.Probe()
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// variants are the three ways that kernels of different age are given an overlay's layers.
func variants(t testing.TB) map[string]kernel.Features {
	f := features(t)
	ways := map[string]kernel.Features{"one string": {}}
	if f.OverlayAppendLower {
		ways["strings"] = kernel.Features{OverlayAppendLower: true}
	}
	if f.FsconfigSetFD {
		ways["descriptors"] = f
	}
	return ways
}

func mkdir(t testing.TB, parts ...string) string {
	t.Helper()
	d := filepath.Join(parts...)
	if err := os.MkdirAll(d, 0o755); err != nil {
		t.Fatal(err)
	}
	return d
}

func write(t testing.TB, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func readAt(t testing.TB, dir int, name string) string {
	t.Helper()
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	defer unix.Close(fd)
	buf := make([]byte, 256)
	n, err := unix.Read(fd, buf)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return string(buf[:n])
}

func TestOverlayStacksAndWrites(t *testing.T) {
	for name, f := range variants(t) {
		t.Run(name, func(t *testing.T) {
			// A colon, a comma, a backslash and a space in the paths must not be taken for syntax; nor a path over 255
			// bytes.
			base := mkdir(t, t.TempDir(), `a:b,c\d e`, strings.Repeat("long", 40), strings.Repeat("er", 60))
			bottom, top := mkdir(t, base, "bottom"), mkdir(t, base, "top")
			write(t, bottom+"/both", "bottom")
			write(t, top+"/both", "top")
			write(t, bottom+"/below", "below")
			o := mount.Overlay{Lower: []string{top, bottom}, Upper: mkdir(t, base, "upper"), Work: mkdir(t, base, "work")}
			fd, err := o.Mount(f)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(fd)
			if got := readAt(t, fd, "both"); got != "top" {
				t.Errorf("the upper of two layers does not win: %q", got)
			}
			if got := readAt(t, fd, "below"); got != "below" {
				t.Errorf("lower layer reads %q", got)
			}
			if err := unix.Mkdirat(fd, "new", 0o755); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(o.Upper + "/new"); err != nil {
				t.Errorf("a write did not reach the upper directory: %v", err)
			}
			if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
				t.Errorf("the mount would be inherited by programs: %#x, %v", flags, err)
			}
			if points, err := mount.Below(base); err != nil || len(points) != 0 {
				t.Errorf("visible mounts %v, %v", points, err)
			}
		})
	}
}

func TestOverlayReadOnly(t *testing.T) {
	for name, f := range variants(t) {
		t.Run(name, func(t *testing.T) {
			base := t.TempDir()
			a, b := mkdir(t, base, "a"), mkdir(t, base, "b")
			write(t, a+"/f", "x")
			fd, err := mount.Overlay{Lower: []string{a, b}}.Mount(f)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(fd)
			if got := readAt(t, fd, "f"); got != "x" {
				t.Errorf("reads %q", got)
			}
			if err := unix.Mkdirat(fd, "new", 0o755); !errors.Is(err, unix.EROFS) {
				t.Errorf("mkdir: %v", err)
			}
		})
	}
}

// The kernel makes an overlay read-only without a word where it can make nothing in the work directory.
func TestOverlayWithoutInodesIsNotReadOnly(t *testing.T) {
	for name, f := range variants(t) {
		t.Run(name, func(t *testing.T) {
			base := t.TempDir()
			must(t, unix.Mount("tmpfs", base, "tmpfs", 0, "nr_inodes=8"))
			t.Cleanup(func() { must(t, unix.Unmount(base, unix.MNT_DETACH)) })
			o := mount.Overlay{Lower: []string{mkdir(t, base, "l")}, Upper: mkdir(t, base, "u"), Work: mkdir(t, base, "w")}
			filler := func(n int) string { return fmt.Sprintf("%s/filler%d", base, n) }
			n := 0
			for os.WriteFile(filler(n), nil, 0o600) == nil {
				n++
			}
			if fd, err := o.Mount(f); !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), base+"/w") {
				unix.Close(fd)
				t.Errorf("without inodes: %v", err)
			}
			for i := range n {
				must(t, os.Remove(filler(i)))
			}
			fd, err := o.Mount(f)
			must(t, err)
			defer unix.Close(fd)
			if err := unix.Mkdirat(fd, "new", 0o755); err != nil {
				t.Errorf("with inodes: %v", err)
			}
		})
	}
}

func TestOverlayOf500Layers(t *testing.T) {
	for name, f := range variants(t) {
		t.Run(name, func(t *testing.T) {
			base := t.TempDir()
			o := mount.Overlay{Upper: mkdir(t, base, "upper"), Work: mkdir(t, base, "work")}
			for i := range mount.MaxLayers {
				d := mkdir(t, base, fmt.Sprintf("layer-%064d", i))
				write(t, fmt.Sprintf("%s/f%d", d, i), "x")
				o.Lower = append(o.Lower, d)
			}
			fd, err := o.Mount(f)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(fd)
			readAt(t, fd, "f0")
			readAt(t, fd, "f499")
			o.Lower = append(o.Lower, o.Lower[0])
			if _, err := o.Mount(f); !errors.Is(err, errdefs.ErrInvalidArgument) {
				t.Errorf("501 layers: %v", err)
			}
		})
	}
}

func TestOverlayVolatileCanBeMountedAgain(t *testing.T) {
	for name, f := range variants(t) {
		t.Run(name, func(t *testing.T) {
			base := t.TempDir()
			o := mount.Overlay{Lower: []string{mkdir(t, base, "l")}, Upper: mkdir(t, base, "u"), Work: mkdir(t, base, "w"), Volatile: true}
			for range 2 {
				fd, err := o.Mount(f)
				if err != nil {
					t.Fatal(err)
				}
				unix.Close(fd)
			}
			if _, err := os.Stat(base + "/w/work/incompat/volatile"); err != nil {
				t.Errorf("not mounted volatile: %v", err)
			}
		})
	}
}

func TestOverlayErrorsNameTheDirectory(t *testing.T) {
	base := t.TempDir()
	good, upper, work := mkdir(t, base, "good"), mkdir(t, base, "upper"), mkdir(t, base, "work")
	write(t, base+"/file", "")
	shm, err := os.MkdirTemp("/dev/shm", "cleat-mount-test-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(shm)
	for way, f := range variants(t) {
		for _, tc := range []struct {
			name  string
			o     mount.Overlay
			class error
			words string
		}{
			{"missing layer", mount.Overlay{Lower: []string{good, base + "/gone"}, Upper: upper, Work: work}, unix.ENOENT, base + "/gone"},
			{"layer is a file", mount.Overlay{Lower: []string{base + "/file"}, Upper: upper, Work: work}, unix.ENOTDIR, base + "/file"},
			{"missing upper", mount.Overlay{Lower: []string{good}, Upper: base + "/nope", Work: work}, unix.ENOENT, base + "/nope"},
			{"missing work", mount.Overlay{Lower: []string{good}, Upper: upper, Work: base + "/nowork"}, unix.ENOENT, base + "/nowork"},
			{"work on another filesystem", mount.Overlay{Lower: []string{good}, Upper: upper, Work: shm}, unix.EINVAL, upper},
			{"no layer", mount.Overlay{Upper: upper, Work: work}, errdefs.ErrInvalidArgument, "at least one"},
			{"upper without work", mount.Overlay{Lower: []string{good}, Upper: upper}, errdefs.ErrInvalidArgument, "work"},
			{"relative", mount.Overlay{Lower: []string{"x"}, Upper: upper, Work: work}, errdefs.ErrInvalidArgument, `"x"`},
			{"volatile without upper", mount.Overlay{Lower: []string{good}, Volatile: true}, errdefs.ErrInvalidArgument, "volatile"},
		} {
			t.Run(way+"/"+tc.name, func(t *testing.T) {
				fd, err := tc.o.Mount(f)
				if err == nil {
					unix.Close(fd)
					t.Fatal("mounted")
				}
				if !errors.Is(err, tc.class) || !strings.Contains(err.Error(), tc.words) {
					t.Errorf("error %q is not %v about %s", err, tc.class, tc.words)
				}
			})
		}
	}
}

func TestOverlayLeavesNoDescriptor(t *testing.T) {
	for name, f := range variants(t) {
		t.Run(name, func(t *testing.T) {
			base := t.TempDir()
			o := mount.Overlay{Lower: []string{mkdir(t, base, "l")}, Upper: mkdir(t, base, "u"), Work: mkdir(t, base, "w")}
			bad := o
			bad.Upper = base + "/none"
			count := func() int {
				fds, err := os.ReadDir("/proc/self/fd")
				if err != nil {
					t.Fatal(err)
				}
				return len(fds)
			}
			before := count()
			for range 3 {
				fd, err := o.Mount(f)
				if err != nil {
					t.Fatal(err)
				}
				unix.Close(fd)
				bad.Mount(f)
			}
			if after := count(); after != before {
				t.Errorf("%d descriptors before, %d after", before, after)
			}
		})
	}
}

func TestLegacyOverlayKeepsTheProcessInItsNamespace(t *testing.T) {
	before, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		t.Fatal(err)
	}
	base := t.TempDir()
	o := mount.Overlay{Lower: []string{mkdir(t, base, "l")}, Upper: mkdir(t, base, "u"), Work: mkdir(t, base, "w")}
	for range 20 {
		fd, err := o.Mount(kernel.Features{})
		if err != nil {
			t.Fatal(err)
		}
		unix.Close(fd)
	}
	after, _ := os.Readlink("/proc/self/ns/mnt")
	if after != before {
		t.Errorf("main thread moved from %s to %s", before, after)
	}
	cwd, err := os.Getwd()
	if err != nil || strings.HasPrefix(cwd, "/proc") {
		t.Errorf("working directory %s, %v", cwd, err)
	}
}

func BenchmarkOverlayMount(b *testing.B) {
	for _, layers := range []int{1, 5, 20} {
		for name, f := range variants(b) {
			b.Run(fmt.Sprintf("%d layers/%s", layers, name), func(b *testing.B) {
				base := b.TempDir()
				o := mount.Overlay{Upper: mkdir(b, base, "u"), Work: mkdir(b, base, "w")}
				for i := range layers {
					o.Lower = append(o.Lower, mkdir(b, base, fmt.Sprint("l", i)))
				}
				var took []time.Duration
				for b.Loop() {
					start := time.Now()
					fd, err := o.Mount(f)
					if err != nil {
						b.Fatal(err)
					}
					took = append(took, time.Since(start))
					unix.Close(fd)
				}
				slices.Sort(took)
				b.ReportMetric(float64(took[len(took)/2])/float64(time.Microsecond), "µs-mount")
			})
		}
	}
}
