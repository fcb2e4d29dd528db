package engine_test

import (
	"context"
	"io"
	"strings"
	"sync"
	"testing"

	api "github.com/moby/moby/api/types/container"

	"github.com/cleatlabs/cleat/internal/engine"
	"github.com/cleatlabs/cleat/test/expect"
)

// stuck is a client that takes no output until it is let go.
type stuck struct {
	begun chan struct{}
	goOn  chan struct{}
	once  sync.Once
}

func (s *stuck) Write(p []byte) (int, error) {
	s.once.Do(func() { close(s.begun) })
	<-s.goOn
	return len(p), nil
}

// The end of an attachment closes the input of the run that it was to, not that of the next one.
func TestLateEndOfAnAttachmentLeavesTheNextRunItsInput(t *testing.T) {
	l := newLab(t)
	id := l.create(spec{cmd: []string{"sh", "-c", "echo begun; cat; echo ended"}, cfg: func(c *api.Config) { c.OpenStdin, c.StdinOnce = true, true }})
	a, err := l.Attach(t.Context(), id, engine.AttachOptions{Stdin: true, Stdout: true, Stderr: true, Stream: true})
	if err != nil {
		t.Fatal(err)
	}
	input, _ := io.Pipe()
	slow := &stuck{begun: make(chan struct{}), goOn: make(chan struct{})}
	ended := make(chan error, 1)
	go func() { ended <- a.Run(context.Background(), engine.StreamIO{Stdin: input, Stdout: slow}) }()
	if err := l.Start(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	<-slow.begun
	if err := l.Restart(t.Context(), id, engine.StopOptions{Signal: "KILL"}); err != nil {
		t.Fatal(err)
	}
	b, err := l.Attach(t.Context(), id, engine.AttachOptions{Stdin: true, Stdout: true, Stream: true})
	if err != nil {
		t.Fatal(err)
	}
	close(slow.goOn)
	<-ended
	var out expect.Output
	if err := b.Run(t.Context(), engine.StreamIO{Stdin: strings.NewReader("typed\n"), Stdout: &out}); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "typed\n") {
		t.Errorf("the second run did not get its input: %q", out.String())
	}
}
