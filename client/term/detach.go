package term

import (
	"errors"
	"fmt"
	"io"

	mobyterm "github.com/moby/term"
)

// ErrDetached is returned by what NewDetachReader makes when the user has typed the sequence
// that leaves the container running.
var ErrDetached = errors.New("read escape sequence")

// defaultDetachKeys is ctrl-p ctrl-q.
var defaultDetachKeys = []byte{16, 17}

// ParseDetachKeys turns Docker's notation ("ctrl-p,ctrl-q", "a,b", "ctrl-@") into
// the bytes that a terminal sends. The empty string means the default sequence.
func ParseDetachKeys(s string) ([]byte, error) {
	if s == "" {
		return defaultDetachKeys, nil
	}
	keys, err := mobyterm.ToBytes(s)
	if err != nil {
		return nil, fmt.Errorf("invalid detach keys (%s): %w", s, err)
	}
	return keys, nil
}

// NewDetachReader passes r through until keys are read in sequence, and then
// fails with ErrDetached. A sequence that is begun and not completed is passed on.
func NewDetachReader(r io.Reader, keys []byte) io.Reader {
	return detachReader{mobyterm.NewEscapeProxy(r, keys)}
}

type detachReader struct{ r io.Reader }

func (d detachReader) Read(p []byte) (int, error) {
	n, err := d.r.Read(p)
	if errors.As(err, &mobyterm.EscapeError{}) {
		err = ErrDetached
	}
	return n, err
}
