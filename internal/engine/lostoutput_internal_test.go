package engine

import (
	"bytes"
	"log/slog"
	"strings"
	"syscall"
	"testing"

	"github.com/cleatlabs/cleat/internal/stdio"
)

// TestLostOutputIsSummedUp holds the engine's log to two messages, whatever a container writes, with no byte untold.
func TestLostOutputIsSummedUp(t *testing.T) {
	var out bytes.Buffer
	l := &lostOutput{log: slog.New(slog.NewTextHandler(&out, nil)), id: "c", missing: map[stdio.Stream]int{}}
	for range 1000 {
		l.report(stdio.Stdout, 5, syscall.ENOSPC)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := strings.Count(out.String(), "\n"); n != 1 || !strings.Contains(out.String(), "bytes=5 ") {
		t.Errorf("told %d times:\n%s", n, &out)
	}
	out.Reset()
	l.tell() // as the timer does
	if n := strings.Count(out.String(), "\n"); n != 1 || !strings.Contains(out.String(), "bytes=4995 ") {
		t.Errorf("then:\n%s", &out)
	}
	out.Reset()
	if l.tell(); l.told || out.Len() > 0 {
		t.Errorf("nothing more was lost: %v, %s", l.told, &out)
	}
}
