package logs_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/cleatlabs/cleat/internal/logs"
	"github.com/cleatlabs/cleat/internal/stdio"
)

var noon = time.Date(2026, 3, 4, 12, 0, 0, 120_000_000, time.UTC)

func open(t *testing.T, c logs.Config) logs.Writer {
	t.Helper()
	w, err := logs.Open(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return w
}

// feed appends all of p, as a Pump does.
func feed(t *testing.T, w logs.Writer, s stdio.Stream, p string, at time.Time, last bool) (rest string) {
	t.Helper()
	for {
		n, err := w.Append(s, []byte(p), at, last)
		if err != nil {
			t.Fatal(err)
		}
		if p = p[n:]; n == 0 || p == "" {
			return p
		}
	}
}

func all() logs.ReadOptions { return logs.ReadOptions{Tail: -1, Stdout: true, Stderr: true} }

func read(t *testing.T, c logs.Config, o logs.ReadOptions) string {
	t.Helper()
	var b strings.Builder
	err := logs.Read(context.Background(), c, o, nil, func(e logs.Entry) error { b.Write(e.Line); return nil })
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestFileFormatIsDockers(t *testing.T) {
	cases := []struct{ name, in, want string }{
		{"plain", "hello\n", `{"log":"hello\n","stream":"stdout","time":"2026-03-04T12:00:00.12Z"}`},
		{"empty line", "\n", `{"log":"\n","stream":"stdout","time":"2026-03-04T12:00:00.12Z"}`},
		{"no newline at the end", "bye", `{"log":"bye","stream":"stdout","time":"2026-03-04T12:00:00.12Z"}`},
		{"escapes", "a\tb\r\"\\<x>&\x00\x1b\x7f\n", `{"log":"a\u0009b\r\"\\\u003cx\u003e\u0026\u0000\u001b` + "\x7f" + `\n","stream":"stdout","time":"2026-03-04T12:00:00.12Z"}`},
		{"text", "grüße ☃ 🚀\n", `{"log":"grüße ☃ 🚀\n","stream":"stdout","time":"2026-03-04T12:00:00.12Z"}`},
		{"separators", "\u2028\u2029\n", `{"log":"\u2028\u2029\n","stream":"stdout","time":"2026-03-04T12:00:00.12Z"}`},
		{"not UTF-8", "a\xff\xc3(\n", `{"log":"a\ufffd\ufffd(\n","stream":"stdout","time":"2026-03-04T12:00:00.12Z"}`},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			cfg := logs.Config{Path: filepath.Join(t.TempDir(), "log")}
			feed(t, open(t, cfg), stdio.Stdout, c.in, noon, true)
			got, err := os.ReadFile(cfg.Path)
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != c.want+"\n" {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
			if !json.Valid(got) {
				t.Error("not JSON")
			}
			if got := read(t, cfg, all()); got != strings.ToValidUTF8(c.in, "\ufffd") && c.name != "not UTF-8" {
				t.Errorf("read back %q", got)
			}
		})
	}
}

// Drivers whose files are nobody's but the engine's keep each byte: what is no text is not to be in json-file alone, whose
// files are JSON.
func TestBytesAreKept(t *testing.T) {
	const text = "a\xff\xc3( \xe2\x82 <\u2028\x00\x1b\"\\> \u00e9\n\xfe\xfd\n"
	for driver, want := range map[string]string{
		"local": text, "syslog": text, "fluentd": text, "json-file": string([]rune(text)), "": string([]rune(text)),
	} {
		cfg := logs.Config{Driver: driver, Path: filepath.Join(t.TempDir(), "log")}
		feed(t, open(t, cfg), stdio.Stdout, text, noon, true)
		if got := read(t, cfg, all()); got != want {
			t.Errorf("%q gives back %q, want %q", driver, got, want)
		}
		cursor := logs.NewCursor(cfg, logs.Position{}, func() {})
		defer cursor.Close()
		lines, err := cursor.Next()
		var sent string
		for _, l := range lines {
			sent += string(l.Text) + "\n"
		}
		if err != nil || sent != want {
			t.Errorf("%q sends %q, want %q: %v", driver, sent, want, err)
		}
	}
}

func TestLongLinesAreSplitAsDockerSplitsThem(t *testing.T) {
	const limit = 16 << 10
	for _, size := range []int{limit - 1, limit, limit + 1, 3*limit + 5} {
		cfg := logs.Config{Path: filepath.Join(t.TempDir(), "log")}
		w := open(t, cfg)
		line := strings.Repeat("x", size) + "\n"
		feed(t, w, stdio.Stderr, line+"next\n", noon, false)
		var pieces []int
		var times []time.Time
		err := logs.Read(context.Background(), cfg, all(), nil, func(e logs.Entry) error {
			pieces = append(pieces, len(e.Line))
			times = append(times, e.Time)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		var want []int
		for n := size; ; n -= limit {
			if n < limit {
				want = append(want, n+1, 5)
				break
			}
			want = append(want, limit)
		}
		if fmt.Sprint(pieces) != fmt.Sprint(want) {
			t.Errorf("%d bytes: pieces %v, want %v", size, pieces, want)
		}
		for _, at := range times[:len(times)-1] {
			if !at.Equal(noon) {
				t.Errorf("the pieces of one line have different times: %v", times)
			}
		}
	}
}

// TestPiecesEndBetweenCharacters: a character that lies across the end of a piece is in the next one whole, and bytes
// that are no text end a piece nowhere else than Docker does.
func TestPiecesEndBetweenCharacters(t *testing.T) {
	const limit = 16 << 10
	for _, c := range []struct {
		line  string
		first int // length of the first piece
	}{
		{strings.Repeat("x", limit-1) + strings.Repeat("é", limit), limit - 1},
		{strings.Repeat("x", limit-2) + strings.Repeat("é", limit), limit},
		{strings.Repeat("€", limit), limit - 1},
		{"x" + strings.Repeat("😀", limit), limit - 3},
		{strings.Repeat("x", limit-1) + "\xc3x" + strings.Repeat("x", limit), limit - 1}, // what follows could have been its rest
		{strings.Repeat("x", limit-2) + "\xe2\xffx", limit},
		{strings.Repeat("\xbf", limit+1), limit},
	} {
		cfg := logs.Config{Path: filepath.Join(t.TempDir(), "log")}
		feed(t, open(t, cfg), stdio.Stdout, c.line+"\n", noon, false)
		if got, want := read(t, cfg, all()), strings.Map(func(r rune) rune { return r }, c.line)+"\n"; got != want {
			t.Errorf("%.8q… came back as %.8q… (%d and %d bytes)", c.line, got, len(c.line)+1, len(got))
		}
		var pieces []int
		err := logs.Read(context.Background(), cfg, all(), nil, func(e logs.Entry) error {
			pieces = append(pieces, len(strings.ReplaceAll(string(e.Line), "\ufffd", "?")))
			return nil
		})
		if err != nil || pieces[0] != c.first {
			t.Errorf("pieces of %.8q…: %d, %v; want the first to have %d bytes", c.line, pieces, err, c.first)
		}
	}
}

func TestUnfinishedLineWaits(t *testing.T) {
	cfg := logs.Config{Path: filepath.Join(t.TempDir(), "log")}
	w := open(t, cfg)
	rest := feed(t, w, stdio.Stdout, "one\ntw", noon, false)
	if rest != "tw" {
		t.Fatalf("unconsumed %q", rest)
	}
	feed(t, w, stdio.Stderr, "err\n", noon, false)
	feed(t, w, stdio.Stdout, rest+"o\n", noon, false)
	if got := read(t, cfg, all()); got != "one\nerr\ntwo\n" {
		t.Errorf("got %q", got)
	}
}

func TestAttributesTimestampsDetails(t *testing.T) {
	cfg := logs.Config{
		Path:   filepath.Join(t.TempDir(), "log"),
		Opts:   map[string]string{"labels": "app,none", "env-regex": "^LC_", "tag": "{{.Name}}/{{.ID}}"},
		Labels: map[string]string{"app": "a b", "other": "x"}, Env: []string{"LC_ALL=C", "PATH=/bin"},
		ContainerID: strings.Repeat("0123456789abcdef", 4), ContainerName: "/web",
	}
	feed(t, open(t, cfg), stdio.Stdout, "hi\n", noon, true)
	raw, _ := os.ReadFile(cfg.Path)
	want := `{"log":"hi\n","stream":"stdout","attrs":{"LC_ALL":"C","app":"a b","tag":"web/0123456789ab"},"time":"2026-03-04T12:00:00.12Z"}` + "\n"
	if string(raw) != want {
		t.Errorf("got  %swant %s", raw, want)
	}
	o := all()
	o.Timestamps, o.Details = true, true
	if got, want := read(t, cfg, o), "2026-03-04T12:00:00.120000000Z LC_ALL=C,app=a+b,tag=web%2F0123456789ab hi\n"; got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestRotation(t *testing.T) {
	for _, compressed := range []string{"false", "true"} {
		t.Run("compress="+compressed, func(t *testing.T) {
			cfg := logs.Config{Path: filepath.Join(t.TempDir(), "log"), Opts: map[string]string{"max-size": "1k", "max-file": "3", "compress": compressed}}
			w := open(t, cfg)
			var text strings.Builder
			for i := range 200 {
				line := fmt.Sprintf("line %03d\n", i)
				text.WriteString(line)
				feed(t, w, stdio.Stdout, line, noon.Add(time.Duration(i)*time.Second), false)
			}
			w.Close()
			files, err := logs.Files(cfg)
			if err != nil || len(files) != 3 {
				t.Fatalf("files %v, %v", files, err)
			}
			if got := strings.HasSuffix(files[0], ".gz"); fmt.Sprint(got) != compressed {
				t.Errorf("files %v", files)
			}
			for _, f := range files {
				if st, err := os.Stat(f); err != nil || st.Size() > 1100 {
					t.Errorf("%s has %d bytes, %v", f, st.Size(), err)
				}
			}
			got := read(t, cfg, all())
			if !strings.HasSuffix(text.String(), got) || strings.Count(got, "\n") < 20 {
				t.Errorf("read back %q", got)
			}
			for _, n := range []int{0, 1, 5, 14, 15, 16, 29, 30, 31} {
				o := all()
				o.Tail = n
				lines := strings.SplitAfter(strings.TrimSuffix(text.String(), "\n"), "\n")
				want := strings.Join(lines[len(lines)-n:], "")
				if n > 0 {
					want += "\n"
				}
				if max := strings.Count(got, "\n"); n > max {
					want = got
				}
				if g := read(t, cfg, o); g != want {
					t.Errorf("tail %d: %q, want %q", n, g, want)
				}
			}
			o := all()
			o.Since, o.Until = noon.Add(190*time.Second), noon.Add(192*time.Second)
			if g := read(t, cfg, o); g != "line 190\nline 191\nline 192\n" {
				t.Errorf("since, until: %q", g)
			}
			files, err = logs.Files(cfg)
			if left, _ := os.ReadDir(filepath.Dir(cfg.Path)); err != nil || len(left) != len(files) {
				t.Errorf("left over: %v besides %v, %v", left, files, err)
			}
		})
	}
}

// TestRotationByDefault: a container whose options name no limit cannot fill the disk.
func TestRotationByDefault(t *testing.T) {
	cfg := logs.Config{Path: filepath.Join(t.TempDir(), "log")}
	w := open(t, cfg)
	line := strings.Repeat("x", 15_999) + "\n"
	const size, most, written = 20_000_000, 5, 5*20_000_000 + 5_000_000
	for n := 0; n < written; n += len(line) {
		feed(t, w, stdio.Stdout, line, noon, false)
	}
	w.Close()
	files, err := logs.Files(cfg)
	if err != nil || len(files) != most {
		t.Fatalf("%d files, %v; want %d", len(files), err, most)
	}
	for i, f := range files {
		st, err := os.Stat(f)
		if err != nil || st.Size() > size+int64(len(line))+100 || f != cfg.Path && st.Size() < size-int64(len(line))-100 {
			t.Errorf("file %d of %d, %s, has %d bytes, %v", i+1, most, f, st.Size(), err)
		}
	}
}

func TestSingleFileStartsAnew(t *testing.T) {
	cfg := logs.Config{Path: filepath.Join(t.TempDir(), "log"), Opts: map[string]string{"max-size": "500", "max-file": "1"}}
	w := open(t, cfg)
	for i := range 100 {
		feed(t, w, stdio.Stdout, fmt.Sprintf("line %d\n", i), noon, false)
	}
	feed(t, w, stdio.Stdout, "end\n", noon, false)
	files, _ := logs.Files(cfg)
	if got := read(t, cfg, all()); len(files) != 1 || !strings.HasSuffix(got, "end\n") || len(got) > 100 {
		t.Errorf("%v: %q", files, got)
	}
}

func TestReadsDockersAndOddFiles(t *testing.T) {
	cfg := logs.Config{Path: filepath.Join(t.TempDir(), "log")}
	file := strings.Join([]string{
		`{"log":"docker\n","stream":"stdout","attrs":{"a":"}\",\"time\":\"x"},"time":"2024-05-01T10:11:12.123456789Z"}`,
		`{"stream":"stderr","log":"other order\n","time":"2024-05-01T12:11:12+02:00"}`,
		"\x00\x00\x00\x00",
		`{"log":"torn in the mid`,
		`{"log":"\ud83d\ude80 \u00e4\/\t\n","stream":"stdout","time":"2024-05-01T10:11:13Z"}`,
		`{"log":"unfinished last line`,
	}, "\n")
	if err := os.WriteFile(cfg.Path, []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	o := all()
	o.Timestamps = true
	want := "2024-05-01T10:11:12.123456789Z docker\n2024-05-01T10:11:12.000000000Z other order\n2024-05-01T10:11:13.000000000Z 🚀 ä/\t\n"
	if got := read(t, cfg, o); got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	o = all()
	o.Stdout = false
	if got := read(t, cfg, o); got != "other order\n" {
		t.Errorf("stderr only: %q", got)
	}
	// A writer cuts the torn end before it goes on.
	feed(t, open(t, cfg), stdio.Stdout, "new\n", noon, false)
	if got := read(t, cfg, all()); !strings.HasSuffix(got, "🚀 ä/\t\nnew\n") {
		t.Errorf("after a torn end: %q", got)
	}
}

func TestCutShortCompressedFileGivesWhatItHas(t *testing.T) {
	cfg := logs.Config{Path: filepath.Join(t.TempDir(), "log")}
	feed(t, open(t, cfg), stdio.Stdout, "young\n", noon, false)
	var z bytes.Buffer
	zw := gzip.NewWriter(&z)
	fmt.Fprintln(zw, `{"log":"old\n","stream":"stdout","time":"2024-05-01T10:11:13Z"}`)
	zw.Flush()
	if err := os.WriteFile(cfg.Path+".1.gz", z.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := read(t, cfg, all()); got != "old\nyoung\n" {
		t.Errorf("got %q", got)
	}
}

// following runs Read with Follow; lines come out of the channel.
func following(t *testing.T, c logs.Config, o logs.ReadOptions, live chan struct{}) (lines chan string, result chan error, cancel func()) {
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	o.Follow = true
	lines, result = make(chan string, 100000), make(chan error, 1)
	go func() {
		result <- logs.Read(ctx, c, o, live, func(e logs.Entry) error { lines <- string(e.Line); return nil })
		close(lines)
	}()
	return lines, result, cancel
}

func expect(t *testing.T, lines chan string, want ...string) {
	t.Helper()
	for _, w := range want {
		select {
		case got, ok := <-lines:
			if got != w {
				t.Fatalf("got %q (%v), want %q", got, ok, w)
			}
		case <-time.After(time.Minute):
			t.Fatalf("%q did not come", w)
		}
	}
}

func TestValidationNamesTheOption(t *testing.T) {
	cases := []struct {
		driver string
		opts   map[string]string
		want   string
	}{
		{"splunk", nil, "no log driver named 'splunk'"},
		{"syslog", map[string]string{"max-size": "1m"}, "unknown log opt 'max-size' for syslog log driver"},
		{"syslog", map[string]string{"cache-max-file": "0"}, "cache-max-file=0"},
		{"syslog", map[string]string{"cache-compress": "true", "cache-max-file": "1"}, "cache-compress cannot be true"},
		{"json-file", map[string]string{"maxsize": "1"}, "unknown log opt 'maxsize' for json-file log driver"},
		{"", map[string]string{"max-size": "-5"}, "max-size=-5"},
		{"", map[string]string{"max-size": "big"}, "max-size=big"},
		{"", map[string]string{"max-size": "0"}, "max-size=0"},
		{"", map[string]string{"max-file": "0"}, "max-file=0"},
		{"", map[string]string{"max-file": "two"}, "max-file=two"},
		{"", map[string]string{"compress": "maybe"}, "compress=maybe"},
		{"", map[string]string{"compress": "true", "max-file": "1"}, "compress cannot be true"},
		{"", map[string]string{"compress": "true", "max-size": "-1"}, "compress cannot be true"},
		{"", map[string]string{"labels-regex": "("}, "labels-regex"},
		{"", map[string]string{"tag": "{{.Nope}}"}, "tag"},
		{"", map[string]string{"mode": "x"}, "logging mode not supported: x"},
		{"", map[string]string{"max-buffer-size": "1m"}, "only supported with 'mode=non-blocking'"},
		{"", map[string]string{"max-buffer-size": "x", "mode": "non-blocking"}, "max-buffer-size"},
	}
	for _, c := range cases {
		err := logs.Validate(c.driver, c.opts)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s %v: %v, want %q", c.driver, c.opts, err, c.want)
		}
		if !errdefs.IsInvalidArgument(err) && !errdefs.IsNotImplemented(err) {
			t.Errorf("%v has no class", err)
		}
	}
	good := map[string]string{"max-size": "10m", "max-file": "3", "compress": "true", "mode": "blocking", "labels": "a", "env": "b", "tag": "{{.ID}}"}
	if err := logs.Validate("json-file", good); err != nil {
		t.Error(err)
	}
	if err := logs.Validate("json-file", map[string]string{"max-size": "-1"}); err != nil {
		t.Error(err)
	}
}

// Docker looks at none of them, so that a log can be switched off without taking its options away.
func TestNoneTakesAnyOptions(t *testing.T) {
	for _, opts := range []map[string]string{
		{"max-size": "big"}, {"nope": "1"}, {"mode": "x"}, {"max-buffer-size": "4m"}, {"tag": "{{.Nope}}"}, {"labels-regex": "("}, {"cache-disabled": "x"},
	} {
		if err := logs.Validate("none", opts); err != nil {
			t.Errorf("%v: %v", opts, err)
		}
	}
}

func TestNoneKeepsNothing(t *testing.T) {
	c := logs.Config{Driver: "none", Path: filepath.Join(t.TempDir(), "log")}
	if w, err := logs.Open(c); w != nil || err != nil {
		t.Errorf("Open: %v, %v", w, err)
	}
	err := logs.Read(context.Background(), c, all(), nil, nil)
	if !errdefs.IsNotImplemented(err) {
		t.Errorf("Read: %v", err)
	}
}

func TestAdministratorTruncatesTheLog(t *testing.T) {
	cfg := logs.Config{Path: filepath.Join(t.TempDir(), "log")}
	live := make(chan struct{})
	w := open(t, cfg)
	feed(t, w, stdio.Stdout, "a\n", noon, false)
	lines, _, _ := following(t, cfg, all(), live)
	expect(t, lines, "a\n")
	if err := os.Truncate(cfg.Path, 0); err != nil {
		t.Fatal(err)
	}
	feed(t, w, stdio.Stdout, "b\n", noon, false)
	m, err := w.Mark()
	if err != nil {
		t.Fatal(err)
	}
	if st, _ := os.Stat(cfg.Path); st.Size() != m.Offset {
		t.Errorf("mark at %d of %d bytes", m.Offset, st.Size())
	}
	if got := read(t, cfg, all()); got != "b\n" {
		t.Errorf("got %q", got)
	}
	close(live)
}

// Who reads up to a mark, and what comes after it from elsewhere, gets nothing that was written later: neither from the
// file that the mark is in nor, when that is rotated, from the next.
func TestReadingEndsAtAMark(t *testing.T) {
	cfg := logs.Config{Path: filepath.Join(t.TempDir(), "log"), Opts: map[string]string{"max-size": "250", "compress": "false"}}
	w := open(t, cfg)
	feed(t, w, stdio.Stdout, "a\nb\n", noon, false)
	m, err := w.Mark()
	if err != nil {
		t.Fatal(err)
	}
	o := all()
	o.To = m
	for _, later := range []string{"c\n", "d\ne\nf\n"} {
		feed(t, w, stdio.Stdout, later, noon, false)
		if got := read(t, cfg, o); got != "a\nb\n" {
			t.Errorf("up to the mark, after %q: %q", later, got)
		}
	}
	if files, err := logs.Files(cfg); err != nil || len(files) < 2 {
		t.Errorf("nothing was rotated: %v %v", files, err)
	}
	if got := read(t, cfg, all()); got != "a\nb\nc\nd\ne\nf\n" {
		t.Errorf("all: %q", got)
	}
}

// TestLogThenLiveHasNoGapAndNoDouble is what an attach with logs=1 and stream=1
// does, again and again while output is being written.
func TestLogThenLiveHasNoGapAndNoDouble(t *testing.T) {
	dir, cfg := crashDirs(t)
	r, pw, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	hub := stdio.NewHub()
	p, err := stdio.Start(stdio.Config{Dir: dir, Stdout: r, Sink: open(t, cfg), Hub: hub})
	if err != nil {
		t.Fatal(err)
	}
	var stop atomic.Bool
	var total int64
	written := make(chan struct{})
	go func() { total = produce(t, "out", pw, &stop); close(written) }()
	var clients sync.WaitGroup
	for range 10 {
		var log []byte
		sub, mark, err := hub.SubscribeAfterLog(true, true)
		if err != nil {
			t.Fatal(err)
		}
		clients.Go(func() {
			o := all()
			o.To = mark
			if mark.File != 0 { // else there is no log yet
				err := logs.Read(context.Background(), cfg, o, nil, func(e logs.Entry) error { log = append(log, e.Line...); return nil })
				if err != nil {
					t.Error(err)
				}
			}
			for {
				_, b, err := sub.Next(context.Background())
				if err != nil {
					break
				}
				log = append(log, b...)
			}
			<-written
			g := newGenerator("out")
			var want []byte
			for int64(len(want)) < total {
				want = append(want, g.next()...)
			}
			if !bytes.Equal(log, want) {
				t.Errorf("a client got %d bytes that are not the %d written", len(log), len(want))
			}
		})
		time.Sleep(2 * time.Millisecond)
	}
	stop.Store(true)
	clients.Wait()
	<-p.Done()
}

func TestTailDoesNotRunAfterTheWriter(t *testing.T) {
	cfg := logs.Config{Path: filepath.Join(t.TempDir(), "log")}
	w := open(t, cfg)
	feed(t, w, stdio.Stdout, "a\nb\nc\n", noon, false)
	o := all()
	o.Tail = 2
	var got []string
	err := logs.Read(context.Background(), cfg, o, nil, func(e logs.Entry) error {
		got = append(got, string(e.Line))
		feed(t, w, stdio.Stdout, strings.Repeat("more\n", 20000), noon, false) // beyond a read buffer
		return nil
	})
	if err != nil || len(got) != 2 || got[1] != "c\n" {
		t.Errorf("%d lines, %v", len(got), err)
	}
}

func TestFlushComesBeforeWaiting(t *testing.T) {
	cfg := logs.Config{Path: filepath.Join(t.TempDir(), "log")}
	w := open(t, cfg)
	feed(t, w, stdio.Stdout, "a\n", noon, false)
	flushed := make(chan struct{}, 100)
	o := all()
	o.Flush = func() error { flushed <- struct{}{}; return io.ErrClosedPipe }
	live := make(chan struct{})
	_, result, _ := following(t, cfg, o, live)
	<-flushed
	if err := <-result; !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("the client's error is lost: %v", err)
	}
}

// heap is how many bytes are held.
func heap() int64 {
	runtime.GC()
	runtime.GC() // the first only retires what pools hold
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestReadersThatWaitHoldNoBuffers: a thousand clients that do not read what they asked
// for cost little, also where all of them have read at the same time, each into a buffer of its own.
func TestReadersThatWaitHoldNoBuffers(t *testing.T) {
	cfg := logs.Config{Path: filepath.Join(t.TempDir(), "log"), Pool: new(stdio.Pool)}
	w := open(t, cfg)
	for i := range 2000 {
		feed(t, w, stdio.Stdout, strings.Repeat("x", 99)+"\n", noon.Add(time.Duration(i)), false)
	}
	const readers = 200
	before := heap()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var reading, waiting, over sync.WaitGroup
	reading.Add(readers)
	waiting.Add(readers)
	for range readers {
		over.Go(func() {
			o, rounds := all(), 0
			o.Ready = func(ctx context.Context) error {
				if rounds++; rounds < 3 { // two pieces are taken, the third is waited with
					return nil
				}
				waiting.Done()
				<-ctx.Done()
				return ctx.Err()
			}
			together := sync.OnceFunc(func() { reading.Done(); reading.Wait() })
			emit := func(logs.Entry) error {
				if rounds == 2 {
					together()
				}
				return nil
			}
			if err := logs.Read(ctx, cfg, o, nil, emit); !errors.Is(err, context.Canceled) {
				t.Errorf("the reading ended with %v", err)
			}
		})
	}
	waiting.Wait()
	if each := (heap() - before) / readers; each > 8<<10 {
		t.Errorf("each reader that waits holds %d bytes", each)
	}
	cancel()
	over.Wait()
}
