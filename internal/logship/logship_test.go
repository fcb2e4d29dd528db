package logship_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cleatlabs/cleat/internal/logs"
	"github.com/cleatlabs/cleat/internal/logship"
	"github.com/cleatlabs/cleat/internal/stdio"
	"github.com/cleatlabs/cleat/internal/supervise"
)

const patience = 60 * time.Second

func eventually(t testing.TB, ok func() (bool, string)) {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		done, state := ok()
		if done {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("waited in vain: %s", state)
		}
	}
}

// bench is a service, with what it says to the engine's log.
type bench struct {
	*logship.Service
	tasks *supervise.Group
	said  *lockedBuffer
	dir   string
}

type lockedBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func service(t testing.TB, dir string) *bench {
	t.Helper()
	said := &lockedBuffer{}
	tasks := supervise.New(context.Background())
	b := &bench{logship.New(tasks, slog.New(slog.NewTextHandler(said, nil)), filepath.Join(dir, "unsent")), tasks, said, dir}
	t.Cleanup(func() { b.stop(t) })
	return b
}

func (b *bench) stop(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := b.tasks.Stop(ctx); err != nil {
		t.Error(err)
	}
}

func (b *bench) config(address string, opts map[string]string) logs.Config {
	all := map[string]string{"syslog-address": address, "tag": "t"}
	for k, v := range opts {
		all[k] = v
	}
	return logs.Config{Driver: "syslog", Path: filepath.Join(b.dir, "c-json.log"), Opts: all, ContainerID: strings.Repeat("a", 64), ContainerName: "c"}
}

func (b *bench) open(t testing.TB, c logs.Config) logs.Writer {
	t.Helper()
	w, err := b.Open(t.Context(), c, false)
	if err != nil {
		t.Fatal(err)
	}
	logship.Begin(w)
	return w
}

func write(t testing.TB, w logs.Writer, from, to int) {
	t.Helper()
	writeLong(t, w, from, to, 0)
}

// writeLong writes lines with that many bytes of spaces at their ends, which the server leaves out.
func writeLong(t testing.TB, w logs.Writer, from, to, spaces int) {
	t.Helper()
	for i := from; i < to; i++ {
		text := []byte(fmt.Sprintf("line %d%*s\n", i, spaces, ""))
		if n, err := w.Append(stdio.Stdout, text, time.Now(), false); err != nil || n != len(text) {
			t.Fatal(n, err)
		}
	}
}

// server is a syslog server on TCP. It reads while its gate is open.
type server struct {
	l       net.Listener
	address string
	gate    sync.RWMutex
	mu      sync.Mutex
	heard   []*heard // in the order in which the connections were made
	conns   []net.Conn
	serving sync.WaitGroup
}

// heard is what came over one connection.
type heard struct {
	lines []string
	over  bool // all of it is read
}

func serve(t testing.TB, address string) *server {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	s := &server{l: l, address: "tcp://" + l.Addr().String()}
	s.serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			h := new(heard)
			s.mu.Lock()
			s.conns, s.heard = append(s.conns, c), append(s.heard, h)
			s.mu.Unlock()
			s.serving.Go(func() { s.read(c, h) })
		}
	})
	t.Cleanup(s.close)
	return s
}

func (s *server) read(c net.Conn, h *heard) {
	defer c.Close()
	for r := bufio.NewReader(c); ; {
		s.gate.RLock()
		line, err := r.ReadString('\n')
		s.gate.RUnlock()
		s.mu.Lock()
		if h.over = err != nil; !h.over {
			h.lines = append(h.lines, strings.TrimRight(line[strings.LastIndex(line, "]: ")+3:len(line)-1], " "))
		}
		s.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// hangUp ends the present connections.
func (s *server) hangUp() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.conns {
		_ = c.Close()
	}
	s.conns = nil
}

func (s *server) close() {
	_ = s.l.Close()
	s.hangUp()
	s.serving.Wait()
}

// got are the lines in the order in which they were sent, as a connection is made when the one before it has ended: of
// two that are still read, what came over the later one is told later.
func (s *server) got() (all []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, h := range s.heard {
		if all = append(all, h.lines...); !h.over {
			break
		}
	}
	return all
}

// connections is how many there have been.
func (s *server) connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.heard)
}

// await waits for a line and checks that no line before it is missing or out of order,
// other than as one that came twice.
func (s *server) await(t testing.TB, first, last int) (doubled int) {
	t.Helper()
	want := fmt.Sprintf("line %d", last)
	eventually(t, func() (bool, string) {
		got := s.got()
		return len(got) > 0 && got[len(got)-1] == want, fmt.Sprint(got[max(0, len(got)-3):])
	})
	next := first
	for _, line := range s.got() {
		var n int
		if _, err := fmt.Sscanf(line, "line %d", &n); err != nil {
			t.Fatalf("%q", line)
		}
		switch {
		case n == next:
			next++
		case n < next:
			doubled++
		default:
			t.Fatalf("line %d comes instead of %d", n, next)
		}
	}
	return doubled
}

// TestIdleSenderSleeps: one goroutine for a container that is silent, none before its
// first line, and what is written later is sent.
func TestIdleSenderSleeps(t *testing.T) {
	s, b := serve(t, "127.0.0.1:0"), service(t, t.TempDir())
	w := b.open(t, b.config(s.address, nil))
	if n := b.tasks.Running(); len(n) != 0 {
		t.Errorf("before the first line: %v", n)
	}
	write(t, w, 0, 3)
	s.await(t, 0, 2)
	if n := fmt.Sprint(b.tasks.Running()); n != "[log delivery]" {
		t.Errorf("while it is silent: %v", n)
	}
	write(t, w, 3, 4)
	s.await(t, 0, 3)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() (bool, string) { n := b.tasks.Running(); return len(n) == 0, fmt.Sprint(n) })
	if unsent, err := logs.Unsent(b.config(s.address, nil)); unsent || err != nil {
		t.Errorf("after the end: %v, %v", unsent, err)
	}
}

// TestSlowServer reads nothing for a while, over many rotations: the writer does not
// wait, and every line comes.
func TestSlowServer(t *testing.T) {
	s, b := serve(t, "127.0.0.1:0"), service(t, t.TempDir())
	w := b.open(t, b.config(s.address, map[string]string{"cache-max-size": "200k", "cache-max-file": "100"}))
	s.gate.Lock()
	writeLong(t, w, 0, 5000, 1000)
	s.gate.Unlock()
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() (bool, string) { n := b.tasks.Running(); return len(n) == 0, fmt.Sprint(n) })
	doubled := s.await(t, 0, 4999)
	if s.connections() > 1 {
		t.Skipf("the machine took longer to write the lines than a sender waits: %d came twice", doubled)
	}
	if doubled != 0 {
		t.Errorf("%d lines came twice", doubled)
	}
	if said := b.said.String(); said != "" {
		t.Errorf("the engine's log: %s", said)
	}
}

// TestServerAwayForTooLong: what is rotated away meanwhile is told, and the rest comes.
func TestServerAwayForTooLong(t *testing.T) {
	b := service(t, t.TempDir())
	s := serve(t, "127.0.0.1:0")
	w := b.open(t, b.config(s.address, map[string]string{"cache-max-size": "10k", "cache-max-file": "3"}))
	write(t, w, 0, 10)
	s.await(t, 0, 9)
	eventually(t, func() (bool, string) {
		unsent, err := logs.Unsent(b.config(s.address, nil))
		return !unsent, fmt.Sprint(err)
	})
	s.close()
	write(t, w, 10, 5000)
	eventually(t, func() (bool, string) {
		return strings.Contains(b.said.String(), "cannot be sent: they wait"), b.said.String()
	})
	again := serve(t, strings.TrimPrefix(s.address, "tcp://"))
	eventually(t, func() (bool, string) {
		got := again.got()
		return len(got) > 0 && got[len(got)-1] == "line 4999", fmt.Sprint(len(got))
	})
	got := again.got()
	if len(got) > 1000 || got[0] == "line 10" {
		t.Errorf("%d lines from %s", len(got), got[0])
	}
	eventually(t, func() (bool, string) {
		said := b.said.String()
		return strings.Contains(said, "rotated away before they could be sent") && strings.Contains(said, "are sent again"), said
	})
	_ = w.Close()
}

// TestServerHangsUp ends connections again and again while lines come: none is lost, as
// the server has read all that it took.
func TestServerHangsUp(t *testing.T) {
	s, b := serve(t, "127.0.0.1:0"), service(t, t.TempDir())
	w := b.open(t, b.config(s.address, nil))
	for i := range 20 {
		write(t, w, i*10, i*10+10)
		s.await(t, 0, i*10+9)
		s.hangUp()
	}
	write(t, w, 200, 201)
	s.await(t, 0, 200)
	_ = w.Close()
}

// TestNextServiceGoesOn ends the service under a container that goes on, and one of a
// container that has ended.
func TestNextServiceGoesOn(t *testing.T) {
	s, dir := serve(t, "127.0.0.1:0"), t.TempDir()
	b := service(t, dir)
	c := b.config(s.address, nil)
	w := b.open(t, c)
	write(t, w, 0, 100)
	eventually(t, func() (bool, string) { return len(s.got()) > 0, "no line comes" })
	b.stop(t)
	write(t, w, 100, 200) // nobody sends any more
	_ = w.Close()
	b = service(t, dir)
	w = b.open(t, c)
	s.await(t, 0, 199)
	b.stop(t)
	write(t, w, 200, 210)
	_ = w.Close()
	b = service(t, dir)
	if err := b.Resume(c); err != nil {
		t.Fatal(err)
	}
	if doubled := s.await(t, 0, 209); doubled != 0 {
		t.Errorf("%d lines came twice though nobody was killed", doubled)
	}
	eventually(t, func() (bool, string) { n := b.tasks.Running(); return len(n) == 0, fmt.Sprint(n) })
	if err := b.Resume(c); err != nil || len(b.tasks.Running()) != 0 {
		t.Errorf("nothing is left to send: %v, %v", err, b.tasks.Running())
	}
}

// TestCutBackLog: lines that are cut off the log after a crash and written again are
// sent again.
func TestCutBackLog(t *testing.T) {
	s, dir := serve(t, "127.0.0.1:0"), t.TempDir()
	b := service(t, dir)
	c := b.config(s.address, nil)
	w := b.open(t, c)
	write(t, w, 0, 10)
	mark, err := w.Mark()
	if err != nil {
		t.Fatal(err)
	}
	write(t, w, 10, 15)
	s.await(t, 0, 14)
	b.stop(t)
	_ = w.Close()
	b = service(t, dir)
	if w, err = b.Open(t.Context(), c, false); err != nil {
		t.Fatal(err)
	}
	if err := w.Rewind(mark); err != nil {
		t.Fatal(err)
	}
	write(t, w, 10, 16)
	if doubled := s.await(t, 0, 15); doubled != 5 {
		t.Errorf("%d lines came twice, 5 were cut off", doubled)
	}
	_ = w.Close()
}

// TestRestartWhileServerIsAway: the runs of a container share what waits.
func TestRestartWhileServerIsAway(t *testing.T) {
	b := service(t, t.TempDir())
	s := serve(t, "127.0.0.1:0")
	s.close()
	c := b.config(s.address, nil)
	for run := range 5 {
		w := b.open(t, c)
		write(t, w, run*10, run*10+10)
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	again := serve(t, strings.TrimPrefix(s.address, "tcp://"))
	if doubled := again.await(t, 0, 49); doubled != 0 {
		t.Errorf("%d lines came twice", doubled)
	}
}

// TestRemoval: unsent lines of a removed container are sent, also by the next service,
// and nothing is left then.
func TestRemoval(t *testing.T) {
	for _, restarted := range []bool{false, true} {
		t.Run(fmt.Sprint(restarted), func(t *testing.T) {
			dir := t.TempDir()
			b := service(t, dir)
			s := serve(t, "127.0.0.1:0")
			s.close()
			c := b.config(s.address, map[string]string{"cache-max-size": "2k", "cache-max-file": "30"})
			w := b.open(t, c)
			write(t, w, 0, 200)
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			if err := b.Remove(c); err != nil {
				t.Fatal(err)
			}
			if files, _ := filepath.Glob(filepath.Join(dir, "c-json*")); len(files) != 0 {
				t.Errorf("left: %v", files)
			}
			if restarted {
				b.stop(t)
				b = service(t, dir)
				b.Recover()
			}
			again := serve(t, strings.TrimPrefix(s.address, "tcp://"))
			if doubled := again.await(t, 0, 199); doubled != 0 {
				t.Errorf("%d lines came twice", doubled)
			}
			eventually(t, func() (bool, string) {
				left, err := os.ReadDir(filepath.Join(dir, "unsent"))
				return len(left) == 0, fmt.Sprint(left, err)
			})
		})
	}
}

// TestLogThatCannotBeOpened: it leaves nothing that sends, and the next one is sent.
func TestLogThatCannotBeOpened(t *testing.T) {
	s, b := serve(t, "127.0.0.1:0"), service(t, t.TempDir())
	if _, err := b.Open(t.Context(), b.config(s.address, map[string]string{"cache-max-size": "some"}), true); err == nil {
		t.Fatal("a log of no size was opened")
	}
	eventually(t, func() (bool, string) { n := b.tasks.Running(); return len(n) == 0, fmt.Sprint(n) })
	if _, err := os.Lstat(".sent"); err == nil {
		t.Error("how far a log without a name was sent is noted in the working directory")
		_ = os.Remove(".sent")
	}
	w := b.open(t, b.config(s.address, nil))
	write(t, w, 0, 3)
	s.await(t, 0, 2)
	if err := w.Close(); err != nil {
		t.Error(err)
	}
}

// TestLogThatIsGone: a container that wrote nothing may be removed before what would send its lines has looked for them,
// which ends then, and without a complaint.
func TestLogThatIsGone(t *testing.T) {
	b := service(t, t.TempDir())
	c := b.config("tcp://127.0.0.1:1", nil)
	c.Path = filepath.Join(b.dir, "container", "c-json.log")
	if err := os.Mkdir(filepath.Dir(c.Path), 0o700); err != nil {
		t.Fatal(err)
	}
	w := b.open(t, c)
	if err := os.RemoveAll(filepath.Dir(c.Path)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	eventually(t, func() (bool, string) { n := b.tasks.Running(); return len(n) == 0, fmt.Sprint(n) })
	if said := b.said.String(); said != "" {
		t.Errorf("the engine's log says %s", said)
	}
}

// TestForeignParcels: what nobody can send is told and dropped.
func TestForeignParcels(t *testing.T) {
	b := service(t, t.TempDir())
	for name, text := range map[string]string{
		"empty": "", "garbage": "{", "elsewhere": `{"Driver":"syslog","File":"../x"}`, "unknown": `{"Driver":"carrier-pigeon","File":"x"}`,
	} {
		dir := filepath.Join(b.dir, "unsent", name)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if text != "" {
			if err := os.WriteFile(filepath.Join(dir, "parcel.json"), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	b.Recover()
	if left, err := os.ReadDir(filepath.Join(b.dir, "unsent")); len(left) != 0 || err != nil {
		t.Errorf("left: %v, %v", left, err)
	}
	if n := strings.Count(b.said.String(), "are dropped"); n != 4 {
		t.Errorf("told %d times: %s", n, b.said)
	}
}

// TestParcelsThatCannotBeReadNow: what may be sendable another time stays.
func TestParcelsThatCannotBeReadNow(t *testing.T) {
	b := service(t, t.TempDir())
	unsent := filepath.Join(b.dir, "unsent")
	if err := os.MkdirAll(filepath.Join(unsent, "unreadable", "parcel.json"), 0o700); err != nil { // a directory has no text
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(unsent, "young"), 0o700); err != nil {
		t.Fatal(err)
	}
	young := fmt.Sprintf(`{"Driver":"carrier-pigeon","File":"x","Removed":%q}`, time.Now().Format(time.RFC3339))
	if err := os.WriteFile(filepath.Join(unsent, "young", "parcel.json"), []byte(young), 0o600); err != nil {
		t.Fatal(err)
	}
	b.Recover()
	if left, err := os.ReadDir(unsent); len(left) != 2 || err != nil {
		t.Errorf("left: %v, %v; %s", left, err, b.said)
	}
	if n := strings.Count(b.said.String(), "tries it again"); n != 2 {
		t.Errorf("told %d times: %s", n, b.said)
	}
}

// TestGivingUp: with a bound on the tries, what waits is given up after so many.
func TestGivingUp(t *testing.T) {
	b := service(t, t.TempDir())
	s := serve(t, "127.0.0.1:0")
	s.close()
	c := b.config("", nil)
	c.Driver, c.Opts = "fluentd", map[string]string{
		"fluentd-address": strings.TrimPrefix(s.address, "tcp://"), "fluentd-async": "true", "fluentd-max-retries": "2", "fluentd-retry-wait": "1ms",
	}
	w := b.open(t, c)
	write(t, w, 0, 7)
	eventually(t, func() (bool, string) {
		return strings.Contains(b.said.String(), "lines=7 tries=2"), b.said.String()
	})
	_ = w.Close()
	eventually(t, func() (bool, string) { n := b.tasks.Running(); return len(n) == 0, fmt.Sprint(n) })
	if strings.Contains(b.said.String(), "sent again") {
		t.Error(b.said)
	}
}

// TestStopDoesNotWait: a service whose server takes nothing ends soon.
func TestStopDoesNotWait(t *testing.T) {
	s, b := serve(t, "127.0.0.1:0"), service(t, t.TempDir())
	s.gate.Lock()
	defer s.gate.Unlock()
	w := b.open(t, b.config(s.address, map[string]string{"cache-max-size": "-1"}))
	line := []byte(strings.Repeat("x", 10_000) + "\n")
	for range 2000 {
		if _, err := w.Append(stdio.Stdout, line, time.Now(), false); err != nil {
			t.Fatal(err)
		}
	}
	begun := time.Now()
	b.stop(t)
	if took := time.Since(begun); took > 20*time.Second {
		t.Errorf("the stop took %s", took)
	}
	_ = w.Close()
}

// BenchmarkDelivery sends lines of 100 bytes to one syslog server.
func BenchmarkDelivery(b *testing.B) {
	for _, network := range []string{"tcp", "udp"} {
		b.Run(network, func(b *testing.B) {
			s := service(b, b.TempDir())
			done := make(chan struct{})
			address := sink(b, network, b.N, done)
			w := s.open(b, s.config(network+"://"+address, map[string]string{"cache-max-file": "100"}))
			line := []byte(strings.Repeat("x", 99) + "\n")
			batch := []byte(strings.Repeat(string(line), 500))
			b.ResetTimer()
			for left := b.N; left > 0; {
				n := min(left, 500)
				for p := batch[:n*100]; len(p) > 0; {
					k, err := w.Append(stdio.Stdout, p, time.Now(), false)
					if err != nil {
						b.Fatal(err)
					}
					p = p[k:]
				}
				left -= n
			}
			<-done
			b.StopTimer()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "lines/s")
			_ = w.Close()
			runtime.KeepAlive(w)
		})
	}
}

// sink counts lines, and closes done after so many, or when UDP has lost some and no
// more come.
func sink(b *testing.B, network string, lines int, done chan struct{}) string {
	b.Helper()
	if network == "udp" {
		c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			b.Fatal(err)
		}
		_ = c.SetReadBuffer(64 << 20)
		b.Cleanup(func() { c.Close() })
		go func() {
			defer close(done)
			buf := make([]byte, 4096)
			for n := 0; n < lines; n++ {
				if n > 0 {
					_ = c.SetReadDeadline(time.Now().Add(time.Second))
				}
				if _, err := c.Read(buf); err != nil {
					b.Logf("%d of %d datagrams came", n, lines)
					return
				}
			}
		}()
		return c.LocalAddr().String()
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { l.Close() })
	go func() {
		defer close(done)
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		buf := make([]byte, 64<<10)
		for n := 0; n < lines; {
			k, err := c.Read(buf)
			if err == io.EOF {
				return
			}
			n += strings.Count(string(buf[:k]), "\n")
		}
	}()
	return l.Addr().String()
}
