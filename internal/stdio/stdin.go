package stdio

import (
	"errors"
	"io"
	"os"
)

// CopyStdin copies what a client types to a process until src ends (nil), the
// process has closed its stdin (nil) or the detach keys were typed
// (ErrDetached). detachKeys nil means that nothing detaches. dst is not closed.
func CopyStdin(dst *os.File, src io.Reader, detachKeys []byte) error {
	return errors.New("stdio: CopyStdin: not built yet")
}

// ParseDetachKeys turns a list such as "ctrl-p,ctrl-q" or "ctrl-a,b" into the
// bytes that a terminal sends. An empty list is the default, ctrl-p,ctrl-q.
func ParseDetachKeys(keys string) ([]byte, error) { return nil, errors.New("stdio: not built yet") }
