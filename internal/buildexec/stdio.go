package buildexec

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/moby/buildkit/executor"
	gatewayapi "github.com/moby/buildkit/frontend/gateway/pb"
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/runtime"
)

// copySize is what is read of a process's output at once.
const copySize = 64 << 10

// attend moves a process's input and output, passes on signals and the sizes of its terminal, and returns when the
// process has ended and all its output has been handed over.
func attend(p *runtime.Process, info *executor.ProcessInfo) {
	in := p.Stdin()
	if c := p.Console(); c != nil {
		in = c
	}
	if info.Stdin != nil {
		// Who reads may be held up for ever by a client; closing is all that can be done about it.
		defer info.Stdin.Close()
		go feed(p, in, info.Stdin)
	}
	var copying sync.WaitGroup
	for from, to := range map[*os.File]io.Writer{p.Stdout(): info.Stdout, p.Stderr(): info.Stderr, p.Console(): info.Stdout} {
		if from != nil {
			copying.Go(func() { drain(p.Done(), from, to) })
		}
	}
	relay(p, info)
	copying.Wait()
}

// feed gives a process its input, and the end of it. A terminal has none.
func feed(p *runtime.Process, to *os.File, from io.Reader) {
	_, _ = io.Copy(to, from) // the process may have closed it
	_ = p.CloseStdin()
}

// relay passes signals and sizes on until the process has ended.
func relay(p *runtime.Process, info *executor.ProcessInfo) {
	signals, sizes := info.Signal, info.Resize
	for {
		select {
		case <-p.Done():
			return
		case sig, ok := <-signals:
			if !ok {
				signals = nil
				continue
			}
			_ = p.Signal(int(sig)) // it may have ended
		case size, ok := <-sizes:
			if !ok {
				sizes = nil
				continue
			}
			if p.Console() != nil {
				_ = p.Resize(size16(size.Rows), size16(size.Cols)) // it may have ended
			}
		}
	}
}

func size16(n uint32) uint16 { return uint16(min(n, 1<<16-1)) }

// drain copies a process's output until its end: that of the stream, or that of the process, if others have the stream
// and live on. Who does not take it must not hold the process up.
func drain(done <-chan struct{}, from *os.File, to io.Writer) {
	if to == nil {
		to = io.Discard
	}
	over := make(chan struct{})
	defer close(over)
	go func() {
		select {
		case <-done:
			// What waits for more is woken.
			_ = from.SetReadDeadline(time.Unix(1, 0))
		case <-over:
		}
	}()
	b := make([]byte, copySize)
	for {
		n, err := from.Read(b)
		to = hand(to, b[:n])
		if errors.Is(err, os.ErrDeadlineExceeded) {
			rest(from, to, b)
			return
		}
		if err != nil { // io.EOF, or EIO of a terminal
			return
		}
	}
}

// hand writes, and gives up a writer that fails.
func hand(to io.Writer, b []byte) io.Writer {
	if len(b) == 0 {
		return to
	}
	if _, err := to.Write(b); err != nil {
		return io.Discard
	}
	return to
}

// rest copies what a stream holds, without waiting for more.
func rest(from *os.File, to io.Writer, b []byte) {
	c, err := from.SyscallConn()
	if err != nil {
		return
	}
	for {
		n, err := -1, error(nil)
		cerr := c.Control(func(fd uintptr) { n, err = unix.Read(int(fd), b) })
		if errors.Is(err, unix.EINTR) && cerr == nil {
			continue
		}
		if cerr != nil || n <= 0 {
			return
		}
		to = hand(to, b[:n])
	}
}

// exitError is what Run and Exec answer for an exit code, as BuildKit wants it.
func exitError(ctx context.Context, code int, valid []int, noMemory bool) error {
	if valid == nil {
		valid = []int{0}
	}
	for _, v := range valid {
		if v == code {
			return nil
		}
	}
	err := &gatewayapi.ExitError{ExitCode: uint32(code)}
	if noMemory {
		err.Err = syscall.ENOMEM
	}
	if cause := context.Cause(ctx); cause != nil {
		err.Err = fmt.Errorf("%s: %w", err.Error(), cause)
	}
	return err
}

// startFailed is what is answered for a process that could not be started. The command's own faults are exit codes, as
// a shell's are.
func startFailed(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	const notExecutable, notFound = 126, 127
	var start *runtime.StartError
	if errors.As(err, &start) && (start.Code == notExecutable || start.Code == notFound) {
		return &gatewayapi.ExitError{ExitCode: uint32(start.Code), Err: err}
	}
	return err
}
