package container_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/container"
)

// What names the volumes of a removed container is there until all else of it has gone.
func TestTrashThatWillNotGo(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "trash")
	busy, names := filepath.Join(dir, "upper"), filepath.Join(dir, "config.json")
	if err := os.MkdirAll(busy, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(names, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", busy, "tmpfs", 0, ""); err != nil {
		t.Skipf("only root can mount what is in the way: %v", err)
	}
	mounted := true
	defer func() {
		if mounted {
			_ = unix.Unmount(busy, unix.MNT_DETACH)
		}
	}()
	if err := container.EmptyTrash(dir); err == nil {
		t.Error("a mount was deleted")
	}
	if _, err := os.Stat(names); err != nil {
		t.Errorf("what names the volumes went first: %v", err)
	}
	if err := unix.Unmount(busy, 0); err != nil {
		t.Fatal(err)
	}
	mounted = false
	if err := container.EmptyTrash(dir); err != nil {
		t.Errorf("taken up again: %v", err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("left: %v", err)
	}
}
