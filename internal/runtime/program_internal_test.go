package runtime

import (
	"os"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestWhyAProgramIsNotExecuted(t *testing.T) {
	dir := t.TempDir()
	root, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(root)
	header := func(machine, data byte) string {
		b := make([]byte, 64)
		copy(b, "\x7fELF\x02"+string(data)+"\x01")
		b[18], b[19] = machine, 0
		if data == 2 {
			b[18], b[19] = 0, machine
		}
		return string(b)
	}
	foreign, name := header(183, 1), "arm64"
	if goruntime.GOARCH == "arm64" {
		foreign, name = header(62, 1), "amd64"
	}
	for _, c := range []struct {
		name, content string
		mode          os.FileMode
		errno         syscall.Errno
		want          string
	}{
		{"crlf", "#!/bin/bash\r\necho\r\n", 0o755, syscall.ENOENT, `"/bin/bash\r": save it with Unix line endings`},
		{"interpreter", "#! /no/such -x\n", 0o755, syscall.ENOENT, `its interpreter "/no/such" does not`},
		{"loader", header(62, 1), 0o755, syscall.ENOENT, "the dynamic loader"},
		{"plain", "x", 0o644, syscall.EACCES, "chmod +x"},
		{"executable", "x", 0o755, syscall.EACCES, ""},
		{"foreign", foreign, 0o755, syscall.ENOEXEC, "a program for " + name + ", and this machine is " + goruntime.GOARCH},
		{"big", header(22, 2), 0o755, syscall.ENOEXEC, "a program for s390x"},
		{"unknown", header(1, 1), 0o755, syscall.ENOEXEC, ""},
		{"cut", "\x7fELF", 0o755, syscall.ENOEXEC, ""},
		{"text", "echo hi\n", 0o755, syscall.ENOEXEC, "#!/bin/sh"},
		{"empty", "", 0o755, syscall.ENOEXEC, ""},
		{"other", "x", 0o755, syscall.ENOMEM, ""},
	} {
		if err := os.WriteFile(filepath.Join(dir, c.name), []byte(c.content), c.mode); err != nil {
			t.Fatal(err)
		}
		p, ok := lookAt(root, "/"+c.name)
		if got := p.why(c.errno); !ok || !strings.Contains(got, c.want) || (c.want == "") != (got == "") {
			t.Errorf("%s: %t, %q, want %q", c.name, ok, got, c.want)
		}
	}
	if err := unix.Mkfifo(filepath.Join(dir, "pipe"), 0o755); err != nil {
		t.Fatal(err)
	}
	if p, ok := lookAt(root, "/pipe"); !ok || len(p.head) > 0 { // and it has not waited for a writer
		t.Errorf("pipe: %t, %q", ok, p.head)
	}
	if p, ok := lookAt(root, "/"); !ok || !p.isDir() {
		t.Errorf("a directory: %t, %o", ok, p.mode)
	}
	if _, ok := lookAt(root, "/missing"); ok {
		t.Error("a file that is not there was looked at")
	}
}
