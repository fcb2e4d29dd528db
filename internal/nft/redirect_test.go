package nft_test

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/netlink"
	"github.com/cleatlabs/cleat/internal/nft"
	"github.com/cleatlabs/cleat/test/expect"
)

func nftConn(t *testing.T) *netlink.Conn {
	t.Helper()
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func TestRedirectIsWhatItsTextSays(t *testing.T) {
	inNewNS(t)
	r := nft.Redirect{Addr: netip.MustParseAddr("127.0.0.11"), Port: 53, UDP: 41000, TCP: 42000}
	if err := r.Apply(nftConn(t), false); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("nft", "list", "ruleset").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	expect.Golden(t, "testdata/redirect.nft", string(out))
	// Again, for other ports.
	r.UDP, r.TCP = 43000, 44000
	if err := r.Apply(nftConn(t), true); err != nil {
		t.Fatal(err)
	}
	out, err = exec.Command("nft", "list", "ruleset").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	expect.Golden(t, "testdata/redirect.nft", strings.NewReplacer("43000", "41000", "44000", "42000").Replace(string(out)))
	for _, bad := range []nft.Redirect{{}, {Addr: netip.MustParseAddr("10.0.0.1"), Port: 53, UDP: 1, TCP: 1}, {Addr: r.Addr, Port: 53, UDP: 1}} {
		if err := bad.Apply(nftConn(t), true); err == nil {
			t.Errorf("%+v was taken", bad)
		}
	}
}

// Whoever asks port 53 of the address meets the sockets behind the redirection, and
// whoever is bound to port 53 of every address keeps what comes to the other ones.
// A stateful firewall in the same namespace sees nothing unusual.
func TestRedirectPasses(t *testing.T) {
	inNewNS(t)
	conn, err := netlink.Dial(unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.Do(netlink.SetUp(1)); err != nil {
		t.Fatal(err)
	}
	nftRun(t, `table inet strict {
		chain in { type filter hook input priority 0; policy accept; ct state invalid counter drop; }
		chain out { type filter hook output priority 0; policy drop; ct state invalid counter drop; ct state established accept; th dport 53 accept; }
	}`)
	udp, tcp := echo(t, "ours", "127.0.0.11:0")
	r := nft.Redirect{Addr: netip.MustParseAddr("127.0.0.11"), Port: 53, UDP: udp, TCP: tcp}
	if err := r.Apply(nftConn(t), false); err != nil {
		t.Fatal(err)
	}
	echo(t, "its own", "0.0.0.0:53")
	for _, network := range []string{"udp4", "tcp4"} {
		for addr, want := range map[string]string{"127.0.0.11:53": "ours", "127.0.0.1:53": "its own"} {
			c, err := net.DialTimeout(network, addr, expect.Patience)
			if err != nil {
				t.Errorf("%s %s: %v", network, addr, err)
				continue
			}
			_ = c.SetDeadline(time.Now().Add(expect.Patience))
			fmt.Fprint(c, "who is there?")
			if u, ok := c.(*net.TCPConn); ok {
				_ = u.CloseWrite()
			}
			buf := make([]byte, 100)
			n, err := c.Read(buf)
			if got := string(buf[:n]); got != want {
				t.Errorf("%s %s: %q, %v; want %q", network, addr, got, err, want)
			}
			c.Close()
		}
	}
	out, err := exec.Command("nft", "list", "table", "inet", "strict").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if strings.Count(string(out), "counter packets 0 ") != 2 {
		t.Errorf("a stateful firewall took packets for invalid:\n%s", out)
	}
}

// echo answers with its name at a UDP and a TCP port.
func echo(t *testing.T, name, addr string) (udp, tcp uint16) {
	t.Helper()
	p, err := net.ListenPacket("udp4", addr)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp4", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close(); l.Close() })
	go func() {
		buf := make([]byte, 100)
		for {
			_, from, err := p.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = p.WriteTo([]byte(name), from)
		}
	}()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.ReadAll(c)
			_, _ = io.WriteString(c, name)
			c.Close()
		}
	}()
	return uint16(p.LocalAddr().(*net.UDPAddr).Port), uint16(l.Addr().(*net.TCPAddr).Port)
}
