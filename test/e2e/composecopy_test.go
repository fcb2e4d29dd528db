package e2e

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestComposeCopies: into a service is into all of its containers, out of it is out of the first, as with docker compose.
func TestComposeCopies(t *testing.T) {
	e := engine(t, "busybox")
	ours := compose(t, e, map[string]string{"compose.yaml": `
services:
  my.web: {image: busybox, command: sleep 1000, stop_signal: SIGKILL, scale: 3}
  db: {image: busybox, command: sleep 1000, stop_signal: SIGKILL}
`, "file": "content\n"})
	theirs := ours.theirs(t)
	ours.ok(t, "up", "-d")
	for i, c := range []*application{ours, theirs} {
		oneOff := strings.TrimSpace(c.ok(t, "run", "-d", "my.web", "sleep", "1000"))
		has := func(path string) (with []string) {
			t.Helper()
			for _, id := range strings.Fields(e.OK(t, "cleat", "ps", "-q", "--filter", "label=com.docker.compose.service=my.web", "--filter", "label=com.docker.compose.project="+c.name)) {
				if r := e.Cleat(t, "exec", id, "test", "-e", path); r.Code == 0 {
					with = append(with, e.OK(t, "cleat", "inspect", "-f", `{{index .Config.Labels "com.docker.compose.container-number"}}{{index .Config.Labels "com.docker.compose.oneoff"}}`, id))
				}
			}
			slices.Sort(with)
			return with
		}
		for _, step := range []struct {
			args []string
			path string
			want []string
		}{
			{[]string{"cp", "file", "my.web:/all"}, "/all", []string{"1False", "2False", "3False"}},
			{[]string{"cp", "--index", "2", "file", "my.web:/second"}, "/second", []string{"2False"}},
			{[]string{"cp", "--all", "file", "my.web:/everywhere"}, "/everywhere", []string{"1False", "2False", "3False", "True"}},
		} {
			path := step.path + string(rune('a'+i)) // of one composer each
			args := slices.Clone(step.args)
			args[len(args)-1] = "my.web:" + path
			c.ok(t, args...)
			if got := has(path); !slices.Equal(got, step.want) {
				t.Errorf("%d, %v: %v have it, want %v", i, step.args, got, step.want)
			}
		}
		e.OK(t, "cleat", "rm", "-f", oneOff)
	}
	for _, args := range [][]string{{"cp", "my.web:/etc/passwd", "db:/x"}, {"cp", "file", "/nowhere"}, {"cp", "file", "none:/x"}} {
		want, got := theirs.run(t, args...), ours.run(t, args...)
		if got.Code != want.Code || !strings.Contains(got.Stderr, strings.TrimSpace(want.Stderr)) {
			t.Errorf("%v: stock %s\ncleat %s", args, want, got)
		}
	}
	// Out of the first; an archive that comes once goes into all.
	e.OK(t, "cleat", "exec", ours.name+"-my.web-1", "sh", "-c", "echo of the first >/own")
	ours.ok(t, "cp", "my.web:/own", filepath.Join(ours.dir, "own"))
	if got := readFile(filepath.Join(ours.dir, "own")); got != "of the first" {
		t.Errorf("%q", got)
	}
	var archive bytes.Buffer
	tw := tar.NewWriter(&archive)
	if err := tw.WriteHeader(&tar.Header{Name: "archived", Mode: 0o644, Size: 3}); err != nil {
		t.Fatal(err)
	}
	if _, err := tw.Write([]byte("abc")); err != nil {
		t.Fatal(err)
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	cmd := ours.command(t, "cp", "-", "my.web:/tmp")
	cmd.Stdin = &archive
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, n := range []string{"1", "2", "3"} {
		if got := e.OK(t, "cleat", "exec", ours.name+"-my.web-"+n, "cat", "/tmp/archived"); got != "abc" {
			t.Errorf("%s: %q", n, got)
		}
	}
	// One that fails does not keep the others from it, and the command fails.
	e.OK(t, "cleat", "exec", ours.name+"-my.web-1", "mkdir", "/taken")
	e.OK(t, "cleat", "exec", ours.name+"-my.web-1", "mkdir", "/taken/file")
	e.OK(t, "cleat", "exec", ours.name+"-my.web-2", "mkdir", "/taken")
	e.OK(t, "cleat", "exec", ours.name+"-my.web-3", "mkdir", "/taken")
	if r := ours.run(t, "cp", "file", "my.web:/taken/"); r.Code != 1 || !strings.Contains(r.Stderr, "directory") {
		t.Errorf("%s", r)
	}
	if got := e.OK(t, "cleat", "exec", ours.name+"-my.web-3", "cat", "/taken/file"); got != "content" {
		t.Errorf("%q", got)
	}
	// A dry run may be asked for behind the verb, too.
	if r := ours.run(t, "cp", "--dry-run", "file", "my.web:/rehearsed"); r.Code != 0 || strings.Count(r.Stderr, "DRY-RUN MODE -") != 3 {
		t.Errorf("%s", r)
	}
	if r := e.Cleat(t, "exec", ours.name+"-my.web-1", "test", "-e", "/rehearsed"); r.Code == 0 {
		t.Error("a dry run copied")
	}
	if r := ours.run(t, "up", "-d", "--dry-run", "--scale", "db=2"); r.Code != 0 || !strings.Contains(r.Stderr, "DRY-RUN MODE -") {
		t.Errorf("%s", r)
	}
	if entries, err := filepath.Glob(filepath.Join(os.TempDir(), "cleat-compose-cp-*")); err != nil || len(entries) > 0 {
		t.Errorf("left: %v, %v", entries, err)
	}
}
