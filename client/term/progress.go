package term

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/jsonstream"
)

// Progress shows what the engine tells while it pulls or loads. On a terminal each
// layer has a line that is redrawn in place, shortened to the terminal's width; into
// a pipe go the beginnings and ends of steps, as plain lines. It is not safe for
// concurrent use.
type Progress struct {
	out   *Output
	lines map[string]int // the layers' lines, counted from the first of the block
	now   func() time.Time
}

// NewProgress shows progress on out.
func NewProgress(out *Output) *Progress {
	return &Progress{out: out, lines: map[string]int{}, now: time.Now}
}

// Show shows one message. A message that reports an error is returned as that error.
func (p *Progress) Show(m jsonstream.Message) error {
	switch {
	case m.Error != nil:
		return m.Error
	case m.Aux != nil:
		return nil // for programs
	case m.Stream != "":
		p.endBlock()
		return p.write(m.Stream)
	case m.ID != "" && m.Progress != nil:
		return p.layer(m)
	}
	p.endBlock()
	text := m.Status
	if m.ID != "" {
		text = m.ID + ": " + text
	}
	return p.write(text + "\n")
}

// endBlock leaves the lines of the layers as they are: what comes now stands below.
func (p *Progress) endBlock() { clear(p.lines) }

func (p *Progress) layer(m jsonstream.Message) error {
	if !p.out.IsTerminal() {
		if m.Progress.Current > 0 || m.Progress.Total > 0 {
			return nil
		}
		return p.write(m.ID + ": " + m.Status + "\n")
	}
	rows, cols := p.out.Size()
	if rows == 0 || cols == 0 {
		rows, cols = 24, 80
	}
	line, known := p.lines[m.ID]
	var b strings.Builder
	if !known {
		line = len(p.lines)
		p.lines[m.ID] = line
		b.WriteString("\n")
	}
	up := len(p.lines) - line
	if up >= int(rows) {
		return p.write(b.String()) // scrolled out of reach
	}
	text := m.ID + ": " + m.Status
	if bar := p.bar(*m.Progress, int(cols)); bar != "" {
		text += " " + bar
	}
	fmt.Fprintf(&b, "\x1b[%dA\r\x1b[2K%s\r\x1b[%dB", up, Ellipsis(text, int(cols)-1), up)
	return p.write(b.String())
}

// bar is how far a layer has come, in as much detail as the width has room for.
func (p *Progress) bar(g jsonstream.Progress, cols int) string {
	if g.Current < 0 || (g.Current == 0 && g.Total <= 0) {
		return ""
	}
	count := func(n int64) string {
		if g.Units != "" {
			return fmt.Sprintf("%d", n)
		}
		return units.HumanSize(float64(n))
	}
	suffix := ""
	if g.Units != "" {
		suffix = " " + g.Units
	}
	if g.Total <= 0 || g.Current > g.Total {
		return fmt.Sprintf("%8s%s", count(g.Current), suffix)
	}
	var out string
	percent := int(float64(g.Current) / float64(g.Total) * 100)
	if half := percent / 2; cols > 110 {
		out = "[" + strings.Repeat("=", half) + ">" + strings.Repeat(" ", 50-half) + "] "
	}
	if !g.HideCounts {
		out += fmt.Sprintf("%8s/%s%s", count(g.Current), count(g.Total), suffix)
	}
	if cols > 50 && g.Current > 0 && g.Start > 0 && percent < 100 {
		passed := p.now().Sub(time.Unix(g.Start, 0))
		left := time.Duration(float64(passed) / float64(g.Current) * float64(g.Total-g.Current))
		out += " " + left.Round(time.Second).String()
	}
	return out
}

func (p *Progress) write(s string) error {
	_, err := io.WriteString(p.out, s)
	return err
}
