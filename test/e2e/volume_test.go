package e2e

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cleatlabs/cleat/test/harness"
)

func TestNamedVolumeKeepsData(t *testing.T) {
	e := engine(t, "busybox")
	each(t, func(t *testing.T, program string) {
		v := name(t)
		e.OK(t, program, "volume", "create", "--label", "a=b", v)
		e.OK(t, program, "run", "--rm", "-v", v+":/data", "busybox", "sh", "-c", "echo kept >/data/f")
		if got := e.OK(t, program, "run", "--rm", "-v", v+":/data:ro", "busybox", "cat", "/data/f"); got != "kept" {
			t.Errorf("%q", got)
		}
		if got := e.OK(t, program, "volume", "inspect", "-f", "{{.Name}} {{.Driver}} {{.Scope}} {{.Labels.a}}", v); got != v+" local local b" {
			t.Errorf("%q", got)
		}
		if got := e.OK(t, program, "volume", "ls", "-q", "--filter", "name="+v); got != v {
			t.Errorf("%q", got)
		}
		c := e.OK(t, program, "create", "-v", v+":/data", "busybox")
		if r := e.Do(t, program, "", "volume", "rm", v); r.Code == 0 || !strings.Contains(r.Stderr, "volume is in use") || !strings.Contains(r.Stderr, c) {
			t.Errorf("%s", r)
		}
		e.OK(t, program, "rm", c)
		e.OK(t, program, "volume", "rm", v)
		if r := e.Do(t, program, "", "volume", "inspect", v); r.Code == 0 || !strings.Contains(strings.ToLower(r.Stderr), "no such volume") {
			t.Errorf("%s", r)
		}
	})
}

// TestCopyUpAndAnonymousVolumes: a fresh volume gets what the image has at its
// place, and the image's VOLUME is an anonymous one that goes with `rm -v`.
func TestCopyUpAndAnonymousVolumes(t *testing.T) {
	e := engine(t, "busybox")
	dir := t.TempDir()
	root := filepath.Join(dir, "root")
	for _, d := range []string{"bin", "etc", "dev", "proc", "sys", "tmp", "store/deep"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	bb, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatal(err)
	}
	for f, b := range map[string][]byte{"bin/sh": bb, "bin/cat": bb, "bin/stat": bb, "bin/true": bb, "store/deep/file": []byte("from the image\n")} {
		if err := os.WriteFile(filepath.Join(root, f), b, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chown(filepath.Join(root, "store", "deep", "file"), 12, 34); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "vol.tar")
	harness.MakeImage(t, "with-volume", file, "--from-dir", root, "--volume", "/store", "--cmd", `["sh"]`)
	e.OK(t, "cleat", "load", "-i", file)
	t.Cleanup(func() { e.OK(t, "cleat", "rmi", "-f", "with-volume") })
	each(t, func(t *testing.T, program string) {
		n := name(t)
		remove(t, e, n)
		if got := e.OK(t, program, "run", "--name", n, "with-volume", "sh", "-c", "cat /store/deep/file; stat -c %u:%g /store/deep/file"); got != "from the image\n12:34" {
			t.Errorf("copy-up: %q", got)
		}
		anonymous := e.OK(t, program, "inspect", "-f", "{{(index .Mounts 0).Name}}", n)
		if len(anonymous) != 64 {
			t.Fatalf("mount: %q", anonymous)
		}
		e.OK(t, program, "rm", "-v", n)
		if got := e.OK(t, program, "volume", "ls", "-q"); strings.Contains(got, anonymous) {
			t.Errorf("rm -v left the anonymous volume %s", anonymous)
		}
		before := strings.Fields(e.OK(t, program, "volume", "ls", "-q"))
		e.OK(t, program, "run", "--rm", "with-volume", "true")
		for _, v := range strings.Fields(e.OK(t, program, "volume", "ls", "-q")) {
			if !slices.Contains(before, v) {
				t.Errorf("--rm left %s", v)
			}
		}
	})
}

// TestCopyUpForManyAtOnce: of containers that are started at once with one new volume, each finds in it all that the image
// has, whoever fills it.
func TestCopyUpForManyAtOnce(t *testing.T) {
	e := engine(t, "busybox")
	e.OK(t, "docker", "run", "--name", "with-files", "busybox", "sh", "-c", "mkdir /d && cd /d && seq 500 | xargs touch && chown 5:6 .")
	e.OK(t, "docker", "commit", "with-files", "many-files")
	t.Cleanup(func() {
		e.OK(t, "docker", "rm", "with-files")
		e.OK(t, "docker", "rmi", "many-files")
	})
	each(t, func(t *testing.T, program string) {
		for range 3 {
			v := name(t)
			answers := make(chan harness.Result)
			for range 8 {
				go func() {
					answers <- e.Do(t, program, "", "run", "--rm", "-v", v+":/d", "many-files", "sh", "-c", "ls /d | wc -l; stat -c %u:%g /d")
				}()
			}
			for range 8 {
				if r := <-answers; r.Code != 0 || strings.TrimSpace(r.Stdout) != "500\n5:6" {
					t.Errorf("%s", r)
				}
			}
			e.OK(t, program, "volume", "rm", v)
		}
	})
}

func TestMountSourcesThatAreMissing(t *testing.T) {
	e := engine(t, "busybox")
	each(t, func(t *testing.T, program string) {
		dir := t.TempDir()
		e.OK(t, program, "run", "--rm", "-v", dir+"/made:/m", "busybox", "true")
		if st, err := os.Stat(dir + "/made"); err != nil || !st.IsDir() {
			t.Errorf("-v makes the missing source: %v", err)
		}
		r := e.Do(t, program, "", "run", "--rm", "--mount", "type=bind,src="+dir+"/missing,dst=/m", "busybox", "true")
		if r.Code != 125 || !strings.Contains(r.Stderr, "bind source path does not exist") {
			t.Errorf("--mount refuses it: %s", r)
		}
		r = e.Do(t, program, "", "run", "--rm", "-v", "bad/name:/m", "busybox", "true")
		if r.Code != 125 || !strings.Contains(r.Stderr, "includes invalid characters for a local volume name") {
			t.Errorf("%s", r)
		}
	})
}
