package archive_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/archive"
)

// place is a root in a directory, beside which something lies that must stay as it is.
func place(t testing.TB) (fd int, root, outside string) {
	t.Helper()
	dir := t.TempDir()
	root, outside = dir+"/root", dir+"/outside"
	for _, d := range []string{root + "/dst", outside} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	fd, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd, root, outside
}

type item struct {
	h    tar.Header
	body string
}

func stream(t testing.TB, items ...item) *bytes.Buffer {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, i := range items {
		i.h.Size = int64(len(i.body))
		if i.h.Mode == 0 {
			i.h.Mode = 0o644
		}
		if err := w.WriteHeader(&i.h); err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, i.body)
	}
	w.Close()
	return &b
}

func file(name, body string) item {
	return item{tar.Header{Name: name, Typeflag: tar.TypeReg}, body}
}

func link(name, target string) item {
	return item{tar.Header{Name: name, Linkname: target, Typeflag: tar.TypeSymlink}, ""}
}

func hard(name, target string) item {
	return item{tar.Header{Name: name, Linkname: target, Typeflag: tar.TypeLink}, ""}
}

func dir(name string) item {
	return item{tar.Header{Name: name, Typeflag: tar.TypeDir, Mode: 0o755}, ""}
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

func TestUnpackStaysInside(t *testing.T) {
	for _, tc := range []struct {
		name    string
		items   []item
		refused string
		made    string // inside the root
	}{
		{"a name with ..", []item{file("../out", "x")}, "outside of the directory", ""},
		{"a name with .. in the middle", []item{file("a/../../out", "x")}, "outside of the directory", ""},
		{"an absolute name", []item{file("/abs", "x")}, "", "dst/abs"},
		{"a hard link out", []item{hard("h", "../../outside/f")}, "outside of the directory", ""},
		{"a hard link to nothing", []item{hard("h", "nothing")}, "is not there", ""},
		{"through a link to the host", []item{link("l", "/outside"), file("l/f", "x")}, "", "outside/f"},
		{"through a link that climbs", []item{link("l", "../../../../outside"), file("l/f", "x")}, "", "outside/f"},
		{"over a link", []item{link("l", "/outside/f"), file("l", "x")}, "", "dst/l"},
		{"a hard link to a link", []item{link("l", "/outside/f"), hard("h", "l"), file("h", "x")}, "", "dst/h"},
		{"over a directory", []item{dir("d"), file("d/x", ""), file("d", "x")}, "", "dst/d"},
		{"a directory over a file", []item{file("d", "x"), file("d2/x", "x"), dir("d"), file("d/f", "x")}, "", "dst/d/f"},
		{"below a file", []item{file("f", "x"), file("f/g", "x")}, "not a directory", ""},
		{"twice", []item{file("f", "y"), file("f", "x")}, "", "dst/f"},
		{"an owner that is none", []item{{tar.Header{Name: "f", Typeflag: tar.TypeReg, Uid: 1 << 40}, "x"}}, "no user and group", ""},
		{"an unknown type", []item{{tar.Header{Name: "f", Typeflag: 'Z'}, ""}}, "unknown type", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			fd, root, outside := place(t)
			os.WriteFile(outside+"/f", []byte("host"), 0o644)
			err := archive.Unpack(t.Context(), fd, "/dst", stream(t, tc.items...), archive.Options{})
			if tc.refused != "" {
				if !errors.Is(err, errdefs.ErrInvalidArgument) || !strings.Contains(err.Error(), tc.refused) {
					t.Errorf("%v", err)
				}
			} else if err != nil {
				t.Error(err)
			}
			if tc.made != "" && read(t, root+"/"+tc.made) != "x" {
				t.Errorf("%s: %s", tc.made, read(t, root+"/"+tc.made))
			}
			if entries, _ := os.ReadDir(outside); len(entries) != 1 || read(t, outside+"/f") != "host" {
				t.Errorf("outside: %v", entries)
			}
		})
	}
}

func TestUnpackKeepsKinds(t *testing.T) {
	fd, root, _ := place(t)
	os.MkdirAll(root+"/dst/d/sub", 0o755)
	os.WriteFile(root+"/dst/f", []byte("f"), 0o644)
	for want, i := range map[string]item{
		`cannot overwrite directory "/dst/d" with non-directory "/dst"`: file("d", "x"),
		`cannot overwrite non-directory "/dst/f" with directory "/dst"`: dir("f"),
	} {
		err := archive.Unpack(t.Context(), fd, "/dst", stream(t, i), archive.Options{KeepKind: true})
		if err == nil || err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
	}
	if read(t, root+"/dst/f") != "f" {
		t.Error("the file changed")
	}
}

func TestReplacedFilesAreWhole(t *testing.T) {
	fd, root, _ := place(t)
	os.WriteFile(root+"/dst/f", []byte("former"), 0o644)
	whole := stream(t, file("f", strings.Repeat("new", 1<<20))).Bytes()
	err := archive.Unpack(t.Context(), fd, "/dst", bytes.NewReader(whole[:len(whole)/2]), archive.Options{})
	if !errors.Is(err, errdefs.ErrInvalidArgument) {
		t.Errorf("a stream that ends early: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := archive.Unpack(ctx, fd, "/dst", bytes.NewReader(whole), archive.Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if entries, _ := os.ReadDir(root + "/dst"); len(entries) != 1 || read(t, root+"/dst/f") != "former" {
		t.Errorf("left: %v", entries)
	}
}

func TestUnpackOnFullDisk(t *testing.T) {
	fd, root, _ := place(t)
	if err := unix.Mount("tmpfs", root+"/dst", "tmpfs", 0, "size=1m"); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(root+"/dst", unix.MNT_DETACH)
	os.WriteFile(root+"/dst/f", []byte("former"), 0o644)
	err := archive.Unpack(t.Context(), fd, "/dst", stream(t, file("f", strings.Repeat("x", 4<<20))), archive.Options{})
	if !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), "/dst/f") {
		t.Errorf("%v", err)
	}
	if entries, _ := os.ReadDir(root + "/dst"); len(entries) != 1 || read(t, root+"/dst/f") != "former" {
		t.Errorf("left: %v", entries)
	}
}

func TestKernelInterfacesAreNoFiles(t *testing.T) {
	fd, root, _ := place(t)
	if err := unix.Mount("proc", root+"/dst", "proc", 0, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(root+"/dst", unix.MNT_DETACH)
	err := archive.Unpack(t.Context(), fd, "/dst", stream(t, file("sys/kernel/hostname", "x")), archive.Options{})
	if !errors.Is(err, errdefs.ErrInvalidArgument) || !strings.Contains(err.Error(), "interface of the kernel") {
		t.Errorf("%v", err)
	}
	var b bytes.Buffer
	p := archive.NewPacker(t.Context(), &b)
	if err := p.Tree(fd, "."); err != nil {
		t.Fatal(err)
	}
	p.Close()
	var names []string
	for tr := tar.NewReader(&b); ; {
		h, err := tr.Next()
		if err != nil {
			break
		}
		names = append(names, h.Name)
	}
	if got := strings.Join(names, " "); got != "./ ./dst/" {
		t.Errorf("packed %s", got)
	}
}

func TestThereAndBack(t *testing.T) {
	from, src, _ := place(t)
	os.MkdirAll(src+"/dst/d/sub", 0o700)
	os.WriteFile(src+"/dst/d/f", bytes.Repeat([]byte("0123456789"), 100000), 0o640)
	os.Chown(src+"/dst/d/f", 12, 34)
	unix.Setxattr(src+"/dst/d/f", "user.x", []byte("a=b\x00\n"), 0)
	unix.Setxattr(src+"/dst/d/f", "trusted.overlay.opaque", []byte("y"), 0)
	os.Link(src+"/dst/d/f", src+"/dst/d/g")
	os.Symlink("../../..", src+"/dst/d/l")
	unix.Mkfifo(src+"/dst/d/p", 0o600)
	sparse, _ := os.Create(src + "/dst/d/sparse")
	sparse.WriteAt([]byte("end"), 10<<20)
	sparse.Close()
	old := time.Unix(1e9, 123456789)
	for _, p := range []string{"/dst/d/f", "/dst/d/sub", "/dst/d"} {
		os.Chtimes(src+p, old, old)
	}
	year2318 := unix.Timespec{Sec: 11e9, Nsec: 5} // which nanoseconds do not reach
	unix.UtimesNanoAt(unix.AT_FDCWD, src+"/dst/d/sparse", []unix.Timespec{year2318, year2318}, 0)
	var late unix.Stat_t // as the filesystem has it
	unix.Stat(src+"/dst/d/sparse", &late)
	var b bytes.Buffer
	p := archive.NewPacker(t.Context(), &b)
	at, err := unix.Openat(from, "dst/d", unix.O_PATH, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(at)
	if err := errors.Join(p.Tree(at, "d"), p.Close()); err != nil {
		t.Fatal(err)
	}
	to, dst, _ := place(t)
	if err := archive.Unpack(t.Context(), to, "/dst", &b, archive.Options{}); err != nil {
		t.Fatal(err)
	}
	err = filepath.Walk(src+"/dst/d", func(path string, want os.FileInfo, err error) error {
		rel := strings.TrimPrefix(path, src)
		got, serr := os.Lstat(dst + rel)
		if serr != nil || got.Mode() != want.Mode() || got.Mode().IsRegular() && (got.Size() != want.Size() || read(t, path) != read(t, dst+rel)) {
			t.Errorf("%s: %v, %v", rel, got, serr)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{"/dst/d/f", "/dst/d/sub", "/dst/d"} {
		if st, _ := os.Stat(dst + p); st == nil || !st.ModTime().Equal(old) {
			t.Errorf("the time of %s is %v", p, st.ModTime())
		}
	}
	var f, g unix.Stat_t
	unix.Stat(dst+"/dst/d/f", &f)
	unix.Stat(dst+"/dst/d/g", &g)
	if f.Ino != g.Ino || f.Uid != 12 || f.Gid != 34 {
		t.Errorf("hard links %d %d, owner %d:%d", f.Ino, g.Ino, f.Uid, f.Gid)
	}
	buf := make([]byte, 100)
	n, err := unix.Getxattr(dst+"/dst/d/f", "user.x", buf)
	if err != nil || string(buf[:n]) != "a=b\x00\n" {
		t.Errorf("attribute %q, %v", buf[:max(n, 0)], err)
	}
	if _, err := unix.Getxattr(dst+"/dst/d/f", "trusted.overlay.opaque", buf); err == nil {
		t.Error("overlay's own attribute travelled")
	}
	var s unix.Stat_t
	unix.Stat(dst+"/dst/d/sparse", &s)
	if s.Blocks*512 > 1<<20 {
		t.Errorf("the hole takes %d bytes", s.Blocks*512)
	}
	if s.Mtim != late.Mtim {
		t.Errorf("a time after 2262 is %v, not %v", s.Mtim, late.Mtim)
	}
}

// What a stream says of the directory itself counts where it is asked for, wherever in the stream it stands.
func TestUnpackWhole(t *testing.T) {
	year2318 := time.Unix(11e9, 5) // which nanoseconds do not reach
	for _, whole := range []bool{false, true} {
		at, root, _ := place(t)
		var before, after, late unix.Stat_t
		unix.Stat(root+"/dst", &before)
		itself := item{tar.Header{
			Name: "./", Typeflag: tar.TypeDir, Mode: 0o1711, Uid: 12, Gid: 34, ModTime: year2318, PAXRecords: map[string]string{"SCHILY.xattr.user.x": "y"},
			Format: tar.FormatPAX,
		}, ""}
		if err := archive.Unpack(t.Context(), at, "/dst", stream(t, file("./a", "a"), itself, file("./b", "b")), archive.Options{Whole: whole}); err != nil {
			t.Fatal(err)
		}
		unix.Stat(root+"/dst", &after)
		value := make([]byte, 10)
		n, err := unix.Getxattr(root+"/dst", "user.x", value)
		if !whole {
			if after.Mode != before.Mode || after.Uid != before.Uid || after.Gid != before.Gid || err == nil {
				t.Errorf("without being asked: mode %o, owner %d:%d, attribute %v", after.Mode, after.Uid, after.Gid, err)
			}
			continue
		}
		os.WriteFile(root+"/late", nil, 0o600)
		unix.UtimesNanoAt(unix.AT_FDCWD, root+"/late", []unix.Timespec{{Sec: 11e9, Nsec: 5}, {Sec: 11e9, Nsec: 5}}, 0)
		unix.Stat(root+"/late", &late) // as the filesystem has it
		if after.Mode&0o7777 != 0o1711 || after.Uid != 12 || after.Gid != 34 || after.Mtim != late.Mtim || err != nil || string(value[:n]) != "y" {
			t.Errorf("mode %o, owner %d:%d, time %v instead of %v, attribute %q %v", after.Mode, after.Uid, after.Gid, after.Mtim, late.Mtim, value, err)
		}
		itself.h.Uid = -1
		if err := archive.Unpack(t.Context(), at, "/dst", stream(t, itself), archive.Options{Whole: whole}); err == nil {
			t.Error("given to nobody")
		}
	}
}

// What tar -S writes, by default in a form of GNU's own.
func TestUnpackHoles(t *testing.T) {
	at, root, outside := place(t)
	f, err := os.Create(outside + "/sparse")
	if err == nil {
		_, err = f.WriteAt([]byte("end"), 10<<20)
	}
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	for _, format := range []string{"gnu", "pax"} {
		packed, err := exec.Command("tar", "-C", outside, "-c", "-S", "--format", format, "sparse").Output()
		if err != nil || len(packed) > 1<<20 {
			t.Fatalf("%d bytes, %v", len(packed), err)
		}
		if err := archive.Unpack(t.Context(), at, "/dst", bytes.NewReader(packed), archive.Options{}); err != nil {
			t.Errorf("%s: %v", format, err)
			continue
		}
		if read(t, root+"/dst/sparse") != read(t, outside+"/sparse") {
			t.Errorf("%s: another content", format)
		}
	}
}

// TestUnpackAgainstSwappedLinks has somebody swap the directory for a link meanwhile.
func TestUnpackAgainstSwappedLinks(t *testing.T) {
	fd, root, outside := place(t)
	os.Mkdir(root+"/dst/d", 0o755)
	os.Symlink(outside, root+"/dst/l")
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				unix.Renameat2(unix.AT_FDCWD, root+"/dst/d", unix.AT_FDCWD, root+"/dst/l", unix.RENAME_EXCHANGE)
			}
		}
	})
	body := stream(t, file("d/a", "x"), file("d/b/c", "x"), dir("d/e"), hard("d/h", "d/a"), link("d/s", "/x")).Bytes()
	for range 500 {
		_ = archive.Unpack(t.Context(), fd, "/dst", bytes.NewReader(body), archive.Options{})
	}
	close(stop)
	wg.Wait()
	if entries, _ := os.ReadDir(outside); len(entries) != 0 {
		t.Errorf("outside: %v", entries)
	}
}

func FuzzUnpack(f *testing.F) {
	f.Add(stream(f, file("a", "x"), link("l", "../.."), file("l/b", "y"), hard("h", "a"), dir("d")).Bytes())
	f.Add(stream(f, file("../a", "x")).Bytes())
	f.Add([]byte("no archive"))
	f.Fuzz(func(t *testing.T, data []byte) {
		fd, root, outside := place(t)
		_ = archive.Unpack(t.Context(), fd, "/dst", bytes.NewReader(data), archive.Options{})
		entries, _ := os.ReadDir(outside)
		around, _ := os.ReadDir(filepath.Dir(root))
		if len(entries) != 0 || len(around) != 2 {
			t.Errorf("outside: %v, around: %v", entries, around)
		}
		if fd2, err := unix.Open(root+"/dst", unix.O_RDONLY|unix.O_DIRECTORY, 0); err == nil {
			unix.Close(fd2)
		}
	})
}

func FuzzDecompress(f *testing.F) {
	for _, s := range []string{"\x1f\x8b\x08", "\x28\xb5\x2f\xfd", "BZh9", "\xfd7zXZ\x00", "plain", ""} {
		f.Add([]byte(s))
	}
	if text, err := base64.StdEncoding.DecodeString(xzText); err == nil {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r, done, err := archive.Decompress(bytes.NewReader(data))
		if err != nil {
			return
		}
		defer done()
		_, _ = io.Copy(io.Discard, io.LimitReader(r, 1<<20))
	})
}
