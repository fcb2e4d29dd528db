package classic

import (
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/moby/buildkit/client"
	"github.com/opencontainers/go-digest"
)

// printer turns BuildKit's progress into the classic builder's lines. One step is in
// front: its output is printed as it comes. What other steps, which run at the same time,
// print is kept until it is their turn.
type printer struct {
	steps  []step
	next   int // the first step whose header is not printed
	print  func(string)
	seen   map[digest.Digest]*progress
	queue  []*progress // begun, in that order; the first is in front
	single string      // the stage's name where BuildKit writes none
}

// progress is what is known of one of BuildKit's vertices.
type progress struct {
	step      int // its index in steps, -1 for work that no line of the Dockerfile asks for
	id        digest.Digest
	kept      []byte
	cached    bool
	completed bool
	failed    bool
}

func newPrinter(steps []step, print func(string)) *printer {
	p := &printer{steps: steps, print: print, seen: map[digest.Digest]*progress{}}
	if len(steps) > 0 {
		p.single = steps[len(steps)-1].stage
	}
	return p
}

// update prints what a status adds.
func (p *printer) update(s *client.SolveStatus) {
	for _, v := range s.Vertexes {
		if v.Started == nil && !v.Cached {
			continue
		}
		known := p.seen[v.Digest]
		if known == nil {
			known = &progress{id: v.Digest, step: p.find(v.Name)}
			p.seen[v.Digest] = known
			if known.step >= 0 {
				p.queue = append(p.queue, known)
			}
		}
		known.cached = known.cached || v.Cached
		known.failed = known.failed || v.Error != ""
		known.completed = known.completed || v.Completed != nil
	}
	for _, l := range s.Logs {
		if known := p.seen[l.Vertex]; known != nil && known.step >= 0 {
			known.kept = append(known.kept, l.Data...)
		}
	}
	p.advance()
}

// finish prints what is left when the build has ended.
func (p *printer) finish(succeeded bool) {
	for _, known := range p.queue {
		known.completed = true
	}
	p.advance()
	switch {
	case succeeded:
		p.headers(len(p.steps))
	case p.next == 0:
		p.headers(min(1, len(p.steps))) // it failed before anything was done
	}
}

// advance prints what the step in front has, and goes on to the next when it has ended.
func (p *printer) advance() {
	// Several steps may have begun at once: the earlier in the Dockerfile comes first.
	if len(p.queue) > 1 {
		slices.SortStableFunc(p.queue[1:], func(a, b *progress) int { return a.step - b.step })
	}
	for len(p.queue) > 0 {
		front := p.queue[0]
		if front.step >= p.next {
			p.headers(front.step)
			p.header(front.step)
			p.next = front.step + 1
		}
		if n := printable(front.kept, front.completed); n > 0 {
			p.print(string(front.kept[:n]))
			front.kept = front.kept[n:]
		}
		if !front.completed {
			return
		}
		p.queue = p.queue[1:]
		if front.failed {
			continue
		}
		if front.cached {
			p.print(" ---> Using cache\n")
		}
		p.print(" ---> " + short(front.id.Encoded()) + "\n")
	}
}

// printable is how many bytes of a step's output can be told: a letter comes in two pieces now and then, of which JSON
// would make none.
func printable(b []byte, all bool) int {
	for i := len(b) - 1; !all && i >= max(0, len(b)-utf8.UTFMax); i-- {
		if utf8.RuneStart(b[i]) {
			if !utf8.FullRune(b[i:]) {
				return i
			}
			break
		}
	}
	return len(b)
}

// headers prints those of all steps before one: instructions that only change the image's
// configuration are no work of BuildKit's.
func (p *printer) headers(before int) {
	for ; p.next < before; p.next++ {
		p.header(p.next)
	}
}

func (p *printer) header(i int) {
	p.print("Step " + strconv.Itoa(i+1) + "/" + strconv.Itoa(len(p.steps)) + " : " + p.steps[i].text + "\n")
}

// find returns the step that a vertex of BuildKit's Dockerfile frontend does, whose name is
// as "[build 2/5] RUN make", -1 for another vertex.
func (p *printer) find(name string) int {
	inner, _, ok := strings.Cut(strings.TrimPrefix(name, "["), "] ")
	fields := strings.Fields(inner)
	if !ok || !strings.HasPrefix(name, "[") || len(fields) == 0 {
		return -1
	}
	count, _, ok := strings.Cut(fields[len(fields)-1], "/")
	place, err := strconv.Atoi(count)
	if !ok || err != nil {
		return -1
	}
	stage := p.single
	if len(fields) > 1 {
		stage = fields[len(fields)-2]
	}
	return slices.IndexFunc(p.steps, func(s step) bool { return s.place == place && s.stage == stage })
}

// short is the first twelve digits of an id.
func short(id string) string { return id[:min(len(id), 12)] }
