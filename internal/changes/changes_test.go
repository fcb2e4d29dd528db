package changes_test

import (
	"archive/tar"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/changes"
)

// layers mounts an overlay over lower files, lets a shell script change it, and gives its
// three views.
func layers(t *testing.T, options, before, script string) changes.Source {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{"lower", "upper", "work", "merged"} {
		if err := os.Mkdir(dir+"/"+d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	run := func(in, script string) {
		t.Helper()
		cmd := exec.Command("sh", "-ec", script)
		cmd.Dir = dir + "/" + in
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	run("lower", before)
	data := fmt.Sprintf("lowerdir=%[1]s/lower,upperdir=%[1]s/upper,workdir=%[1]s/work%s", dir, options)
	if err := unix.Mount("overlay", dir+"/merged", "overlay", 0, data); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(dir+"/merged", unix.MNT_DETACH) })
	run("merged", script)
	open := func(name string) int {
		fd, err := unix.Open(dir+"/"+name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		return fd
	}
	return changes.Source{Upper: open("upper"), Lower: open("lower"), Merged: open("merged")}
}

func TestListAndLayer(t *testing.T) {
	for _, tc := range []struct{ name, options, before, script, list, layer string }{
		{"nothing", "", "mkdir a; touch a/f", "cat a/f", "", ""},
		{"added", "", "mkdir a", "touch a/f", "C /a, A /a/f", "a/ a/f"},
		{"modified in place", "", "mkdir a; touch a/f", "echo x >>a/f", "C /a/f", "a/ a/f"},
		{"deleted", "", "mkdir a; touch a/f a/g", "rm a/f", "C /a, D /a/f", "a/ a/.wh.f"},
		{"made and removed", "", "mkdir a", "touch a/f; rm a/f", "C /a", "a/"},
		{"mode", "", "mkdir a; touch a/f", "chmod 700 a", "C /a", "a/"},
		{"replaced directory", "", "mkdir a; touch a/f a/g", "rm -r a; mkdir a; touch a/g a/h", "C /a, D /a/f, C /a/g, A /a/h", "a/ a/g a/h a/.wh.f"},
		{"directory to file", "", "mkdir a; touch a/f", "rm -r a; touch a", "C /a", "a"},
		{"file to directory", "", "touch a", "rm a; mkdir a; touch a/f", "C /a, A /a/f", "a/ a/f"},
		{"renamed directory", ",redirect_dir=on", "mkdir -p a/b; touch a/b/f", "mv a c", "D /a, A /c, A /c/b, A /c/b/f", ".wh.a c/ c/b/ c/b/f"},
		{"renamed over another", ",redirect_dir=on", "mkdir a b; touch a/f b/g", "rm b/g; mv -T a b", "D /a, C /b, A /b/f, D /b/g", ".wh.a b/ b/f b/.wh.g"},
		{"metadata only", ",metacopy=on,redirect_dir=on", "echo content >f", "chmod 600 f", "C /f", "f"},
		{"hard links", "", "touch f", "ln f g; touch x; ln x y", "C /f, A /g, A /x, A /y", "f g x y"},
		{"the engine's mount points", "", "mkdir etc; touch etc/passwd", "mkdir proc sys dev dev/pts; touch etc/hosts etc/resolv.conf etc/hostname", "", ""},
		{"mount points without a place", "", "true", "mkdir etc; touch etc/hosts", "", ""},
		{"beside mount points", "", "true", "mkdir etc; touch etc/hosts etc/mine", "A /etc, A /etc/mine", "etc/ etc/mine"},
		{"written into mount points", "", "true", "mkdir etc proc; echo x >etc/hosts; touch proc/f", "A /etc, A /etc/hosts, A /proc, A /proc/f", "etc/ etc/hosts proc/ proc/f"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := layers(t, tc.options, tc.before, tc.script)
			list, err := changes.List(t.Context(), s)
			var said []string
			for _, c := range list {
				said = append(said, string("CAD"[c.Kind])+" "+c.Path)
			}
			if got := strings.Join(said, ", "); err != nil || got != tc.list {
				t.Errorf("%s, %v, want %s", got, err, tc.list)
			}
			var b bytes.Buffer
			empty, err := changes.Layer(t.Context(), s, &b)
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for tr := tar.NewReader(&b); ; {
				h, err := tr.Next()
				if err != nil {
					break
				}
				names = append(names, h.Name)
				if h.Name == "f" && tc.name == "metadata only" && h.Size != 8 {
					t.Errorf("the content below is not in the layer: %d bytes", h.Size)
				}
			}
			got := strings.Join(names, " ")
			// A directory that only leads to a change may be in the layer.
			if empty != (tc.layer == "") || got != tc.layer {
				t.Errorf("layer %q, empty %v, want %q", got, empty, tc.layer)
			}
		})
	}
}

func TestTooDeep(t *testing.T) {
	deep := "i=0; while [ $i -lt 1100 ]; do mkdir d && cd d; i=$((i+1)); done"
	s := layers(t, "", "true", deep)
	if _, err := changes.List(t.Context(), s); err == nil || !strings.Contains(err.Error(), "nested") {
		t.Errorf("%v", err)
	}
}
