package logs

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"github.com/cleatlabs/cleat/internal/stdio"
)

// A cutLine is a line, or a piece of one, as it was in a log before that was cut back.
type cutLine struct {
	nano int64
	line []byte // with its newline
}

// longestCut bounds in bytes what is remembered of a cut: one Append writes less, after which its Mark is recorded.
const longestCut = 2 * flushSize

// cutBack shortens the file to offset, and remembers what it takes away: it is what will be appended again, and then it
// has the times that it had. Whoever followed the log of a killed engine knows by them what has been seen.
func (w *writer) cutBack(path string, st fs.FileInfo, offset int64) error {
	w.cut = [2][]cutLine{}
	f, err := os.OpenFile(path, os.O_RDWR|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return fmt.Errorf("rewind the log: %w", err)
	}
	defer f.Close()
	b := make([]byte, min(st.Size()-offset, longestCut))
	n, _ := f.ReadAt(b, offset) // what cannot be read gets new times
	for rest := b[:n]; ; {
		line, after, whole := bytes.Cut(rest, []byte{'\n'})
		if !whole {
			break
		}
		rest = after
		was := append(bytes.Clone(line), '\n') // decode may change it
		var r record
		if !decode(line, &r) {
			break
		}
		w.cut[r.stream-1] = append(w.cut[r.stream-1], cutLine{r.nano, was})
	}
	if err := f.Truncate(offset); err != nil {
		return fmt.Errorf("rewind the log: %w", err)
	}
	return nil
}

// add appends a line, or a piece of one, to out, and gives its time: at, or that which it had before it was cut off.
func (w *writer) add(out []byte, s stdio.Stream, text []byte, partial bool, at int64) ([]byte, int64) {
	if cut := w.cut[s-1]; len(cut) > 0 {
		begin := len(out)
		out = w.enc.append(out, s, text, partial, cut[0].nano)
		if bytes.Equal(out[begin:], cut[0].line) {
			w.cut[s-1] = cut[1:]
			return out, cut[0].nano
		}
		w.cut[s-1] = nil
		out = out[:begin]
	}
	return w.enc.append(out, s, text, partial, at), at
}
