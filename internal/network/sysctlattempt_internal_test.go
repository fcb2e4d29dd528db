package network

import (
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/netlink"
)

// ownUplink makes namespaces from the one that the test is in, and nothing in that.
func ownUplink(t *testing.T) *uplink {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	own, err := unix.Open("/proc/self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	u := &uplink{ns: own, links: map[string]bool{}}
	t.Cleanup(func() {
		u.proc.shut()
		unix.Close(own)
	})
	return u
}

// namespace is a network namespace that u makes for the test.
func (u *uplink) namespace(t *testing.T) *inside {
	t.Helper()
	in, err := u.newNamespace()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.close()
		unix.Close(in.ns)
	})
	return in
}

// A setting that has to wait for others' changes is written all the same, and the wait is no circle: while links come
// and go, an attempt is told that it is not the time.
func TestASettingIsWrittenWhileLinksAreMade(t *testing.T) {
	u := ownUplink(t)
	in, others := u.namespace(t), u.namespace(t)
	quit, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for i := 0; ; i++ {
			select {
			case <-quit:
				return
			default:
			}
			name := fmt.Sprint("busy", i%8)
			_ = others.conn.Do(netlink.NewVeth(netlink.Veth{Name: name, Peer: name + "p", PeerNS: others.ns}))
			_ = others.conn.Do(netlink.DeleteLink(name))
		}
	}()
	defer func() { close(quit); <-ended }()

	const path = "/proc/sys/net/ipv6/conf/lo/disable_ipv6"
	err := in.do(func() error {
		told := false
		for end := time.Now().Add(time.Minute); !told && time.Now().Before(end); {
			for _, value := range []string{"1", "0"} {
				fd, err := u.proc.open(path, unix.O_WRONLY)
				if err != nil {
					return err
				}
				err = u.proc.attempts.attempt(fd, value)
				unix.Close(fd)
				if err != nil && err != unix.EINTR {
					return err
				}
				told = told || err == unix.EINTR
			}
		}
		if !told {
			t.Error("no attempt came at another's time")
		}
		for i := range 50 {
			want := fmt.Sprint(1 - i%2)
			if err := u.proc.writeInTurn(path, want); err != nil {
				return err
			}
			if got, err := u.proc.read(path); err != nil || got != want {
				t.Errorf("%q was written and %q read (%v)", want, got, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// An error that is not about the time is the write's own.
func TestASettingThatIsRefused(t *testing.T) {
	var p sysctls
	defer p.shut()
	if err := p.writeInTurn("/proc/sys/net/ipv6/conf/nowhere/disable_ipv6", "1"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
	var a attempts
	defer a.close()
	r, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := a.write(int(r.Fd()), "1"); !errors.Is(err, unix.EBADF) {
		t.Errorf("a file that is open for reading: %v", err)
	}
}
