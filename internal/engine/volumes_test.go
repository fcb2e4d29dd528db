package engine_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestWhatIsWrongWithVolumesIsTold(t *testing.T) {
	l := newLab(t)
	l.close()
	dir := filepath.Join(l.dir, "volumes", "damaged")
	if err := os.MkdirAll(filepath.Join(dir, "_data"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "volume.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	l.open()
	info, err := l.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if told := strings.Join(info.Warnings, "\n"); !strings.Contains(told, "WARNING: volume damaged keeps its data but has lost its labels") {
		t.Errorf("info warns of %q", told)
	}
}
