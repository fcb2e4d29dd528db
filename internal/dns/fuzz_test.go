package dns

import (
	"context"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/cleatlabs/cleat/internal/supervise"
	"github.com/cleatlabs/cleat/test/expect"
)

// FuzzQuery feeds a container's bytes to the server, and checks that what comes back
// is an answer to them that fits.
func FuzzQuery(f *testing.F) {
	seed := func(m *dns.Msg) {
		b, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	for _, q := range []struct {
		name  string
		qtype uint16
	}{{"web.", dns.TypeA}, {"WEB.front.", dns.TypeAAAA}, {"2.0.20.172.in-addr.arpa.", dns.TypePTR}, {"example.com.", dns.TypeMX}, {".", dns.TypeNS}} {
		m := new(dns.Msg).SetQuestion(q.name, q.qtype)
		seed(m)
		m.SetEdns0(1232, true)
		seed(m)
	}
	f.Add([]byte("\x00\x01\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\xc0\x0c\x00\x01\x00\x01"))
	d := NewDirectory()
	d.Add(Network{ID: "n", Name: "front", Subnets: []netip.Prefix{netip.MustParsePrefix("172.20.0.0/16")}}, Endpoint{ID: "e", Names: []string{"web"}, Addrs: []netip.Addr{netip.MustParseAddr("172.20.0.2")}})
	group := supervise.New(context.Background())
	f.Cleanup(func() { _ = group.Stop(context.Background()) })
	v := &View{Networks: []string{"n"}, Servers: func() []Upstream {
		return []Upstream{{Addr: netip.MustParseAddrPort("127.0.0.1:53"), Dial: func(context.Context, string, netip.AddrPort) (net.Conn, error) {
			return nil, os.ErrPermission
		}}}
	}}
	f.Fuzz(func(t *testing.T, raw []byte) {
		c := &Client{s: New(group, d)}
		c.view.Store(v)
		replies := make(chan []byte, 2)
		borrowed := append([]byte(nil), raw...)
		c.handle(borrowed, plainUDP, func(b []byte) { replies <- b })
		clear(borrowed) // the next datagram overwrites it
		if len(raw) < headerLen || raw[2]&0x80 != 0 {
			if len(replies) > 0 {
				t.Fatal("what is no query was answered")
			}
			return
		}
		var b []byte
		select {
		case b = <-replies:
		case <-time.After(expect.Patience):
			t.Fatal("no answer")
		}
		var m dns.Msg
		if err := m.Unpack(b); err != nil {
			t.Fatalf("the answer cannot be read: %v", err)
		}
		if !m.Response || m.Id != uint16(raw[0])<<8|uint16(raw[1]) || len(b) > largeUDP {
			t.Fatalf("%d bytes: %v", len(b), &m)
		}
	})
}

// FuzzAnswer feeds a name server's bytes to what stands between it and a container.
func FuzzAnswer(f *testing.F) {
	q := new(dns.Msg).SetQuestion("Example.com.", dns.TypeA)
	query, err := q.Pack()
	if err != nil {
		f.Fatal(err)
	}
	good, err := new(dns.Msg).SetReply(q).Pack()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:headerLen])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, msg []byte) {
		before := string(msg)
		if answers(msg, query) {
			if out := addressed(msg, query); len(out) != len(msg) || string(out[:2]) != string(query[:2]) {
				t.Fatal("the answer was changed beyond its id")
			}
		}
		if string(msg) != before {
			t.Fatal("the answer that others wait for was changed")
		}
		_ = judge(msg)
		if end := questionEnd(msg); end > len(msg) {
			t.Fatalf("the question ends at %d of %d", end, len(msg))
		}
	})
}

func FuzzReverseAddr(f *testing.F) {
	f.Add("1.2.3.4.in-addr.arpa")
	f.Add(strings.Repeat("0.", 32) + "ip6.arpa")
	f.Add(strings.Repeat("g.", 32) + "ip6.arpa")
	f.Add(strings.Repeat("0-", 31) + "0.ip6.arpa")
	f.Fuzz(func(t *testing.T, name string) {
		a, ok := reverseAddr(strings.ToLower(name))
		if !ok {
			return
		}
		back, err := dns.ReverseAddr(a.String())
		if a.Is4In6() {
			return // it prints as the IPv4 address that it maps
		}
		if err != nil || strings.TrimSuffix(back, ".") != strings.ToLower(name) {
			t.Fatalf("%q is %s, which is %q", name, a, back)
		}
	})
}

func FuzzParseConf(f *testing.F) {
	f.Add("nameserver 1.1.1.1\nsearch a b\noptions ndots:1\n")
	f.Add("domain x\n; c\n# d\nnameserver")
	f.Fuzz(func(t *testing.T, text string) {
		c := ParseConf(text)
		if again := ParseConf(c.String()); again.String() != c.String() {
			t.Errorf("%q becomes %q becomes %q", text, c.String(), again.String())
		}
		_ = c.Addrs()
	})
}
