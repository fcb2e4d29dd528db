package engine

import (
	"context"
	"io"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"

	ctr "github.com/cleatlabs/cleat/internal/container"
	"github.com/cleatlabs/cleat/internal/stdio"
)

// CreateRequest is what POST /containers/create asks for. Config must not be
// nil; HostConfig and NetworkingConfig may be.
type CreateRequest struct {
	// Name without or with its leading slash; empty asks for a generated one.
	Name string
	// Platform as os/arch[/variant]; empty takes the image that is there.
	Platform         string
	Config           *container.Config
	HostConfig       *container.HostConfig
	NetworkingConfig *network.NetworkingConfig
	// ShallowReadOnly leaves what is mounted below a read-only bind of
	// HostConfig.Binds writable, as API versions below 1.44 mean it.
	ShallowReadOnly bool
}

// StopOptions are those of stop and restart.
type StopOptions struct {
	// Signal by name or number; empty takes the container's own stop signal.
	Signal string
	// Timeout in seconds before the container is killed. Nil takes the
	// container's StopTimeout, else the engine's default; negative waits for
	// ever.
	Timeout *int
}

// RemoveOptions are those of DELETE /containers/{id}.
type RemoveOptions struct {
	Force   bool // kill a running container first
	Volumes bool // remove its anonymous volumes too
	Link    bool // remove a link, not a container: refused, a link goes with the container that was made with it
}

// WaitResult is how a container ended.
type WaitResult = ctr.Exit

// ListOptions are those of GET /containers/json.
type ListOptions struct {
	All     bool
	Limit   int // the N newest, stopped ones included; 0 is no limit
	Size    bool
	Filters map[string][]string
}

// AttachOptions are those of POST /containers/{id}/attach.
type AttachOptions struct {
	Stdin, Stdout, Stderr bool
	Stream                bool // follow live output (and take stdin)
	Logs                  bool // replay the log first
	DetachKeys            string
}

// StreamIO is the client's side of an attach or exec session. Stdin is nil if
// the client sends none; Stdout and Stderr are nil if it does not want them.
// With a TTY everything is written to Stdout. The caller frames the output.
type StreamIO struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	// Sent is called when all output of an attach was written, before a wait for the
	// container is answered; nil is nothing.
	Sent func(context.Context)
}

// writer is where a stream goes; nil is nowhere.
func (c *StreamIO) writer(stream stdio.Stream) io.Writer {
	if stream == stdio.Stderr {
		return c.Stderr
	}
	return c.Stdout
}

// AttachSession is an attach whose preconditions hold. The caller takes over
// the connection and then calls Run exactly once, or Close if it never does.
type AttachSession struct {
	TTY bool

	run   func(context.Context, StreamIO) error
	close func()
}

// Run copies until the output ended, the client left (ctx or a write error) or
// its detach keys were typed. An attach that ended normally returns nil.
func (s *AttachSession) Run(ctx context.Context, client StreamIO) error {
	defer s.Close()
	return s.run(ctx, client)
}

// Close gives up a session that was never run. It may be called twice.
func (s *AttachSession) Close() {
	if s.close != nil {
		s.close()
		s.close = nil
	}
}

// LogSession is a log request whose preconditions hold.
type LogSession struct {
	TTY bool

	run func(context.Context, func(stdio.Stream, []byte) error) error
}

// Run calls emit for each log line in order: line is complete with its
// newline, and with its timestamp and details if they were asked for. It
// returns at the end of the log, or, following, when the container stops.
func (s *LogSession) Run(ctx context.Context, emit func(stream stdio.Stream, line []byte) error) error {
	return s.run(ctx, emit)
}

// ExecStartOptions are those of POST /exec/{id}/start.
type ExecStartOptions struct {
	Detach      bool
	ConsoleSize *[2]uint // rows, columns
}

// ExecSession is an exec that may start. The caller takes over the connection
// and then calls Run, which starts the process: a start that fails is told to
// the client in the stream, as Docker does.
type ExecSession struct {
	run   func(context.Context, StreamIO) error
	close func()
}

// Run starts the process and copies until its output ended or the client left.
func (s *ExecSession) Run(ctx context.Context, client StreamIO) error {
	return s.run(ctx, client)
}

// Close gives up a session that was never run: the exec can be started again.
func (s *ExecSession) Close() {
	if s.close != nil {
		s.close()
	}
}
