package assemble

import (
	"os"
	"path/filepath"
	"testing"
)

// TestLockThatCannotSayWhose: an engine whose PID could not be noted would leave the next one without a name for it.
func TestLockThatCannotSayWhose(t *testing.T) {
	dir := t.TempDir()
	if err := os.Symlink("/dev/full", filepath.Join(dir, "engine.lock")); err != nil {
		t.Fatal(err)
	}
	if f, err := lockDir(dir); err == nil {
		f.Close()
		t.Error("it is locked though nobody can tell by whom")
	}
}
