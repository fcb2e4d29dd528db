package solve

import (
	"context"
	"io"
	"os"
	"sync"
	"time"

	bkclient "github.com/moby/buildkit/client"
	"github.com/moby/buildkit/util/progress/progressui"
)

// Progress shows how builds get on. Its methods may be called by many at once.
type Progress struct {
	mu       sync.RWMutex // held for writing to end
	ended    bool
	in       chan *bkclient.SolveStatus
	done     chan struct{}
	failed   chan struct{} // closed when a step has failed
	failing  sync.Once
	warnings []bkclient.VertexWarning
	err      error
}

// NewProgress shows builds on w, which is a terminal or not, in one of progressui's modes.
// about and short name the builder in the first line of plain and of terminal output.
func NewProgress(ctx context.Context, w io.Writer, mode progressui.DisplayMode, about, short string) (*Progress, error) {
	if env := os.Getenv("BUILDKIT_PROGRESS"); env != "" && mode == progressui.AutoMode {
		mode = progressui.DisplayMode(env)
	}
	display, err := progressui.NewDisplay(w, mode, progressui.WithDesc(about, short))
	if err != nil {
		return nil, err
	}
	p := &Progress{in: make(chan *bkclient.SolveStatus), done: make(chan struct{}), failed: make(chan struct{})}
	go func() {
		defer close(p.done)
		// What a build says after it was cancelled is shown too, so ctx does not end this.
		p.warnings, p.err = display.UpdateFrom(context.WithoutCancel(ctx), p.in)
	}()
	return p, nil
}

// Wait shows what is left and ends. What comes later is not shown.
func (p *Progress) Wait() error {
	p.mu.Lock()
	if !p.ended {
		p.ended = true
		close(p.in)
	}
	p.mu.Unlock()
	<-p.done
	return p.err
}

// Show adds s to what is shown.
func (p *Progress) Show(s *bkclient.SolveStatus) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.ended {
		return
	}
	p.in <- s
	for _, v := range s.Vertexes {
		if v.Error != "" && v.Completed != nil {
			p.failing.Do(func() { close(p.failed) })
		}
	}
}

// Warn adds a warning that is of no step.
func (p *Progress) Warn(text string) {
	p.Show(&bkclient.SolveStatus{Warnings: []*bkclient.VertexWarning{{Short: []byte(text)}}})
}

// awaitFailure returns when a step has been shown to have failed, or at the latest after a time.
func (p *Progress) awaitFailure(ctx context.Context, most time.Duration) {
	select {
	case <-p.failed:
	case <-ctx.Done():
	case <-time.After(most):
	}
}

// Warnings are the builds' warnings, each once. Wait comes first.
func (p *Progress) Warnings() []bkclient.VertexWarning {
	seen := map[string]bool{}
	var out []bkclient.VertexWarning
	for _, w := range p.warnings {
		key := w.URL + "\x00" + string(w.Short)
		if w.SourceInfo != nil {
			key += "\x00" + w.SourceInfo.Filename
		}
		for _, r := range w.Range {
			key += "\x00" + r.String()
		}
		if !seen[key] {
			seen[key] = true
			out = append(out, w)
		}
	}
	return out
}

// channel is where one build's status goes, with prefix before the names of its steps if
// that is not empty. wait returns when all that was sent has been taken, once the channel
// has been closed.
func (p *Progress) channel(prefix string) (ch chan *bkclient.SolveStatus, wait func()) {
	ch, done := make(chan *bkclient.SolveStatus), make(chan struct{})
	go func() {
		defer close(done)
		for s := range ch {
			if prefix != "" {
				for _, v := range s.Vertexes {
					v.Name = withPrefix(prefix, v.Name)
				}
			}
			p.Show(s)
		}
	}()
	return ch, func() { <-done }
}

func withPrefix(prefix, name string) string {
	if len(name) > 0 && name[0] == '[' {
		return "[" + prefix + " " + name[1:]
	}
	return "[" + prefix + "] " + name
}
