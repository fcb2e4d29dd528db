package keeper_test

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/cleatlabs/cleat/internal/keeper"
	"github.com/cleatlabs/cleat/internal/kernel"
	"golang.org/x/sys/unix"
)

func noteDir(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "the-id")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestNote(t *testing.T) {
	dir := noteDir(t)
	if _, err := keeper.ReadNote(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a note: %v", err)
	}
	gone := exec.Command("true")
	if err := gone.Run(); err != nil {
		t.Fatal(err)
	}
	r := keeper.Record{Layout: 1, ID: "the-id", KeeperPID: gone.Process.Pid, PID: os.Getpid(), BootID: "boot", Dir: dir, TTY: true}
	if err := keeper.WriteNote(r, map[string]int{"of": 3}); err != nil {
		t.Fatal(err)
	}
	n, err := keeper.ReadNote(dir)
	if err != nil {
		t.Fatal(err)
	}
	start, err := kernel.StartTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	want := r
	want.PIDStart = start
	var about map[string]int
	if err := json.Unmarshal(n.About, &about); err != nil || n.Process != want || about["of"] != 3 {
		t.Errorf("%+v, want %+v (%v)", n, want, err)
	}
}

// A process that started after the note was written only has the PID.
func TestNoteOfARecycledPID(t *testing.T) {
	dir := noteDir(t)
	self, err := kernel.StartTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(keeper.Note{Process: keeper.Record{ID: "the-id", KeeperPID: os.Getpid(), PID: os.Getpid()}, Noted: self - 1})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, keeper.NoteName), b, 0o600); err != nil {
		t.Fatal(err)
	}
	if n, err := keeper.ReadNote(dir); err != nil || n.Process.PIDStart != 0 || n.Process.KeeperStart != 0 {
		t.Errorf("%+v, %v", n, err)
	}
}

// FuzzNote: whatever a kill left of a note is refused, or names this process.
func FuzzNote(f *testing.F) {
	dir := noteDir(f)
	whole, err := json.Marshal(keeper.Note{Process: keeper.Record{ID: "the-id", KeeperPID: 2, PID: 3}, Noted: 5, About: json.RawMessage(`{}`)})
	if err != nil {
		f.Fatal(err)
	}
	for i := range len(whole) + 1 {
		f.Add(whole[:i])
	}
	f.Add([]byte(`{"Process":{"ID":"other","KeeperPID":2,"PID":3}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := os.WriteFile(filepath.Join(dir, keeper.NoteName), b, 0o600); err != nil {
			t.Fatal(err)
		}
		n, err := keeper.ReadNote(dir)
		if err == nil && (n.Process.ID != "the-id" || n.Process.Dir != dir || n.Process.PID <= 0 || n.Process.KeeperPID <= 0) {
			t.Errorf("%+v", n)
		}
		if err != nil && !errors.Is(err, keeper.ErrTorn) {
			t.Error(err)
		}
	})
}

func BenchmarkNote(b *testing.B) {
	dir := noteDir(b)
	r := keeper.Record{Layout: 1, ID: "the-id", KeeperPID: os.Getpid(), PID: os.Getpid(), Dir: dir}
	for b.Loop() {
		if err := keeper.WriteNote(r, r); err != nil {
			b.Fatal(err)
		}
		unix.Unlink(filepath.Join(dir, keeper.NoteName))
	}
}
