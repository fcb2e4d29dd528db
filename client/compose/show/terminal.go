package show

import (
	"bytes"
	"fmt"
	"strings"
	"unicode/utf8"
)

// roomForState is how much of a row is kept for what is said of an object, where its name is too long for all of it.
const roomForState = 12

// failed says whether a line is that of an error, and done whether nothing more is to come.
func (l line) failed() bool { return strings.HasPrefix(l.state, "Error") }

func (l line) done() bool { return !strings.HasSuffix(l.state, "ing") || l.state == "Running" }

// erase takes the lines off the terminal.
func (p *Progress) erase() {
	if p.drawn > 0 {
		_, _ = fmt.Fprintf(p.w, "\x1b[%dA\x1b[J", p.drawn)
		p.drawn = 0
	}
}

// draw shows the lines in the place of those that were shown before. The cursor only goes back to what is still on the
// terminal: of more lines than it has rows those are shown that matter most, and how many others there are.
func (p *Progress) draw() {
	if p.form != TTY || p.held {
		return
	}
	rows, cols := p.size()
	shown := p.lines
	if p.hidden = rows > 0 && len(p.lines) > rows; p.hidden {
		shown = foremost(p.lines, max(rows-1, 1))
	}
	p.redraw(shown, cols)
}

// size is how many lines there is room for, and how wide they may be; 0 is any.
func (p *Progress) size() (rows, cols int) {
	if p.Size == nil {
		return 0, 0
	}
	height, width := p.Size()
	return max(0, int(height)-1), max(0, int(width)-1) // the cursor stands in the last row; a full one may wrap
}

// foremost are so many of the lines, in their order: those of errors, those under way, and the last of the others.
func foremost(lines []line, many int) []line {
	chosen := make([]bool, len(lines))
	choose := func(from, step int, wanted func(line) bool) {
		for i := from; i >= 0 && i < len(lines) && many > 0; i += step {
			if !chosen[i] && wanted(lines[i]) {
				chosen[i] = true
				many--
			}
		}
	}
	choose(0, 1, line.failed)
	choose(0, 1, func(l line) bool { return !l.done() })
	choose(len(lines)-1, -1, line.done)
	var shown []line
	for i, l := range lines {
		if chosen[i] {
			shown = append(shown, l)
		}
	}
	return shown
}

// redraw shows lines in the place of those that were shown before, each in one row of so many characters at most; 0 is any.
func (p *Progress) redraw(shown []line, cols int) {
	var b bytes.Buffer
	if p.drawn > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", p.drawn)
	}
	names, states, width := make([]string, len(shown)), make([]string, len(shown)), 0
	for i, l := range shown {
		names[i] = l.kind + " " + l.name
		states[i], _, _ = strings.Cut(l.state, "\n")
		width = max(width, utf8.RuneCountInString(names[i]))
	}
	room := -1
	if cols > 0 {
		width = min(width, max(1, cols-3-roomForState))
		room = max(0, cols-3-width)
	}
	for i, l := range shown {
		colour, plain := "\x1b[34m", "\x1b[0m" // under way
		switch {
		case l.failed():
			colour = "\x1b[31m"
		case l.done():
			colour = "\x1b[32m"
		}
		if p.Monochrome {
			colour, plain = "", ""
		}
		fmt.Fprintf(&b, " %-*s  %s%s%s\x1b[K\n", width, shortened(names[i], width), colour, shortened(states[i], room), plain)
	}
	rows := len(shown)
	if hidden := len(p.lines) - len(shown); hidden > 0 {
		fmt.Fprintf(&b, " %s\x1b[K\n", shortened(fmt.Sprintf("… %d more", hidden), max(-1, cols-1)))
		rows++
	}
	b.WriteString("\x1b[J") // of those before there may have been more
	_, _ = p.w.Write(b.Bytes())
	p.drawn = rows
}

// shortened is a text in so many characters, with what it begins and ends with; -1 is any number.
func shortened(text string, most int) string {
	if most < 0 || utf8.RuneCountInString(text) <= most {
		return text
	}
	if most == 0 {
		return ""
	}
	runes := []rune(text)
	end := (most - 1) / 3
	return string(runes[:most-1-end]) + "…" + string(runes[len(runes)-end:])
}
