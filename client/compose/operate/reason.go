package operate

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
)

// A reason is this many lines at most, and so many bytes of a line.
const reasonLines, reasonWidth = 10, 400

// reasonError is an error with what a container has said, in lines of its own.
type reasonError struct {
	err    error
	reason string
}

func (e *reasonError) Error() string { return e.err.Error() + "; " + e.reason }

func (e *reasonError) Unwrap() error { return e.err }

// withReason adds to the error of a container that does not become what others wait for what its last health check, or
// else the container itself, has said.
func (o *Operator) withReason(ctx context.Context, c container.InspectResponse, err error) error {
	if memory := OutOfMemory(c); memory != "" {
		err = fmt.Errorf("%w, %s", err, memory)
	}
	said, who := "", "it"
	if c.State.Status == container.StateRunning {
		h := c.State.Health
		if h == nil || len(h.Log) == 0 {
			return err
		}
		last := h.Log[len(h.Log)-1]
		said, who = last.Output, fmt.Sprintf("its last check ended with status %d and", last.ExitCode)
	} else {
		var lerr error
		if said, lerr = o.lastOutput(ctx, c); lerr != nil {
			return err // a log that cannot be read is not what the user is to hear of
		}
	}
	lines := strings.FieldsFunc(said, func(r rune) bool { return r == '\n' || r == '\r' })
	if len(lines) == 0 {
		return &reasonError{err, who + " said nothing"}
	}
	lines = lines[max(0, len(lines)-reasonLines):]
	var b strings.Builder
	for _, l := range lines {
		if len(l) > reasonWidth {
			l = strings.ToValidUTF8(l[:reasonWidth], "") + "..."
		}
		b.WriteString("\n    " + l)
	}
	return &reasonError{err, who + " said:" + b.String()}
}

// OutOfMemory says of a container whose last run had a process killed for want of memory that it was so, and what to
// write; "" of others. The program's exit code need not show it, nor its output.
func OutOfMemory(c container.InspectResponse) string {
	switch {
	case c.State == nil || !c.State.OOMKilled:
		return ""
	case c.HostConfig == nil || c.HostConfig.Memory == 0:
		return "a process of it was killed for want of memory: it has no limit of its own, so more must come from where it runs"
	}
	return "a process of it was killed for want of memory: raise its limit of " + units.BytesSize(float64(c.HostConfig.Memory)) + " (mem_limit, or deploy.resources.limits.memory)"
}

// lastOutput are the last lines of a container's log.
func (o *Operator) lastOutput(ctx context.Context, c container.InspectResponse) (string, error) {
	stream, err := o.API.ContainerLogs(ctx, c.ID, client.ContainerLogsOptions{ShowStdout: true, ShowStderr: true, Tail: fmt.Sprint(reasonLines)})
	if err != nil {
		return "", err
	}
	defer stream.Close()
	var b bytes.Buffer
	if c.Config.Tty {
		_, err = io.Copy(&b, stream)
	} else {
		_, err = stdcopy.StdCopy(&b, &b, stream)
	}
	return b.String(), err
}
