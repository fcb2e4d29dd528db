package seccomp_test

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/kernel"
	"github.com/cleatlabs/cleat/internal/seccomp"
)

// TestMain makes a process with a filter of this test binary: it cannot be taken off again.
func TestMain(m *testing.M) {
	if os.Getenv("CLEAT_TEST_LOAD_FILTER") != "" {
		if err := confine(); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// confine loads the default profile and reports what the kernel says to a few system calls.
func confine() error {
	f, err := kernel.Probe()
	if err != nil {
		return err
	}
	program, err := seccomp.Default(kernel.DefaultCaps, f.Major, f.Minor)
	if err != nil {
		return err
	}
	runtime.LockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	prog := unix.SockFprog{Len: uint16(len(program) / 8), Filter: (*unix.SockFilter)(unsafe.Pointer(&program[0]))}
	const flags = 1 | 4 // SECCOMP_FILTER_FLAG_TSYNC, SECCOMP_FILTER_FLAG_SPEC_ALLOW
	if _, _, e := unix.Syscall(unix.SYS_SECCOMP, 1 /* SECCOMP_SET_MODE_FILTER */, flags, uintptr(unsafe.Pointer(&prog))); e != 0 {
		return fmt.Errorf("the kernel does not load the filter: %w", e)
	}
	call := func(name string, nr uintptr, args ...uintptr) {
		var a [6]uintptr
		copy(a[:], args)
		_, _, e := unix.Syscall6(nr, a[0], a[1], a[2], a[3], a[4], a[5])
		fmt.Printf("%s=%d\n", name, e)
	}
	bad := ^uintptr(0)
	call("getpid", unix.SYS_GETPID)
	call("keyctl", unix.SYS_KEYCTL, bad)
	call("clone3", unix.SYS_CLONE3, 0, 0)
	call("unshare", unix.SYS_UNSHARE, unix.CLONE_NEWUTS)
	call("vsock", unix.SYS_SOCKET, unix.AF_VSOCK, unix.SOCK_STREAM, 0)
	call("inet", unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_STREAM, 0)
	call("new", 4000)
	call("personality", unix.SYS_PERSONALITY, 0xffffffff)
	call("norandom", unix.SYS_PERSONALITY, 0x40000)
	call("openat2", unix.SYS_OPENAT2, bad, 0, 0, 0)
	return nil
}

func TestKernelTakesTheDefaultProfile(t *testing.T) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "CLEAT_TEST_LOAD_FILTER=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{"getpid=0", fmt.Sprintf("keyctl=%d", unix.EPERM), fmt.Sprintf("clone3=%d", unix.ENOSYS), fmt.Sprintf("unshare=%d", unix.EPERM),
		fmt.Sprintf("vsock=%d", unix.EPERM), "inet=0", fmt.Sprintf("new=%d", unix.ENOSYS), "personality=0", fmt.Sprintf("norandom=%d", unix.EPERM), fmt.Sprintf("openat2=%d", unix.EINVAL)} {
		if !strings.Contains("\n"+string(out), "\n"+want+"\n") {
			t.Errorf("%s is missing in\n%s", want, out)
		}
	}
}
