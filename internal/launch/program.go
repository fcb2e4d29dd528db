package launch

import (
	"encoding/binary"
	"errors"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/failure"
)

// argKind says how Dump prints an argument.
type argKind uint8

const (
	kindNumber argKind = iota
	kindHex
	kindOctal
	kindString
	kindNamed
	kindSlot
)

// An Arg is one argument of an operation.
type Arg struct {
	value    uint64
	indirect bool
	kind     argKind
	text     string
}

// Int is a plain number; negative ones are sign-extended.
func Int[T ~int | ~int32 | ~int64 | ~uint | ~uint32 | ~uint64 | ~uintptr](n T) Arg {
	return Arg{value: uint64(n)}
}

// Hex is a number that Dump prints in base 16.
func Hex(n uint64) Arg { return Arg{value: n, kind: kindHex} }

// Mode is a file mode.
func Mode(m uint32) Arg { return Arg{value: uint64(m), kind: kindOctal} }

// Named is a number that Dump prints by name, such as a descriptor or a set of flags.
func Named(n uint64, name string) Arg { return Arg{value: n, kind: kindNamed, text: name} }

// Address is the argument's value: for strings and structures, where they lie.
func (a Arg) Address() uint64 { return a.value }

// CWD is AT_FDCWD.
func CWD() Arg {
	fd := int64(unix.AT_FDCWD)
	return Named(uint64(fd), "AT_FDCWD")
}

// A Slot is a word that keeps the result of one operation for later ones.
type Slot uint64

// Arg is the slot's value at the time when the operation runs.
func (s Slot) Arg() Arg { return Arg{value: uint64(s), indirect: true, kind: kindSlot} }

// A Program is built once, started once. Its methods must not be called concurrently.
type Program struct {
	ops   []op
	what  []string // the object of each op, for errors and Dump
	shown [][]Arg  // arguments, kept only for Dump
	mem   []byte   // header, slots, data
	slots int
	empty Arg
	trace bool
	fail  error

	encoded []byte // memory for Encode
}

// NewProgram returns an empty program. With trace it can be dumped.
func NewProgram(trace bool) *Program {
	p := &Program{trace: trace, ops: make([]op, 0, 512), what: make([]string, 0, 512), mem: make([]byte, slotsEnd, 32<<10), slots: headerSize}
	p.empty = p.Str("")
	return p
}

// An Op is an operation of a program.
type Op struct {
	p *Program
	i int
}

// Call appends a system call. What names its object (a path, an option) in errors and dumps.
func (p *Program) Call(nr uintptr, what string, args ...Arg) Op { return p.add(int64(nr), what, args) }

func (p *Program) add(nr int64, what string, args []Arg) Op {
	o := op{nr: nr}
	for i, a := range args {
		o.args[i] = a.value
		if a.indirect {
			o.indirect |= 1 << i
		}
	}
	p.ops = append(p.ops, o)
	p.what = append(p.what, what)
	if p.trace {
		p.shown = append(p.shown, append([]Arg(nil), args...))
	}
	return Op{p, len(p.ops) - 1}
}

// Ignore names up to two errors after which the program goes on.
func (o Op) Ignore(errnos ...syscall.Errno) Op {
	x := &o.p.ops[o.i]
	for _, e := range errnos {
		switch {
		case x.ign1 == 0:
			x.ign1 = uint32(e)
		case x.ign2 == 0:
			x.ign2 = uint32(e)
		default:
			o.p.setError(errors.New("launch: an operation can ignore two errors at most"))
		}
	}
	return o
}

// IgnoreAll lets the program go on whatever the operation answers.
func (o Op) IgnoreAll() Op {
	o.p.ops[o.i].ign1 = ignoreAll
	return o
}

// Label replaces the name of the operation's object.
func (o Op) Label(what string) Op {
	o.p.what[o.i] = what
	return o
}

// To stores the operation's result in s.
func (o Op) To(s Slot) Op {
	o.p.ops[o.i].out = uint64(s)
	return o
}

// rememberEACCES lets the program go on after EACCES, which s keeps.
func (o Op) rememberEACCES(s Slot) Op {
	x := &o.p.ops[o.i]
	x.out, x.flags = uint64(s), flagRememberEA
	return o
}

func (p *Program) setError(err error) {
	if p.fail == nil {
		p.fail = err
	}
}

// Slot returns a new slot. Until an operation stores a result in it, it holds −1, which no call takes for a descriptor.
func (p *Program) Slot() Slot {
	const unset = ^uint64(0)
	if p.slots+8 > slotsEnd {
		return Slot(p.Words(unset).value)
	}
	binary.LittleEndian.PutUint64(p.mem[p.slots:], unset)
	p.slots += 8
	return Slot(Base + p.slots - 8)
}

func (p *Program) align(n int) {
	for len(p.mem)%n != 0 {
		p.mem = append(p.mem, 0)
	}
}

// Str puts a string, NUL-terminated, into the arena and returns its address. A NUL inside it is an error of Encode.
func (p *Program) Str(s string) Arg {
	if s == "" && p.empty.value != 0 {
		return p.empty
	}
	for i := 0; i < len(s); i++ {
		if s[i] == 0 {
			p.setError(failure.Invalid("%q contains a NUL byte", s))
			break
		}
	}
	at := Base + uint64(len(p.mem))
	p.mem = append(append(p.mem, s...), 0)
	return Arg{value: at, kind: kindString, text: s}
}

// Bytes puts data into the arena, aligned to 8, and returns its address; name is what Dump prints.
func (p *Program) Bytes(b []byte, name string) Arg {
	p.align(8)
	at := Base + uint64(len(p.mem))
	p.mem = append(p.mem, b...)
	return Named(at, name)
}

// Words puts 64-bit words into the arena and returns their address.
func (p *Program) Words(w ...uint64) Arg {
	p.align(8)
	at := Base + uint64(len(p.mem))
	for _, x := range w {
		p.mem = binary.LittleEndian.AppendUint64(p.mem, x)
	}
	return Hex(at)
}

// Struct is Words with a name for Dump.
func (p *Program) Struct(name string, w ...uint64) Arg {
	a := p.Words(w...)
	a.kind, a.text = kindNamed, name
	return a
}

// WordOf is the slot at word i of what Words or Struct returned: operations can patch structures in the arena.
func WordOf(a Arg, i int) Slot { return Slot(a.value + uint64(8*i)) }

// List puts a NULL-terminated array of strings into the arena (argv, envp).
func (p *Program) List(list []string, name string) Arg {
	w := make([]uint64, len(list)+1)
	for i, s := range list {
		w[i] = p.Str(s).value
	}
	return p.Struct(name, w...)
}

// Expect ends the program with errno unless the word at s, masked, is want.
func (p *Program) Expect(what string, s Slot, mask, want uint64, errno syscall.Errno) Op {
	return p.add(opExpect, what, []Arg{s.Arg(), Hex(mask), Hex(want), Named(uint64(errno), unix.ErrnoName(errno))})
}

// Branch makes the process whose s is not 0 (the parent after a clone) go on at the operation that Land is called before.
func (p *Program) Branch(what string, s Slot) Op {
	return p.add(opJump, what, []Arg{s.Arg(), Int(0)})
}

// Land makes the next appended operation the target of a Branch.
func (p *Program) Land(branch Op) {
	p.ops[branch.i].args[1] = uint64(len(p.ops))
	if p.trace {
		p.shown[branch.i][1] = Int(len(p.ops))
	}
}

// Keep ends the program in the keeper: it unmaps the arena, waits for all children and writes how each but the helper
// (a PID) ended to the status file at offset: {uint32 wait status, uint32 1, int64 seconds, int64 nanoseconds}. When no
// child is left it gives the engine time to empty the two streams, and exits. If no one holds a lock (flock) on the
// status file, it saves what they hold there: their lengths (two uint64) at offset+24, their contents from offset+40
// on.
func (p *Program) Keep(helper, statusFD Arg, offset int, streams Arg) {
	p.add(opKeep, "", []Arg{helper, statusFD, Hex(Base), Named(0, "SIZE"), Int(offset), streams})
}

// Init ends the program as PID 1: it unmaps the arena, forwards every signal to child, reaps, and exits as child does.
func (p *Program) Init(child Slot) {
	p.add(opInit, "", []Arg{child.Arg(), Hex(Base), Named(0, "SIZE")})
}

// Exit appends the end of the process.
func (p *Program) Exit(code int) { p.Call(unix.SYS_EXIT_GROUP, "", Int(code)) }

// ReportPID sends the PID in the returned word; store it there first (Op.To).
func (p *Program) ReportPID() (word Slot, send func()) {
	m := p.Struct("{PID, …}", msgPID, 0, 0)
	return WordOf(m, 1), func() { p.Call(unix.SYS_WRITE, "report pid", Int(ReportFD), m, Int(msgSize)) }
}

// ReportReached says that the setup is complete.
func (p *Program) ReportReached() {
	p.Call(unix.SYS_WRITE, "report setup complete", Int(ReportFD), p.Struct("{REACHED}", msgReached, 0, 0), Int(msgSize))
}

// Sync reads one byte from fd: the program waits until the engine has done its part (uid_map) and fails with EPIPE if
// the engine is gone.
func (p *Program) Sync(what string, fd Arg) {
	got := p.Slot()
	p.Call(unix.SYS_READ, what, fd, p.Words(0), Int(1)).To(got)
	p.Expect(what, got, ^uint64(0), 1, syscall.EPIPE)
}

// Exec appends the attempts to execute each of paths, as execvp does: with several, a missing one is passed over and
// EACCES is remembered over a later ENOENT.
func (p *Program) Exec(paths []string, argv, envp []string) {
	av, ev := p.List(argv, "argv"), p.List(envp, "envp")
	if len(paths) == 1 {
		p.Call(unix.SYS_EXECVE, paths[0], p.Str(paths[0]), av, ev)
		return
	}
	denied := WordOf(p.Words(0), 0)
	for _, x := range paths {
		p.Call(unix.SYS_EXECVE, x, p.Str(x), av, ev).Ignore(syscall.ENOENT, syscall.ENOTDIR).rememberEACCES(denied)
	}
	p.add(opFail, "execve", []Arg{denied.Arg(), Named(uint64(syscall.ENOENT), "ENOENT")})
}

// Encode returns the program as the stub wants it, in memory that the next Encode uses again.
func (p *Program) Encode() ([]byte, error) {
	if p.fail != nil {
		return nil, p.fail
	}
	p.align(8)
	opsAt := len(p.mem)
	size := (opsAt + len(p.ops)*opSize + mapAlign - 1) &^ (mapAlign - 1)
	if size > maxProgram {
		return nil, failure.Invalid("arguments and environment take %d MiB, more than the kernel can take: %w", size>>20, syscall.E2BIG)
	}
	if need := opsAt + len(p.ops)*opSize; cap(p.encoded) < need {
		p.encoded = make([]byte, 0, need+need/8)
	}
	out := append(p.encoded[:0], p.mem...)
	le := binary.LittleEndian
	le.PutUint64(out[0:], headerMagic)
	le.PutUint64(out[8:], uint64(size))
	le.PutUint64(out[16:], uint64(Base+opsAt))
	le.PutUint64(out[24:], uint64(len(p.ops)))
	for i := range p.ops {
		out = p.ops[i].encode(out, uint64(size))
	}
	p.encoded = out
	return out, nil
}

func (o *op) encode(b []byte, size uint64) []byte {
	le := binary.LittleEndian
	args := o.args
	switch o.nr {
	case opKeep:
		args[3] = size
	case opInit:
		args[2] = size
	}
	b = le.AppendUint64(b, uint64(o.nr))
	for _, a := range args {
		b = le.AppendUint64(b, a)
	}
	b = le.AppendUint64(b, o.out)
	b = le.AppendUint32(b, o.ign1)
	b = le.AppendUint32(b, o.ign2)
	b = le.AppendUint32(b, o.indirect)
	return le.AppendUint32(b, o.flags)
}
