package assemble

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"

	"golang.org/x/sys/unix"
)

// isJournal says whether f is the stream that systemd's journal reads (sd_journal_stream_fd(3)): stream is the variable
// JOURNAL_STREAM, which a program keeps that has been given another standard error since.
func isJournal(f *os.File, stream string) bool {
	var st unix.Stat_t
	if stream == "" || unix.Fstat(int(f.Fd()), &st) != nil {
		return false
	}
	return fmt.Sprintf("%d:%d", st.Dev, st.Ino) == stream
}

// levels are handlers of records of each level: up to debug, information, warnings, errors.
type levels [4]slog.Handler

// journalHandler has each record begin with its priority in angle brackets, as the journal takes it off a line
// (sd-daemon(3)): journalctl -p finds errors by it. make returns the handler that writes to w, one write for a record.
func journalHandler(w io.Writer, make func(io.Writer) slog.Handler) slog.Handler {
	var l levels
	for i, prefix := range []string{"<7>", "<6>", "<4>", "<3>"} {
		l[i] = make(prefixed{w, prefix})
	}
	return l
}

func (l levels) of(level slog.Level) slog.Handler {
	switch {
	case level >= slog.LevelError:
		return l[3]
	case level >= slog.LevelWarn:
		return l[2]
	case level >= slog.LevelInfo:
		return l[1]
	}
	return l[0]
}

func (l levels) Enabled(ctx context.Context, level slog.Level) bool {
	return l.of(level).Enabled(ctx, level)
}

func (l levels) Handle(ctx context.Context, r slog.Record) error {
	return l.of(r.Level).Handle(ctx, r)
}

func (l levels) WithAttrs(attrs []slog.Attr) slog.Handler {
	for i := range l {
		l[i] = l[i].WithAttrs(attrs)
	}
	return l
}

func (l levels) WithGroup(name string) slog.Handler {
	for i := range l {
		l[i] = l[i].WithGroup(name)
	}
	return l
}

// prefixed writes prefix before what each write brings, in the same write.
type prefixed struct {
	w      io.Writer
	prefix string
}

func (p prefixed) Write(b []byte) (int, error) {
	n, err := p.w.Write(append([]byte(p.prefix), b...))
	return max(n-len(p.prefix), 0), err
}
