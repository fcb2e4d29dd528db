package buildexec

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestFewLargeFiles holds which layers are synced by their files.
func TestFewLargeFiles(t *testing.T) {
	make := func(files int, size int64) string {
		dir := filepath.Join(t.TempDir(), "7", "fs")
		if err := os.MkdirAll(filepath.Join(dir, "sub"), 0o755); err != nil {
			t.Fatal(err)
		}
		for i := range files {
			name := filepath.Join(dir, "sub", fmt.Sprint(i))
			if err := errors.Join(os.WriteFile(name, nil, 0o600), os.Truncate(name, size)); err != nil {
				t.Fatal(err)
			}
		}
		return dir
	}
	for name, c := range map[string]struct {
		dirs []string
		want bool
	}{
		"one large":              {[]string{make(1, leastLarge)}, true},
		"one smaller":            {[]string{make(1, leastLarge-1)}, false},
		"many large":             {[]string{make(mostFewFiles, leastLarge)}, false},
		"large and many":         {[]string{make(1, leastLarge), make(mostFewFiles, 1)}, false},
		"large and one not kept": {[]string{make(1, leastLarge), filepath.Join(t.TempDir(), "gone")}, true},
		"nothing":                {nil, false},
	} {
		if _, got := fewLarge(c.dirs...); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}

	dir := make(2, leastLarge)
	outside := filepath.Join(t.TempDir(), "outside")
	if err := errors.Join(os.WriteFile(outside, nil, 0o600), os.Symlink(outside, filepath.Join(dir, "link")), unix.Mkfifo(filepath.Join(dir, "pipe"), 0o600)); err != nil {
		t.Fatal(err)
	}
	list, ok := fewLarge(dir)
	if !ok || len(list) != 1 || fmt.Sprint(list[0].names) != "[ /sub /sub/0 /sub/1]" {
		t.Fatalf("%v, %v", list, ok)
	}
	if err := os.Remove(filepath.Join(dir, "sub", "1")); err != nil {
		t.Fatal(err)
	}
	seen := 0
	if err := list[0].each(func(int) error { seen++; return nil }); err != nil || seen != 3 {
		t.Errorf("%d, %v", seen, err)
	}
}

// TestSettleKeepsWhatItCouldNotSync holds that a failure is not forgotten, and that the next settle ends it.
func TestSettleKeepsWhatItCouldNotSync(t *testing.T) {
	upper := t.TempDir()
	var s settling
	t.Cleanup(func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	})
	if err := s.wrote(upper); err != nil {
		t.Fatal(err)
	}
	s.ahead.Wait()
	var fd int
	for _, w := range s.dirty {
		fd, w.fd = w.fd, -1
	}
	if err := s.settle(); !errors.Is(err, unix.EBADF) || len(s.dirty) != 1 {
		t.Fatalf("%v, and %d are left", err, len(s.dirty))
	}
	for _, w := range s.dirty {
		w.fd = fd
	}
	if err := s.settle(); err != nil || len(s.dirty) != 0 {
		t.Errorf("%v, and %d are left", err, len(s.dirty))
	}
}
