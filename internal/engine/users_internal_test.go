package engine

import (
	"os"
	"path/filepath"
	"testing"

	api "github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/container"
)

// Whom a name is in the image's files counts for containers that have those, not for one that has put a link in their place,
// wherever that would lead on the host.
func TestUsersOfAContainerWithALinkedEtc(t *testing.T) {
	store, err := container.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	r := &container.Record{Definition: container.Definition{ID: container.NewID(), Config: &api.Config{User: "me"}, HostConfig: &api.HostConfig{}}}
	c := store.Draft(r)
	var known users
	for _, of := range []struct {
		passwd string
		etc    func(upper string) error
		want   int
	}{
		{"me:x:1:1::/:", func(string) error { return nil }, 1},
		{"me:x:2:2::/:", func(upper string) error { return os.Symlink("/no/such/directory", filepath.Join(upper, "etc")) }, 2},
	} {
		root, upper := t.TempDir(), c.Path(upperDir)
		for _, dir := range []string{filepath.Join(root, "etc"), upper} {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(root, "etc/passwd"), []byte(of.passwd), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := of.etc(upper); err != nil {
			t.Fatal(err)
		}
		fd, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		found, err := known.of(c, r, fd)
		unix.Close(fd)
		if err != nil || found.UID != of.want {
			t.Errorf("%s: %+v, %v", of.passwd, found, err)
		}
	}
}
