// Package show is what a user sees of a Compose command: how far it has come, and the
// output of containers, each line under its container's name.
//
// It promises:
//   - In a pipe one line for each change, in a terminal one line for each object, which is
//     kept up to date; JSON on demand.
//   - Lines of several containers are never mixed within a line.
package show

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"
)

// Form is how progress is shown.
type Form string

// The forms.
const (
	Plain Form = "plain"
	TTY   Form = "tty"
	JSON  Form = "json"
	Quiet Form = "quiet"
)

// Progress shows what happens to objects. It may be used by many goroutines.
type Progress struct {
	// DryRun marks every line: nothing of it happens.
	DryRun bool
	// Size is that of the terminal, in characters, 0 if it is not known; nil is a terminal that has room for all.
	Size func() (rows, cols uint)
	// Monochrome leaves out colours.
	Monochrome bool

	form Form
	w    io.Writer

	mu     sync.Mutex
	lines  []line // in a terminal, those that are on it, or would be if it had room for them
	drawn  int    // rows
	hidden bool   // there was no room for some of them
	held   bool   // nothing is drawn
}

type line struct{ kind, name, state string }

// NewProgress shows on w in a form; "" and "auto" are one that suits w.
func NewProgress(w io.Writer, form Form, terminal bool) (*Progress, error) {
	switch form {
	case Plain, TTY, JSON, Quiet:
	case "", "auto":
		form = Plain
		if terminal {
			form = TTY
		}
	default:
		return nil, fmt.Errorf("unsupported --progress value %q: choose auto, tty, plain, json or quiet", form)
	}
	return &Progress{form: form, w: w}, nil
}

// Report implements operate.Reporter.
func (p *Progress) Report(kind, name, state string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch p.form {
	case Plain:
		_, _ = fmt.Fprintf(p.w, "%s %s %s  %s \n", p.prefix(), kind, name, state)
	case JSON:
		step := map[string]any{"id": kind + " " + name, "status": state}
		if p.DryRun {
			step["dry-run"] = true
		}
		_ = json.NewEncoder(p.w).Encode(step)
	case TTY:
		p.update(line{strings.TrimSpace(p.prefix() + " " + kind), name, state})
		p.draw()
	}
}

// prefix tells a dry run.
func (p *Progress) prefix() string {
	if p.DryRun {
		return "DRY-RUN MODE - "
	}
	return ""
}

// Warn shows a warning, in every form but Quiet.
func (p *Progress) Warn(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch p.form {
	case Quiet:
	case JSON:
		_ = json.NewEncoder(p.w).Encode(map[string]any{"level": "warning", "text": text})
	default:
		p.erase()
		_, _ = fmt.Fprintln(p.w, "WARNING: "+text)
		p.draw()
	}
}

// Redraws says whether lines that are shown already change: nothing else may be printed then.
func (p *Progress) Redraws() bool { return p.form == TTY }

// End leaves what is on the terminal there, and all that it had no room for: what comes next is below it.
func (p *Progress) End() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.end()
}

// Hold ends what is shown and shows nothing of what happens from then on until it is released: a question is asked.
func (p *Progress) Hold() (release func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.end()
	p.held = true
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.held = false
		p.draw()
	}
}

func (p *Progress) end() {
	if p.hidden {
		_, cols := p.size()
		p.redraw(p.lines, cols)
	}
	p.lines, p.drawn, p.hidden = nil, 0, false
}

func (p *Progress) update(l line) {
	for i, known := range p.lines {
		if known.kind == l.kind && known.name == l.name {
			p.lines[i] = l
			return
		}
	}
	p.lines = append(p.lines, l)
}

// Logs prints the output of containers.
type Logs struct {
	Out, Err   io.Writer
	NoPrefix   bool
	Colours    bool
	Timestamps bool // of when a line came here
	footer     string
	mu         sync.Mutex
	width      int
	containers int
}

// colours are those that docker compose gives to containers, in turn.
var colours = []string{"36", "33", "32", "35", "34", "36;1", "33;1", "32;1", "35;1", "34;1"}

// Announce makes room for the name of a container before its first line.
func (l *Logs) Announce(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.width = max(l.width, len(name))
}

// Container gives the writers for a container's output. What they are given is kept until the line is whole, or longer
// than 1 MiB; Flush prints what is left.
func (l *Logs) Container(name string) (stdout, stderr *Lines) {
	l.mu.Lock()
	defer l.mu.Unlock()
	// What a hook says comes seldom: it does not move what all others say.
	l.width = max(l.width, len(strings.TrimSuffix(name, " ->")))
	colour := colours[l.containers%len(colours)]
	l.containers++
	lines := func(w io.Writer) *Lines {
		s := &Lines{logs: l, w: w, name: name, colour: colour}
		s.parts.To = s.print
		return s
	}
	return lines(l.Out), lines(l.Err)
}

// Status prints a line about a container, which is none of its output.
func (l *Logs) Status(name, text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_ = l.write(l.Out, fmt.Appendf(nil, "%s %s\n", name, text))
}

// Notice prints a line that is about none of the containers.
func (l *Logs) Notice(text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_ = l.write(l.Err, []byte(text+"\n"))
}

// Watch prints what the watch of files has to say, each line beside the containers' names.
func (l *Logs) Watch(text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	prefix := strings.Repeat(" ", l.width+1) + " ⦿ "
	if l.NoPrefix {
		prefix = ""
	} else if l.Colours {
		prefix = "\x1b[92m" + prefix + "\x1b[0m"
	}
	var b bytes.Buffer
	for line := range strings.Lines(text) {
		b.WriteString(prefix + strings.TrimSuffix(line, "\n") + "\n")
	}
	_ = l.write(l.Out, b.Bytes())
}

// Footer keeps a line below all others on a terminal; "" is none.
func (l *Logs) Footer(text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.footer != "" || text != "" {
		_, _ = io.WriteString(l.Out, "\r\x1b[K"+text)
	}
	l.footer = text
}

// write prints whole lines above the footer. The caller holds the lock.
func (l *Logs) write(w io.Writer, lines []byte) error {
	if l.footer != "" {
		lines = slices.Concat([]byte("\r\x1b[K"), lines, []byte(l.footer))
	}
	_, err := w.Write(lines)
	return err
}

// Lines prints the lines of one stream of one container. It is used by one goroutine.
type Lines struct {
	logs         *Logs
	w            io.Writer
	name, colour string
	parts        Parts
}

// Write implements io.Writer.
func (s *Lines) Write(p []byte) (int, error) { return s.parts.Write(p) }

// Flush prints an unfinished line.
func (s *Lines) Flush() { _ = s.parts.Flush() }

// Close implements io.Closer: it prints an unfinished line.
func (s *Lines) Close() error {
	s.Flush()
	return nil
}

func (s *Lines) print(text []byte) error {
	l := s.logs
	l.mu.Lock()
	defer l.mu.Unlock()
	var b bytes.Buffer
	if !l.NoPrefix {
		prefix := fmt.Sprintf("%-*s | ", l.width+1, s.name)
		if l.Colours {
			prefix = "\x1b[" + s.colour + "m" + prefix + "\x1b[0m"
		}
		b.WriteString(prefix)
	}
	if l.Timestamps {
		b.WriteString(time.Now().Format("2006-01-02T15:04:05.000000000Z07:00 "))
	}
	b.Write(bytes.TrimSuffix(bytes.TrimSuffix(text, []byte("\n")), []byte("\r")))
	b.WriteByte('\n')
	return l.write(s.w, b.Bytes())
}
