package launch

import (
	"context"
	"os"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/test/expect"
)

// Where memfds cannot be executed the stub is a file that leaves no name behind and that nobody can write to, not even
// through /proc/PID/exe.
func TestFileExecutable(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	code, err := stubCode()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	f, err := fileExecutable(buildELF(code), dir)
	if err != nil {
		t.Fatal(err)
	}
	s := &Stub{}
	err = s.place(f, minStubFD)
	f.Close()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("left in the directory: %v", left)
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	p := NewProgram(false)
	p.Sync("hold", Int(FirstFD))
	p.Exit(6)
	n := int(null.Fd())
	c, err := s.Start(p, "file", [3]int{n, n, n}, []int{int(r.Fd())})
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(c.PIDFD)
	link := "/proc/" + strconv.Itoa(c.PID) + "/exe"
	own, err := os.Readlink("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	// That it has been executed is told a moment before it is so in every respect.
	for end := time.Now().Add(expect.Patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if to, err := os.Readlink(link); err != nil || to != own {
			break
		}
	}
	exe, err := unix.Open(link, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(exe)
	if _, err := w.Write([]byte{1}); err != nil {
		t.Fatal(err)
	}
	w.Close()
	if _, err := c.Await(context.Background()); err != nil {
		t.Error(err)
	}
	var status unix.WaitStatus
	if _, err := unix.Wait4(c.PID, &status, 0, nil); err != nil || status.ExitStatus() != 6 {
		t.Errorf("%v %v", status, err)
	}
	s.nursery.close() // it executes the file, too, which nobody can write to for that alone
	s.nursery = nil
	for _, path := range []string{"/proc/self/fd/" + strconv.Itoa(exe), "/proc/self/fd/" + strconv.Itoa(s.fd)} {
		if fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0); err != unix.EROFS {
			t.Errorf("%s opened for writing: %v", path, err)
			unix.Close(fd)
		}
	}
}

func TestELF(t *testing.T) {
	code, err := stubCode()
	if err != nil {
		t.Fatal(err)
	}
	if len(code) < 200 || len(code) > 2048 {
		t.Errorf("the stub has %d bytes", len(code))
	}
	if elf := buildELF(code); len(elf) > 4096 {
		t.Errorf("the executable has %d bytes: more than a page", len(elf))
	}
}
