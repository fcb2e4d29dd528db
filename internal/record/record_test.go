package record_test

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"

	"github.com/cleatlabs/cleat/internal/record"
)

func TestWriteReplacesWholeFiles(t *testing.T) {
	for name, write := range map[string]func(string, []byte, os.FileMode) error{"plain": record.Write, "durable": record.WriteDurable} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "f")
			for _, content := range []string{"a long first content", "short"} {
				if err := write(path, []byte(content), 0o640); err != nil {
					t.Fatal(err)
				}
				if got, err := os.ReadFile(path); err != nil || string(got) != content {
					t.Errorf("read %q, %v", got, err)
				}
			}
			if entries, _ := os.ReadDir(filepath.Dir(path)); len(entries) != 1 {
				t.Errorf("left beside the file: %v", entries)
			}
		})
	}
}

func TestWriteErrorNamesTheFileAndLeavesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "dir")
	if err := os.MkdirAll(filepath.Join(path, "child"), 0o755); err != nil {
		t.Fatal(err)
	}
	err := record.Write(path, []byte("x"), 0o600) // a directory cannot be replaced by a file
	if err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("%v", err)
	}
	if entries, _ := os.ReadDir(filepath.Dir(path)); len(entries) != 1 {
		t.Errorf("left: %v", entries)
	}
	if err := record.Write(filepath.Join(path, "no", "f"), nil, 0o600); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
}

func TestReadJSON(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	var got map[string]int
	if err := record.ReadJSON(path, &got); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
	if err := record.WriteJSON(path, map[string]int{"a": 1}, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := record.ReadJSON(path, &got); err != nil || got["a"] != 1 {
		t.Errorf("%v, %v", got, err)
	}
	if err := os.WriteFile(path, []byte(`{"a":`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := record.ReadJSON(path, &got); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("damaged: %v", err)
	}
}

func TestSweepTempRemovesHalfWrittenFilesOnly(t *testing.T) {
	dir := t.TempDir()
	for _, n := range []string{".tmp-config.json", "config.json", ".hidden"} {
		if err := os.WriteFile(filepath.Join(dir, n), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := record.SweepTemp(dir); err != nil {
		t.Fatal(err)
	}
	entries, _ := os.ReadDir(dir)
	if len(entries) != 2 || entries[0].Name() != ".hidden" || entries[1].Name() != "config.json" {
		t.Errorf("left: %v", entries)
	}
	if err := record.SweepTemp(filepath.Join(dir, "none")); err != nil {
		t.Errorf("a missing directory: %v", err)
	}
}

// The child of the test below: passes the failpoint as often as it is told.
func TestMain(m *testing.M) {
	if os.Getenv("RECORD_TEST_CHILD") != "" {
		for range 3 {
			record.Failpoint("test.point")
			os.Stdout.WriteString("passed\n")
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestFailpointKillsAtItsHit(t *testing.T) {
	for _, c := range []struct {
		env    string
		passed int
		killed bool
		code   int
	}{
		{"", 3, false, 0},
		{"other.point", 3, false, 0},
		{"test.point", 0, true, -1},
		{"other, test.point=3", 2, true, -1},
		{"test.point=0", 0, false, 2},
		{"test.point=x", 0, false, 2},
		{"=1", 0, false, 2},
	} {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "RECORD_TEST_CHILD=1", record.FailpointEnv+"="+c.env)
		out, err := cmd.Output()
		if got := strings.Count(string(out), "passed"); got != c.passed {
			t.Errorf("%q: passed %d times, want %d (%v)", c.env, got, c.passed, err)
		}
		ws := cmd.ProcessState.Sys().(syscall.WaitStatus)
		if killed := ws.Signaled() && ws.Signal() == syscall.SIGKILL; killed != c.killed || cmd.ProcessState.ExitCode() != c.code {
			t.Errorf("%q: ended with %v", c.env, cmd.ProcessState)
		}
	}
}

func TestWritePrepared(t *testing.T) {
	small, large := `{"a":1}`, `{"b":"`+strings.Repeat("x", 9000)+`"}`
	for name, c := range map[string]struct {
		prepared bool
		data     string
	}{
		"prepared":                {true, small},
		"prepared, and too small": {true, large},
		"not prepared":            {false, small},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "r.json")
			if c.prepared {
				if err := record.Prepare([]string{path}, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			var nothing any
			if err := record.ReadJSON(path, &nothing); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("before it is written: %v", err)
			}
			before := record.Syncs()
			if err := record.WritePrepared(path, []byte(c.data), 0o600); err != nil {
				t.Fatal(err)
			}
			if n := record.Syncs() - before; n != 1 {
				t.Errorf("%d waits for the disk", n)
			}
			var got, want any
			if err := record.ReadJSON(path, &got); err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal([]byte(c.data), &want); err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("read back %.80v", got)
			}
			// What replaces it is a file of its own.
			if err := record.WriteDurable(path, []byte("2"), 0o600); err != nil {
				t.Fatal(err)
			}
			if b, err := os.ReadFile(path); err != nil || string(b) != "2" {
				t.Errorf("%q, %v", b, err)
			}
			if left, _ := os.ReadDir(dir); len(left) != 1 {
				t.Errorf("left: %v", left)
			}
		})
	}
}

// What a retired file held is nowhere in the next one of its name, be that shorter.
func TestRetiredFilesAreWrittenAgain(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "d")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "r.json")
	if err := record.Prepare([]string{path}, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := record.WritePrepared(path, []byte(`{"secret":"`+strings.Repeat("x", 5000)+`"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	before, _ := os.Stat(path)
	if ok, err := record.Retire(path); !ok || err != nil {
		t.Fatal(ok, err)
	}
	if err := record.Settle(root, []string{path}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is still called so: %v", err)
	}
	if err := record.WritePrepared(path, []byte(`{"a":1}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if after, err := os.Stat(path); err != nil || !os.SameFile(before, after) {
		t.Errorf("it was not written over: %v", err)
	}
	b, err := os.ReadFile(path)
	if err != nil || strings.TrimRight(string(b), " ") != `{"a":1}` {
		t.Errorf("%.80q, %v", b, err)
	}
}

func TestRetireTakesOnlyWhatWasPrepared(t *testing.T) {
	dir := t.TempDir()
	small, link, subdir := filepath.Join(dir, "small"), filepath.Join(dir, "link"), filepath.Join(dir, "dir")
	if err := record.WriteDurable(small, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Symlink("small", link), os.Mkdir(subdir, 0o700)); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{small, link, subdir} {
		if ok, err := record.Retire(path); ok || err != nil {
			t.Errorf("%s: %v, %v", path, ok, err)
		}
		if _, err := os.Lstat(path); err != nil {
			t.Error(err)
		}
	}
	if ok, err := record.Retire(filepath.Join(dir, "none")); ok || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: %v, %v", ok, err)
	}
	if err := record.Settle(dir, []string{small}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("settling what was not retired: %v", err)
	}
}
