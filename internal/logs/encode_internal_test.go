package logs

import (
	"strings"
	"testing"
	"time"

	"github.com/cleatlabs/cleat/internal/stdio"
)

// BenchmarkEncode is what a line costs before it is written.
func BenchmarkEncode(b *testing.B) {
	line := []byte(strings.Repeat("a typical line of a hundred bytes ", 3)[:99])
	var e encoder
	out := make([]byte, 0, 64<<10)
	at := time.Date(2026, 1, 2, 3, 4, 5, 123456789, time.UTC).UnixNano()
	b.SetBytes(int64(len(line) + 1))
	for i := range b.N {
		if len(out) > 63<<10 {
			out = out[:0]
		}
		out = e.append(out, stdio.Stdout, line, false, at+int64(i))
	}
}

// TestStampCounts: times that follow one another, jump, go back and cross a second are
// each formatted as if they were the only one.
func TestStampCounts(t *testing.T) {
	var s stamp
	at := time.Date(2026, 1, 2, 3, 4, 5, 999_999_990, time.UTC).UnixNano()
	for _, step := range []int64{0, 1, 1, 1, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 100, 1, 900, 1, -5, 1, 1, 8_999, 1, 1e9, 1, -3e9, 1} {
		at += step
		for _, fixed := range []bool{false, true} {
			layout := "2006-01-02T15:04:05.999999999Z"
			if fixed {
				layout = "2006-01-02T15:04:05.000000000Z"
			}
			if got, want := string(s.append(nil, at, fixed)), time.Unix(0, at).UTC().Format(layout); got != want {
				t.Errorf("%s, want %s", got, want)
			}
		}
	}
}
