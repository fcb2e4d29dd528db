package seccomp

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/failure"
)

// instruction is struct sock_filter.
type instruction struct {
	code   uint16
	jt, jf uint8
	k      uint32
}

const (
	opLoad   = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
	opAnd    = unix.BPF_ALU | unix.BPF_AND | unix.BPF_K
	opReturn = unix.BPF_RET | unix.BPF_K
	opJump   = unix.BPF_JMP | unix.BPF_JA
	jumpEQ   = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
	jumpGT   = unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K
	jumpGE   = unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K

	// Offsets in struct seccomp_data. The arguments are 64 bits each, low half first.
	offNumber, offArch, offArgs = 0, 4, 16

	maxInstructions = 4096 // BPF_MAXINSNS

	// x32 system calls come with AUDIT_ARCH_X86_64 and this bit in their number.
	x32Bit = 0x40000000
)

// label is a place in the program: how many instructions lie between it and the end.
type label int

// assembler builds a program from its end, so that every jump, which can only go forward, has its target placed already.
type assembler struct {
	reversed []instruction
	returns  map[uint32]label
	decided  map[string]label // the tests of arguments, which several system calls and architectures share
}

func (a *assembler) emit(i instruction) label {
	a.reversed = append(a.reversed, i)
	return label(len(a.reversed) - 1)
}

// distance is how many instructions the next one to be emitted would have to jump over to reach l.
func (a *assembler) distance(l label) int { return len(a.reversed) - 1 - int(l) }

// fallInto makes sure that the next instruction to be emitted is followed by the one at l.
func (a *assembler) fallInto(l label) {
	if d := a.distance(l); d > 0 {
		a.emit(instruction{code: opJump, k: uint32(d)})
	}
}

// maxJump is what the two targets of a conditional jump may be away.
const maxJump = 255

// near returns l if a conditional jump can reach it after at most spare more instructions, else a jump to it.
func (a *assembler) near(l label, spare int) label {
	if a.distance(l)+spare <= maxJump {
		return l
	}
	return a.emit(instruction{code: opJump, k: uint32(a.distance(l))})
}

// branch emits a conditional jump.
func (a *assembler) branch(code uint16, k uint32, yes, no label) label {
	no = a.near(no, 1) // a relay for the other target may come between
	yes = a.near(yes, 0)
	return a.emit(instruction{code: code, jt: uint8(a.distance(yes)), jf: uint8(a.distance(no)), k: k})
}

// verdict is a place that returns the action. One that is near enough is used again.
func (a *assembler) verdict(action uint32) label {
	const spare = 16 // instructions that may come between
	if l, ok := a.returns[action]; ok && a.distance(l) < maxJump-spare {
		return l
	}
	l := a.emit(instruction{code: opReturn, k: action})
	a.returns[action] = l
	return l
}

// span is a range of system call numbers with the same answer.
type span struct {
	first  uint32
	rules  []rule // in order; none: action alone
	action uint32 // when no rule applies
}

// plain reports whether the number alone decides.
func (s span) plain() bool { return len(s.rules) == 0 }

// same reports whether both spans have one answer.
func (s span) same(o span) bool { return s.plain() && o.plain() && s.action == o.action }

// assemble makes the program: a switch on the architecture, and for each a search of the number. The kernel compiles
// the program anew for each process, and tries it for each number: its length and its depth are a part of every start.
func (s *policy) assemble() ([]instruction, error) {
	a := &assembler{returns: map[uint32]label{}, decided: map[string]label{}}
	next := a.verdict(unix.SECCOMP_RET_KILL_PROCESS)
	starts := make([]label, len(s.arches))
	for i := len(s.arches) - 1; i >= 0; i-- {
		a.fallInto(a.search(blocks(s.spans(&s.arches[i]))))
		starts[i] = a.emit(instruction{code: opLoad, k: offNumber})
	}
	for i := len(s.arches) - 1; i >= 0; i-- {
		next = a.branch(jumpEQ, s.arches[i].audit, starts[i], next)
	}
	a.emit(instruction{code: opLoad, k: offArch})
	if len(a.reversed) > maxInstructions {
		return nil, failure.Invalid("the seccomp profile is too long: %d instructions, the kernel takes %d", len(a.reversed), maxInstructions)
	}
	slices.Reverse(a.reversed)
	return a.reversed, nil
}

const failENOSYS = unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)

// spans divides all numbers into ranges.
func (s *policy) spans(t *table) []span {
	numbers := make([]uint32, 0, len(t.rules))
	for nr := range t.rules {
		numbers = append(numbers, nr)
	}
	slices.Sort(numbers)
	spans := []span{{first: 0, action: s.fallback}}
	add := func(n span) {
		if last := len(spans) - 1; spans[last].first == n.first {
			spans = spans[:last] // empty
		}
		if len(spans) == 0 || !spans[len(spans)-1].same(n) {
			spans = append(spans, n)
		}
	}
	newer := s.fallback // for numbers above all that the profile names
	if s.enosys && t.named {
		newer = failENOSYS
	}
	newerAdded := false
	for _, nr := range numbers {
		if nr > t.last && !newerAdded {
			newerAdded = true
			add(span{first: t.last + 1, action: newer})
		}
		add(t.span(nr, s.fallback))
		after := s.fallback
		if nr >= t.last {
			after = newer
		}
		add(span{first: nr + 1, action: after})
	}
	if !newerAdded {
		add(span{first: t.last + 1, action: newer})
	}
	if t.audit == unix.AUDIT_ARCH_X86_64 {
		add(span{first: x32Bit, action: failENOSYS})
	}
	return spans
}

// span is the answer for one system call.
func (t *table) span(nr, fallback uint32) span {
	rules := t.rules[nr]
	for _, r := range rules {
		if len(r.conditions) == 0 {
			return span{first: nr, action: r.action}
		}
	}
	return span{first: nr, rules: rules, action: fallback}
}

// block is a range of numbers with one answer but for a few.
type block struct {
	span
	exceptions []span // of one number each
}

// maxExceptions bounds how many numbers are compared one after the other.
const maxExceptions = 3

// blocks groups spans, so that a number among others takes one comparison instead of two.
func blocks(spans []span) []block {
	var all []block
	for i := 0; i < len(spans); {
		b := block{span: spans[i]}
		isException := func() bool {
			return i+2 < len(spans) && spans[i+2].first == spans[i+1].first+1 && spans[i+2].same(b.span)
		}
		for isException() && len(b.exceptions) < maxExceptions {
			b.exceptions = append(b.exceptions, spans[i+1])
			i += 2
		}
		all = append(all, b)
		if len(b.exceptions) < maxExceptions || !isException() {
			i++
		} // else the last span goes on as the next block
	}
	return all
}

// search finds the block of the number in the accumulator, then its answer.
func (a *assembler) search(blocks []block) label {
	if len(blocks) > 1 {
		middle := len(blocks) / 2
		high := a.search(blocks[middle:])
		low := a.search(blocks[:middle])
		return a.branch(jumpGE, blocks[middle].first, high, low)
	}
	next := a.decide(blocks[0].span)
	for _, e := range blocks[0].exceptions {
		next = a.branch(jumpEQ, e.first, a.decide(e), next)
	}
	return next
}

// decide goes through the rules of a span.
func (a *assembler) decide(s span) label {
	if s.plain() {
		return a.verdict(s.action)
	}
	key := fmt.Sprint(s.rules, s.action)
	if l, ok := a.decided[key]; ok {
		return l
	}
	next := a.verdict(s.action)
	for i := len(s.rules) - 1; i >= 0; i-- {
		r := s.rules[i]
		met := a.verdict(r.action)
		for j := len(r.conditions) - 1; j >= 0; j-- {
			met = a.condition(r.conditions[j], met, next)
		}
		next = met
	}
	a.decided[key] = next
	return next
}

// condition compares an argument, which is two words to BPF, the high one first.
func (a *assembler) condition(c specs.LinuxSeccompArg, yes, no label) label {
	low := uint32(offArgs + 8*c.Index)
	high := low + 4
	value := c.Value
	equal, greater := uint16(jumpEQ), uint16(jumpGT)
	switch c.Op {
	case specs.OpMaskedEqual:
		return a.masked(low, high, c.Value, c.ValueTwo, yes, no)
	case specs.OpNotEqual:
		yes, no = no, yes
		fallthrough
	case specs.OpEqualTo:
		a.branch(equal, uint32(value), yes, no)
		at := a.emit(instruction{code: opLoad, k: low})
		a.branch(equal, uint32(value>>32), at, no)
		return a.emit(instruction{code: opLoad, k: high})
	}
	// The four orderings are one of two, or the opposite of it: a < b is not a >= b.
	least := greater
	switch c.Op {
	case specs.OpGreaterEqual:
		least = jumpGE
	case specs.OpLessThan:
		least = jumpGE
		yes, no = no, yes
	case specs.OpLessEqual:
		yes, no = no, yes
	}
	a.branch(least, uint32(value), yes, no)
	at := a.emit(instruction{code: opLoad, k: low})
	at = a.branch(equal, uint32(value>>32), at, no)
	a.branch(greater, uint32(value>>32), yes, at)
	return a.emit(instruction{code: opLoad, k: high})
}

// masked compares the bits of an argument that are set in mask. A value with other bits is never met.
func (a *assembler) masked(low, high uint32, mask, value uint64, yes, no label) label {
	a.branch(jumpEQ, uint32(value), yes, no)
	a.emit(instruction{code: opAnd, k: uint32(mask)})
	at := a.emit(instruction{code: opLoad, k: low})
	a.branch(jumpEQ, uint32(value>>32), at, no)
	a.emit(instruction{code: opAnd, k: uint32(mask >> 32)})
	return a.emit(instruction{code: opLoad, k: high})
}

func encode(program []instruction) []byte {
	out := make([]byte, 0, 8*len(program))
	for _, i := range program {
		out = binary.NativeEndian.AppendUint16(out, i.code)
		out = append(out, i.jt, i.jf)
		out = binary.NativeEndian.AppendUint32(out, i.k)
	}
	return out
}
