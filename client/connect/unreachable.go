package connect

import (
	"errors"
	"fmt"
	"strings"
	"syscall"

	"github.com/moby/moby/client"
)

// IsUnreachable says whether the engine could not even be spoken to.
func IsUnreachable(err error) bool {
	return err != nil && (client.IsErrConnectionFailed(err) || strings.Contains(err.Error(), "cannot connect to the Docker daemon") ||
		strings.Contains(err.Error(), wantsTLS))
}

// UnreachableError says what to do about an engine that cannot be reached.
type UnreachableError struct {
	Host, Program string
	Cause         error
}

func (e *UnreachableError) Unwrap() error { return e.Cause }

func (e *UnreachableError) Error() string {
	cause := e.Cause.Error()
	if strings.HasPrefix(e.Host, "ssh://") {
		return fmt.Sprintf("Cannot connect to the engine at %s: %s", e.Host, saidOverSSH(cause))
	}
	if said := saidOverTLS(cause); said != "" && !strings.HasPrefix(e.Host, "unix://") {
		return fmt.Sprintf("Cannot connect to the engine at %s: %s", e.Host, said)
	}
	switch {
	case errors.Is(e.Cause, syscall.EACCES) || strings.Contains(cause, "permission denied"):
		return fmt.Sprintf("Permission denied while connecting to the Cleat engine at %s. Its socket is open to root and to the members of its group:"+
			" use sudo, or join that group (see 'ls -l %s') and log in again", e.Host, strings.TrimPrefix(e.Host, "unix://"))
	case strings.HasPrefix(e.Host, "unix://"):
		return fmt.Sprintf("Cannot connect to the Cleat engine at %s. Is it running? Start it with 'cleat engine start'", e.Host)
	case client.IsErrConnectionFailed(e.Cause) && strings.Contains(cause, "Cannot connect to the Docker daemon"):
		// The cause says no more than this does.
		return fmt.Sprintf("Cannot connect to the engine at %s. Is it running, and does it listen there?", e.Host)
	default:
		return fmt.Sprintf("Cannot connect to the engine at %s. Is it running? (%s)", e.Host, lastOf(strings.TrimSpace(cause)))
	}
}

// BrokenSSH is what ssh said when a connection through it ended in the middle; "" if err tells of something else.
func BrokenSSH(err error) string {
	if err == nil || !strings.Contains(err.Error(), "system dial-stdio] has exited with ") {
		return ""
	}
	return saidOverSSH(err.Error())
}

// saidOverSSH is what ssh, or the command that it has run, wrote before it failed.
func saidOverSSH(cause string) string {
	if _, said, ok := strings.Cut(cause, "stderr="); ok {
		for _, quoted := range []string{`"`, `\n`, `\r`} { // from within an error of gRPC
			said = strings.TrimSuffix(said, quoted)
		}
		if said = strings.TrimSpace(said); said != "" {
			return said
		}
	}
	return strings.TrimSpace(cause)
}

// lastOf is the innermost part of a chain of messages.
func lastOf(msg string) string {
	if i := strings.LastIndex(msg, ": "); i >= 0 {
		return msg[i+2:]
	}
	return msg
}
