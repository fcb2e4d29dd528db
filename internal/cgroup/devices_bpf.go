package cgroup

import (
	"fmt"
	"runtime"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/failure"
)

// On v2 the devices of a group are decided by a BPF program. It is a straight list of comparisons, made and attached
// here with two system calls: a BPF library would be the largest thing that the engine links. The program of a group is
// attached once, when the group is new and has none; the kernel is never asked for the programs of a group (from Linux
// 6.17 to 7.1 that query writes past its argument).

// insn is struct bpf_insn on a little-endian machine.
type insn struct {
	code uint8
	regs uint8 // destination in the low four bits, source in the high ones
	off  int16
	imm  int32
}

const (
	r0, r1, r2, r3, r4, r5 = 0, 1, 2, 3, 4, 5

	opLoadWord = unix.BPF_LDX | unix.BPF_MEM | unix.BPF_W
	opMove     = unix.BPF_ALU | unix.BPF_MOV | unix.BPF_X
	opMoveImm  = unix.BPF_ALU | unix.BPF_MOV | unix.BPF_K
	opAndImm   = unix.BPF_ALU | unix.BPF_AND | unix.BPF_K
	opShiftImm = unix.BPF_ALU | unix.BPF_RSH | unix.BPF_K
	jumpNE     = unix.BPF_JMP32 | unix.BPF_JNE | unix.BPF_K
	jumpEQ     = unix.BPF_JMP32 | unix.BPF_JEQ | unix.BPF_K
	opExit     = unix.BPF_JMP | unix.BPF_EXIT

	// Values of struct bpf_cgroup_dev_ctx.
	devBlock, devChar           = 1, 2
	accMknod, accRead, accWrite = 1, 2, 4
	allAccess                   = accMknod | accRead | accWrite
	progCgroupDevice            = 15 // BPF_PROG_TYPE_CGROUP_DEVICE
	attachCgroupDevice          = 6  // BPF_CGROUP_DEVICE
	cmdProgLoad, cmdProgAttach  = 5, 8
	flagAllowMulti              = 2 // BPF_F_ALLOW_MULTI: a container may add a stricter program of its own below
)

// deviceProgram compiles rules. The last rule that matches an access decides, so the program asks in reverse order and
// ends at the first that does.
func deviceProgram(rules []DeviceRule) []insn {
	p := []insn{
		{opLoadWord, r2 | r1<<4, 0, 0}, // access << 16 | type
		{opMove, r3 | r2<<4, 0, 0},
		{opAndImm, r2, 0, 0xffff}, // r2: type
		{opShiftImm, r3, 0, 16},   // r3: access
		{opLoadWord, r4 | r1<<4, 4, 0},
		{opLoadWord, r5 | r1<<4, 8, 0}, // r4, r5: major, minor
	}
	for i := len(rules) - 1; i >= 0; i-- {
		p = append(p, rules[i].program()...)
		if rules[i].matchesAll() {
			return p // the kernel takes no program with a part that is never reached
		}
	}
	return append(p, insn{opMoveImm, r0, 0, 0}, insn{opExit, 0, 0, 0})
}

// matchesAll tells a rule that decides about every access to every device.
func (r DeviceRule) matchesAll() bool {
	return r.Type == 'a' && r.Major == -1 && r.Minor == -1 && r.accessBits() == allAccess
}

// program is the test for one rule: it ends the whole program with the rule's verdict, or falls through.
func (r DeviceRule) program() []insn {
	var p []insn
	switch r.Type {
	case 'b':
		p = append(p, insn{jumpNE, r2, 0, devBlock})
	case 'c':
		p = append(p, insn{jumpNE, r2, 0, devChar})
	}
	// An access may ask for several things at once. To be allowed, all of them must be in the rule; to be denied, one.
	if access := r.accessBits(); access != allAccess {
		p = append(p, insn{opMove, r1 | r3<<4, 0, 0})
		if r.Allow {
			p = append(p, insn{opAndImm, r1, 0, ^access}, insn{jumpNE, r1, 0, 0})
		} else {
			p = append(p, insn{opAndImm, r1, 0, access}, insn{jumpEQ, r1, 0, 0})
		}
	}
	if r.Major != -1 {
		p = append(p, insn{jumpNE, r4, 0, int32(uint32(r.Major))})
	}
	if r.Minor != -1 {
		p = append(p, insn{jumpNE, r5, 0, int32(uint32(r.Minor))})
	}
	var verdict int32
	if r.Allow {
		verdict = 1
	}
	p = append(p, insn{opMoveImm, r0, 0, verdict}, insn{opExit, 0, 0, 0})
	for i := range p {
		if p[i].code == jumpNE || p[i].code == jumpEQ {
			p[i].off = int16(len(p) - i - 1)
		}
	}
	return p
}

func (r DeviceRule) accessBits() int32 {
	var bits int32
	for letter, bit := range map[string]int32{"m": accMknod, "r": accRead, "w": accWrite} {
		if strings.Contains(r.Access, letter) {
			bits |= bit
		}
	}
	return bits
}

// bpfAttr is union bpf_attr, larger than any kernel writes to.
type bpfAttr struct{ words [24]uint64 }

func (a *bpfAttr) set32(offset int, v uint32) { *(*uint32)(unsafe.Add(unsafe.Pointer(a), offset)) = v }
func (a *bpfAttr) set64(offset int, v uint64) { *(*uint64)(unsafe.Add(unsafe.Pointer(a), offset)) = v }

// loadDeviceProgram gives the program to the kernel, which verifies it.
func loadDeviceProgram(p []insn) (int, error) {
	license := []byte("Apache-2.0\x00")
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(&p[0])
	pin.Pin(&license[0])
	var attr bpfAttr
	attr.set32(0, progCgroupDevice)
	attr.set32(4, uint32(len(p)))
	attr.set64(8, uint64(uintptr(unsafe.Pointer(&p[0]))))
	attr.set64(16, uint64(uintptr(unsafe.Pointer(&license[0]))))
	fd, _, e := unix.Syscall(unix.SYS_BPF, cmdProgLoad, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	if e != 0 {
		return -1, e
	}
	return int(fd), nil // BPF descriptors are close-on-exec by themselves
}

// filterDevices attaches a program for the rules to the group's directory in the unified hierarchy. The kernel keeps it
// as long as the directory is there.
func (g *Group) filterDevices(rules []DeviceRule) error {
	dir, err := openFile(g.in(g.h.unified), unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return fmt.Errorf("device rules: %w", err)
	}
	defer unix.Close(dir)
	prog, err := loadDeviceProgram(deviceProgram(rules))
	if err != nil {
		return failure.Unavailable("device rules: the kernel does not load the BPF program for them: %w; on cgroup v2 it must be built with CONFIG_CGROUP_BPF", err)
	}
	defer unix.Close(prog)
	var attr bpfAttr
	attr.set32(0, uint32(dir))
	attr.set32(4, uint32(prog))
	attr.set32(8, attachCgroupDevice)
	attr.set32(12, flagAllowMulti)
	if _, _, e := unix.Syscall(unix.SYS_BPF, cmdProgAttach, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr)); e != 0 {
		return fmt.Errorf("device rules: attaching the BPF program: %w", e)
	}
	return nil
}
