package term

import (
	"errors"
	"io"
	"os"
	"os/signal"
	"sync"

	mobyterm "github.com/moby/term"
	"golang.org/x/sys/unix"
)

// Input is the stream that the user types into.
type Input struct {
	r   io.Reader
	fd  uintptr
	tty bool

	mu      sync.Mutex
	restore func() // gives the terminal back as it was; nil while nobody has changed it
}

// NewInput wraps r. It counts as a terminal only if it is an *os.File that is one.
func NewInput(r io.Reader) *Input {
	in := &Input{r: r}
	if f, ok := r.(*os.File); ok && f != nil {
		in.fd = f.Fd()
		in.tty = mobyterm.IsTerminal(in.fd)
	}
	return in
}

// Read reads from the stream.
func (in *Input) Read(p []byte) (int, error) { return in.r.Read(p) }

// IsTerminal says whether someone can type here.
func (in *Input) IsTerminal() bool { return in.tty }

// CheckTTY fails if a container's terminal is to be fed from this stream, which
// is none: the container would wait for input that no one can type.
func (in *Input) CheckTTY(attachStdin, tty bool) error {
	if tty && attachStdin && !in.tty {
		return errors.New("the input device is not a TTY: leave out -t where nobody types, as in pipes, cron and CI")
	}
	return nil
}

// Hide keeps what is typed from being shown, until restore.
func (in *Input) Hide() (restore func(), err error) {
	saved, err := mobyterm.SaveState(in.fd)
	if err != nil {
		return nil, err
	}
	if err := mobyterm.DisableEcho(in.fd, saved); err != nil {
		return nil, err
	}
	return in.changed(saved), nil
}

// Raw switches the terminal to raw mode and returns what gives it back. Restore
// may be called more than once and from several goroutines. On a stream that is
// no terminal nothing happens. From then on writing to a pipe that nobody reads
// is an error, and not the process's end: that would leave the terminal raw.
func (in *Input) Raw() (restore func(), err error) {
	if !in.tty {
		return func() {}, nil
	}
	signal.Ignore(unix.SIGPIPE)
	saved, err := mobyterm.SetRawTerminal(in.fd)
	if err != nil {
		return nil, err
	}
	return in.changed(saved), nil
}

// changed is what gives the terminal back as it was saved.
func (in *Input) changed(saved *mobyterm.State) (restore func()) {
	restore = sync.OnceFunc(func() { _ = mobyterm.RestoreTerminal(in.fd, saved) })
	in.mu.Lock()
	defer in.mu.Unlock()
	in.restore = restore
	return restore
}

// Restore gives the terminal back as it was before Raw or Hide, for a process that ends without more ado.
func (in *Input) Restore() {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.restore != nil {
		in.restore()
	}
}

// Output is a stream that the user reads.
type Output struct {
	w   io.Writer
	fd  uintptr
	tty bool
}

// NewOutput wraps w. It counts as a terminal only if it is an *os.File that is one.
func NewOutput(w io.Writer) *Output {
	out := &Output{w: w}
	if f, ok := w.(*os.File); ok && f != nil {
		out.fd = f.Fd()
		out.tty = mobyterm.IsTerminal(out.fd)
	}
	return out
}

// Write writes to the stream.
func (o *Output) Write(p []byte) (int, error) { return o.w.Write(p) }

// IsTerminal says whether a person reads this stream as it is written.
func (o *Output) IsTerminal() bool { return o.tty }

// Size is the terminal's height and width in characters; 0, 0 if it is none.
func (o *Output) Size() (rows, cols uint) {
	if !o.tty {
		return 0, 0
	}
	ws, err := mobyterm.GetWinsize(o.fd)
	if err != nil {
		return 0, 0
	}
	return uint(ws.Height), uint(ws.Width)
}

// Abandoned waits until nobody reads what is written any more: the pipe's or the connection's other end has gone. It
// returns false, perhaps never, where nobody can go, as with a file.
func (o *Output) Abandoned() bool {
	if _, ok := o.w.(*os.File); !ok {
		return false
	}
	fds := []unix.PollFd{{Fd: int32(o.fd)}}
	for {
		_, err := unix.Poll(fds, -1)
		if !errors.Is(err, unix.EINTR) {
			return err == nil && fds[0].Revents&(unix.POLLERR|unix.POLLHUP) != 0
		}
	}
}
