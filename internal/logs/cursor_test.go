package logs_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cleatlabs/cleat/internal/logs"
	"github.com/cleatlabs/cleat/internal/stdio"
)

// drainCursor reads what there is now and returns the texts.
func drainCursor(t *testing.T, c *logs.Cursor) []string {
	t.Helper()
	var got []string
	for {
		lines, err := c.Next()
		if err != nil {
			t.Fatal(err)
		}
		if len(lines) == 0 {
			return got
		}
		for _, l := range lines {
			got = append(got, string(l.Text))
		}
		if at := c.At(); at.Offset < lines[len(lines)-1].End.Offset {
			t.Fatalf("the cursor is at %+v, its last line ends at %+v", at, lines[len(lines)-1].End)
		}
	}
}

func writeLines(t *testing.T, w logs.Writer, from, to int) {
	t.Helper()
	for i := from; i < to; i++ {
		text := []byte(fmt.Sprintf("line %d %s\n", i, strings.Repeat("x", i%50)))
		stream := stdio.Stdout
		if i%3 == 0 {
			stream = stdio.Stderr
		}
		if n, err := w.Append(stream, text, time.Now(), false); err != nil || n != len(text) {
			t.Fatal(n, err)
		}
	}
}

func sendingLog(t *testing.T, opts map[string]string) (logs.Config, logs.Writer) {
	t.Helper()
	c := logs.Config{Driver: "syslog", Path: filepath.Join(t.TempDir(), "c-json.log"), Opts: opts, ContainerID: strings.Repeat("a", 64)}
	w, err := logs.Open(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return c, w
}

// TestCursorFollowsRotations reads a log that rotates all the time, compressed and not,
// and begins anew at random from a noted position: every line comes once, in order.
func TestCursorFollowsRotations(t *testing.T) {
	for _, compress := range []string{"true", "false"} {
		t.Run(compress, func(t *testing.T) {
			c, w := sendingLog(t, map[string]string{"cache-max-size": "3k", "cache-max-file": "40", "cache-compress": compress})
			var at logs.Position
			var got []string
			lost := func() { t.Error("lines are said to be lost") }
			r := logs.NewCursor(c, at, lost)
			defer func() { r.Close() }()
			written := 0
			for written < 1500 {
				some := rand.IntN(60)
				writeLines(t, w, written, written+some)
				written += some
				lines, err := r.Next() // a piece only, so that it falls behind
				if err != nil {
					t.Fatal(err)
				}
				for _, l := range lines {
					got = append(got, string(l.Text))
					at = l.End
				}
				switch rand.IntN(4) {
				case 0:
					r.Rest()
				case 1: // as after a failure
					r.Seek(at)
				case 2: // as another engine does
					r.Close()
					r = logs.NewCursor(c, at, lost)
				}
			}
			got = append(got, drainCursor(t, r)...)
			for i, text := range got {
				if !strings.HasPrefix(text, fmt.Sprintf("line %d ", i)) {
					t.Fatalf("line %d is %q", i, text)
				}
			}
			if len(got) != written {
				t.Errorf("%d lines of %d", len(got), written)
			}
		})
	}
}

// TestCursorTellsOfLoss: what is rotated away before it was read is told, and reading
// goes on with what is left.
func TestCursorTellsOfLoss(t *testing.T) {
	c, w := sendingLog(t, map[string]string{"cache-max-size": "2k", "cache-max-file": "3"})
	lost := 0
	r := logs.NewCursor(c, logs.Position{}, func() { lost++ })
	defer r.Close()
	writeLines(t, w, 0, 5)
	if got := drainCursor(t, r); len(got) != 5 || lost != 0 {
		t.Fatal(got, lost)
	}
	at := r.At()
	writeLines(t, w, 5, 300)
	r.Seek(at)
	got := drainCursor(t, r)
	if lost != 1 {
		t.Errorf("told of loss %d times", lost)
	}
	if len(got) == 0 || !strings.HasPrefix(got[len(got)-1], "line 299 ") || strings.HasPrefix(got[0], "line 5 ") {
		t.Errorf("%d lines from %s", len(got), got[0])
	}
}

// TestCursorKnowsThatNothingIsLost though the file that it has read is gone.
func TestCursorKnowsThatNothingIsLost(t *testing.T) {
	for _, most := range []int{1, 2, 3} {
		var turns atomic.Uint64
		c := logs.Config{Driver: "syslog", Path: filepath.Join(t.TempDir(), "c-json.log"), Turns: &turns,
			Opts: map[string]string{"cache-max-size": "1k", "cache-max-file": strconv.Itoa(most)}}
		w, err := logs.Open(c)
		if err != nil {
			t.Fatal(err)
		}
		lost := 0
		r := logs.NewCursor(c, logs.Position{}, func() { lost++ })
		writeLines(t, w, 0, 1)
		n, got := 1, len(drainCursor(t, r)) // the first file is being read
		more := func(rotations uint64) {
			for until := turns.Load() + rotations; turns.Load() < until; n++ {
				writeLines(t, w, n, n+1)
			}
			got += len(drainCursor(t, r))
		}
		for range 10 {
			more(uint64(most))
		}
		if lost != 0 || got != n {
			t.Errorf("of %d files, told of loss %d times; %d lines of %d", most, lost, got, n)
		}
		more(uint64(most) + 1)
		if lost != 1 || got == n {
			t.Errorf("of %d files, one rotated away: told of loss %d times; %d lines of %d", most, lost, got, n)
		}
		r.Close()
		w.Close()
	}
}

// TestCursorsThatRestHoldNoBuffers: a container whose lines have been sent costs little, also where all have been sent
// at the same time.
func TestCursorsThatRestHoldNoBuffers(t *testing.T) {
	c, w := sendingLog(t, nil)
	defer w.Close()
	feed(t, w, stdio.Stdout, "a line\n", noon, false)
	before := heap()
	cursors := make([]*logs.Cursor, 100)
	for i := range cursors {
		cursors[i] = logs.NewCursor(c, logs.Position{}, func() { t.Error("lost") })
		defer cursors[i].Close()
		if lines, err := cursors[i].Next(); err != nil || len(lines) != 1 {
			t.Fatal(len(lines), err)
		}
	}
	for _, r := range cursors {
		r.Rest()
	}
	if each := (heap() - before) / int64(len(cursors)); each > 8<<10 {
		t.Errorf("each cursor that rests holds %d bytes", each)
	}
	runtime.KeepAlive(cursors)
}

// TestCursorCountsPieces: pieces of long lines have their numbers, also for a cursor
// that begins between them, and an unfinished line does not take the next run's with it.
func TestCursorCountsPieces(t *testing.T) {
	c, w := sendingLog(t, nil)
	long := []byte(strings.Repeat("z", 2*stdio.MaxLine+10) + "\n")
	if _, err := w.Append(stdio.Stdout, long, time.Now(), false); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Append(stdio.Stderr, []byte("whole\nno end"), time.Now(), true); err != nil {
		t.Fatal(err)
	}
	w.Close()
	time.Sleep(time.Millisecond) // another run begins at another time
	next, err := logs.Open(c)
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	if _, err := next.Append(stdio.Stderr, []byte("another run\n"), time.Now(), false); err != nil {
		t.Fatal(err)
	}
	type piece struct {
		size, part int
		last       bool
	}
	want := []piece{{stdio.MaxLine, 1, false}, {stdio.MaxLine, 2, false}, {10, 3, true}, {5, 0, false}, {6, 1, false}, {11, 0, false}}
	for begin := range want {
		r := logs.NewCursor(c, logs.Position{}, func() { t.Error("lost") })
		lines, err := r.Next()
		if err != nil || len(lines) != len(want) {
			t.Fatal(len(lines), err)
		}
		if begin > 0 {
			r.Seek(lines[begin-1].End)
			if lines, err = r.Next(); err != nil {
				t.Fatal(err)
			}
		}
		for i, l := range lines {
			if got := (piece{len(l.Text), l.Part, l.Last}); got != want[begin+i] {
				t.Errorf("from %d, line %d: %+v, want %+v", begin, i, got, want[begin+i])
			}
			if l.End.Lines != uint64(begin+i+1) {
				t.Errorf("line %d has number %d", begin+i, l.End.Lines)
			}
		}
		r.Close()
	}
}

// TestCursorAndTruncatedLog: an administrator empties the log under it.
func TestCursorAndTruncatedLog(t *testing.T) {
	c, w := sendingLog(t, nil)
	r := logs.NewCursor(c, logs.Position{}, func() { t.Error("lost") })
	defer r.Close()
	writeLines(t, w, 0, 10)
	if got := drainCursor(t, r); len(got) != 10 {
		t.Fatal(got)
	}
	if err := os.Truncate(c.Path, 0); err != nil {
		t.Fatal(err)
	}
	writeLines(t, w, 10, 12)
	if got := drainCursor(t, r); len(got) != 2 || !strings.HasPrefix(got[0], "line 10 ") {
		t.Error(got)
	}
}

// TestEmptyCompressedFile: what a power failure has left of a rotated file hides no other.
func TestEmptyCompressedFile(t *testing.T) {
	for _, left := range []string{"", "\x1f\x8b", strings.Repeat("\x00", 4096)} {
		c, w := sendingLog(t, nil)
		writeLines(t, w, 0, 3)
		if err := os.WriteFile(c.Path+".1.gz", []byte(left), 0o600); err != nil {
			t.Fatal(err)
		}
		r := logs.NewCursor(c, logs.Position{}, func() { t.Error("lost") })
		if got := drainCursor(t, r); len(got) != 3 {
			t.Errorf("%d bytes left: %q", len(left), got)
		}
		r.Close()
		n := 0
		err := logs.Read(t.Context(), c, logs.ReadOptions{Tail: -1, Stdout: true, Stderr: true}, nil, func(logs.Entry) error { n++; return nil })
		if err != nil || n != 3 {
			t.Errorf("%d bytes left: %d lines, %v", len(left), n, err)
		}
	}
}

func TestPositionFile(t *testing.T) {
	c, w := sendingLog(t, nil)
	if unsent, err := logs.Unsent(c); err != nil || unsent {
		t.Errorf("of an empty log: %v, %v", unsent, err)
	}
	writeLines(t, w, 0, 3)
	if unsent, err := logs.Unsent(c); err != nil || !unsent {
		t.Errorf("of a log that was never sent: %v, %v", unsent, err)
	}
	r := logs.NewCursor(c, logs.Position{}, func() {})
	drainCursor(t, r)
	at := r.At()
	r.Close()
	f, p, err := logs.OpenPosition(c)
	if err != nil || p != (logs.Position{}) {
		t.Fatal(p, err)
	}
	if err := f.Save(at); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if unsent, err := logs.Unsent(c); err != nil || unsent {
		t.Errorf("of a log that was sent: %v, %v", unsent, err)
	}
	if err := logs.CutPosition(c, at.File, at.Offset-5); err != nil {
		t.Fatal(err)
	}
	f, p, err = logs.OpenPosition(c)
	if err != nil || p.Offset != at.Offset-5 || p.First != at.First || p.Lines != at.Lines {
		t.Errorf("%+v, %v", p, err)
	}
	f.Close()
	// What a power failure leaves is no position.
	for _, b := range [][]byte{{}, make([]byte, 72), []byte("garbage")} {
		if err := os.WriteFile(logs.PositionPath(c), b, 0o600); err != nil {
			t.Fatal(err)
		}
		f, p, err := logs.OpenPosition(c)
		if err != nil || p != (logs.Position{}) {
			t.Errorf("%q: %+v, %v", b, p, err)
		}
		f.Close()
	}
}
