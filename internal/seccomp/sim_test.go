package seccomp

import (
	"encoding/binary"
	"fmt"
	"testing"

	"golang.org/x/sys/unix"
)

// call is a system call as a program sees it: struct seccomp_data.
type call struct {
	arch uint32
	nr   uint32
	args [6]uint64
}

func (c call) String() string { return fmt.Sprintf("arch %#x nr %d args %x", c.arch, c.nr, c.args) }

func (c call) word(offset uint32) (uint32, error) {
	switch {
	case offset == 0:
		return c.nr, nil
	case offset == 4:
		return c.arch, nil
	case offset >= 16 && offset < 64 && offset%4 == 0:
		v := c.args[(offset-16)/8]
		if offset%8 == 4 {
			v >>= 32
		}
		return uint32(v), nil
	}
	return 0, fmt.Errorf("load from offset %d", offset)
}

// run executes a program like the kernel, and refuses what the kernel's checker refuses.
func run(program []byte, c call) (uint32, error) {
	v, _, err := trace(program, c)
	return v, err
}

// trace is run with the number of instructions that were executed.
func trace(program []byte, c call) (verdict uint32, steps int, err error) {
	if len(program)%8 != 0 || len(program) == 0 || len(program) > 8*maxInstructions {
		return 0, steps, fmt.Errorf("%d bytes", len(program))
	}
	var acc uint32
	for pc := 0; pc < len(program)/8; pc++ {
		steps++
		i := program[8*pc:]
		code, jt, jf, k := binary.NativeEndian.Uint16(i), int(i[2]), int(i[3]), binary.NativeEndian.Uint32(i[4:])
		condition := false
		switch code {
		case unix.BPF_LD | unix.BPF_W | unix.BPF_ABS:
			if acc, err = c.word(k); err != nil {
				return 0, steps, err
			}
			continue
		case unix.BPF_RET | unix.BPF_K:
			return k, steps, nil
		case unix.BPF_JMP | unix.BPF_JA:
			pc += int(k)
			continue
		case unix.BPF_ALU | unix.BPF_AND | unix.BPF_K:
			acc &= k
			continue
		case unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K:
			condition = acc == k
		case unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K:
			condition = acc > k
		case unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K:
			condition = acc >= k
		default:
			return 0, steps, fmt.Errorf("instruction %d has the code %#x", pc, code)
		}
		if condition {
			pc += jt
		} else {
			pc += jf
		}
	}
	return 0, steps, fmt.Errorf("ran off the end")
}

func stepsOf(t testing.TB, program []byte, c call) int {
	t.Helper()
	_, n, err := trace(program, c)
	if err != nil {
		t.Fatalf("%v: %v", c, err)
	}
	return n
}

func verdict(t testing.TB, program []byte, c call) uint32 {
	t.Helper()
	v, err := run(program, c)
	if err != nil {
		t.Fatalf("%v: %v", c, err)
	}
	return v
}
