package keeper_test

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cleatlabs/cleat/internal/keeper"
	"github.com/cleatlabs/cleat/internal/kernel"
	"golang.org/x/sys/unix"
)

func TestStatusFile(t *testing.T) {
	dir := t.TempDir()
	f, err := keeper.CreateStatus(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := keeper.CreateStatus(dir); !errors.Is(err, os.ErrExist) {
		t.Errorf("a status file is overwritten: %v", err)
	}
	if s, err := keeper.ReadStatus(f); err != nil || s != (keeper.State{}) {
		t.Errorf("a new status file says %+v, %v", s, err)
	}
	le := binary.LittleEndian
	b := le.AppendUint64(nil, 11)
	b = le.AppendUint64(b, 12)
	b = le.AppendUint32(b, 9)
	b = le.AppendUint32(b, 1)
	b = le.AppendUint64(b, 1000)
	b = le.AppendUint64(b, 5)
	b = le.AppendUint64(b, 3)
	b = le.AppendUint64(b, 2)
	if _, err := f.WriteAt(append(b, "outer"...), 8); err != nil {
		t.Fatal(err)
	}
	r, err := keeper.OpenStatus(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	s, err := keeper.ReadStatus(r)
	if err != nil || s.KeeperPID != 11 || s.PID != 12 || !s.Exited || s.Wait.Signal() != 9 || !s.At.Equal(time.Unix(1000, 5)) {
		t.Fatalf("%+v, %v", s, err)
	}
	out, rest := s.Rest(r)
	a, _ := io.ReadAll(out)
	c, _ := io.ReadAll(rest)
	if string(a) != "out" || string(c) != "er" {
		t.Errorf("saved output %q %q", a, c)
	}
}

// What fills the memory of the exec root is nothing of the engine's: the error says where to look.
func TestStatusFileOnAFullFilesystem(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=4k"); err != nil {
		t.Skip("mounting needs root: ", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	if err := os.WriteFile(filepath.Join(dir, "filler"), make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := keeper.CreateStatus(dir); !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), "df -h "+dir) {
		t.Errorf("%v", err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("left: %v, %v", entries, err)
	}
}

func TestDecode(t *testing.T) {
	for w, want := range map[unix.WaitStatus][2]int{0: {0, 0}, 7 << 8: {7, 0}, 255 << 8: {255, 0}, 9: {137, 9}, 11 | 0x80: {139, 11}, 15: {143, 15}} {
		if code, sig := keeper.Decode(w); code != want[0] || sig != want[1] {
			t.Errorf("%#x: %d %d", w, code, sig)
		}
	}
}

func FuzzReadStatus(f *testing.F) {
	f.Add([]byte{})
	f.Add(append([]byte("clks\x01\x00\x00\x00"), make([]byte, 56)...))
	path := filepath.Join(f.TempDir(), "status")
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		file, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		s, err := keeper.ReadStatus(file)
		if err == nil && (len(b) < 64 || s.Stdout < 0 || s.Stderr < 0) {
			t.Errorf("%q is read as %+v", b, s)
		}
	})
}

func TestRecordKeepsItsNames(t *testing.T) {
	// Records of earlier engines must stay readable: this is what layout version 1 looks like.
	const v1 = `{"Layout":1,"ID":"x","KeeperPID":2,"KeeperStart":3,"PID":4,"PIDStart":5,"BootID":"b","Dir":"/d","TTY":true,"StdinOpen":true}`
	var r keeper.Record
	if err := json.Unmarshal([]byte(v1), &r); err != nil {
		t.Fatal(err)
	}
	if b, _ := json.Marshal(r); string(b) != v1 {
		t.Errorf("records have changed: %s", b)
	}
}

func TestOpenProcess(t *testing.T) {
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	start, err := kernel.StartTime(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	fd, err := keeper.OpenProcess(cmd.Process.Pid, start)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if keeper.Exited(fd) {
		t.Error("a running process has exited")
	}
	if _, err := keeper.OpenProcess(cmd.Process.Pid, start+1); !errors.Is(err, keeper.ErrGone) {
		t.Errorf("a process with another start time: %v", err)
	}
	if _, err := keeper.OpenProcess(0, 0); !errors.Is(err, keeper.ErrGone) {
		t.Errorf("PID 0: %v", err)
	}
	if err := cmd.Process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(p, 60_000)
	for err == unix.EINTR { // by the signal that tells of the end
		n, err = unix.Poll(p, 60_000)
	}
	if n != 1 || err != nil {
		t.Fatal(n, err)
	}
	if w, ok := keeper.ExitInfo(fd); !ok || w.Signal() != unix.SIGTERM {
		t.Errorf("%v %v", w, ok)
	}
	cmd.Wait()
	if _, err := keeper.OpenProcess(cmd.Process.Pid, start); !errors.Is(err, keeper.ErrGone) {
		t.Errorf("an ended process: %v", err)
	}
}

func TestAnotherProcessIsNotAKeeper(t *testing.T) {
	dir := t.TempDir()
	f, err := keeper.CreateStatus(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	boot, err := kernel.BootID()
	if err != nil {
		t.Fatal(err)
	}
	other := exec.Command("sleep", "1000") // this process may have the file where a keeper has it
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Process.Kill(); _ = other.Wait() }()
	start, err := kernel.StartTime(other.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	r := keeper.Record{Layout: keeper.LayoutVersion, BootID: boot, KeeperPID: other.Process.Pid, KeeperStart: start, Dir: dir}
	if _, err := keeper.Open(r, f); !errors.Is(err, keeper.ErrGone) {
		t.Errorf("taken for a keeper by its PID alone: %v", err)
	}
	r.BootID = "other"
	if _, err := keeper.Open(r, f); !errors.Is(err, keeper.ErrGone) {
		t.Errorf("of another boot: %v", err)
	}
	if _, _, err := keeper.OpenUnrecorded(f); !errors.Is(err, keeper.ErrGone) {
		t.Errorf("a status file without a PID: %v", err)
	}
}

// TestNeverRan: what was not let go has not run; what was has, and so have the processes of engines that did not tell.
func TestNeverRan(t *testing.T) {
	dir := t.TempDir()
	f, err := keeper.CreateStatus(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if !keeper.NeverRan(f) {
		t.Error("a new one has run")
	}
	if err := keeper.LetGo(keeper.Record{Dir: dir}); err != nil {
		t.Fatal(err)
	}
	if keeper.NeverRan(f) {
		t.Error("one that was let go has not run")
	}
	if st, err := f.Stat(); err != nil || st.Mode().Perm() != 0o600 { // as earlier engines made them
		t.Errorf("%v, %v", st.Mode(), err)
	}
}
