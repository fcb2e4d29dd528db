package build_test

import (
	"os"
	"path/filepath"
	"testing"
)

// TestTheLowestLayerIsSettled holds that what is copied upon nothing is on the disk before it has a name, too: no
// overlay is there whose end would tell of it.
func TestTheLowestLayerIsSettled(t *testing.T) {
	b := newBench(t)
	for _, c := range []struct {
		name, dockerfile string
		settled          int
	}{
		{"first", "FROM scratch\nCOPY a /a\n", 1},
		{"again", "FROM scratch\nCOPY a /a\nLABEL x=y\n", 0},
		{"onit", "FROM scratch\nCOPY a /a\nCOPY a /b\n", 0},
	} {
		if _, err := b.build(t, c.dockerfile, map[string]string{"a": "text"}, c.name, nil); err != nil {
			t.Fatal(err)
		}
		if len(b.wrote) != c.settled {
			t.Fatalf("%s: %d directories are to be settled", c.name, len(b.wrote))
		}
		for range c.settled {
			if text, err := os.ReadFile(filepath.Join(<-b.wrote, "a")); err != nil || string(text) != "text" {
				t.Errorf("%s: %q, %v", c.name, text, err)
			}
		}
	}
}
