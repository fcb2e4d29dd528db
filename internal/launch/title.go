package launch

import (
	"encoding/binary"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	// titleBase is where a title lies: above what the largest program takes.
	titleBase = Base + maxProgram
	titleSize = 4096
)

// Title makes lists of processes show args for the process that runs the program, for as long as it does: a page of its
// own holds them, which stays when the arena goes. Arguments beyond a page are cut off. Where the kernel lacks a call
// (it needs checkpoint/restore's prctl), the program goes on.
func (p *Program) Title(args ...string) {
	text := []byte(strings.Join(args, "\x00") + "\x00")
	if len(text) > titleSize {
		text = append(text[:titleSize-1], 0)
	}
	p.Call(unix.SYS_MMAP, "title", Hex(titleBase), Int(titleSize), Named(unix.PROT_READ|unix.PROT_WRITE, "READ|WRITE"),
		Named(unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_FIXED_NOREPLACE, "PRIVATE|ANONYMOUS|FIXED_NOREPLACE"), Int(-1), Int(0)).IgnoreAll()
	// A system call that copies from the process to itself: programs cannot store.
	self := p.Slot()
	p.Call(unix.SYS_GETPID, "").To(self)
	from := p.Struct("{title}", p.Bytes(text, "title").value, uint64(len(text)))
	to := p.Struct("{its page}", titleBase, uint64(len(text)))
	p.Call(unix.SYS_PROCESS_VM_WRITEV, "title", self.Arg(), from, Int(1), to, Int(1), Int(0)).IgnoreAll()
	p.Call(unix.SYS_PRCTL, "title", Named(unix.PR_SET_MM, "PR_SET_MM"), Named(unix.PR_SET_MM_MAP, "MAP"), p.memoryMap(len(text)), Int(memoryMapSize), Int(0)).IgnoreAll()
}

const memoryMapSize = 104

// memoryMap is struct prctl_mm_map: where the kernel is to believe code, data, heap, stack, arguments and environment.
// None but the arguments matter to anybody here; the order must hold, and the executable stays (-1).
func (p *Program) memoryMap(title int) Arg {
	const start, end = titleBase, titleBase + titleSize
	b := make([]byte, 0, memoryMapSize)
	for _, w := range []uint64{start, end, start, end, end, end, end, start, start + uint64(title), end, end, 0} {
		b = binary.LittleEndian.AppendUint64(b, w)
	}
	b = binary.LittleEndian.AppendUint32(b, 0)
	return p.Bytes(binary.LittleEndian.AppendUint32(b, ^uint32(0)), "{arguments at the title}")
}
