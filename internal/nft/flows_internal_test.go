package nft

import (
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"runtime"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/test/expect"
)

// The flows of one address are forgotten, whoever has begun them, and those of nobody else.
func TestForgetAddress(t *testing.T) {
	for name, c := range map[string]struct {
		family uint8
		net    string
		lists  bool
	}{
		"IPv4": {unix.AF_INET, "10.9.8.%d", false}, "IPv4, kernel before 6.8": {unix.AF_INET, "10.9.8.%d", true},
		"IPv6": {unix.AF_INET6, "fd00:9:8::%d", false}, "IPv6, kernel before 6.8": {unix.AF_INET6, "fd00:9:8::%d", true},
	} {
		t.Run(name, func(t *testing.T) {
			f, at := tracked(t, c.net, 4)
			if c.lists {
				f.FindByList()
			}
			flows := map[string]bool{}
			for _, way := range [][2]int{{1, 4}, {2, 4}, {3, 4}, {4, 1}, {4, 2}, {4, 3}} {
				from, to := at[way[0]], at[way[1]]
				send(t, from, to)
				flows[fmt.Sprint(from, to)] = way[0] != 2 && way[1] != 2
			}
			expect.Eventually(t, "all flows are tracked", func() bool { return len(f.ways(t, c.family)) == len(flows) })
			if err := f.ForgetAddress(at[2]); err != nil {
				t.Fatal(err)
			}
			left := f.ways(t, c.family)
			for way, stays := range flows {
				if slices.Contains(left, way) != stays {
					t.Errorf("forgotten was %s; left are %q", at[2], left)
					break
				}
			}
		})
	}
}

// tracked puts the test into a network namespace of its own, which tracks connections and has the addresses 1 to n of a
// network.
func tracked(t *testing.T, network string, n int) (*Flows, map[int]netip.Addr) {
	t.Helper()
	runtime.LockOSThread() // the thread, and the namespace with it, ends with the test
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	run := func(command ...string) {
		t.Helper()
		if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%q: %v: %s", command, err, out)
		}
	}
	run("ip", "link", "set", "lo", "up")
	at := map[int]netip.Addr{}
	for i := 1; i <= n; i++ {
		at[i] = netip.MustParseAddr(fmt.Sprintf(network, i))
		run("ip", "addr", "add", at[i].String(), "dev", "lo")
		expect.Eventually(t, "the kernel has the address", func() bool { // one of IPv6 it brings up behind the answer
			c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(at[i], 0)))
			if err == nil {
				c.Close()
			}
			return err == nil
		})
	}
	run("nft", "table inet t { chain c { type filter hook output priority 0; ct state new; }; }")
	f, err := OpenFlows()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f, at
}

// send sends a datagram.
func send(t *testing.T, from, to netip.Addr) {
	t.Helper()
	c, err := net.DialUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 0)), net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, 9)))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
}

// ways are from where to where the flows of UDP go that are tracked.
func (f *Flows) ways(t *testing.T, family uint8) (ways []string) {
	t.Helper()
	err := f.conn.Dump(allUDP(family), func(_ uint16, body []byte) error {
		original, _, err := tuples(body)
		way := parseTuple(original)
		ways = append(ways, fmt.Sprint(way.src, way.dst))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return ways
}
