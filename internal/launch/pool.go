package launch

// A Pool keeps the memory of programs that are over for later ones: fresh memory is faulted in page by page, which
// takes longer than building a program does. Its methods may be called concurrently.
type Pool struct{ free chan *Program }

// NewPool returns a pool that keeps n programs at most.
func NewPool(n int) *Pool { return &Pool{make(chan *Program, n)} }

// Program returns an empty program, without trace.
func (pl *Pool) Program() *Program {
	select {
	case p := <-pl.free:
		return p
	default:
		return NewProgram(false)
	}
}

// maxKept bounds the memory of a program that is kept: an environment can be large.
const maxKept = 256 << 10

// Put gives back a program whose Child has been awaited, or that was never started. Nobody may use it, or anything it
// returned, any more.
func (pl *Pool) Put(p *Program) {
	if p.trace || cap(p.mem)+cap(p.encoded)+cap(p.ops)*opSize > maxKept {
		return
	}
	clear(p.ops)
	clear(p.what)
	clear(p.mem)
	*p = Program{ops: p.ops[:0], what: p.what[:0], mem: p.mem[:slotsEnd], encoded: p.encoded[:0], slots: headerSize}
	p.empty = p.Str("")
	select {
	case pl.free <- p:
	default:
	}
}
