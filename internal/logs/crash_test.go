package logs_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/creack/pty"
	"github.com/moby/term"
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/logs"
	"github.com/cleatlabs/cleat/internal/stdio"
)

// The child of the crash tests is this test binary: it runs a Pump as an engine
// would, on pipes that its parent keeps open like a keeper.
const (
	childDir = "CLEAT_TEST_PUMP_DIR"
	childLog = "CLEAT_TEST_PUMP_LOG"
	childTTY = "CLEAT_TEST_PUMP_TTY"
)

// crashOpts rotate often, so that kills hit rotations too, and drop nothing.
var crashOpts = map[string]string{"max-size": "300k", "max-file": "100000"}

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		if err := pumpChild(dir, os.Getenv(childLog), os.Getenv(childTTY) != ""); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(3)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func pumpChild(dir, path string, tty bool) error {
	w, err := logs.Open(logs.Config{Path: path, Opts: crashOpts})
	if err != nil {
		return err
	}
	c := stdio.Config{Dir: dir, Sink: w, OnError: func(s stdio.Stream, n int, err error) {
		fmt.Fprintln(os.Stderr, "trouble:", s, n, err)
		os.Exit(4)
	}}
	if tty {
		c.TTY = os.NewFile(3, "tty")
	} else {
		c.Stdout, c.Stderr = os.NewFile(3, "stdout"), os.NewFile(4, "stderr")
	}
	ready := os.NewFile(5, "ready")
	p, err := stdio.Start(c)
	if err != nil {
		return err
	}
	if _, err := ready.Write([]byte{1}); err != nil {
		return err
	}
	<-p.Done()
	return w.Close()
}

// generator makes the same pieces of output each time: short lines, empty
// lines, lines longer than MaxLine, and pieces that end in the middle of a line.
type generator struct {
	rnd  *rand.Rand
	name string
	n    int
	rest []byte
}

func newGenerator(name string) *generator {
	return &generator{rnd: rand.New(rand.NewPCG(7, uint64(len(name)))), name: name}
}

func (g *generator) next() []byte {
	for len(g.rest) < 1<<16 {
		g.n++
		g.rest = fmt.Appendf(g.rest, "%s line %d \"<é>\\", g.name, g.n)
		switch g.rnd.IntN(20) {
		case 0:
			g.rest = append(g.rest, bytes.Repeat([]byte{'x'}, g.rnd.IntN(60000))...)
		case 1:
			g.rest = append(g.rest, '\n')
		default:
			g.rest = append(g.rest, bytes.Repeat([]byte{'.'}, g.rnd.IntN(120))...)
		}
		g.rest = append(g.rest, '\n')
	}
	n := 1 + g.rnd.IntN(3000)
	if g.rnd.IntN(50) == 0 {
		n = 1 + g.rnd.IntN(1<<16)
	}
	out := g.rest[:n]
	g.rest = g.rest[n:]
	return out
}

// produce writes generated output until stop, and says how much that was.
func produce(t *testing.T, name string, w io.WriteCloser, stop *atomic.Bool) int64 {
	g := newGenerator(name)
	var total int64
	for !stop.Load() {
		p := g.next()
		if _, err := w.Write(p); err != nil {
			t.Errorf("%s: %v", name, err)
			break
		}
		total += int64(len(p))
	}
	if err := w.Close(); err != nil {
		t.Errorf("%s: %v", name, err)
	}
	return total
}

// check compares the log with what was produced.
func check(t *testing.T, c logs.Config, totals map[stdio.Stream]int64) {
	gens := map[stdio.Stream]*generator{stdio.Stdout: newGenerator("out"), stdio.Stderr: newGenerator("error")}
	want := map[stdio.Stream][]byte{}
	seen := map[stdio.Stream]int64{}
	err := logs.Read(context.Background(), c, logs.ReadOptions{Tail: -1, Stdout: true, Stderr: true}, nil, func(e logs.Entry) error {
		for len(want[e.Stream]) < len(e.Line) {
			want[e.Stream] = append(want[e.Stream], gens[e.Stream].next()...)
		}
		if n := len(e.Line); !bytes.Equal(e.Line, want[e.Stream][:n]) {
			return fmt.Errorf("%s differs after %d bytes:\ngot  %.80q\nwant %.80q", e.Stream, seen[e.Stream], e.Line, want[e.Stream][:n])
		}
		want[e.Stream] = want[e.Stream][len(e.Line):]
		seen[e.Stream] += int64(len(e.Line))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for s, total := range totals {
		if seen[s] != total {
			t.Errorf("%s: %d bytes logged, %d written", s, seen[s], total)
		}
	}
}

// crasher starts pump children and kills them.
type crasher struct {
	t     *testing.T
	env   []string
	files []*os.File
}

func (c *crasher) start() (*exec.Cmd, *os.File, *bytes.Buffer) {
	r, w, err := os.Pipe()
	if err != nil {
		c.t.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), c.env...)
	cmd.ExtraFiles = append(append([]*os.File(nil), c.files...), w)
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	w.Close()
	return cmd, r, &stderr
}

func (c *crasher) kill(times int, between func()) {
	rnd := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 1))
	for i := range times {
		cmd, ready, stderr := c.start()
		if i%8 != 0 { // now and then also while it starts and recovers
			if _, err := ready.Read(make([]byte, 1)); err != nil {
				cmd.Wait()
				c.t.Fatalf("the pump did not start: %s", stderr)
			}
		} else {
			time.Sleep(time.Duration(rnd.IntN(12000)) * time.Microsecond)
		}
		time.Sleep(time.Duration(rnd.IntN(4000)) * time.Microsecond)
		cmd.Process.Kill()
		err := cmd.Wait()
		ready.Close()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != -1 {
			c.t.Fatalf("the pump ended by itself (%v): %s", err, stderr)
		}
		between()
	}
}

func (c *crasher) finish() {
	cmd, ready, stderr := c.start()
	defer ready.Close()
	if err := cmd.Wait(); err != nil {
		c.t.Fatalf("last pump: %v: %s", err, stderr)
	}
}

func crashDirs(t *testing.T) (dir string, c logs.Config) {
	dir, err := os.MkdirTemp("/dev/shm", "cleat-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir, logs.Config{Path: filepath.Join(t.TempDir(), "c-json.log"), Opts: crashOpts}
}

func crashKills(t *testing.T) int {
	if testing.Short() {
		return 20
	}
	return 150
}

func TestNoLineIsLostOrDoubledOverSIGKILL(t *testing.T) {
	dir, cfg := crashDirs(t)
	outR, outW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	errR, errW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	c := &crasher{t: t, files: []*os.File{outR, errR}, env: []string{childDir + "=" + dir, childLog + "=" + cfg.Path}}
	var stop atomic.Bool
	var out, errs int64
	var wg sync.WaitGroup
	wg.Go(func() { out = produce(t, "out", outW, &stop) })
	wg.Go(func() { errs = produce(t, "error", errW, &stop) })
	c.kill(crashKills(t), func() {})
	stop.Store(true)
	c.finish()
	wg.Wait()
	outR.Close()
	errR.Close()
	t.Logf("%d + %d bytes", out, errs)
	check(t, cfg, map[stdio.Stream]int64{stdio.Stdout: out, stdio.Stderr: errs})
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("left in the journal directory: %v", left)
	}
}

func TestNoTerminalOutputIsLostOrDoubledOverSIGKILL(t *testing.T) {
	dir, cfg := crashDirs(t)
	master, slave, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer master.Close()
	if _, err := term.MakeRaw(slave.Fd()); err != nil {
		t.Fatal(err)
	}
	none, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer none.Close()
	c := &crasher{t: t, files: []*os.File{master, none}, env: []string{childDir + "=" + dir, childLog + "=" + cfg.Path, childTTY + "=1"}}
	var stop atomic.Bool
	var out int64
	var wg sync.WaitGroup
	wg.Go(func() { out = produce(t, "out", slave, &stop) })
	c.kill(crashKills(t), func() {})
	stop.Store(true)
	c.finish()
	wg.Wait()
	t.Logf("%d bytes", out)
	check(t, cfg, map[stdio.Stream]int64{stdio.Stdout: out})
}

func setPipeSize(f *os.File, n int) error {
	_, err := unix.FcntlInt(f.Fd(), unix.F_SETPIPE_SZ, n)
	return err
}

// What an engine that was killed has not compressed is at the next output, also what it was about to.
func TestCompressionCutShort(t *testing.T) {
	cfg := logs.Config{Path: filepath.Join(t.TempDir(), "log"), Opts: map[string]string{"max-size": "1k", "max-file": "3", "compress": "true"}}
	plain := logs.Config{Path: cfg.Path, Opts: map[string]string{"max-size": "1k", "max-file": "3"}}
	w := open(t, plain)
	for i := range 15 {
		feed(t, w, stdio.Stdout, fmt.Sprintf("line %d\n", i), noon.Add(time.Duration(i)*time.Second), false)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	want := read(t, cfg, all())
	unfinished := cfg.Path + ".1.gz.tmp"
	if err := os.WriteFile(unfinished, []byte("half"), 0o640); err != nil {
		t.Fatal(err)
	}
	w = open(t, cfg)
	if _, err := os.Lstat(unfinished); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("half a file is left: %v", err)
	}
	feed(t, w, stdio.Stdout, "last\n", noon.Add(time.Minute), false)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	files, err := logs.Files(cfg)
	if err != nil || len(files) != 2 || !strings.HasSuffix(files[0], ".1.gz") {
		t.Errorf("files: %q, %v", files, err)
	}
	if got := read(t, cfg, all()); got != want+"last\n" {
		t.Errorf("read back: %q, want %q and the last", got, want)
	}
}
