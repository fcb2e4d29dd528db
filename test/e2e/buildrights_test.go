package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/cleatlabs/cleat/test/harness"
)

// TestBuildWithRights: a step has the host's network or goes without confinement if the
// engine, the client and the Dockerfile say so, and not if one of them does not.
func TestBuildWithRights(t *testing.T) {
	settings := filepath.Join(t.TempDir(), "daemon.json")
	writeSettings(t, settings, `{"builder": {"entitlements": {"security-insecure": true}}}`)
	generous := ownBuilder(t, "--config-file", settings)
	usual := builder(t)

	const shows = "grep -E 'CapEff|Seccomp:' /proc/self/status && readlink /proc/self/ns/net"
	insecure := project(t, dockerfile("# syntax=docker/dockerfile:1\nFROM busybox\nRUN --security=insecure mount -t tmpfs none /tmp && "+shows+"\n"))
	network := project(t, dockerfile("FROM busybox\nRUN --network=host "+shows+"\n"))
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	for _, program := range []string{"docker", "cleat"} {
		t.Run(program, func(t *testing.T) {
			args := []string{"--no-cache", "-o", "type=cacheonly"}
			log := build(t, generous, program, insecure, append(args, "--allow", "security.insecure")...)
			log.has(t, "Seccomp:\t0")
			if strings.Contains(string(log), own) {
				t.Errorf("a step without confinement is on the host's network:\n%s", log)
			}
			log = build(t, generous, program, network, append(args, "--allow", "network.host")...)
			log.has(t, "Seccomp:\t2", "CapEff:\t00000000a80425fb", own)
			build(t, usual, program, network, append(args, "--allow", "network.host")...)
			buildFails(t, generous, program, insecure, args, "security.insecure")
			buildFails(t, generous, program, network, args, "network.host")
			buildFails(t, usual, program, insecure, append(args, "--allow", "security.insecure"), "security.insecure is not allowed")
		})
	}
}

// TestBuildEmulated: steps for another architecture run by the emulator that the kernel
// knows for it. Here that is a shell, which takes the program's path for its own name.
func TestBuildEmulated(t *testing.T) {
	e := ownBuilder(t)
	dir := project(t, files{
		"Dockerfile": "FROM scratch\nCOPY sh /bin/sh\nRUN echo by the emulator as $0 >/out\n",
		"sh*":        elf64(243),
	})
	args := []string{"--platform", "linux/riscv64", "--no-cache", "-o", "type=local,dest=" + filepath.Join(dir, "made")}
	buildFails(t, e, "docker", dir, args, "no step can be run for the platform linux/riscv64", "qemu-user-static")

	e.OK(t, "docker", "create", "--name", "emulator", "busybox")
	shell := filepath.Join(t.TempDir(), "busybox")
	e.OK(t, "docker", "cp", "emulator:/bin/busybox", shell)
	e.OK(t, "docker", "rm", "emulator")
	emulate(t, "cleat-test-riscv64", elf64(243)[:20], shell)
	harness.Eventually(t, func() (bool, string) { // the engine looks now and then
		r := buildRun{dir: dir, args: append(args, ".")}.do(t, e, "docker")
		return r.Code == 0, r.String()
	})
	if text, err := os.ReadFile(filepath.Join(dir, "made", "out")); err != nil || !strings.HasPrefix(string(text), "by the emulator") {
		t.Errorf("%q, %v", text, err)
	}
	build(t, e, "cleat", dir, args...)
}

// elf64 is the head of a program for a machine, and nothing more.
func elf64(machine byte) string {
	return "\x7fELF\x02\x01\x01" + strings.Repeat("\x00", 9) + "\x02\x00" + string([]byte{machine, 0}) + "\x01" + strings.Repeat("\x00", 43)
}

// emulate registers an interpreter with the kernel until the test ends.
func emulate(t *testing.T, name, magic, interpreter string) {
	t.Helper()
	const dir = "/proc/sys/fs/binfmt_misc"
	if _, err := os.Stat(dir + "/register"); err != nil {
		if err := syscall.Mount("binfmt_misc", dir, "binfmt_misc", 0, ""); err != nil {
			t.Fatalf("binfmt_misc: %v", err)
		}
		t.Cleanup(func() {
			harness.Eventually(t, func() (bool, string) { // an engine may be looking there
				err := syscall.Unmount(dir, 0)
				return err == nil, fmt.Sprintf("binfmt_misc: %v", err)
			})
		})
	}
	var escaped strings.Builder
	for _, b := range []byte(magic) {
		escaped.WriteString(`\x` + string("0123456789abcdef"[b>>4]) + string("0123456789abcdef"[b&15]))
	}
	if err := os.WriteFile(dir+"/register", []byte(":"+name+":M::"+escaped.String()+"::"+interpreter+":F"), 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("-1"), 0); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Error(err)
		}
	})
}
