package runtime

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"path"
	goruntime "runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/rootpath"
)

// program is what a look at a file tells of why it could not be executed. The look is
// taken after the kernel has refused: what runs costs nothing.
type program struct {
	mode uint32
	head []byte // how the file begins; empty for what is no regular file
}

// lookIn looks at a file in a container's root, −1 for none, over which mounts lie that
// are the child's own: what is bound there is looked at where it comes from.
func lookIn(root int, mounts []Mount, name string) (program, bool) {
	name = path.Clean(name)
	var over *Mount
	for i, m := range mounts { // parents first
		if target := path.Clean(m.Target); rootpath.IsBelow(name, target) {
			over = &mounts[i]
		}
	}
	switch {
	case over == nil && root < 0:
		return program{}, false
	case over == nil:
		return lookAt(root, name)
	case over.Type != "bind" || over.Subpath != "":
		return program{}, false
	}
	dir, rest := over.Source, strings.TrimPrefix(name, path.Clean(over.Target))
	if over.IsFile {
		dir, rest = path.Split(over.Source)
	}
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return program{}, false
	}
	defer unix.Close(fd)
	return lookAt(fd, "/"+strings.TrimPrefix(rest, "/"))
}

// lookAt looks at a file in a container's root, which is hostile: nothing outside of it
// is opened, and no pipe or device is waited for.
func lookAt(root int, name string) (p program, ok bool) {
	fd, mode, err := openIn(root, name)
	if err != nil {
		return p, false
	}
	defer unix.Close(fd)
	p.mode = mode
	if p.mode&unix.S_IFMT != unix.S_IFREG {
		return p, true
	}
	file, err := unix.Open("/proc/self/fd/"+strconv.Itoa(fd), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return p, true
	}
	defer unix.Close(file)
	head := make([]byte, 256) // what the kernel reads of it
	n, _ := unix.Pread(file, head, 0)
	p.head = head[:max(n, 0)]
	return p, true
}

// statIn is the type and mode of a file in a container's root.
func statIn(root int, name string) (mode uint32, ok bool) {
	fd, mode, err := openIn(root, name)
	if err != nil {
		return 0, false
	}
	unix.Close(fd)
	return mode, true
}

// openIn opens a file in a container's root as a place only (O_PATH), and tells its type and mode.
func openIn(root int, name string) (fd int, mode uint32, err error) {
	if fd, err = rootpath.Open(root, name, unix.O_PATH|unix.O_CLOEXEC, 0); err != nil {
		return -1, 0, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return -1, 0, err
	}
	return fd, st.Mode, nil
}

func (p program) isDir() bool { return p.mode&unix.S_IFMT == unix.S_IFDIR }

// why says in plain words what the kernel's reason means for this file, "" if the
// reason says it all.
func (p program) why(errno syscall.Errno) string {
	interpreter, isScript := p.interpreter()
	switch {
	case errno == syscall.ENOENT && strings.HasSuffix(interpreter, "\r"):
		return "its lines end as on Windows (CRLF), so its interpreter is looked for as " + strconv.Quote(interpreter) + ": save it with Unix line endings"
	case errno == syscall.ENOENT && isScript:
		return "the file exists, but its interpreter " + strconv.Quote(interpreter) + " does not"
	case errno == syscall.ENOENT:
		return "the file exists, but its interpreter (the dynamic loader) does not: a program that is linked for glibc does not run in an image with musl, such as Alpine, nor the other way round"
	case errno == syscall.EACCES && p.mode&unix.S_IFMT == unix.S_IFREG && p.mode&0o111 == 0:
		return "the file is not executable: chmod +x it"
	case errno != syscall.ENOEXEC:
		return ""
	}
	if machine := p.machine(); machine != "" && machine != goruntime.GOARCH {
		return fmt.Sprintf("it is a program for %s, and this machine is %s: use an image for linux/%[2]s, or install an emulator (Debian's package qemu-user-static)", machine, goruntime.GOARCH)
	}
	if len(p.head) > 0 && !isScript && !bytes.HasPrefix(p.head, []byte(elf.ELFMAG)) {
		return "it is neither a program nor a script with a first line such as #!/bin/sh"
	}
	return ""
}

// interpreter is the program that a script's first line names.
func (p program) interpreter() (name string, isScript bool) {
	line, isScript := bytes.CutPrefix(p.head, []byte("#!"))
	if !isScript {
		return "", false
	}
	line, _, _ = bytes.Cut(line, []byte("\n"))
	line = bytes.TrimLeft(line, " \t")
	if i := bytes.IndexAny(line, " \t"); i >= 0 {
		line = line[:i]
	}
	return string(line), true
}

// machine is the architecture that a program is for, by the name that images have for
// it; "" for what is no program, and for architectures that hardly anybody has.
func (p program) machine() string {
	const end = 20 // of e_machine
	if len(p.head) < end || !bytes.HasPrefix(p.head, []byte(elf.ELFMAG)) {
		return ""
	}
	var order binary.ByteOrder = binary.LittleEndian
	if elf.Data(p.head[elf.EI_DATA]) == elf.ELFDATA2MSB {
		order = binary.BigEndian
	}
	switch elf.Machine(order.Uint16(p.head[18:end])) {
	case elf.EM_X86_64:
		return "amd64"
	case elf.EM_AARCH64:
		return "arm64"
	case elf.EM_ARM:
		return "arm"
	case elf.EM_386:
		return "386"
	case elf.EM_S390:
		return "s390x"
	case elf.EM_RISCV:
		return "riscv64"
	case elf.EM_PPC64:
		if order == binary.LittleEndian {
			return "ppc64le"
		}
		return "ppc64"
	}
	return ""
}
