package assemble

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

func TestJournalHandler(t *testing.T) {
	var out bytes.Buffer
	plain := func(w io.Writer) slog.Handler {
		return slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelInfo, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}})
	}
	log := slog.New(journalHandler(&out, plain))
	log.Debug("not shown")
	log.Info("up")
	log.With("id", 1).Warn("two\nlines")
	log.WithGroup("g").Error("gone", "k", "v")
	want := "<6>level=INFO msg=up\n<4>level=WARN msg=\"two\\nlines\" id=1\n<3>level=ERROR msg=gone g.k=v\n"
	if out.String() != want {
		t.Errorf("written:\n%swanted:\n%s", out.String(), want)
	}
}

func TestIsJournal(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(w.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	for stream, want := range map[string]bool{"": false, "8:1": false, "x": false, fmt.Sprintf("%d:%d", st.Dev, st.Ino): true} {
		if isJournal(w, stream) != want {
			t.Errorf("JOURNAL_STREAM=%q: %v", stream, !want)
		}
	}
}
