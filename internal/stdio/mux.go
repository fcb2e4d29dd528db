package stdio

import (
	"encoding/binary"
	"io"
	"net"
)

// muxHeader is the size of the header before each frame of a multiplexed
// stream: the stream's number, three zero bytes and the big-endian length.
const muxHeader = 8

// joined is the size, in bytes, up to which a frame is copied behind its header;
// larger ones go out beside it, and no client that does not read keeps a copy.
const joined = 4 << 10

type muxWriter struct {
	w      io.Writer
	stream Stream
	buf    []byte // the header, and a small frame
}

// NewMuxWriter returns a writer that puts Docker's 8-byte header before each
// Write and hands both to w, with a single system call if w is a connection.
// Writers that share a w must not be used at the same time.
func NewMuxWriter(w io.Writer, s Stream) io.Writer { return &muxWriter{w: w, stream: s} }

func (m *muxWriter) Write(p []byte) (int, error) {
	m.buf = append(m.buf[:0], byte(m.stream), 0, 0, 0)
	m.buf = binary.BigEndian.AppendUint32(m.buf, uint32(len(p)))
	if len(p) <= joined {
		m.buf = append(m.buf, p...)
		n, err := m.w.Write(m.buf)
		return max(0, min(n-muxHeader, len(p))), err
	}
	parts := net.Buffers{m.buf, p}
	n, err := parts.WriteTo(m.w)
	return max(0, min(int(n)-muxHeader, len(p))), err
}
