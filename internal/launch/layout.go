package launch

// Numbers that the stub's assembly has too.
const (
	// Base is where a program lies in the processes that run it: below 2^38 (39-bit address spaces of arm64), aligned
	// for 64 KiB pages.
	Base = 0x10_0000_0000
	// ProgramFD and ReportFD are the descriptors that every program starts with, besides 0 to 2 and those from FirstFD on.
	ProgramFD = 3
	ReportFD  = 4
	FirstFD   = 5

	headerMagic = 0x3174616c63756e43 // "Cnuclat1"
	trailer     = "CLEATEND"

	// The header: magic, size of the mapping, address and number of the operations, number of the first descriptor to
	// close, set of further ones below 64 to close.
	headerSize = 64
	slotsEnd   = 4096 // slots follow the header, in one page, so that a program's writes copy one page only
	opSize     = 80
	mapAlign   = 64 << 10
	maxProgram = 256 << 20
)

// Special operations, told from system calls by their sign.
const (
	opJump   = -1
	opExpect = -2
	opFail   = -3
	opKeep   = -4
	opInit   = -5
)

const (
	ignoreAll      = 0xffff
	flagRememberEA = 1
)

// Kinds of messages on the report pipe: three words {kind, a, b} each.
const (
	msgPID     = 1 // a: the process's PID
	msgFailure = 2 // a: index of the operation, b: errno
	msgReached = 3 // all is set up; what follows is the seccomp filter and execve
	msgSize    = 24
)

// An op as the stub reads it.
type op struct {
	nr       int64
	args     [6]uint64
	out      uint64 // address for the result; 0 is none
	ign1     uint32
	ign2     uint32
	indirect uint32 // bit i: argument i is the address of its value
	flags    uint32
}
