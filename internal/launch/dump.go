package launch

import (
	"cmp"
	"fmt"
	"sort"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Dump prints the program, one operation a line: its index, call, arguments, where its result goes and which errors it
// ignores. The text of the same program is the same on every run. The program must have been made with trace.
func (p *Program) Dump() string {
	names := p.slotNames()
	var b strings.Builder
	for i := range p.ops {
		o := &p.ops[i]
		fmt.Fprintf(&b, "%3d  %s(", i, opName(o.nr))
		for k, a := range p.argsOf(i) {
			if k > 0 {
				b.WriteString(", ")
			}
			b.WriteString(a.show(names))
		}
		b.WriteByte(')')
		if o.out != 0 && o.flags == 0 {
			b.WriteString(" = " + names[o.out])
		}
		b.WriteString(ignored(o))
		if w := p.what[i]; w != "" {
			b.WriteString("  # " + w)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// FlagNames are the names of a word's bits, in the order in which they are shown.
type FlagNames []struct {
	Bit  uint64
	Name string
}

// Of shows which bits are set in word, with | between their names; 0 if none that has a name is.
func (n FlagNames) Of(word uint64) string {
	var set []string
	for _, f := range n {
		if word&f.Bit != 0 {
			set = append(set, f.Name)
		}
	}
	return cmp.Or(strings.Join(set, "|"), "0")
}

func (p *Program) argsOf(i int) []Arg {
	if p.trace {
		return p.shown[i]
	}
	return nil
}

// slotNames numbers the slots in the order of their addresses.
func (p *Program) slotNames() map[uint64]string {
	seen := map[uint64]bool{}
	for i := range p.ops {
		o := &p.ops[i]
		if o.out != 0 {
			seen[o.out] = true
		}
		for k, a := range o.args {
			if o.indirect>>k&1 != 0 {
				seen[a] = true
			}
		}
	}
	addrs := make([]uint64, 0, len(seen))
	for a := range seen {
		addrs = append(addrs, a)
	}
	sort.Slice(addrs, func(i, j int) bool { return addrs[i] < addrs[j] })
	names := make(map[uint64]string, len(addrs))
	for i, a := range addrs {
		names[a] = "%" + strconv.Itoa(i+1)
	}
	return names
}

func (a Arg) show(slots map[uint64]string) string {
	switch a.kind {
	case kindHex:
		return "0x" + strconv.FormatUint(a.value, 16)
	case kindOctal:
		return "0" + strconv.FormatUint(a.value, 8)
	case kindString:
		return strconv.Quote(a.text)
	case kindNamed:
		return a.text
	case kindSlot:
		return slots[a.value]
	}
	return strconv.FormatInt(int64(a.value), 10)
}

func ignored(o *op) string {
	if o.ign1 == ignoreAll {
		return " ignoring errors"
	}
	var names []string
	for _, e := range []uint32{o.ign1, o.ign2} {
		if e != 0 {
			names = append(names, unix.ErrnoName(unix.Errno(e)))
		}
	}
	s := ""
	if len(names) > 0 {
		s = " ignoring " + strings.Join(names, ", ")
	}
	if o.flags&flagRememberEA != 0 {
		s += ", remembering EACCES"
	}
	return s
}

func opName(nr int64) string {
	switch nr {
	case opJump:
		return "parent goes to"
	case opExpect:
		return "expect"
	case opFail:
		return "fail"
	case opKeep:
		return "keep"
	case opInit:
		return "init"
	}
	if n, ok := callNames[nr]; ok {
		return n
	}
	return "syscall_" + strconv.FormatInt(nr, 10)
}

var callNames = map[int64]string{
	unix.SYS_CAPSET: "capset", unix.SYS_CHDIR: "chdir", unix.SYS_CLONE3: "clone3", unix.SYS_CLOSE: "close", unix.SYS_CLOSE_RANGE: "close_range",
	unix.SYS_DUP3: "dup3", unix.SYS_EXECVE: "execve", unix.SYS_EXIT_GROUP: "exit_group", unix.SYS_FCHDIR: "fchdir", unix.SYS_FCHOWN: "fchown",
	unix.SYS_FCHOWNAT: "fchownat", unix.SYS_FSCONFIG: "fsconfig", unix.SYS_FSMOUNT: "fsmount", unix.SYS_FSOPEN: "fsopen", unix.SYS_GETCWD: "getcwd",
	unix.SYS_GETPID: "getpid", unix.SYS_MMAP: "mmap", unix.SYS_PROCESS_VM_WRITEV: "process_vm_writev", unix.SYS_IOCTL: "ioctl", unix.SYS_KEYCTL: "keyctl", unix.SYS_MKDIRAT: "mkdirat", unix.SYS_MKNODAT: "mknodat",
	unix.SYS_MOUNT: "mount", unix.SYS_MOUNT_SETATTR: "mount_setattr", unix.SYS_MOVE_MOUNT: "move_mount", unix.SYS_OPENAT: "openat",
	unix.SYS_CHROOT: "chroot", unix.SYS_OPENAT2: "openat2", unix.SYS_OPEN_TREE: "open_tree", unix.SYS_PIVOT_ROOT: "pivot_root", unix.SYS_PRCTL: "prctl",
	unix.SYS_PRLIMIT64: "prlimit64", unix.SYS_PWRITE64: "pwrite64", unix.SYS_READ: "read", unix.SYS_RT_SIGPROCMASK: "rt_sigprocmask",
	unix.SYS_SECCOMP: "seccomp", unix.SYS_SETDOMAINNAME: "setdomainname", unix.SYS_SETGROUPS: "setgroups",
	unix.SYS_SETHOSTNAME: "sethostname", unix.SYS_SETNS: "setns", unix.SYS_SETPGID: "setpgid", unix.SYS_SETRESGID: "setresgid",
	unix.SYS_SETRESUID: "setresuid", unix.SYS_SETSID: "setsid", unix.SYS_SOCKET: "socket", unix.SYS_SYMLINKAT: "symlinkat", unix.SYS_UMASK: "umask",
	unix.SYS_UMOUNT2: "umount2", unix.SYS_UNSHARE: "unshare", unix.SYS_WRITE: "write",
}
