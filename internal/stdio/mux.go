package stdio

import (
	"encoding/binary"
	"io"
)

// muxHeader is the size of the header before each frame of a multiplexed
// stream: the stream's number, three zero bytes and the big-endian length.
const muxHeader = 8

type muxWriter struct {
	w      io.Writer
	stream Stream
	buf    []byte
}

// NewMuxWriter returns a writer that puts Docker's 8-byte header before each
// Write and hands both to w in a single Write. Writers that share a w must not
// be used at the same time, unless w's Write may be.
func NewMuxWriter(w io.Writer, s Stream) io.Writer { return &muxWriter{w: w, stream: s} }

func (m *muxWriter) Write(p []byte) (int, error) {
	m.buf = append(m.buf[:0], byte(m.stream), 0, 0, 0)
	m.buf = binary.BigEndian.AppendUint32(m.buf, uint32(len(p)))
	m.buf = append(m.buf, p...)
	n, err := m.w.Write(m.buf)
	return max(0, min(n-muxHeader, len(p))), err
}
