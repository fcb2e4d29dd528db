package kernel

import (
	"bufio"
	"encoding/hex"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// binfmtDir is where the kernel lists the interpreters of foreign programs.
const binfmtDir = "/proc/sys/fs/binfmt_misc"

// Emulated lists the architectures, by Go's names and sorted, whose programs this
// machine runs by an emulator in every root filesystem: one that is registered with the
// kernel with the flag F. Without such a registration there are none.
func Emulated() []string { return emulated(binfmtDir) }

func emulated(dir string) []string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil // not mounted, or not in this kernel
	}
	var list []string
	for _, e := range entries {
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			continue // "register" cannot be read
		}
		if arch := emulatedBy(string(text)); arch != "" {
			list = append(list, arch)
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// emulatedBy gives the architecture that a registration is for, "" for one that is off,
// for something else than ELF, or whose interpreter is looked up in a container.
func emulatedBy(registration string) string {
	on, fixed, atStart := false, false, false
	var magic []byte
	for scan := bufio.NewScanner(strings.NewReader(registration)); scan.Scan(); {
		key, value, _ := strings.Cut(scan.Text(), " ")
		switch key {
		case "enabled":
			on = true
		case "flags:":
			fixed = strings.Contains(value, "F")
		case "offset":
			atStart = value == "0"
		case "magic":
			var err error
			if magic, err = hex.DecodeString(value); err != nil {
				return ""
			}
		}
	}
	if !on || !fixed || !atStart {
		return ""
	}
	return elfArchitecture(magic)
}

// elfArchitecture names the architecture in the first 20 bytes of an ELF file.
func elfArchitecture(head []byte) string {
	if len(head) < 20 || string(head[:4]) != "\x7fELF" {
		return ""
	}
	const class64, littleEndian = 2, 1
	wide, little := head[4] == class64, head[5] == littleEndian
	machine := int(head[18])<<8 | int(head[19])
	if little {
		machine = int(head[19])<<8 | int(head[18])
	}
	for _, m := range elfMachines {
		if m.machine == machine && m.wide == wide && m.little == little {
			return m.arch
		}
	}
	return ""
}

// elfMachines are the values of e_machine in elf(5) of the architectures that images are
// made for.
var elfMachines = [...]struct {
	machine      int
	wide, little bool
	arch         string
}{
	{3, false, true, "386"},
	{62, true, true, "amd64"},
	{40, false, true, "arm"},
	{183, true, true, "arm64"},
	{243, true, true, "riscv64"},
	{21, true, true, "ppc64le"},
	{21, true, false, "ppc64"},
	{22, true, false, "s390x"},
	{8, true, true, "mips64le"},
	{8, true, false, "mips64"},
	{258, true, true, "loong64"},
}
