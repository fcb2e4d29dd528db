package stdio

import "sync"

// bufferSize is the size of a lent buffer; pipes hold up to 1 MiB, so a busy
// stream is read in few calls.
const bufferSize = 128 << 10

// Pool lends read and encode buffers, so that idle streams hold none. The zero
// Pool is ready.
type Pool struct{ p sync.Pool }

// Get returns a buffer of bufferSize bytes with any content.
func (p *Pool) get() *[]byte {
	if b, ok := p.p.Get().(*[]byte); ok {
		return b
	}
	b := make([]byte, bufferSize)
	return &b
}

func (p *Pool) put(b *[]byte) { p.p.Put(b) }
