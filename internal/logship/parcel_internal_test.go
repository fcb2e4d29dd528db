package logship

import (
	"os"
	"path/filepath"
	"testing"
	"time"

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
