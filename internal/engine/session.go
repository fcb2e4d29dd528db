package engine

import (
	"context"

	"github.com/cleatlabs/cleat/internal/stdio"
)

// NewAttachSession makes a session of its parts; close may be nil.
func NewAttachSession(tty bool, run func(context.Context, StreamIO) error, close func()) *AttachSession {
	return &AttachSession{TTY: tty, run: run, close: close}
}

// NewLogSession makes a session of its parts.
func NewLogSession(tty bool, run func(context.Context, func(stdio.Stream, []byte) error) error) *LogSession {
	return &LogSession{TTY: tty, run: run}
}

// NewExecSession makes a session of its parts; close may be nil.
func NewExecSession(run func(context.Context, StreamIO) error, close func()) *ExecSession {
	return &ExecSession{run: run, close: close}
}
