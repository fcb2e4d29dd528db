package rootpath_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/rootpath"
)

// root makes a root directory next to a directory "outside" that nothing may touch.
func root(t testing.TB) (fd int, dir, outside string) {
	t.Helper()
	base := t.TempDir()
	dir, outside = base+"/root", base+"/outside"
	for _, d := range []string{dir, outside} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		unix.Close(fd)
		if left, _ := os.ReadDir(outside); len(left) != 0 {
			t.Errorf("reached outside of the root: %v", left)
		}
	})
	return fd, dir, outside
}

func link(t testing.TB, target, at string) {
	t.Helper()
	if err := os.Symlink(target, at); err != nil {
		t.Fatal(err)
	}
}

func mkdir(t testing.TB, path string) {
	t.Helper()
	if err := os.MkdirAll(path, 0o755); err != nil {
		t.Fatal(err)
	}
}

func write(t testing.TB, path, content string) {
	t.Helper()
	mkdir(t, filepath.Dir(path))
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// where tells what a descriptor stands for.
func where(t testing.TB, fd int) string {
	t.Helper()
	p, err := os.Readlink(filepath.Join("/proc/self/fd", itoa(fd)))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func itoa(n int) string {
	if n < 10 {
		return string(rune('0' + n))
	}
	return itoa(n/10) + itoa(n%10)
}

func TestMkdirAllStaysInTheRoot(t *testing.T) {
	for _, tc := range []struct {
		name, path, want string
		prepare          func(dir, outside string)
	}{
		{name: "plain", path: "/a/b/c", want: "/a/b/c"},
		{name: "relative", path: "a/b", want: "/a/b"},
		{name: "the root", path: "/", want: ""},
		{name: "empty", path: "", want: ""},
		{name: "odd slashes and dots", path: "//a/./b///", want: "/a/b"},
		{name: "dot dot out of the root", path: "/../../../../outside/x", want: "/outside/x"},
		{name: "dot dot of a missing directory", path: "/a/../b", want: "/b"},
		{name: "there already", path: "/a", want: "/a", prepare: func(dir, _ string) { mkdir(t, dir+"/a") }},
		{name: "absolute link", path: "/l/x", want: "/d/x", prepare: func(dir, _ string) { mkdir(t, dir+"/d"); link(t, "/d", dir+"/l") }},
		{name: "link to the host's path", path: "/l/x", want: "", prepare: func(dir, outside string) { link(t, outside, dir+"/l") }},
		{name: "link up and out", path: "/d/l/x", want: "/outside/x", prepare: func(dir, _ string) { mkdir(t, dir+"/d"); link(t, "../../../outside", dir+"/d/l") }},
		{name: "dangling link in the middle", path: "/var/run/x/y", want: "/run/x/y", prepare: func(dir, _ string) { mkdir(t, dir+"/var"); link(t, "/run", dir+"/var/run") }},
		{name: "dangling link at the end", path: "/l", want: "/t/u", prepare: func(dir, _ string) { link(t, "t/u", dir+"/l") }},
		{name: "chain of dangling links", path: "/l1/x", want: "/z/x", prepare: func(dir, _ string) { link(t, "l2", dir+"/l1"); link(t, "/l3/.", dir+"/l2"); link(t, "../z", dir+"/l3") }},
		{name: "link to the root", path: "/l/x", want: "/x", prepare: func(dir, _ string) { link(t, "/", dir+"/l") }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			fd, dir, outside := root(t)
			if tc.prepare != nil {
				tc.prepare(dir, outside)
			}
			got, err := rootpath.MkdirAll(fd, tc.path, 0o755, -1, -1)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(got)
			want := dir + tc.want
			if tc.name == "link to the host's path" {
				want = dir + outside + "/x"
			}
			if at := where(t, got); at != want {
				t.Errorf("made %s, want %s", at, want)
			}
			// What was made is found again the way the container finds it.
			again, err := rootpath.Open(fd, tc.path, unix.O_PATH, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(again)
			if where(t, again) != want {
				t.Errorf("opened again: %s", where(t, again))
			}
		})
	}
}

func TestMkdirAllErrors(t *testing.T) {
	fd, dir, _ := root(t)
	write(t, dir+"/file", "")
	link(t, "loop", dir+"/loop")
	link(t, "loop/x", dir+"/loop2")
	link(t, "file", dir+"/tofile")
	for path, want := range map[string]error{
		"/file": unix.ENOTDIR, "/file/x": unix.ENOTDIR, "/tofile/x": unix.ENOTDIR, "/loop": unix.ELOOP, "/loop/x": unix.ELOOP, "/new/../loop2": unix.ELOOP,
		"/" + strings.Repeat("n", 256): unix.ENAMETOOLONG, "/x\x00y": unix.EINVAL,
	} {
		got, err := rootpath.MkdirAll(fd, path, 0o755, 0, 0)
		if err == nil {
			unix.Close(got)
		}
		if !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", path, err, want)
		}
	}
	var pathError *os.PathError
	_, err := rootpath.MkdirAll(fd, "/file/x", 0o755, 0, 0)
	if !errors.As(err, &pathError) || pathError.Path != "/file/x" {
		t.Errorf("error %v does not carry the path", err)
	}
}

func TestMkdirAllModeAndOwner(t *testing.T) {
	defer unix.Umask(unix.Umask(0o077))
	fd, dir, _ := root(t)
	mkdir(t, dir+"/there")
	if err := os.Chmod(dir+"/there", 0o2700); err != nil {
		t.Fatal(err)
	}
	got, err := rootpath.MkdirAll(fd, "/there/a/b", 0o751|os.ModeSticky|os.ModeSetgid, 1234, 5678)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(got)
	for _, p := range []string{"/there/a", "/there/a/b"} {
		var st unix.Stat_t
		if err := unix.Stat(dir+p, &st); err != nil {
			t.Fatal(err)
		}
		if st.Mode&0o7777 != 0o3751 || st.Uid != 1234 || st.Gid != 5678 {
			t.Errorf("%s has mode %o, owner %d:%d", p, st.Mode&0o7777, st.Uid, st.Gid)
		}
	}
	var st unix.Stat_t
	if err := unix.Stat(dir+"/there", &st); err != nil || st.Mode&0o7777 != 0o2700&^0o2000|st.Mode&0o2000 || st.Uid != 0 {
		t.Errorf("the existing directory changed: %o %d, %v", st.Mode, st.Uid, err)
	}
}

func TestMkdirAllRace(t *testing.T) {
	fd, dir, _ := root(t)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 200 {
				got, err := rootpath.MkdirAll(fd, "/a/b/c/d", 0o755, 0, 0)
				if err != nil {
					t.Error(err)
					return
				}
				unix.Close(got)
			}
		})
	}
	wg.Go(func() {
		for range 200 {
			os.Remove(dir + "/a/b/c/d") // others make it again
		}
	})
	wg.Wait()
}

// A process in the container swaps a directory for a link to the host's while the engine makes directories in it.
func TestMkdirAllAgainstSwappedLinks(t *testing.T) {
	fd, dir, outside := root(t)
	mkdir(t, dir+"/d")
	link(t, outside, dir+"/l")
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				unix.Renameat2(unix.AT_FDCWD, dir+"/d", unix.AT_FDCWD, dir+"/l", unix.RENAME_EXCHANGE)
			}
		}
	})
	for range 3000 {
		// Inside, the link's target is a missing directory, which is made: both outcomes are inside. "outside" must
		// stay empty.
		got, err := rootpath.MkdirAll(fd, "/d/x/y", 0o755, 0, 0)
		if err == nil {
			if at := where(t, got); !strings.HasPrefix(at, dir+"/") {
				t.Fatalf("made %s", at)
			}
			unix.Close(got)
		}
		os.RemoveAll(dir + "/d/x")
	}
	close(stop)
	wg.Wait()
}

func TestCreateFile(t *testing.T) {
	fd, dir, _ := root(t)
	link(t, "/etc/real/resolv.conf", dir+"/dangling")
	for path, want := range map[string]string{
		"/etc/hosts": "/etc/hosts", "/dangling": "/etc/real/resolv.conf", "../../x": "/x",
	} {
		got, err := rootpath.CreateFile(fd, path, 0o640, 11, 12)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(got)
		if at := where(t, got); at != dir+want {
			t.Errorf("%s: made %s", path, at)
		}
		var st unix.Stat_t
		if err := unix.Fstat(got, &st); err != nil || st.Mode != unix.S_IFREG|0o640 || st.Uid != 11 || st.Gid != 12 {
			t.Errorf("%s: mode %o owner %d:%d, %v", path, st.Mode, st.Uid, st.Gid, err)
		}
	}
	write(t, dir+"/full", "content")
	got, err := rootpath.CreateFile(fd, "/full", 0o600, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(got)
	if b, _ := os.ReadFile(dir + "/full"); string(b) != "content" {
		t.Errorf("an existing file became %q", b)
	}
	if _, err := rootpath.CreateFile(fd, "/etc", 0o600, 0, 0); !errors.Is(err, unix.EISDIR) {
		t.Errorf("a directory: %v", err)
	}
	if _, err := rootpath.CreateFile(fd, "/full/x", 0o600, 0, 0); !errors.Is(err, unix.ENOTDIR) {
		t.Errorf("below a file: %v", err)
	}
}

func TestOpenRefusesMagicLinks(t *testing.T) {
	fd, dir, _ := root(t)
	mkdir(t, dir+"/proc")
	if err := unix.Mount("proc", dir+"/proc", "proc", 0, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(dir+"/proc", unix.MNT_DETACH)
	for _, p := range []string{"/proc/self/root/etc/passwd", "/proc/self/cwd", "/proc/self/fd/0", "/proc/thread-self/exe"} {
		got, err := rootpath.Open(fd, p, unix.O_PATH, 0)
		if err == nil {
			unix.Close(got)
		}
		if !errors.Is(err, unix.ELOOP) && !errors.Is(err, unix.ENOENT) {
			t.Errorf("%s: %v", p, err)
		}
	}
	if _, err := rootpath.MkdirAll(fd, "/proc/self/root/x", 0o755, 0, 0); err == nil {
		t.Error("made a directory through /proc/self/root")
	}
}

func TestOpenIsCloseOnExec(t *testing.T) {
	fd, dir, _ := root(t)
	write(t, dir+"/f", "x")
	got, err := rootpath.Open(fd, "f", unix.O_RDONLY, 0o777) // a mode that does not count
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(got)
	if flags, _ := unix.FcntlInt(uintptr(got), unix.F_GETFD, 0); flags&unix.FD_CLOEXEC == 0 {
		t.Error("not close-on-exec")
	}
	made, err := rootpath.Open(fd, "/g", unix.O_CREAT|unix.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(made)
}

func TestReadFile(t *testing.T) {
	fd, dir, outside := root(t)
	write(t, dir+"/f", "12345")
	if b, err := rootpath.ReadFile(fd, "/f", 5); err != nil || string(b) != "12345" {
		t.Errorf("%q, %v", b, err)
	}
	if _, err := rootpath.ReadFile(fd, "/f", 4); !errors.Is(err, errdefs.ErrInvalidArgument) || !strings.Contains(err.Error(), "/f") {
		t.Errorf("too large: %v", err)
	}
	if err := unix.Mkfifo(dir+"/pipe", 0o600); err != nil {
		t.Fatal(err)
	}
	mkdir(t, dir+"/d")
	for _, p := range []string{"/pipe", "/d"} {
		if _, err := rootpath.ReadFile(fd, p, 10); !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("%s: %v", p, err)
		}
	}
	link(t, outside+"/secret", dir+"/l")
	if _, err := rootpath.ReadFile(fd, "/l", 10); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("link outside: %v", err)
	}
}

func FuzzMkdirAll(f *testing.F) {
	for _, s := range []string{"/a/b", "../..", "l/../x", "/l/l/l", "a/./..//b", "\x00", strings.Repeat("../", 100) + "etc"} {
		f.Add(s, "/etc")
	}
	f.Fuzz(func(t *testing.T, path, target string) {
		fd, dir, _ := root(t)
		os.Symlink(target, dir+"/l")
		got, err := rootpath.MkdirAll(fd, path, 0o755, -1, -1)
		if err != nil {
			return
		}
		defer unix.Close(got)
		if at := where(t, got); at != dir && !strings.HasPrefix(at, dir+"/") {
			t.Errorf("MkdirAll(%q) with a link to %q made %q", path, target, at)
		}
	})
}
