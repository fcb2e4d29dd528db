package stdio

import (
	"errors"
	"os"
	"time"
)

// Stream names an output stream; the values are those of Docker's stream header.
type Stream uint8

// The two output streams of a process. A terminal's output is Stdout.
const (
	Stdout Stream = 1
	Stderr Stream = 2
)

// String is the stream's name in log files: stdout or stderr.
func (s Stream) String() string {
	if s == Stderr {
		return "stderr"
	}
	return "stdout"
}

// MaxLine is the longest piece of a line, in bytes, that a Sink may leave
// unconsumed: a longer line is logged in pieces of this size, or of a few bytes less
// where it would cut a character in two.
const MaxLine = 16 << 10

var (
	// ErrStopped ends the subscriptions of a Pump that was stopped while the
	// process goes on: the engine is shutting down.
	ErrStopped = errors.New("the engine is shutting down")
	// ErrDetached is returned by CopyStdin when the detach keys were typed.
	ErrDetached = errors.New("detached by the detach keys")
)

// Mark says where a log ends: which file (inode number), its size in bytes, and
// for each stream when its current line began, if pieces of that line are
// already in the log (Unix nanoseconds, else 0; index 0 is Stdout's).
type Mark struct {
	File   uint64
	Offset int64
	Open   [2]int64
}

// Sink is the log that a Pump feeds. A Pump calls it from one goroutine at a
// time.
type Sink interface {
	// Append logs the whole lines of p, and pieces of MaxLine bytes at most of longer
	// lines, and returns how many bytes it consumed; the rest is presented
	// again together with what follows it. With last, everything is consumed.
	// t is when the bytes were read. It may stop early at the end of a file: it
	// is called again as long as it consumes anything, after its Mark has been
	// recorded. An error with n == 0 means that the log is as it was before the
	// call; one with n > 0 tells of trouble that lost nothing.
	Append(s Stream, p []byte, t time.Time, last bool) (n int, err error)
	// Mark says where the log ends now.
	Mark() (Mark, error)
	// Rewind cuts the log back to an earlier Mark, also one of another process
	// that was killed. A zero File means that nothing is known. What is cut off
	// and appended again keeps the time it had.
	Rewind(Mark) error
}

// Config describes the streams of one process.
type Config struct {
	// Dir is a directory on tmpfs that belongs to this process and outlives the
	// engine: journals and state are kept there while a Sink is set. It must
	// exist before the first output. The Pump removes its files when all is
	// delivered, but not the directory.
	Dir string
	// Stdout and Stderr are the read ends of the process's pipes, TTY is the
	// pty's master; nil ones are at their end. The Pump takes over reading but
	// neither closes nor changes the *os.File: the caller closes them after
	// Done or Stop.
	Stdout, Stderr, TTY *os.File
	// Terminal says that the process has a terminal, even if its master is gone
	// with the keeper and TTY is nil: journals of terminals are read differently.
	Terminal bool
	// Sink is the log, nil for log driver none and for execs.
	Sink Sink
	// Hub serves live clients. nil makes a private one, which ends with the Pump.
	Hub *Hub
	// Pool lends buffers; share one per engine. nil makes a private one.
	Pool *Pool
	// OnError hears of output that could not be logged (disk full …): dropped
	// is how many bytes of the stream are missing in the log. May be nil.
	OnError func(s Stream, dropped int, err error)
}
