package keeper_test

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/cleatlabs/cleat/internal/keeper"
	"github.com/cleatlabs/cleat/internal/kernel"
	"github.com/cleatlabs/cleat/test/expect"
)

// noteAt is where notes lie in status files of this layout.
const noteAt = 8 << 20

// noted is the status file of a process, whose keeper is gone, and what its note says.
func noted(t testing.TB, keeperPID, pid int) (*os.File, keeper.Record) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "the-id")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	f, err := keeper.CreateStatus(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	pids := binary.LittleEndian.AppendUint64(nil, uint64(keeperPID))
	if _, err := f.WriteAt(binary.LittleEndian.AppendUint64(pids, uint64(pid)), 8); err != nil {
		t.Fatal(err)
	}
	boot, err := kernel.BootID()
	if err != nil {
		t.Fatal(err)
	}
	return f, keeper.Record{Layout: keeper.LayoutVersion, ID: "the-id", BootID: boot, Dir: dir, TTY: true}
}

// gone is the PID of a process that there is not.
func gone(t testing.TB) int {
	t.Helper()
	c := exec.Command("true")
	if err := c.Run(); err != nil {
		t.Fatal(err)
	}
	return c.Process.Pid
}

func TestNote(t *testing.T) {
	f, r := noted(t, gone(t), 0)
	if _, err := keeper.ReadNote(r.Dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a note: %v", err)
	}
	if err := keeper.WriteNote(f, r, map[string]int{"of": 3}); err != nil {
		t.Fatal(err)
	}
	if _, err := keeper.ReadNote(r.Dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("of a process that may not execute its command yet: %v", err)
	}
	if err := keeper.Begun(f); err != nil {
		t.Fatal(err)
	}
	if n, err := keeper.ReadNote(r.Dir); !errors.Is(err, keeper.ErrTorn) {
		t.Errorf("of a process that was never made: %+v, %v", n, err)
	}
	if err := keeper.WritePID(f, os.Getpid()); err != nil {
		t.Fatal(err)
	}
	n, err := keeper.ReadNote(r.Dir)
	if err != nil {
		t.Fatal(err)
	}
	s, err := keeper.ReadStatus(f)
	if err != nil {
		t.Fatal(err)
	}
	want := r
	want.KeeperPID, want.PID = s.KeeperPID, os.Getpid()
	if want.PIDStart, err = kernel.StartTime(os.Getpid()); err != nil {
		t.Fatal(err)
	}
	var about map[string]int
	if err := json.Unmarshal(n.About, &about); err != nil || n.Process != want || about["of"] != 3 {
		t.Errorf("%+v, want %+v (%v)", n, want, err)
	}
}

// An engine that was killed before it learned the PID leaves that to the next, which looks at the keeper's children: the
// process leads a session, the helper that makes it does not.
func TestNoteOfAnUnknownPID(t *testing.T) {
	// A shell has one thread, as keepers have: the kernel lists the children of each thread by themselves.
	c := exec.Command("sh", "-c", "sleep 60 & setsid sleep 60 & echo $!; wait")
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := c.StdoutPipe()
	if err == nil {
		err = c.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, pid := range keeper.Children(c.Process.Pid) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		_ = c.Wait() // the shell collects them
	})
	var want int
	if _, err := fmt.Fscan(out, &want); err != nil {
		t.Fatal(err)
	}
	expect.Eventually(t, "the process leads a session", func() bool { s, err := kernel.StatOf(want); return err == nil && s.Session == want })
	f, r := noted(t, c.Process.Pid, 0)
	if err := errors.Join(keeper.WriteNote(f, r, nil), keeper.Begun(f)); err != nil {
		t.Fatal(err)
	}
	if n, err := keeper.ReadNote(r.Dir); err != nil || n.Process.PID != want || n.Process.KeeperPID != c.Process.Pid || n.Process.PIDStart == 0 {
		t.Errorf("%+v, %v, want PID %d", n, err, want)
	}
}

// A process that started after the note was written only has the PID.
func TestNoteOfARecycledPID(t *testing.T) {
	f, r := noted(t, gone(t), os.Getpid())
	self, err := kernel.StartTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	const second = 100
	r.Noted = self - 1 - second
	b, err := json.Marshal(keeper.Note{Process: r})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(b, noteAt); err != nil {
		t.Fatal(err)
	}
	if n, err := keeper.ReadNote(r.Dir); err != nil || n.Process.PIDStart != 0 {
		t.Errorf("%+v, %v", n, err)
	}
}

// Engines before wrote notes to files of their own, with the PIDs that they had seen, and when.
func TestNoteOfAnEarlierEngine(t *testing.T) {
	f, r := noted(t, gone(t), os.Getpid())
	self, err := kernel.StartTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	// A process that may not execute its command yet has a note that does not count, and is in none of these files.
	if err := keeper.WriteNote(f, r, nil); err != nil {
		t.Fatal(err)
	}
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(r.Dir, "note"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const form = `{"Process":{"Layout":2,"ID":"the-id","KeeperPID":%[1]d,"KeeperStart":0,"PID":%[1]d,"PIDStart":0,"BootID":%[2]q,` +
		`"Dir":"/before","TTY":true,"StdinOpen":false},"Noted":%[3]d,"About":{"of":3}}`
	for written, start := range map[uint64]uint64{self: self, self - 1: 0} {
		write(fmt.Sprintf(form, os.Getpid(), r.BootID, written))
		want := r
		want.KeeperPID, want.PID, want.KeeperStart, want.PIDStart = os.Getpid(), os.Getpid(), start, start
		if n, err := keeper.ReadNote(r.Dir); err != nil || n.Process != want || string(n.About) != `{"of":3}` {
			t.Errorf("%+v, %v, want %+v", n, err, want)
		}
	}
	for _, torn := range []string{"", `{"Process":{"ID":"the-id"`, `{"Process":{"ID":"other","KeeperPID":2,"PID":3},"Noted":9}`, `{"Process":{"ID":"the-id"},"Noted":9}`} {
		write(torn)
		if n, err := keeper.ReadNote(r.Dir); !errors.Is(err, keeper.ErrTorn) {
			t.Errorf("%q: %+v, %v", torn, n, err)
		}
	}
}

// What a process has written to its pipes is never read as a note.
func TestNoteBelowOutput(t *testing.T) {
	f, r := noted(t, gone(t), os.Getpid())
	if err := errors.Join(keeper.WriteNote(f, r, nil), keeper.Begun(f)); err != nil {
		t.Fatal(err)
	}
	ended := binary.LittleEndian.AppendUint32(make([]byte, 4), 1)
	lengths := binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(nil, noteAt-64), 1)
	for at, b := range map[int64][]byte{24: ended, 48: lengths} {
		if _, err := f.WriteAt(b, at); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := keeper.ReadNote(r.Dir); !errors.Is(err, keeper.ErrTorn) {
		t.Errorf("%+v, %v", n, err)
	}
}

// FuzzNote: whatever a kill left of a note is refused, or names this process.
func FuzzNote(f *testing.F) {
	status, r := noted(f, gone(f), os.Getpid())
	whole, err := json.Marshal(keeper.Note{Process: r, About: json.RawMessage(`{}`)})
	if err != nil {
		f.Fatal(err)
	}
	for i := range len(whole) + 1 {
		f.Add(whole[:i])
	}
	f.Add([]byte(`{"Process":{"ID":"other","KeeperPID":2,"PID":3}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := status.Truncate(noteAt); err != nil {
			t.Fatal(err)
		}
		if _, err := status.WriteAt(b, noteAt); err != nil {
			t.Fatal(err)
		}
		n, err := keeper.ReadNote(r.Dir)
		if err == nil && (n.Process.ID != "the-id" || n.Process.Dir != r.Dir || n.Process.PID <= 0 || n.Process.KeeperPID <= 0) {
			t.Errorf("%+v", n)
		}
		if err != nil && !errors.Is(err, keeper.ErrTorn) && !((len(b) == 0 || b[0] == 0) && errors.Is(err, fs.ErrNotExist)) {
			t.Error(err)
		}
	})
}

func BenchmarkNote(b *testing.B) {
	f, r := noted(b, os.Getpid(), os.Getpid())
	for b.Loop() {
		if err := keeper.WriteNote(f, r, r); err != nil {
			b.Fatal(err)
		}
	}
}
