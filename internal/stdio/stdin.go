package stdio

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"

	"github.com/cleatlabs/cleat/internal/failure"
)

const stdinBuffer = 32 << 10

// CopyStdin copies what a client types to a process until src ends (nil), the
// process has closed its stdin (nil) or the detach keys were typed
// (ErrDetached). detachKeys nil means that nothing detaches. dst is not closed:
// whether the end of one client's input ends the process's is for the caller
// (StdinOnce) to decide.
//
// Keys that begin the sequence are held back until it is complete or broken; a
// broken beginning is passed on.
func CopyStdin(dst *os.File, src io.Reader, detachKeys []byte) error {
	w, owned, err := pollable(dst)
	if err != nil {
		return fmt.Errorf("write the process's input: %w", err)
	}
	if owned {
		defer w.Close()
	}
	keys := newDetacher(detachKeys)
	buf := make([]byte, stdinBuffer)
	var out []byte
	for {
		n, rerr := src.Read(buf)
		var found bool
		out, found = keys.scan(out[:0], buf[:n])
		if rerr != nil && !found {
			out = keys.flush(out)
		}
		if err := writeAll(w, out); err != nil {
			if errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.EIO) || errors.Is(err, os.ErrClosed) {
				return nil
			}
			return fmt.Errorf("write the process's input: %w", err)
		}
		switch {
		case found:
			return ErrDetached
		case errors.Is(rerr, io.EOF):
			return nil
		case rerr != nil:
			return fmt.Errorf("read the client's input: %w", rerr)
		}
	}
}

func writeAll(w io.Writer, p []byte) error {
	if len(p) == 0 {
		return nil
	}
	_, err := w.Write(p)
	return err
}

// detacher finds a key sequence in input that comes in pieces of any size.
type detacher struct {
	keys    []byte
	matched int   // how many keys the latest input ends with
	border  []int // border[i]: the longest proper prefix of keys[:i] that ends keys[:i]
}

func newDetacher(keys []byte) *detacher {
	d := &detacher{keys: keys, border: make([]int, len(keys)+1)}
	for i, k := 1, 0; i < len(keys); i++ {
		for k > 0 && keys[i] != keys[k] {
			k = d.border[k]
		}
		if keys[i] == keys[k] {
			k++
		}
		d.border[i+1] = k
	}
	return d
}

// scan appends to out what may be passed on of in and says whether the sequence
// was completed; what follows it is not looked at.
func (d *detacher) scan(out, in []byte) ([]byte, bool) {
	if len(d.keys) == 0 {
		return append(out, in...), false
	}
	for _, b := range in {
		for d.matched > 0 && b != d.keys[d.matched] {
			keep := d.border[d.matched]
			out = append(out, d.keys[:d.matched-keep]...)
			d.matched = keep
		}
		if b != d.keys[d.matched] {
			out = append(out, b)
			continue
		}
		if d.matched++; d.matched == len(d.keys) {
			d.matched = 0
			return out, true
		}
	}
	return out, false
}

// flush appends a beginning of the sequence that no more input can complete.
func (d *detacher) flush(out []byte) []byte {
	out = append(out, d.keys[:d.matched]...)
	d.matched = 0
	return out
}

// ParseDetachKeys turns a list such as "ctrl-p,ctrl-q" or "ctrl-a,b" into the
// bytes that a terminal sends: single characters, ctrl- with a lower-case
// letter or one of @ [ \ ] ^ _, and DEL. An empty list is the default,
// ctrl-p,ctrl-q.
func ParseDetachKeys(keys string) ([]byte, error) {
	if keys == "" {
		return []byte{'p' & 0x1f, 'q' & 0x1f}, nil
	}
	var codes []byte
	for key := range strings.SplitSeq(keys, ",") {
		code, ok := keyCode(key)
		if !ok {
			return nil, failure.Invalid("Unknown character: '%s'", key)
		}
		codes = append(codes, code)
	}
	return codes, nil
}

func keyCode(key string) (byte, bool) {
	if len(key) == 1 {
		return key[0], true
	}
	if key == "DEL" {
		return 0x7f, true
	}
	c, ok := strings.CutPrefix(key, "ctrl-")
	if !ok || len(c) != 1 {
		return 0, false
	}
	if c[0] >= 'a' && c[0] <= 'z' || strings.Contains(`@[\]^_`, c) {
		return c[0] & 0x1f, true
	}
	return 0, false
}
