package engine

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/moby/moby/api/types/mount"
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/container"
)

// What is mounted later reaches a bind of the host's root, as with Docker, whose rule is that of the data root.
func TestUsualPropagation(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounts need root")
	}
	host := t.TempDir()
	if err := unix.Mount("tmpfs", host, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(host, unix.MNT_DETACH) })
	dataRoot := filepath.Join(host, "lib/cleat")
	for _, dir := range []string{filepath.Join(dataRoot, "volumes"), filepath.Join(host, "srv"), filepath.Join(host, "lib/cleat-too")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	follow := map[string]mount.Propagation{
		host: "rslave", host + "/lib": "rslave", dataRoot: "rslave", dataRoot + "/volumes": "rslave",
		host + "/srv": "rprivate", dataRoot + "-too": "rprivate", dataRoot + "/missing": "rprivate",
	}
	for kind, flag := range map[string]uintptr{"shared": unix.MS_SHARED, "private": unix.MS_PRIVATE} {
		if err := unix.Mount("", host, "", flag, ""); err != nil {
			t.Fatal(err)
		}
		for source, want := range follow {
			if kind == "private" {
				want = "rprivate"
			}
			p := &mountPlan{mounts: []container.Mount{
				{Type: mount.TypeBind, Source: source}, {Type: mount.TypeBind, Source: source, Propagation: "shared"}, {Type: mount.TypeVolume, Source: source},
			}}
			p.propagate(dataRoot)
			if got := p.mounts; got[0].Propagation != want || got[1].Propagation != "shared" || got[2].Propagation != "" {
				t.Errorf("%s, %s: %v", source, kind, got)
			}
		}
	}
}
