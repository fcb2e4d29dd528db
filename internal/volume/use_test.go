package volume_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/cleatlabs/cleat/internal/mount"
	"github.com/cleatlabs/cleat/internal/volume"
)

func isMounted(t *testing.T, path string) bool {
	t.Helper()
	on, err := mount.IsMountpoint(path)
	if err != nil {
		t.Fatal(err)
	}
	return on
}

func TestMountedAtFirstUseUnmountedAtLast(t *testing.T) {
	root, source := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(source, "precious"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := open(t, root)
	for name, opts := range map[string]map[string]string{
		"tmp":  {"type": "tmpfs", "device": "tmpfs", "o": "size=1m,mode=750"},
		"bind": {"type": "none", "device": source, "o": "bind"},
	} {
		v, err := create(s, volume.Request{Name: name, Options: opts})
		if err != nil || v.Options["type"] != opts["type"] {
			t.Fatal(v, err)
		}
		if isMounted(t, v.Mountpoint) {
			t.Fatal("mounted before it is used")
		}
		for _, id := range []string{"a", "b", "a"} {
			if path, err := s.Mount(ctx, name, id); err != nil || path != v.Mountpoint || !isMounted(t, path) {
				t.Fatal(path, err)
			}
		}
		if got := s.Users(name); !slices.Equal(got, []string{"a", "b"}) {
			t.Error(got)
		}
		if err := s.Unmount(ctx, name, "a"); err != nil || !isMounted(t, v.Mountpoint) {
			t.Error("unmounted while b uses it", err)
		}
		// An engine that finds b running keeps it; one that does not, unmounts it.
		s = open(t, root)
		if err := s.Reconcile(map[string][]string{name: {"b"}}, map[string][]string{name: {"b"}}, false); err != nil || !isMounted(t, v.Mountpoint) {
			t.Error("the next engine unmounts what is in use", err)
		}
		s.Left(name, "b") // it has ended: what is mounted has to be unmounted still
		if err := s.Unmount(ctx, name, "b"); err != nil || isMounted(t, v.Mountpoint) {
			t.Error("mounted after the last use", err)
		}
		if _, err := s.Mount(ctx, name, "c"); err != nil {
			t.Fatal(err)
		}
		if err := s.Reconcile(nil, nil, false); err != nil || isMounted(t, v.Mountpoint) || len(s.Users(name)) > 0 {
			t.Error("left mounted for nobody", s.Users(name), err)
		}
		if _, err := s.Mount(ctx, name, "c"); err != nil {
			t.Fatal(err)
		}
		s = open(t, root)
		if err := s.Reconcile(nil, nil, true); err != nil || !isMounted(t, v.Mountpoint) {
			t.Error("unmounted though somebody may use it", err)
		}
		if err := s.Reconcile(nil, nil, false); err != nil || isMounted(t, v.Mountpoint) {
			t.Error("left mounted for nobody by the engine before", err)
		}
	}
	// Removing it, mounted by whomever, keeps off what is mounted.
	if _, err := s.Mount(ctx, "bind", "c"); err != nil {
		t.Fatal(err)
	}
	if err := s.Remove(ctx, "bind", false); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(source, "precious")); err != nil {
		t.Error("rm of a volume reached through its mount:", err)
	}
	if below, err := mount.Below(root); err != nil || len(below) > 0 {
		t.Error(below, err)
	}
}

// Containers may be started with a volume that is copied until those that run with it stand still; then they wait for the
// copy, as it would be of no one instant otherwise.
func TestStartsWaitForTheEndOfACopy(t *testing.T) {
	s := open(t, t.TempDir())
	if _, err := create(s, volume.Request{Name: "data"}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Mount(ctx, "data", "running"); err != nil {
		t.Fatal(err)
	}
	impatient, cancel := context.WithCancel(ctx)
	cancel()
	asked := 0
	stand := func(_ context.Context, containers []string) (func() error, error) {
		asked++
		if !slices.Equal(containers, []string{"running"}) {
			t.Errorf("who stands still: %v", containers)
		}
		if _, err := s.Mount(impatient, "data", "late"); !errors.Is(err, context.Canceled) {
			t.Errorf("a container is started while the copy is completed: %v", err)
		}
		return func() error { return nil }, nil
	}
	if _, _, err := s.Clone(ctx, volume.CloneRequest{From: "data", To: "copy"}, stand); err != nil || asked != 1 {
		t.Fatal(asked, err)
	}
	if _, err := s.Mount(ctx, "data", "late"); err != nil {
		t.Error(err)
	}
}

func TestMountFailures(t *testing.T) {
	s := open(t, t.TempDir())
	for _, c := range []struct {
		opts map[string]string
		text string
	}{
		{map[string]string{"type": "none", "device": "/nosuch/dir", "o": "bind"}, "_data': failed to mount local volume: mount /nosuch/dir:"},
		{map[string]string{"type": "nosuchfs", "device": "/dev/null", "o": "ro,password=secret"}, "flags: 0x1, data: password=********: no such device"},
		{map[string]string{"type": "nfs", "device": ":/export", "o": "addr=nosuch.invalid,ro"}, "error resolving passed in network volume address"},
	} {
		if _, err := create(s, volume.Request{Name: "bad", Options: c.opts}); err != nil {
			t.Fatal(err)
		}
		_, err := s.Mount(ctx, "bad", "a")
		if err == nil || !strings.Contains(err.Error(), c.text) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%v: %v", c.opts, err)
		}
		if got := s.Users("bad"); len(got) > 0 {
			t.Error("used by", got)
		}
		if err := s.Remove(ctx, "bad", false); err != nil {
			t.Fatal(err)
		}
	}
}

// TestPruneNeverTakesWhatIsBeingMade: a volume that a container makes for itself
// is its own from the first instant.
func TestPruneNeverTakesWhatIsBeingMade(t *testing.T) {
	s := open(t, t.TempDir())
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for ctx.Err() == nil {
				if _, _, err := s.Prune(ctx, map[string][]string{"all": {"true"}}); err != nil && ctx.Err() == nil {
					t.Error(err)
				}
			}
		})
	}
	for range 300 {
		if _, err := create(s, volume.Request{Name: "mine", User: "c1", Ephemeral: true}); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Acquire("mine", "c1"); err != nil {
			t.Fatal("a prune took it: ", err)
		}
		s.Release("mine", "c1")
	}
	cancel()
	wg.Wait()
}

func TestPruneAndUsage(t *testing.T) {
	s := open(t, t.TempDir())
	fill := func(r volume.Request, size int) string {
		v, err := create(s, r)
		if err != nil {
			t.Fatal(err)
		}
		if size > 0 {
			file := filepath.Join(v.Mountpoint, "f")
			if err := os.WriteFile(file, make([]byte, size), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Link(file, file+"2"); err != nil {
				t.Fatal(err)
			}
		}
		return v.Name
	}
	anonymous := fill(volume.Request{}, 1000)
	labelled := fill(volume.Request{Labels: map[string]string{"keep": "yes"}}, 100)
	fill(volume.Request{Name: "named"}, 10)
	fill(volume.Request{Name: "used", User: "c1"}, 1)
	fill(volume.Request{Name: "optional", Options: map[string]string{"type": "tmpfs", "device": "tmpfs"}}, 0)
	fill(volume.Request{Name: "remote", Options: map[string]string{"type": "nfs4", "device": ":/x"}}, 0)

	want := map[string][2]int64{anonymous: {1000, 0}, labelled: {100, 0}, "named": {10, 0}, "used": {1, 1}, "optional": {0, 0}, "remote": {-1, 0}}
	list, err := s.Usage(ctx)
	if err != nil || len(list) != len(want) {
		t.Fatal(list, err)
	}
	for _, v := range list {
		if got := [2]int64{v.UsageData.Size, v.UsageData.RefCount}; got != want[v.Name] {
			t.Errorf("%s: size and references %v, want %v", v.Name, got, want[v.Name])
		}
	}
	gone, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := s.Usage(gone); err != context.Canceled {
		t.Error("counting goes on without its client:", err)
	}

	for _, f := range []map[string][]string{{"colour": {"red"}}, {"all": {"perhaps"}}} {
		if _, _, err := s.Prune(ctx, f); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%v: %v", f, err)
		}
	}
	for _, c := range []struct {
		filters   map[string][]string
		removed   []string
		reclaimed uint64
	}{
		{map[string][]string{"label!": {"keep"}}, []string{anonymous}, 1000},
		{map[string][]string{"label": {"keep=no"}}, nil, 0},
		{map[string][]string{"label": {"keep=yes"}}, []string{labelled}, 100},
		{nil, nil, 0},
		{map[string][]string{"all": {"1"}}, []string{"named"}, 10},
	} {
		removed, reclaimed, err := s.Prune(ctx, c.filters)
		var got []string
		for _, v := range removed {
			got = append(got, v.Name)
		}
		if err != nil || !slices.Equal(got, c.removed) || reclaimed != c.reclaimed {
			t.Errorf("%v: removed %v, %d bytes, %v", c.filters, got, reclaimed, err)
		}
	}
	if got := names(t, s, nil); !slices.Equal(got, []string{"optional", "remote", "used"}) {
		t.Error(got)
	}
}
