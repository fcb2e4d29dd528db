package term_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/creack/pty"
	"github.com/moby/moby/api/types/jsonstream"

	"github.com/cleatlabs/cleat/client/term"
)

func TestWidthAndEllipsis(t *testing.T) {
	for s, want := range map[string]int{"": 0, "abc": 3, "日本": 4, "aé": 2, "ｱ": 1, "Ａ": 2} {
		if got := term.Width(s); got != want {
			t.Errorf("Width(%q) = %d, want %d", s, got, want)
		}
	}
	for _, c := range []struct {
		s    string
		cols int
		want string
	}{
		{"abc", 3, "abc"}, {"abcd", 3, "ab…"}, {"abcd", 1, "a"}, {"abcd", 0, ""}, {"", 5, ""}, {"日本語", 6, "日本語"}, {"日本語", 5, "日本…"},
		{"日本語", 4, "日…"}, {"日本語", 1, "日"}, {"éèê", 2, "é…"},
	} {
		if got := term.Ellipsis(c.s, c.cols); got != c.want {
			t.Errorf("Ellipsis(%q, %d) = %q, want %q", c.s, c.cols, got, c.want)
		}
	}
}

func TestTable(t *testing.T) {
	for in, want := range map[string]string{
		"A\tB\nlonger than it\tx\n":     "A                B\nlonger than it   x\n",
		"A\tB\n":                        "A         B\n",
		"日本語日本語\tx\na\ty\n":             "日本語日本語   x\na              y\n",
		"one\tcell\n\nshort\ttwo\n":     "one       cell\n\nshort     two\n",
		"no newline\tat end":            "no newline   at end",
		"":                              "",
		"a\t\tc\nb\t\td\n":              "a                   c\nb                   d\n",
		"x\ty\tz\nonly one\nx\ty\tlong": "x         y         z\nonly one\nx         y         long",
	} {
		var out bytes.Buffer
		tab := term.NewTable(&out, 10, 3)
		io.WriteString(tab, in)
		if err := tab.Flush(); err != nil {
			t.Fatal(err)
		}
		if out.String() != want {
			t.Errorf("%q:\n%q, want\n%q", in, out.String(), want)
		}
	}
}

// FuzzTable holds the layout of ASCII text against the standard library's tables.
func FuzzTable(f *testing.F) {
	for _, s := range []string{"A\tB\nx\ty\n", "a\t\tb\n", "x\ny\tz\n\n", "\t\n\t\t\n", "ab\tc"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, r := range s {
			if (r < ' ' && r != '\t' && r != '\n') || r > '~' {
				t.Skip()
			}
		}
		s += "\n" // what stands after the last newline is laid out by its own rules there
		var got, want bytes.Buffer
		ours, theirs := term.NewTable(&got, 10, 3), tabwriter.NewWriter(&want, 10, 1, 3, ' ', 0)
		io.WriteString(ours, s)
		io.WriteString(theirs, s)
		ours.Flush()
		theirs.Flush()
		if got.String() != want.String() {
			t.Errorf("%q:\nours   %q\ntheirs %q", s, got.String(), want.String())
		}
	})
}

func TestDetachKeys(t *testing.T) {
	for in, want := range map[string]string{"": "\x10\x11", "ctrl-p,ctrl-q": "\x10\x11", "a,b": "ab", "ctrl-@": "\x00", "ctrl-[,ctrl-_": "\x1b\x1f"} {
		if got, err := term.ParseDetachKeys(in); err != nil || string(got) != want {
			t.Errorf("%q: %q, %v", in, got, err)
		}
	}
	for _, bad := range []string{"ctrl-", "abc", "ctrl-1", ","} {
		if got, err := term.ParseDetachKeys(bad); err == nil {
			t.Errorf("%q is taken as %q", bad, got)
		}
	}
}

func TestDetachReader(t *testing.T) {
	for _, c := range []struct {
		chunks   []string
		want     string
		detached bool
	}{
		{[]string{"abc"}, "abc", false}, {[]string{"a", "\x10", "\x11", "b"}, "a", true}, {[]string{"\x10", "x"}, "\x10x", false},
	} {
		var in io.Reader = &chunked{c.chunks}
		got, err := io.ReadAll(term.NewDetachReader(in, []byte{16, 17}))
		if errors.Is(err, term.ErrDetached) != c.detached || !strings.HasPrefix(string(got), c.want) {
			t.Errorf("%q: %q, %v", c.chunks, got, err)
		}
	}
}

type chunked struct{ rest []string }

func (c *chunked) Read(p []byte) (int, error) {
	if len(c.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(p, c.rest[0])
	c.rest = c.rest[1:]
	return n, nil
}

func FuzzDetachKeys(f *testing.F) {
	f.Add("ctrl-p,ctrl-q")
	f.Add("ctrl-")
	f.Fuzz(func(t *testing.T, s string) {
		if keys, err := term.ParseDetachKeys(s); err == nil && len(keys) == 0 {
			t.Errorf("%q is no sequence and no error", s)
		}
	})
}

func message(id, status string, p *jsonstream.Progress) jsonstream.Message {
	return jsonstream.Message{ID: id, Status: status, Progress: p}
}

func TestProgressInAPipe(t *testing.T) {
	var out bytes.Buffer
	p := term.NewProgress(term.NewOutput(&out))
	for _, m := range []jsonstream.Message{
		message("latest", "Pulling from library/x", nil), message("aa", "Pulling fs layer", &jsonstream.Progress{}),
		message("aa", "Downloading", &jsonstream.Progress{Current: 1, Total: 10}), message("aa", "Pull complete", &jsonstream.Progress{}),
		message("", "Status: done", nil), {Stream: "Loaded image: x\n"},
	} {
		if err := p.Show(m); err != nil {
			t.Fatal(err)
		}
	}
	if want := "latest: Pulling from library/x\naa: Pulling fs layer\naa: Pull complete\nStatus: done\nLoaded image: x\n"; out.String() != want {
		t.Errorf("%q", out.String())
	}
	if err := p.Show(jsonstream.Message{Error: &jsonstream.Error{Message: "no space left"}}); err == nil || err.Error() != "no space left" {
		t.Errorf("%v", err)
	}
}

// screen is a terminal of our own, with a program that reads what it would show.
func screen(t *testing.T, rows, cols uint16) (*term.Output, func() string) {
	t.Helper()
	master, slave, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	if err := pty.Setsize(master, &pty.Winsize{Rows: rows, Cols: cols}); err != nil {
		t.Fatal(err)
	}
	read := make(chan string)
	go func() {
		b, _ := io.ReadAll(master)
		read <- string(b)
	}()
	return term.NewOutput(slave), func() string {
		slave.Close()
		select {
		case s := <-read:
			return s
		case <-time.After(time.Minute):
			t.Fatal("the terminal does not end")
			return ""
		}
	}
}

// shown replays cursor movements and returns the lines that a person sees.
func shown(s string) []string {
	lines, row, col := []string{""}, 0, 0
	put := func(r rune) {
		for row >= len(lines) {
			lines = append(lines, "")
		}
		l := []rune(lines[row])
		for len(l) <= col {
			l = append(l, ' ')
		}
		l[col] = r
		lines[row], col = string(l), col+1
	}
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\n':
			row++
			if row >= len(lines) {
				lines = append(lines, "")
			}
		case s[i] == '\r':
			col = 0
		case strings.HasPrefix(s[i:], "\x1b[2K"):
			lines[row] = ""
			i += 3
		case s[i] == 0x1b:
			n := 0
			for i += 2; s[i] >= '0' && s[i] <= '9'; i++ {
				n = n*10 + int(s[i]-'0')
			}
			if s[i] == 'A' {
				row = max(row-n, 0)
			} else {
				row += n
			}
		case s[i] < 0x80:
			put(rune(s[i]))
		default:
			r := []rune(s[i:])[0]
			put(r)
			i += len(string(r)) - 1
		}
	}
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ")
	}
	return lines
}

func TestProgressOnATerminal(t *testing.T) {
	for cols, bar := range map[uint16]string{
		120: "bb: Downloading [=========================>                         ]     500B/1kB", 60: "bb: Downloading     500B/1kB", 20: "bb: Downloading   …",
	} {
		out, text := screen(t, 24, cols)
		p := term.NewProgress(out)
		for _, m := range []jsonstream.Message{
			message("aa", "Pulling fs layer", &jsonstream.Progress{}), message("bb", "Pulling fs layer", &jsonstream.Progress{}),
			message("bb", "Downloading", &jsonstream.Progress{Current: 500, Total: 1000}), message("aa", "Pull complete", &jsonstream.Progress{}),
			message("", "Status: done", nil), message("aa", "Pulling again", &jsonstream.Progress{}),
		} {
			if err := p.Show(m); err != nil {
				t.Fatal(err)
			}
		}
		got := shown(text())
		want := []string{term.Ellipsis("aa: Pull complete", int(cols)-1), bar, "Status: done", term.Ellipsis("aa: Pulling again", int(cols)-1), ""}
		if strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Errorf("%d columns:\n%q, want\n%q", cols, got, want)
		}
	}
}

func TestProgressOfMoreLayersThanLines(t *testing.T) {
	out, text := screen(t, 5, 80)
	p := term.NewProgress(out)
	ids := strings.Split("abcdefgh", "")
	for _, id := range ids {
		if err := p.Show(message(id, "Waiting", &jsonstream.Progress{})); err != nil {
			t.Fatal(err)
		}
	}
	for _, id := range ids {
		if err := p.Show(message(id, "Done", &jsonstream.Progress{})); err != nil {
			t.Fatal(err)
		}
	}
	raw := text()
	for n := 5; n <= 9; n++ {
		if strings.Contains(raw, "\x1b["+string(rune('0'+n))+"A") {
			t.Errorf("the cursor is moved %d lines up on a terminal of 5: other lines would be overwritten", n)
		}
	}
	if got := shown(raw); got[7] != "h: Done" || got[4] != "e: Done" || got[0] != "a: Waiting" {
		t.Errorf("%q", got)
	}
}

func TestRawModeIsGivenBack(t *testing.T) {
	master, slave, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer master.Close()
	defer slave.Close()
	in := term.NewInput(slave)
	if !in.IsTerminal() {
		t.Fatal("a terminal is not seen as one")
	}
	restore, err := in.Raw()
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(master, "x") // without a newline: only raw mode delivers it
	b := make([]byte, 10)
	if n, err := in.Read(b); n != 1 || err != nil || b[0] != 'x' {
		t.Errorf("read %q, %v", b[:n], err)
	}
	restore()
	restore()
	io.WriteString(master, "a\x7fb\n")
	if n, err := in.Read(b); string(b[:n]) != "b\n" || err != nil {
		t.Errorf("after raw mode a line is not edited: %q, %v", b[:n], err)
	}
}

func TestNoTerminal(t *testing.T) {
	in := term.NewInput(strings.NewReader("x"))
	if in.IsTerminal() || in.CheckTTY(true, true) == nil || in.CheckTTY(false, true) != nil || in.CheckTTY(true, false) != nil {
		t.Error("a reader is no terminal")
	}
	if restore, err := in.Raw(); err != nil {
		t.Error(err)
	} else {
		restore()
	}
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if rows, cols := term.NewOutput(f).Size(); rows != 0 || cols != 0 {
		t.Errorf("a file has %d rows and %d columns", rows, cols)
	}
}
