package follow_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/moby/moby/client"

	"github.com/cleatlabs/cleat/client/compose/follow"
	"github.com/cleatlabs/cleat/client/compose/show"
)

func engine(t *testing.T, h http.HandlerFunc) *client.Client {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	api, err := client.New(client.WithHost("tcp://"+s.Listener.Addr().String()), client.WithAPIVersion("1.50"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = api.Close() })
	return api
}

// A file that cannot be read is no connection that breaks: whoever waits for the engine to come back would try for ever.
func TestBroken(t *testing.T) {
	for _, c := range []struct {
		err  error
		want bool
	}{
		{fmt.Errorf("file: %w", &fs.PathError{Op: "open", Path: "file", Err: syscall.EACCES}), false},
		{fmt.Errorf("file/below: %w", &fs.PathError{Op: "lstat", Path: "file/below", Err: syscall.ENOTDIR}), false},
		{&follow.OutputError{Err: &fs.PathError{Op: "write", Path: "/dev/stdout", Err: syscall.ENOSPC}}, false},
		{&net.OpError{Op: "dial", Net: "unix", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}, true},
		{fmt.Errorf("logs: %w", io.ErrUnexpectedEOF), true},
		{context.Canceled, false},
		{nil, false},
	} {
		if got := follow.Broken(c.err); got != c.want {
			t.Errorf("%v: %v", c.err, got)
		}
	}
}

// frame is an entry of a log as the engine sends it where there are two streams.
func frame(text string) string {
	return string(binary.BigEndian.AppendUint32([]byte{1, 0, 0, 0}, uint32(len(text)))) + text
}

const noon = "2026-01-02T12:00:00.00000000"

// A stream that breaks is gone on with: lines of the same time are counted, a frame and a line that had not come whole
// are shown whole, and what a long line consists of stays one line.
func TestTailGoesOnWhereItBrokeOff(t *testing.T) {
	first := []string{noon + "1Z one\n", noon + "2Z same\n", noon + "2Z same\n"}
	long := strings.Repeat("x", 16<<10) // as long as a part of a line is
	then := []string{noon + "2Z same\n", noon + "2Z same\n", noon + "2Z same\n", noon + "3Z " + long, noon + "3Z " + long, noon + "3Z end\n",
		noon + "3Z " + long + "\n"}
	for _, tty := range []bool{false, true} {
		wire := func(entries []string) string {
			if tty {
				return strings.Join(entries, "")
			}
			var b strings.Builder
			for _, e := range entries {
				b.WriteString(frame(e))
			}
			return b.String()
		}
		var since []string
		api := engine(t, func(w http.ResponseWriter, r *http.Request) {
			since = append(since, r.URL.Query().Get("since"))
			if len(since) == 1 {
				half := wire(then[2:3])
				_, _ = w.Write([]byte(wire(first) + half[:len(half)-2]))
				_ = http.NewResponseController(w).Flush()
				panic(http.ErrAbortHandler)
			}
			_, _ = w.Write([]byte(wire(then)))
		})
		var out bytes.Buffer
		stdout, stderr := (&show.Logs{Out: &out, Err: &out, NoPrefix: true}).Container("web")
		tail := &follow.Tail{API: api, ID: "1", TTY: tty, Stdout: stdout, Stderr: stderr}
		if err := tail.Follow(t.Context(), client.ContainerLogsOptions{Follow: true}); !follow.Broken(err) {
			t.Fatalf("a stream that breaks: %v", err)
		}
		if err := tail.Follow(t.Context(), client.ContainerLogsOptions{Follow: true}); err != nil {
			t.Fatal(err)
		}
		if want := "one\nsame\nsame\nsame\n" + long + long + "end\n" + long + "\n"; out.String() != want {
			t.Errorf("tty %v: %q, want %q", tty, out.String(), want)
		}
		if want := "1767355200.000000002"; since[0] != "" || since[1] != want {
			t.Errorf("asked since %q, want none and %q", since, want)
		}
	}
}

// A terminal's long line, which has come in parts, is shown whole, wherever the parts were cut and the stream is.
func TestTailOfATerminalsLongLine(t *testing.T) {
	for _, length := range []int{16 << 10, 16<<10 - 1, 16<<10 - 2, 16<<10 - 3} {
		var log, want strings.Builder
		for i, part := range []string{strings.Repeat("x", length), strings.Repeat("y", length), "z"} {
			fmt.Fprintf(&log, "%s%dZ %s", noon, i, part)
			want.WriteString(part)
		}
		log.WriteString("\n" + noon + "9Z short\n")
		want.WriteString("\nshort\n")
		for _, piece := range []int{log.Len(), 4096, 31} {
			api := engine(t, func(w http.ResponseWriter, _ *http.Request) {
				for rest := log.String(); rest != ""; {
					n := min(piece, len(rest))
					_, _ = w.Write([]byte(rest[:n]))
					_ = http.NewResponseController(w).Flush()
					rest = rest[n:]
				}
			})
			var out bytes.Buffer
			stdout, stderr := (&show.Logs{Out: &out, Err: &out, NoPrefix: true}).Container("web")
			tail := &follow.Tail{API: api, ID: "1", TTY: true, Stdout: stdout, Stderr: stderr}
			if err := tail.Follow(t.Context(), client.ContainerLogsOptions{Follow: true}); err != nil {
				t.Fatal(err)
			}
			if out.String() != want.String() {
				t.Errorf("parts of %d bytes in pieces of %d: other than was said (%d bytes, not %d)", length, piece, out.Len(), want.Len())
			}
		}
	}
}

// The end of a log is right behind its last entry, of however many a line consists.
func TestTailEnd(t *testing.T) {
	for name, c := range map[string]struct {
		tty       bool
		log, want string
	}{
		"a line":                 {false, frame(noon + "1Z one\n"), noon + "2Z"},
		"a line in parts":        {false, frame(noon+"1Z one") + frame(noon+"3Z two\n"), noon + "4Z"},
		"a line of a terminal":   {true, noon + "1Z one\n", noon + "2Z"},
		"no line":                {false, "", ""},
		"no line of a terminal":  {true, "", ""},
		"a rest of a terminal's": {true, noon + "8Z $ ", noon + "9Z"},
	} {
		api := engine(t, func(w http.ResponseWriter, r *http.Request) {
			if q := r.URL.Query(); q.Get("tail") != "1" || q.Get("follow") != "" {
				t.Errorf("%s: asked for %v", name, q)
			}
			for _, b := range []byte(c.log) {
				_, _ = w.Write([]byte{b})
				_ = http.NewResponseController(w).Flush()
			}
		})
		if got, err := (&follow.Tail{API: api, ID: "1", TTY: c.tty}).End(t.Context()); err != nil || got != c.want {
			t.Errorf("%s: %q, %v, want %q", name, got, err, c.want)
		}
	}
}

// What breaks before anything was shown begins again as it was asked for, but for lines that were to be left out.
func TestTailBeginsAgain(t *testing.T) {
	var asked []string
	api := engine(t, func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.URL.Query().Get("tail"))
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})
	for tail, again := range map[string]string{"5": "5", "0": ""} {
		asked = nil
		stdout, stderr := (&show.Logs{}).Container("web")
		f := &follow.Tail{API: api, ID: "1", Stdout: stdout, Stderr: stderr}
		for range 2 {
			if err := f.Follow(t.Context(), client.ContainerLogsOptions{Follow: true, Tail: tail}); !follow.Broken(err) {
				t.Fatal(err)
			}
		}
		if len(asked) != 2 || asked[0] != tail || asked[1] != again {
			t.Errorf("asked for %q, want %q and %q", asked, tail, again)
		}
	}
}

// All who miss the engine wait together; it is told once that it is away, and once that it is back.
func TestBackIsToldOnce(t *testing.T) {
	var there atomic.Bool
	api := engine(t, func(w http.ResponseWriter, _ *http.Request) {
		if !there.Load() {
			panic(http.ErrAbortHandler)
		}
	})
	said := make(chan string, 10)
	e := &follow.Engine{API: api, Patience: time.Minute, Say: func(text string) { said <- text }}
	done := make(chan error, 5)
	for range cap(done) {
		go func() { done <- e.Back(t.Context(), time.Time{}) }()
	}
	if text := <-said; !strings.Contains(text, "is away") {
		t.Error(text)
	}
	there.Store(true)
	for range cap(done) {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if text := <-said; text != "The engine is back" || len(said) != 0 {
		t.Errorf("%q, and %d more", text, len(said))
	}
}

// An engine that does not return is not waited for without end.
func TestBackIsBounded(t *testing.T) {
	api := engine(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	e := &follow.Engine{API: api, Patience: time.Millisecond, Say: func(string) {}}
	if err := e.Back(t.Context(), time.Time{}); !errors.Is(err, follow.ErrGone) {
		t.Error(err)
	}
}
