package show_test

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/cleatlabs/cleat/client/compose/show"
)

func TestForms(t *testing.T) {
	for form, want := range map[show.Form]string{
		show.Plain: " Container a  Creating \n Container b  Creating \nWARNING: careful\n Container a  Created \n",
		show.JSON:  `{"id":"Container a","status":"Creating"}` + "\n" + `{"id":"Container b","status":"Creating"}` + "\n" + `{"level":"warning","text":"careful"}` + "\n" + `{"id":"Container a","status":"Created"}` + "\n",
		show.Quiet: "",
	} {
		var b bytes.Buffer
		p, err := show.NewProgress(&b, form, true)
		if err != nil {
			t.Fatal(err)
		}
		p.Report("Container", "a", "Creating")
		p.Report("Container", "b", "Creating")
		p.Warn("careful")
		p.Report("Container", "a", "Created")
		if b.String() != want {
			t.Errorf("%s: %q", form, b.String())
		}
	}
	if _, err := show.NewProgress(nil, "fancy", true); err == nil || !strings.Contains(err.Error(), "fancy") {
		t.Error(err)
	}
}

// On a terminal each object has one line.
func TestTerminal(t *testing.T) {
	var b bytes.Buffer
	p, err := show.NewProgress(&b, "", true)
	if err != nil {
		t.Fatal(err)
	}
	p.Report("Container", "a", "Creating")
	p.Report("Network", "net", "Creating")
	p.Report("Container", "a", "Created")
	last := b.String()[strings.LastIndex(b.String(), "\x1b[2A"):]
	if strings.Count(last, "\n") != 2 || !strings.Contains(last, "Container a  \x1b[32mCreated") || !strings.Contains(last, "Network net  \x1b[34mCreating") {
		t.Errorf("%q", last)
	}
}

func TestLinesAreWhole(t *testing.T) {
	var out bytes.Buffer
	l := &show.Logs{Out: &out, Err: &out}
	l.Announce("longer-name")
	a, _ := l.Container("a")
	b, _ := l.Container("longer-name")
	for _, w := range []struct {
		to   *show.Lines
		text string
	}{{a, "one "}, {b, "other\nand"}, {a, "line\r\n"}} {
		if _, err := w.to.Write([]byte(w.text)); err != nil {
			t.Fatal(err)
		}
	}
	b.Flush()
	if want := "longer-name  | other\na            | one line\nlonger-name  | and\n"; out.String() != want {
		t.Errorf("%q", out.String())
	}
}

// A line that does not end is shown in parts, between characters, and takes no more memory than one of them.
func TestLongLinesComeInParts(t *testing.T) {
	var out bytes.Buffer
	a, _ := (&show.Logs{Out: &out, Err: &out}).Container("a")
	write := func(text string) {
		t.Helper()
		if _, err := a.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	const part = 1 << 20
	write("x")
	for range 3 << 20 / 1024 { // two bytes a character: none ends where a part would
		write(strings.Repeat("é", 512))
	}
	if n := strings.Count(out.String(), "\n"); n != 3 {
		t.Errorf("%d parts were shown while the line went on, want 3", n)
	}
	write("end\nnext\n" + strings.Repeat("y", part) + "\n" + strings.Repeat("z", part+1) + "\n")
	var lengths []int
	var text string
	for line := range strings.Lines(out.String()) {
		line, found := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "a  | ")
		if !found || !utf8.ValidString(line) {
			t.Errorf("a part of %d bytes has no prefix or half a character", len(line))
		}
		lengths, text = append(lengths, len(line)), text+line
	}
	if want := []int{part - 1, part, part, 5, 4, part, part, 1}; !slices.Equal(lengths, want) {
		t.Errorf("parts of %d bytes, want %d", lengths, want)
	}
	if want := "x" + strings.Repeat("é", 3<<19) + "endnext" + strings.Repeat("y", part) + strings.Repeat("z", part+1); text != want {
		t.Error("the parts are not what was written")
	}
}

// emulated is what a terminal of a width shows of what was written to it, which goes up by whole lines only; a line that is
// too long takes several rows. What has left the top cannot be changed any more.
func emulated(t *testing.T, text string, rows, cols int) []string {
	t.Helper()
	var screen []string
	at := 0
	for len(text) > 0 {
		var n int
		switch m := regexp.MustCompile(`^\x1b\[(\d*)([A-Za-z])`).FindStringSubmatch(text); {
		case m != nil && m[2] == "A":
			n, _ = strconv.Atoi(m[1])
			if at -= n; at < max(0, len(screen)+1-rows) {
				t.Fatalf("the cursor is to go above the terminal: %q", text)
			}
			text = text[len(m[0]):]
		case m != nil && m[2] == "J":
			screen, text = screen[:min(at, len(screen))], text[len(m[0]):]
		default:
			line, rest, _ := strings.Cut(text, "\n")
			plain := regexp.MustCompile(`\x1b\[[0-9;]*[mK]`).ReplaceAllString(line, "")
			if utf8.RuneCountInString(plain) >= cols {
				t.Fatalf("%q has no room in %d columns", plain, cols)
			}
			if at == len(screen) {
				screen = append(screen, "")
			}
			screen[at], text = strings.TrimRight(plain, " "), rest
			at++
		}
	}
	return screen
}

// However small the terminal is, each object has one row, and of more of them than there are rows those are shown that are
// under way; in the end all of them are.
func TestTerminalThatIsSmall(t *testing.T) {
	for _, size := range [][2]int{{24, 200}, {24, 80}, {24, 40}, {10, 30}, {5, 20}, {3, 12}} {
		var b bytes.Buffer
		p, err := show.NewProgress(&b, "", true)
		if err != nil {
			t.Fatal(err)
		}
		p.Size = func() (uint, uint) { return uint(size[0]), uint(size[1]) }
		const long = "a-service-with-a-very-long-name-that-goes-on-and-on-and-on"
		for i := range 30 {
			p.Report("Container", fmt.Sprint(long, "-", i), "Creating")
			p.Report("Container", fmt.Sprint(long, "-", i), "Created")
		}
		p.Report("Container", "last", "Starting")
		p.Report("Container", long+"-3", "Error response from daemon: no room for what it says, which is long\nin two lines")
		during := emulated(t, b.String(), size[0], size[1])
		if last := during[len(during)-1]; !strings.Contains(last, "more") && size[0] < 32 {
			t.Errorf("%v: nothing is said of those that there is no room for: %q", size, during)
		}
		if text := strings.Join(during, "\n"); !strings.Contains(text, "Err") || size[0] > 3 && !strings.Contains(text, "Starting"[:3]) {
			t.Errorf("%v: what matters is not there:\n%s", size, text)
		}
		p.End()
		if all := emulated(t, b.String(), 1000, size[1]); len(all) != 31 {
			t.Errorf("%v: %d lines are left, want 31:\n%s", size, len(all), strings.Join(all, "\n"))
		}
	}
}

// While a question is asked nothing is drawn; after it all that has happened is, below it, and without colours if so chosen.
func TestTerminalWithAQuestion(t *testing.T) {
	var b bytes.Buffer
	p, err := show.NewProgress(&b, "", true)
	if err != nil {
		t.Fatal(err)
	}
	p.Monochrome = true
	p.Report("Container", "a", "Creating")
	release := p.Hold()
	before := b.Len()
	p.Report("Container", "b", "Creating")
	p.Report("Container", "b", "Created")
	if b.Len() != before {
		t.Errorf("drawn over the question: %q", b.String()[before:])
	}
	release()
	if got := b.String()[before:]; got != " Container b  Created\x1b[K\n\x1b[J" {
		t.Errorf("after the question: %q", got)
	}
}
