package stdio_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/stdio"
	"github.com/cleatlabs/cleat/test/expect"
)

// sink is a log in memory.
type sink struct {
	mu   sync.Mutex
	text map[stdio.Stream]string
	len  int64
	fail error
}

func newSink() *sink { return &sink{text: map[stdio.Stream]string{}} }

func (s *sink) Append(st stdio.Stream, p []byte, _ time.Time, last bool) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := bytes.LastIndexByte(p, '\n') + 1
	if last || n == 0 && len(p) >= stdio.MaxLine {
		n = len(p)
	}
	if n > 0 && s.fail != nil {
		return 0, s.fail
	}
	s.text[st] += string(p[:n])
	s.len += int64(n)
	return n, nil
}

func (s *sink) Mark() (stdio.Mark, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return stdio.Mark{File: 1, Offset: s.len}, nil
}

func (s *sink) Rewind(stdio.Mark) error { return nil }

func (s *sink) get(st stdio.Stream) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text[st]
}

type process struct {
	*stdio.Pump
	out, err *os.File // what the process writes to
	cfg      stdio.Config
}

func pipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	return r, w
}

func shm(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "cleat-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// start runs a Pump; edit may change its Config first.
func start(t *testing.T, edit func(*stdio.Config)) *process {
	t.Helper()
	p := &process{}
	p.cfg.Stdout, p.out = pipe(t)
	p.cfg.Stderr, p.err = pipe(t)
	p.cfg.OnError = func(s stdio.Stream, n int, err error) { t.Errorf("%s: %d bytes: %v", s, n, err) }
	if edit != nil {
		edit(&p.cfg)
	}
	p.restart(t)
	return p
}

func (p *process) restart(t *testing.T) {
	t.Helper()
	pump, err := stdio.Start(p.cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pump.Stop)
	p.Pump = pump
}

func (p *process) exit() { p.out.Close(); p.err.Close() }

func write(t *testing.T, f io.Writer, s string) {
	t.Helper()
	if _, err := io.WriteString(f, s); err != nil {
		t.Fatal(err)
	}
}

func wait(t *testing.T, what string, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(expect.Patience):
		buf := make([]byte, 1<<16)
		t.Fatalf("%s did not happen\n%s", what, buf[:runtime.Stack(buf, true)])
	}
}

// collect reads a subscription to its end.
func collect(t *testing.T, sub *stdio.Subscription) (map[stdio.Stream]string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), expect.Patience)
	defer cancel()
	got := map[stdio.Stream]string{}
	for {
		s, p, err := sub.Next(ctx)
		if err != nil {
			return got, err
		}
		got[s] += string(p)
	}
}

// modes are the ways of a Pump: with a journal, with a log only, with neither.
func modes(t *testing.T, run func(t *testing.T, s *sink, edit func(*stdio.Config))) {
	t.Run("journal", func(t *testing.T) {
		s, dir := newSink(), shm(t)
		run(t, s, func(c *stdio.Config) { c.Sink, c.Dir = s, dir })
		if left, _ := os.ReadDir(dir); len(left) > 0 {
			t.Errorf("left in the directory: %v", left)
		}
	})
	t.Run("log", func(t *testing.T) {
		s := newSink()
		run(t, s, func(c *stdio.Config) { c.Sink = s })
	})
	t.Run("bare", func(t *testing.T) { run(t, nil, func(*stdio.Config) {}) })
}

func TestOutputReachesLogAndClients(t *testing.T) {
	modes(t, func(t *testing.T, s *sink, edit func(*stdio.Config)) {
		hub := stdio.NewHub()
		early := hub.Subscribe(true, true)
		onlyErr := hub.Subscribe(false, true)
		p := start(t, func(c *stdio.Config) { edit(c); c.Hub = hub })
		var out, errs strings.Builder
		for i := range 5000 {
			fmt.Fprintf(&out, "out %d\n", i)
			fmt.Fprintf(&errs, "err %d %s\n", i, strings.Repeat("x", i%300))
		}
		go func() { write(t, p.out, out.String()+"unfinished"); p.out.Close() }()
		go func() { write(t, p.err, errs.String()); p.err.Close() }()
		got, err := collect(t, early)
		if err != io.EOF || got[stdio.Stdout] != out.String()+"unfinished" || got[stdio.Stderr] != errs.String() {
			t.Errorf("the client got %d and %d bytes, %v", len(got[stdio.Stdout]), len(got[stdio.Stderr]), err)
		}
		got, err = collect(t, onlyErr)
		if err != io.EOF || got[stdio.Stdout] != "" || got[stdio.Stderr] != errs.String() {
			t.Errorf("the stderr client got %d and %d bytes, %v", len(got[stdio.Stdout]), len(got[stdio.Stderr]), err)
		}
		wait(t, "the end", p.Done())
		if s != nil && (s.get(stdio.Stdout) != out.String()+"unfinished" || s.get(stdio.Stderr) != errs.String()) {
			t.Errorf("the log has %d and %d bytes", len(s.get(stdio.Stdout)), len(s.get(stdio.Stderr)))
		}
	})
}

// markless is a log that nobody may open.
type markless struct {
	*sink
	t *testing.T
}

func (s markless) Mark() (stdio.Mark, error) {
	s.t.Error("the log of a process without output was opened")
	return s.sink.Mark()
}

// A process that writes nothing leaves no journal, and its log is not opened: most short-lived ones are such.
func TestSilenceCostsNoFiles(t *testing.T) {
	dir := shm(t)
	p := start(t, func(c *stdio.Config) { c.Sink, c.Dir = markless{newSink(), t}, dir })
	watch, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(watch)
	if _, err := unix.InotifyAddWatch(watch, dir, unix.IN_CREATE); err != nil {
		t.Fatal(err)
	}
	p.exit()
	wait(t, "the end", p.Done())
	if n, err := unix.Read(watch, make([]byte, 4096)); err != unix.EAGAIN {
		t.Errorf("files were made: %d bytes of events, %v", n, err)
	}
}

func TestPromptReachesClientAtOnce(t *testing.T) {
	modes(t, func(t *testing.T, s *sink, edit func(*stdio.Config)) {
		p := start(t, edit)
		sub := p.Subscribe(true, true)
		for _, text := range []string{"password: ", "x", "\nwrong\n", "$ "} {
			write(t, p.out, text)
			_, got, err := sub.Next(context.Background())
			if string(got) != text || err != nil {
				t.Fatalf("got %q, %v, want %q", got, err, text)
			}
		}
		if s != nil {
			expect.Eventually(t, "the line in the log", func() bool { return s.get(stdio.Stdout) == "password: x\nwrong\n" })
		}
		p.exit()
		wait(t, "the end", p.Done())
		if s != nil && s.get(stdio.Stdout) != "password: x\nwrong\n$ " {
			t.Errorf("log %q", s.get(stdio.Stdout))
		}
	})
}

func TestSlowClientBlocksUntilItLeaves(t *testing.T) {
	modes(t, func(t *testing.T, s *sink, edit func(*stdio.Config)) {
		p := start(t, edit)
		slow, quick := p.Subscribe(true, true), p.Subscribe(true, true)
		text := strings.Repeat(strings.Repeat("y", 99)+"\n", 60000) // beyond pipe and queue together
		written := make(chan struct{})
		go func() { write(t, p.out, text); close(written); p.exit() }()
		received := make(chan string)
		go func() { got, _ := collect(t, quick); received <- got[stdio.Stdout] }()
		select {
		case <-written:
			t.Fatal("the output did not wait for the slow client")
		case <-time.After(100 * time.Millisecond):
		}
		slow.Close()
		wait(t, "the end of the writing", written)
		if got := <-received; got != text {
			t.Errorf("the other client got %d of %d bytes", len(got), len(text))
		}
		if _, _, err := slow.Next(context.Background()); err == nil {
			// What was queued may still be read, but not for ever.
			if _, err = collect(t, slow); err == nil {
				t.Error("a closed subscription has no end")
			}
		}
		wait(t, "the end", p.Done())
	})
}

// TestManyStalledClientsShareTheRoom: hundreds of clients that do not read hold little
// each, the others get all of it once they have gone.
func TestManyStalledClientsShareTheRoom(t *testing.T) {
	p := start(t, nil)
	heap := func() int64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	text := strings.Repeat(strings.Repeat("y", 99)+"\n", 60000)
	before := heap()
	quick := p.Subscribe(true, true)
	var stalled []*stdio.Subscription
	for range 600 {
		stalled = append(stalled, p.Subscribe(true, true))
	}
	go func() { write(t, p.out, text); p.exit() }()
	received := make(chan string)
	go func() { got, _ := collect(t, quick); received <- got[stdio.Stdout] }()
	expect.Eventually(t, "the output waits", func() bool {
		n, err := unix.IoctlGetInt(int(p.out.Fd()), unix.TIOCINQ)
		return err == nil && n > 0
	})
	if each := (heap() - before) / int64(len(stalled)); each > 64<<10 {
		t.Errorf("%d KiB for each client that does not read", each>>10)
	}
	for _, s := range stalled {
		s.Close()
	}
	if got := <-received; got != text {
		t.Errorf("the one that reads got %d of %d bytes", len(got), len(text))
	}
	wait(t, "the end", p.Done())
}

func TestDrainEndsDespiteStrayWriterAndStalledClient(t *testing.T) {
	modes(t, func(t *testing.T, s *sink, edit func(*stdio.Config)) {
		p := start(t, edit)
		stalled := p.Subscribe(true, true)
		text := strings.Repeat("z", 1<<20) + "\n" + strings.Repeat("z", 80000)
		sent := make(chan struct{})
		go func() { write(t, p.out, text); close(sent) }()
		expect.Eventually(t, "a full queue", func() bool {
			n, err := unix.IoctlGetInt(int(p.out.Fd()), unix.TIOCINQ)
			return err == nil && n > 0
		})
		done := make(chan struct{})
		go func() { <-sent; p.Drain(); p.Drain(); close(done) }() // the write end stays open
		// The last of the text may only have entered the pipe with room in it.
		ctx := context.Background()
		got := ""
		for range 2 {
			_, b, err := stalled.Next(ctx)
			if err != nil {
				t.Fatal(err)
			}
			got += string(b)
		}
		wait(t, "the end of the draining", done)
		rest, err := collect(t, stalled)
		if got += rest[stdio.Stdout]; got != text || err != io.EOF {
			t.Errorf("the client got %d of %d bytes, %v", len(got), len(text), err)
		}
		if s != nil && s.get(stdio.Stdout) != text {
			t.Errorf("the log has %d of %d bytes", len(s.get(stdio.Stdout)), len(text))
		}
	})
}

func TestStopLeavesTheRestToTheNextPump(t *testing.T) {
	s, dir := newSink(), shm(t)
	p := start(t, func(c *stdio.Config) { c.Sink, c.Dir = s, dir })
	sub := p.Subscribe(true, true)
	write(t, p.out, "one\ntw")
	if _, got, _ := sub.Next(context.Background()); string(got) != "one\ntw" {
		t.Fatalf("got %q", got)
	}
	p.Stop()
	if _, err := collect(t, sub); !errors.Is(err, stdio.ErrStopped) {
		t.Errorf("the client's end: %v", err)
	}
	write(t, p.out, "o\nthree\n")
	p.restart(t)
	expect.Eventually(t, "the rest in the log", func() bool { return s.get(stdio.Stdout) == "one\ntwo\nthree\n" })
	p.Stop()
	p.restart(t)
	p.exit()
	wait(t, "the end", p.Done())
	if got := s.get(stdio.Stdout); got != "one\ntwo\nthree\n" {
		t.Errorf("log %q", got)
	}
}

func TestJournalsWithoutPipesAreStillLogged(t *testing.T) {
	s, dir := newSink(), shm(t)
	p := start(t, func(c *stdio.Config) { c.Sink, c.Dir = s, dir })
	write(t, p.out, "line\nunfinished")
	expect.Eventually(t, "the line", func() bool { return s.get(stdio.Stdout) == "line\n" })
	p.Stop()
	p.cfg.Stdout, p.cfg.Stderr = nil, nil // the keeper was killed
	p.restart(t)
	wait(t, "the end", p.Done())
	if got := s.get(stdio.Stdout); got != "line\nunfinished" {
		t.Errorf("log %q", got)
	}
}

func TestJournalOfATerminalThatIsGoneEndsWhereItsOutputDid(t *testing.T) {
	s, dir := newSink(), shm(t)
	master, slave, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer master.Close()
	defer slave.Close()
	if err := unix.SetNonblock(int(master.Fd()), true); err != nil { // as the engine's are
		t.Fatal(err)
	}
	p := start(t, func(c *stdio.Config) { c.Sink, c.Dir, c.TTY, c.Stdout, c.Stderr = s, dir, master, nil, nil })
	write(t, slave, "line\nunfinished")
	expect.Eventually(t, "the line", func() bool { return strings.Contains(s.get(stdio.Stdout), "line") })
	p.Stop()
	p.cfg.TTY, p.cfg.Terminal = nil, true // the keeper was killed
	p.restart(t)
	wait(t, "the end", p.Done())
	if got := s.get(stdio.Stdout); got != "line\r\nunfinished" {
		t.Errorf("log %q", got)
	}
}

func TestFullLogDropsAndGoesOn(t *testing.T) {
	modes(t, func(t *testing.T, s *sink, edit func(*stdio.Config)) {
		if s == nil {
			return // without a log nothing can be missing in it
		}
		var mu sync.Mutex
		dropped := 0
		s.fail = unix.ENOSPC
		p := start(t, func(c *stdio.Config) {
			edit(c)
			c.OnError = func(_ stdio.Stream, n int, err error) {
				mu.Lock()
				defer mu.Unlock()
				dropped += n
				if !errors.Is(err, unix.ENOSPC) {
					t.Error(err)
				}
			}
		})
		sub := p.Subscribe(true, false)
		write(t, p.out, "lost\n")
		expect.Eventually(t, "the report", func() bool { mu.Lock(); defer mu.Unlock(); return dropped == 5 })
		s.mu.Lock()
		s.fail = nil
		s.mu.Unlock()
		write(t, p.out, "kept\n")
		p.exit()
		got, _ := collect(t, sub)
		wait(t, "the end", p.Done())
		if got[stdio.Stdout] != "lost\nkept\n" || s.get(stdio.Stdout) != "kept\n" {
			t.Errorf("client %q, log %q", got[stdio.Stdout], s.get(stdio.Stdout))
		}
	})
}

func TestFullTmpfsFallsBack(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("cleat-test", dir, "tmpfs", 0, "size=32k,mode=700"); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	s := newSink()
	reports := make(chan error, 100)
	p := start(t, func(c *stdio.Config) {
		c.Sink, c.Dir = s, dir
		c.OnError = func(_ stdio.Stream, n int, err error) {
			if n != 0 {
				t.Errorf("%d bytes dropped: %v", n, err)
			}
			reports <- err
		}
	})
	write(t, p.out, "begun")
	expect.Eventually(t, "a journal", func() bool { _, err := os.Stat(filepath.Join(dir, "stdout.journal")); return err == nil })
	f, err := os.Create(filepath.Join(dir, "hog"))
	if err != nil {
		t.Fatal(err)
	}
	_, _ = f.Write(make([]byte, 64<<10)) // fills it
	f.Close()
	text := strings.Repeat(strings.Repeat("w", 500)+"\n", 1000)
	write(t, p.out, text)
	p.exit()
	wait(t, "the end", p.Done())
	if got := s.get(stdio.Stdout); got != "begun"+text {
		t.Errorf("the log has %d of %d bytes", len(got), len(text)+5)
	}
	if err := <-reports; !errors.Is(err, unix.ENOSPC) {
		t.Errorf("reported %v", err)
	}
}

func TestTerminal(t *testing.T) {
	modes(t, func(t *testing.T, s *sink, edit func(*stdio.Config)) {
		master, slave, err := pty.Open()
		if err != nil {
			t.Fatal(err)
		}
		defer master.Close()
		p := start(t, func(c *stdio.Config) { edit(c); c.TTY, c.Stdout, c.Stderr = master, nil, nil })
		sub := p.Subscribe(true, true)
		var want strings.Builder
		go func() {
			for i := range 20000 { // more than a mapped window
				write(t, slave, fmt.Sprintf("%d\n", i))
			}
			slave.Close()
		}()
		for i := range 20000 {
			fmt.Fprintf(&want, "%d\r\n", i)
		}
		got, err := collect(t, sub)
		if got[stdio.Stdout] != want.String() || err != io.EOF {
			t.Errorf("the client got %d of %d bytes, %v", len(got[stdio.Stdout]), want.Len(), err)
		}
		wait(t, "the end", p.Done())
		if s != nil && s.get(stdio.Stdout) != want.String() {
			t.Errorf("the log has %d of %d bytes", len(s.get(stdio.Stdout)), want.Len())
		}
	})
}

func TestHubServesOneRunAfterTheOther(t *testing.T) {
	hub := stdio.NewHub()
	for run := range 3 {
		sub := hub.Subscribe(true, true)
		p := start(t, func(c *stdio.Config) { c.Hub = hub })
		write(t, p.out, fmt.Sprint("run ", run))
		p.exit()
		got, err := collect(t, sub)
		if got[stdio.Stdout] != fmt.Sprint("run ", run) || err != io.EOF {
			t.Errorf("run %d: %q, %v", run, got, err)
		}
	}
	hub.Close()
	if _, err := collect(t, hub.Subscribe(true, true)); err != io.EOF {
		t.Errorf("after Close: %v", err)
	}
}

// Who comes when a process has closed its streams, and is about to end, is not to wait for the next one.
func TestSubscriptionEndsWithItsRun(t *testing.T) {
	hub := stdio.NewHub()
	over := make(chan struct{})
	early := hub.Subscribe(true, true)
	early.Until(over)
	p := start(t, func(c *stdio.Config) { c.Hub = hub })
	write(t, p.out, "all of it")
	p.exit()
	wait(t, "the end", p.Done())
	late := hub.Subscribe(true, true)
	late.Until(over)
	close(over)
	if got, err := collect(t, early); got[stdio.Stdout] != "all of it" || err != io.EOF {
		t.Errorf("who was there: %q, %v", got, err)
	}
	if got, err := collect(t, late); len(got) > 0 || err != io.EOF {
		t.Errorf("who came late: %q, %v", got, err)
	}
}

// TestIdlePumpIsSmall holds what a container without output costs the engine.
func TestIdlePumpIsSmall(t *testing.T) {
	const pumps = 100
	memory := func() int64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc + m.StackInuse)
	}
	fds := func() int {
		l, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(l)
	}
	dir, pool := shm(t), &stdio.Pool{}
	procs := make([]*process, pumps)
	for i := range procs {
		procs[i] = &process{}
		procs[i].cfg.Stdout, procs[i].out = pipe(t)
		procs[i].cfg.Stderr, procs[i].err = pipe(t)
	}
	mem, open, routines := memory(), fds(), runtime.NumGoroutine()
	for i, p := range procs {
		p.cfg.Dir, p.cfg.Sink, p.cfg.Pool = filepath.Join(dir, fmt.Sprint(i)), newSink(), pool
		if err := os.Mkdir(p.cfg.Dir, 0o700); err != nil {
			t.Fatal(err)
		}
		p.restart(t)
	}
	// Fewer, if some that other tests have left end meanwhile.
	expect.Eventually(t, "all waiting", func() bool { return runtime.NumGoroutine() <= routines+2*pumps })
	perPump := (memory() - mem) / pumps
	t.Logf("an idle pump: %d bytes, %.1f descriptors", perPump, float64(fds()-open)/pumps)
	if perPump > 30_000 {
		t.Errorf("an idle pump holds %d bytes", perPump)
	}
	for _, p := range procs {
		p.exit()
		wait(t, "the end", p.Done())
	}
	if n := fds(); n > open { // the write ends are closed too
		t.Errorf("%d descriptors before, %d after", open, n)
	}
	if left, _ := filepath.Glob(dir + "/*/*"); len(left) > 0 {
		t.Errorf("idle pumps made %v", left)
	}
}

// Delivered waits for clients that still take what was queued for them, and for no others.
func TestDelivered(t *testing.T) {
	h := stdio.NewHub()
	h.Delivered(t.Context(), time.Hour) // nobody is there
	gone, slow := h.Subscribe(true, true), h.Subscribe(true, true)
	h.Delivered(t.Context(), time.Hour) // theirs goes on
	gone.Close()
	h.End(nil)
	defer h.Subscribe(true, true).Close() // of the next run
	h.Delivered(t.Context(), time.Nanosecond)
	delivered := make(chan struct{})
	go func() { h.Delivered(t.Context(), time.Hour); close(delivered) }()
	_, _, err := slow.Next(t.Context())
	select {
	case <-delivered:
		t.Error("a client that has not closed its subscription has all its output")
	default:
	}
	slow.Close()
	wait(t, "the delivery", delivered)
	h.Delivered(t.Context(), time.Hour)
	if err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
}
