package engine_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// What a container has written and cannot be read is an error of the one who asks, which leaves nothing open.
func TestChangesThatCannotBeRead(t *testing.T) {
	l := newLab(t)
	id := l.create(spec{name: "broken", cmd: []string{"true"}})
	if err := os.RemoveAll(filepath.Join(l.dir, "containers", id, "upper")); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := l.Changes(t.Context(), id); !errors.Is(err, fs.ErrNotExist) {
			t.Error(err)
		}
	}
}
