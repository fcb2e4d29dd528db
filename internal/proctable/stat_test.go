package proctable

import (
	"strings"
	"testing"
)

func FuzzParseStat(f *testing.F) {
	tail := strings.Repeat(" 1", statFields)
	for _, seed := range []string{"1 (init) S" + tail, "7 (a) b) R (c) S" + tail, "7 (", "", ")(", "1 (x\ny\x00) S" + tail} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		comm, fields, ok := parseStat(text)
		if ok && len(fields) < statFields {
			t.Errorf("%q: %d fields", text, len(fields))
		}
		if strings.ContainsAny(comm, "\n\t\x00\x1b") {
			t.Errorf("%q: the command %q breaks lines", text, comm)
		}
	})
}

func TestDurations(t *testing.T) {
	for seconds, want := range map[int64]string{0: "00:00", 59: "00:59", 60: "01:00", 3600: "01:00:00", 86400: "1-00:00:00", 90061: "1-01:01:01"} {
		if got := elapsed(seconds); got != want {
			t.Errorf("%d s: %s, want %s", seconds, got, want)
		}
	}
	for part, want := range map[float64]string{0: "0.0", 0.0123: "1.2", 0.5: "50.0", 0.9999: "99.9", 1: "100", 12.5: "1250"} {
		if got := percent(part); got != want {
			t.Errorf("%v: %s, want %s", part, got, want)
		}
	}
}

func TestTerminalNames(t *testing.T) {
	for number, want := range map[string]string{"0": "?", "34816": "pts/0", "34819": "pts/3", "1025": "tty1", "1088": "ttyS0", "1281": "console", "35072": "pts/256", "99999": "?"} {
		p := &process{stat: []string{statTTY: number}}
		if got := p.tty(); got != want {
			t.Errorf("%s: %s, want %s", number, got, want)
		}
	}
}
