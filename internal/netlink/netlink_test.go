package netlink_test

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/netlink"
	"github.com/cleatlabs/cleat/test/expect"
)

// space is a namespace of the test's own, with a connection to it.
func space(t *testing.T) (home, ns int, conn *netlink.Conn) {
	t.Helper()
	home, err := netlink.CurrentNS()
	if err != nil {
		t.Fatal(err)
	}
	ns, err = netlink.NewNS(home, func() error {
		conn, err = netlink.Dial(unix.NETLINK_ROUTE)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(); unix.Close(ns); unix.Close(home) })
	return home, ns, conn
}

func TestLinksAddressesRoutes(t *testing.T) {
	_, ns, conn := space(t)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(conn.Do(netlink.NewBridge("br0", []byte{2, 0x42, 1, 2, 3, 4}, 1400)))
	br, err := conn.LinkByName("br0")
	must(err)
	if br.Kind != "bridge" || !br.Up || br.MTU != 1400 || br.MAC.String() != "02:42:01:02:03:04" {
		t.Errorf("bridge is %+v", br)
	}
	must(conn.Do(
		netlink.NewVeth(netlink.Veth{Name: "v0", Master: br.Index, Peer: "p0", PeerNS: ns, MAC: []byte{2, 0x42, 9, 9, 9, 9}, MTU: 1300}),
		netlink.SetPort("v0", netlink.Port{Hairpin: true, Isolated: true}),
		netlink.NewAddr(br.Index, netip.MustParsePrefix("10.1.0.1/16")),
		netlink.NewRoute(br.Index, netip.MustParsePrefix("10.2.0.0/16"), netip.MustParseAddr("10.1.0.9")),
	))
	v, err := conn.LinkByName("v0")
	must(err)
	p, err := conn.LinkByName("p0")
	must(err)
	if v.Master != br.Index || v.Kind != "veth" || p.MAC.String() != "02:42:09:09:09:09" || p.MTU != 1300 || p.Up || v.Ready {
		t.Errorf("veth is %+v and %+v", v, p)
	}
	must(conn.Do(netlink.SetMAC(p.Index, []byte{2, 0x42, 8, 8, 8, 8}), netlink.SetUp(p.Index)))
	for deadline := time.Now().Add(expect.Patience); !v.Ready && time.Now().Before(deadline); {
		v, err = conn.LinkByName("v0")
		must(err)
	}
	if p, err = conn.LinkByName("p0"); err != nil || !v.Ready || p.MAC.String() != "02:42:08:08:08:08" {
		t.Errorf("veth that is up is %+v and %+v", v, p)
	}
	addrs, err := conn.Addrs()
	must(err)
	found := false
	for _, a := range addrs {
		found = found || a.Index == br.Index && a.Prefix == netip.MustParsePrefix("10.1.0.1/16")
	}
	if !found {
		t.Errorf("addresses %+v", addrs)
	}
	routes, err := conn.Routes(unix.AF_INET)
	must(err)
	text := fmt.Sprint(routes)
	for _, want := range []string{"{10.1.0.0/16 invalid IP", "{10.2.0.0/16 10.1.0.9"} {
		if !strings.Contains(text, want) {
			t.Errorf("routes %v lack %q", text, want)
		}
	}
	if strings.Contains(text, "10.1.0.1/32") {
		t.Errorf("routes %v hold one of the local table", text)
	}
	must(conn.Do(netlink.DeleteAddr(br.Index, netip.MustParsePrefix("10.1.0.1/16")), netlink.DeleteLink("v0"), netlink.DeleteLink("br0")))
	links, err := conn.Links()
	must(err)
	for _, l := range links {
		if l.Name == "br0" || l.Name == "v0" || l.Name == "p0" {
			t.Errorf("%+v is left", l)
		}
	}
}

func TestErrorsNameTheObject(t *testing.T) {
	_, _, conn := space(t)
	_, err := conn.LinkByName("nope0")
	wantErr(t, err, unix.ENODEV, `link "nope0"`)
	wantErr(t, conn.Do(netlink.DeleteLink("nope1")), unix.ENODEV, `link "nope1"`)
	// The first failure is reported; what follows is carried out all the same.
	err = conn.Do(netlink.NewAddr(999, netip.MustParsePrefix("10.0.0.1/8")), netlink.NewBridge("br1", nil, 0), netlink.NewBridge("br1", nil, 0))
	wantErr(t, err, unix.ENODEV, "address 10.0.0.1/8")
	if _, err := conn.LinkByName("br1"); err != nil {
		t.Error(err)
	}
	wantErr(t, conn.Do(netlink.NewBridge("br1", nil, 0)), unix.EEXIST, `link "br1"`)
	conn.Close()
	if err := conn.Do(netlink.SetUp(1)); err == nil {
		t.Error("a closed connection works")
	}
}

func wantErr(t *testing.T, err error, errno unix.Errno, text string) {
	t.Helper()
	if !errors.Is(err, errno) || !strings.Contains(err.Error(), text) {
		t.Errorf("error %v, want %v with %s", err, errno, text)
	}
}

// Threads that were in another namespace must not come back polluted.
func TestThreadsComeBack(t *testing.T) {
	home, ns, _ := space(t)
	before, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 32 {
		wg.Go(func() {
			var err error
			if i%2 == 0 {
				var fd int
				if fd, err = netlink.NewNS(home, func() error { return nil }); err == nil {
					unix.Close(fd)
				}
			} else {
				err = netlink.InNS(home, ns, func() error { return errors.New("x") })
				if err == nil || err.Error() != "x" {
					t.Errorf("error of the function: %v", err)
				}
				err = nil
			}
			if err != nil {
				t.Error(err)
			}
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			if now, _ := os.Readlink("/proc/thread-self/ns/net"); now != before {
				t.Errorf("thread is in %s, not %s", now, before)
			}
		})
	}
	wg.Wait()
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		if got, err := os.Readlink("/proc/self/task/" + task.Name() + "/ns/net"); err == nil && got != before {
			t.Errorf("thread %s was left in %s", task.Name(), got)
		}
	}
}

// A thread that cannot go back must end.
func TestThreadThatCannotGoBackEnds(t *testing.T) {
	var tid int
	fd, err := netlink.NewNS(-1, func() error { tid = unix.Gettid(); return nil })
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(fd)
	for deadline := time.Now().Add(expect.Patience); ; time.Sleep(time.Millisecond) {
		if _, err := os.Stat(fmt.Sprintf("/proc/self/task/%d", tid)); os.IsNotExist(err) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("thread %d lives on in a foreign namespace", tid)
		}
	}
}

func TestConcurrentRequestsDoNotMix(t *testing.T) {
	_, _, conn := space(t)
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			name := fmt.Sprintf("br%d", w)
			for range 4 {
				if err := conn.Do(netlink.NewBridge(name, nil, 0)); err != nil {
					t.Error(err)
				}
				if l, err := conn.LinkByName(name); err != nil || l.Name != name {
					t.Errorf("%s: %+v, %v", name, l, err)
				}
				if err := conn.Do(netlink.DeleteLink(name)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

// A list is that of one instant, and can be had, whatever comes and goes while it is read.
func TestListsWhileLinksComeAndGo(t *testing.T) {
	home, ns, conn := space(t)
	const pairs = 60 // enough for a list of many pieces
	var links []*netlink.Message
	for i := range pairs {
		links = append(links, netlink.NewVeth(netlink.Veth{Name: fmt.Sprint("a", i), Peer: fmt.Sprint("b", i), PeerNS: ns}))
	}
	if err := conn.Do(links...); err != nil {
		t.Fatal(err)
	}
	var restless sync.WaitGroup
	defer restless.Wait()
	quit := make(chan struct{})
	defer close(quit)
	for w := range 2 {
		var other *netlink.Conn
		if err := netlink.InNS(home, ns, func() (err error) { other, err = netlink.Dial(unix.NETLINK_ROUTE); return err }); err != nil {
			t.Fatal(err)
		}
		restless.Go(func() {
			defer other.Close()
			for {
				select {
				case <-quit:
					return
				default:
				}
				name := fmt.Sprint("w", w)
				if err := errors.Join(other.Do(netlink.NewBridge(name, nil, 0)), other.Do(netlink.DeleteLink(name))); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for range 40 {
		links, err := conn.Links()
		if err != nil {
			t.Fatal(err)
		}
		if n := len(links); n < 2*pairs {
			t.Fatalf("%d links of %d", n, 2*pairs)
		}
	}
}

func FuzzParseAttrs(f *testing.F) {
	f.Add([]byte{8, 0, 1, 0, 1, 2, 3, 4})
	f.Add([]byte{5, 0, 1, 0, 1, 0, 0})
	f.Add([]byte{3, 0, 1, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		attrs, err := netlink.ParseAttrs(b)
		if err != nil {
			return
		}
		n := 0
		for _, a := range attrs {
			n += 4 + len(a.Value)
			_, _, _ = a.Str(), a.U32(), a.U32BE()
		}
		if n > len(b)+3*len(attrs) {
			t.Errorf("%d bytes of attributes out of %d", n, len(b))
		}
	})
}
