package main

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
)

// nothing is a program that ends as soon as it has begun. It is what the lives and execs consist of whose goals are an
// engine's: busybox's true, beside it in the table, is as good where nothing but the processor runs it, but on a virtual
// machine half of an exec is its C library, which asks for the processor's features (see trueAlone).
const nothing = "nothing"

// addNothing makes the image of archive with that program in it.
func addNothing(bin, archive, dir string) (string, error) {
	root, made := filepath.Join(dir, "root"), filepath.Join(dir, "busybox.tar")
	if err := unpackImage(archive, root); err != nil {
		return "", fmt.Errorf("%s: %w: images/make makes it", archive, err)
	}
	program, err := nothingELF()
	if err == nil {
		err = os.WriteFile(filepath.Join(root, "bin", nothing), program, 0o755)
	}
	if err != nil {
		return "", err
	}
	out, err := exec.Command(filepath.Join(bin, "cleat-registry"), "mkimage", "-from-dir", root, "-ref", "busybox:latest",
		"-cmd", `["sh"]`, "-o", made).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("cleat-registry mkimage: %w: %s", err, out)
	}
	return made, os.RemoveAll(root)
}

// nothingELF is one segment that consists of exit_group(0).
func nothingELF() ([]byte, error) {
	code := map[string]struct {
		machine elf.Machine
		text    []byte
	}{
		"amd64": {elf.EM_X86_64, []byte{0x31, 0xff, 0xb8, 231, 0, 0, 0, 0x0f, 0x05}},               // xor edi, edi; mov eax, 231; syscall
		"arm64": {elf.EM_AARCH64, []byte{0, 0, 0x80, 0xd2, 0xc8, 0x0b, 0x80, 0xd2, 1, 0, 0, 0xd4}}, // mov x0, 0; mov x8, 94; svc 0
	}
	c, ok := code[runtime.GOARCH]
	if !ok {
		return nil, fmt.Errorf("there is no program that does nothing for %s", runtime.GOARCH)
	}
	const base, header, segment = 0x400000, 64, 56
	size := uint64(header + segment + len(c.text))
	var b bytes.Buffer
	for _, part := range []any{
		elf.Header64{
			Ident: [elf.EI_NIDENT]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
			Type:  uint16(elf.ET_EXEC), Machine: uint16(c.machine), Version: uint32(elf.EV_CURRENT),
			Entry: base + header + segment, Phoff: header, Ehsize: header, Phentsize: segment, Phnum: 1,
		},
		elf.Prog64{Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R | elf.PF_X), Vaddr: base, Paddr: base, Filesz: size, Memsz: size, Align: 0x10000},
		c.text,
	} {
		if err := binary.Write(&b, binary.LittleEndian, part); err != nil {
			return nil, err
		}
	}
	return b.Bytes(), nil
}
