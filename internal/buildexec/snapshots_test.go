package buildexec_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/moby/buildkit/executor"
	"github.com/moby/buildkit/snapshot"

	"github.com/cleatlabs/cleat/test/expect"
)

// snapshotter gives one snapshot.
type snapshotter struct {
	snapshot.Snapshotter
	given handed
}

func (s *snapshotter) Mounts(context.Context, string) (snapshot.Mountable, error) {
	return s.given, nil
}

// through asks a snapshotter as BuildKit does: once, by whom comes first.
type through struct {
	sn    snapshot.Snapshotter
	first snapshot.Mountable
}

func (m *through) Mount(ctx context.Context, _ bool) (executor.MountableRef, error) {
	var err error
	if m.first == nil {
		m.first, err = m.sn.Mounts(ctx, "key")
	}
	return m.first, err
}

// TestSnapshots holds that a step's root is mounted nowhere and never synced, that others can look into it while the
// step runs, and that who is no step is given what there was, to mount without syncs.
func TestSnapshots(t *testing.T) {
	l := newLab(t)
	j := l.job("grep ' / ' /proc/mounts; echo of the step > /made; echo up; while [ ! -e /seen ]; do sleep 0.01; done; cat /seen")
	inner := &snapshotter{given: handed{j.root.Src.(*source)}}
	sn := l.steps.Snapshots(inner)
	if sn == snapshot.Snapshotter(inner) {
		j.root.Src.(*source).released++
		t.Skip("this kernel cannot share a mount that has no place")
	}
	plain, err := sn.Mounts(l.ctx(), "key")
	l.check(err)
	list, release, err := plain.Mount()
	l.check(err)
	if len(list) != 1 || list[0].Type != "overlay" || !slices.Contains(list[0].Options, "volatile") {
		t.Errorf("others are given %v", list)
	}
	// As the engine leaves it that is killed, and as the next one mounts it again.
	dir := filepath.Join(l.dir, "run/look")
	l.check(os.Mkdir(dir, 0o755))
	for range 2 {
		l.check(mount.All(list, dir))
		l.check(mount.Unmount(dir, 0))
		list, _, err = plain.Mount()
		l.check(err)
	}
	l.check(release())
	l.check(release())

	src := &through{sn: sn}
	j.root.Src = src
	ended := make(chan error)
	go func() { ended <- l.run(j) }()
	expect.Eventually(t, "the step", func() bool { return strings.Contains(j.stdout.String(), "up\n") })
	if seen := l.hostMounts(" - overlay "); len(seen) > 0 {
		t.Errorf("the root is mounted where others see it: %q", seen)
	}
	list, release, err = src.first.Mount()
	l.check(err)
	if b, err := os.ReadFile(list[0].Source + "/made"); err != nil || string(b) != "of the step\n" {
		t.Errorf("%q %v", b, err)
	}
	// As who wants it read-only does.
	l.check(mount.All([]mount.Mount{{Type: "bind", Source: list[0].Source, Options: []string{"rbind", "ro"}}}, dir))
	if b, err := os.ReadFile(dir + "/made"); err != nil || string(b) != "of the step\n" {
		t.Errorf("%q %v", b, err)
	}
	l.check(mount.Unmount(dir, 0))
	l.check(os.WriteFile(list[0].Source+"/seen", []byte("of another\n"), 0o644))
	l.check(<-ended)
	l.check(release())
	l.check(release())
	if out := j.stdout.String(); !strings.Contains(out, "volatile") || !strings.HasSuffix(out, "of another\n") {
		t.Errorf("%q", out)
	}
	// Again, when nobody has it any more.
	list, release, err = src.first.Mount()
	l.check(err)
	if b, err := os.ReadFile(list[0].Source + "/made"); err != nil || string(b) != "of the step\n" {
		t.Errorf("%q %v", b, err)
	}
	l.check(release())
	l.check(l.steps.Settle())
}

// TestSnapshotsOfManyLayers: what BuildKit mounts may have as many layers as a step's root, though their names are too much
// for mount(2). More are refused in a few words.
func TestSnapshotsOfManyLayers(t *testing.T) {
	l := newLab(t)
	root := filepath.Join(l.dir, "disk/images/snapshots/snapshots")
	for _, dir := range []string{"top/fs", "top/work"} {
		l.check(os.MkdirAll(filepath.Join(root, dir), 0o755))
	}
	var layers []string
	for i := range 501 {
		layers = append(layers, fmt.Sprintf("%s/%d/fs", root, 1_000_000+i))
		l.check(os.MkdirAll(layers[i], 0o755))
	}
	l.check(os.WriteFile(layers[499]+"/low", nil, 0o644))
	mounts := func(n int) snapshot.Mountable {
		src := l.source(mount.Mount{Type: "overlay", Source: "overlay", Options: []string{
			"index=off", "workdir=" + root + "/top/work", "upperdir=" + root + "/top/fs", "lowerdir=" + strings.Join(layers[:n], ":"),
		}})
		inner := &snapshotter{given: handed{src}}
		sn := l.steps.Snapshots(inner)
		if sn == snapshot.Snapshotter(inner) {
			src.released++
			t.Skip("this kernel cannot share a mount that has no place")
		}
		m, err := sn.Mounts(l.ctx(), "key")
		l.check(err)
		return m
	}
	list, release, err := mounts(500).Mount()
	l.check(err)
	dir := filepath.Join(l.dir, "run/look")
	l.check(os.Mkdir(dir, 0o755))
	l.check(mount.All(list, dir))
	err = os.Rename(dir+"/low", dir+"/high")
	l.check(errors.Join(err, mount.Unmount(dir, 0), release()))
	if _, err := os.Stat(root + "/top/fs/high"); err != nil {
		t.Error(err)
	}
	if _, _, err := mounts(501).Mount(); err == nil || !strings.Contains(err.Error(), "501 layers are too many") || len(err.Error()) > 200 {
		t.Error(err)
	}
	l.check(l.steps.Settle())
}
