package show_test

import (
	"bytes"
	"strings"
	"testing"

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
