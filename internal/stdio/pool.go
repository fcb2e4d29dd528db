package stdio

import "sync"

// bufferSize is the size of a lent buffer, in bytes, and so the largest batch:
// an unfinished line and what is read in one go.
const bufferSize = 128 << 10

// Pool lends read and encode buffers, so that idle streams hold none. The zero
// Pool is ready; its methods may be called concurrently.
type Pool struct{ p sync.Pool }

// Get lends a buffer of any content and at least 128 KiB.
func (p *Pool) Get() *[]byte {
	if b, ok := p.p.Get().(*[]byte); ok {
		return b
	}
	b := make([]byte, bufferSize)
	return &b
}

// Put gives a buffer back. One that has grown is kept, unless it is huge.
func (p *Pool) Put(b *[]byte) {
	*b = (*b)[:cap(*b)]
	if n := len(*b); n >= bufferSize && n <= 16*bufferSize {
		p.p.Put(b)
	}
}
