package logs_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cleatlabs/cleat/internal/logs"
	"github.com/cleatlabs/cleat/internal/stdio"
)

// An engine is killed after it has written to the log and before it has recorded that: the next one appends the same
// again, and the log is as it was, times included. What is not the same is new.
func TestWhatIsAppendedAgainKeepsItsTimes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	open := func() logs.Writer {
		w, err := logs.Open(logs.Config{Path: path, Opts: crashOpts})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { w.Close() })
		return w
	}
	appendTo := func(w logs.Writer, s stdio.Stream, text string, at int64) {
		if n, err := w.Append(s, []byte(text), time.Unix(at, 0), false); err != nil || n != len(text) {
			t.Fatalf("%d of %d bytes: %v", n, len(text), err)
		}
	}
	read := func() string {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	killed := open()
	appendTo(killed, stdio.Stdout, "before\n", 100)
	mark, err := killed.Mark()
	if err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("x", 2*stdio.MaxLine) + "end \x01 \"\xff\n"
	appendTo(killed, stdio.Stdout, "one\n"+long, 200)
	appendTo(killed, stdio.Stderr, "first\nsecond\n", 201)
	was := read()
	next := open()
	if err := next.Rewind(mark); err != nil {
		t.Fatal(err)
	}
	if got := read(); strings.Contains(got, "one") {
		t.Fatalf("not cut back: %.200s", got)
	}
	appendTo(next, stdio.Stdout, "one\n"+long, 300)
	appendTo(next, stdio.Stderr, "first\n", 301)
	appendTo(next, stdio.Stderr, "second\n", 302)
	if got := read(); got != was {
		t.Errorf("appended again:\n%.300s, it was\n%.300s", got, was)
	}
	other := open()
	if err := other.Rewind(mark); err != nil {
		t.Fatal(err)
	}
	appendTo(other, stdio.Stdout, "new\none\n", 500)
	if got := read(); strings.Count(got, "1970-01-01T00:08:20") != 2 {
		t.Errorf("what is new has old times: %s", got)
	}
}
