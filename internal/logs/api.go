// Package logs stores the output of containers and reads it back.
//
// The driver json-file writes Docker's files: one JSON object per line with the
// keys log, stream, attrs (when asked for) and time. Files are rotated by
// default (5 × 20 MB), so a chatty container cannot fill the disk. Reading
// accepts files written by Docker as well, starts at the end for a tail, and
// follows across rotations. The driver local is the same with rotated files
// compressed by default, and with bytes that are no UTF-8 in them: Docker promises
// nothing of its files but that they are small and can be read back. The driver none
// stores nothing.
//
// The drivers that send lines to a log server write such a file, too: it can be
// read back, and it is where the lines wait. What of it was sent is the business
// of package logship, which reads it with a Cursor; how it is sent, of package
// logsend. The options cache-max-size, cache-max-file and cache-compress are
// about this file, and with cache-disabled it is not read back.
package logs

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/cleatlabs/cleat/internal/stdio"
)

// Config describes the log of one container.
type Config struct {
	// Driver is one of Drivers, or "" (json-file).
	Driver string
	// Path is the current log file; rotated ones are Path.1, Path.2 … or
	// Path.1.gz … It is made at the first output; its directory must exist.
	Path string
	// Opts are the driver's options as given with --log-opt.
	Opts map[string]string
	// What the options labels, labels-regex, env, env-regex and tag take their
	// values from. Env entries are KEY=value.
	Labels                                                     map[string]string
	Env                                                        []string
	ContainerID, ContainerName, ImageID, ImageName, DaemonName string
	// Command is what the container runs, with its arguments, Created when it was made,
	// and Run names its present run. For drivers that send.
	Command []string
	Created time.Time
	Run     string
	// Turns, if set, counts the log's rotations, for a Cursor.
	Turns *atomic.Uint64
	// Bell is what Open's Writer rings and Read listens to with Follow; nil where nobody follows.
	Bell *Bell
	// Pool lends buffers; nil makes a private one.
	Pool *stdio.Pool
}

// Writer appends to the log of one container. It is the Sink of a stdio.Pump.
type Writer interface {
	stdio.Sink
	// Close closes the file and waits for a compression that is going on.
	Close() error
}

// Entry is one line of a log.
type Entry struct {
	Stream stdio.Stream
	Time   time.Time
	// Line is the text with its newline (none after a piece of a long line or
	// an unfinished last line); with ReadOptions.Timestamps and Details the
	// time and attributes stand before it. It is valid only during the call.
	Line []byte
	// Attrs are the labels and variables that the log options select; nil
	// unless ReadOptions.Details.
	Attrs map[string]string
}

// ReadOptions select what Read returns.
type ReadOptions struct {
	Since, Until time.Time // zero means no bound
	Tail         int       // the last lines of all streams; -1 means all
	Follow       bool
	Stdout       bool
	Stderr       bool
	Timestamps   bool // each line begins with its time, nine fraction digits, and a space
	Details      bool // each line begins with its attributes (k=v,k=v) and a space
	// To ends the reading at a Mark of the log's Writer (see
	// stdio.Hub.SubscribeAfterLog); a zero File means no bound.
	To stdio.Mark
	// Flush, if set, is called before Read waits for more output and before it
	// returns, so that emit may buffer.
	Flush func() error
	// Lost, if set, is called when lines that were written while Read followed were rotated away before they were
	// read. A line of stderr in their place says so, if Stderr is asked for.
	Lost func()
	// Ready, if set, is called before each piece of the log is read, after Flush. It
	// waits until whoever takes the lines takes more; meanwhile Read holds no buffer.
	// Its error ends the reading.
	Ready func(context.Context) error
}
