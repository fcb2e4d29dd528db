package logship

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/logs"
	"github.com/cleatlabs/cleat/internal/stdio"
)

// Wherever the log lies when a removal is cut short, what was sent of it is known there.
func TestMoveFilesCutShort(t *testing.T) {
	c := logs.Config{Path: filepath.Join(t.TempDir(), "c.log")}
	w, err := logs.Open(c)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Append(stdio.Stdout, []byte("sent\n"), time.Unix(1, 0), true); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	note, at, err := logs.OpenPosition(c)
	if err != nil {
		t.Fatal(err)
	}
	cursor := logs.NewCursor(c, at, func() { t.Error("lines are lost") })
	if lines, err := cursor.Next(); err != nil || len(lines) != 1 {
		t.Fatal(lines, err)
	}
	if err := note.Save(cursor.At()); err != nil {
		t.Fatal(err)
	}
	cursor.Close()
	if err := note.Close(); err != nil {
		t.Fatal(err)
	}
	sent := func(where string, c logs.Config) {
		t.Helper()
		if _, err := os.Stat(c.Path); err != nil {
			t.Fatalf("%s: %v", where, err)
		}
		if unsent, err := logs.Unsent(c); err != nil || unsent {
			t.Errorf("%s: what was sent is to be sent again, %v", where, err)
		}
	}
	to := t.TempDir()
	inTheWay := filepath.Join(to, "c.log", "x")
	if err := os.MkdirAll(inTheWay, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := moveFiles(c, to); err == nil {
		t.Fatal("the log was moved over a directory")
	}
	sent("before it was moved", c)
	to = t.TempDir()
	if err := moveFiles(c, to); err != nil {
		t.Fatal(err)
	}
	sent("after it was moved", logs.Config{Path: filepath.Join(to, "c.log")})
	if unsent, err := logs.Unsent(c); err != nil || unsent {
		t.Errorf("the container is left with something to be sent, %v", err)
	}
}

// A removal that fails leaves nothing behind of which nothing can be sent.
func TestParcelThatFails(t *testing.T) {
	t.Run("its file cannot be written", func(t *testing.T) {
		parent := full(t)
		c := logs.Config{Driver: "syslog", ContainerID: "c", Path: filepath.Join(t.TempDir(), "c.log"), Opts: map[string]string{"tag": "{{.Name}}"}}
		if dir, err := pack(parent, c); !errors.Is(err, unix.ENOSPC) {
			t.Errorf("packed in %q where nothing can be written: %v", dir, err)
		}
		empty(t, parent)
	})
	t.Run("the log cannot be moved", func(t *testing.T) {
		parent := t.TempDir()
		c := logs.Config{Path: filepath.Join(t.TempDir(), "c.log")}
		dir := filepath.Join(parent, "c-1")
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, parcelFile), []byte("{}"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := discard(dir, c); err != nil {
			t.Error(err)
		}
		empty(t, parent)
	})
	t.Run("a part was moved", func(t *testing.T) {
		dir := t.TempDir()
		c := logs.Config{Path: filepath.Join(t.TempDir(), "c.log")}
		if err := os.WriteFile(filepath.Join(dir, "c.log.1"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := discard(dir, c); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(filepath.Join(dir, "c.log.1")); err != nil {
			t.Error(err)
		}
	})
}

func empty(t *testing.T, dir string) {
	t.Helper()
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// full is a directory on a filesystem with room for one more directory, and for no file.
func full(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "tmpfs", 0, "nr_inodes=2"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// Lines are kept for a day, also when the clock was set back after they were put away.
func TestParcelsAreKeptForADay(t *testing.T) {
	for ago, want := range map[time.Duration]time.Duration{0: keepFor, time.Hour: keepFor - time.Hour, keepFor + time.Hour: -time.Hour, -keepFor: keepFor} {
		if left := (&parcel{Removed: time.Now().Add(-ago)}).left(); (left - want).Abs() > time.Minute {
			t.Errorf("removed %v ago: %v are left, want %v", ago, left, want)
		}
	}
}
