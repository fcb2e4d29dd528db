package command

import (
	"fmt"
	"io"
	"sync"
)

// lossy is an output of containers that keeps nobody from running them: what cannot be written, on a full disk for one,
// is left out. That is said once.
type lossy struct {
	to   io.Writer
	say  func(err error)
	once sync.Once
}

// Write implements io.Writer.
func (l *lossy) Write(p []byte) (int, error) {
	if _, err := l.to.Write(p); err != nil {
		l.once.Do(func() { l.say(err) })
	}
	return len(p), nil
}

func (a *app) unshown(err error) {
	_, _ = fmt.Fprintf(a.err, "WARNING: what containers say cannot be written, and is left out (%v): they go on, and `%s compose logs` shows it\n", err, a.program)
}
