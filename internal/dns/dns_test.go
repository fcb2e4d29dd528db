package dns_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	wire "github.com/miekg/dns"

	"github.com/cleatlabs/cleat/internal/dns"
	"github.com/cleatlabs/cleat/internal/supervise"
	"github.com/cleatlabs/cleat/test/expect"
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

var (
	front   = dns.Network{ID: "n1", Name: "front", Subnets: []netip.Prefix{netip.MustParsePrefix("172.20.0.0/16"), netip.MustParsePrefix("fd00:20::/64")}}
	backend = dns.Network{ID: "n2", Name: "back.end", Subnets: []netip.Prefix{netip.MustParsePrefix("172.21.0.0/16")}}
)

// world has two networks and a few containers.
func world() *dns.Directory {
	d := dns.NewDirectory()
	d.Add(front, dns.Endpoint{ID: "e1", Names: []string{"web", "0123456789ab", "www"}, Addrs: []netip.Addr{addr("172.20.0.2"), addr("fd00:20::2")}})
	d.Add(front, dns.Endpoint{ID: "e2", Names: []string{"Api-1", "api"}, Addrs: []netip.Addr{addr("172.20.0.3")}})
	d.Add(front, dns.Endpoint{ID: "e3", Names: []string{"api-2", "api"}, Addrs: []netip.Addr{addr("172.20.0.4")}})
	d.Add(backend, dns.Endpoint{ID: "e4", Names: []string{"db.main", "web"}, Addrs: []netip.Addr{addr("172.21.0.2")}})
	return d
}

// service is one container's server.
type service struct {
	t      testing.TB
	addr   string // the same port for UDP and TCP is not needed: see tcp
	tcp    string
	client *dns.Client
	group  *supervise.Group
}

func serve(t testing.TB, d *dns.Directory, v *dns.View) *service {
	t.Helper()
	group := supervise.New(context.Background())
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), expect.Patience)
		defer cancel()
		if err := group.Stop(ctx); err != nil {
			t.Error(err)
		}
	})
	return serveWith(t, group, dns.New(group, d), v)
}

func serveWith(t testing.TB, group *supervise.Group, s *dns.Server, v *dns.View) *service {
	t.Helper()
	p, err := net.ListenPacket("udp4", "127.0.0.1:0")
	must(t, err)
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	must(t, err)
	pf, err := p.(*net.UDPConn).File()
	must(t, err)
	lf, err := l.(*net.TCPListener).File()
	must(t, err)
	p.Close()
	l.Close()
	c, err := s.Serve(pf, lf, v)
	must(t, err)
	t.Cleanup(c.Close)
	return &service{t, p.LocalAddr().String(), l.Addr().String(), c, group}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (s *service) ask(name string, qtype uint16) *wire.Msg {
	s.t.Helper()
	return s.exchange("udp", new(wire.Msg).SetQuestion(wire.Fqdn(name), qtype))
}

func (s *service) exchange(network string, m *wire.Msg) *wire.Msg {
	s.t.Helper()
	to := s.addr
	if network == "tcp" {
		to = s.tcp
	}
	c := wire.Client{Net: network, Timeout: expect.Patience}
	r, _, err := c.Exchange(m, to)
	if err != nil {
		s.t.Fatalf("%v: %v", m.Question, err)
	}
	return r
}

// say writes an answer shortly: the code and the data of its records, sorted.
func say(m *wire.Msg) string {
	out := []string{}
	for _, rr := range m.Answer {
		f := strings.Split(rr.String(), "\t")
		out = append(out, f[len(f)-1])
	}
	slices.Sort(out)
	return strings.TrimSpace(wire.RcodeToString[m.Rcode] + " " + strings.Join(out, " "))
}

func TestNames(t *testing.T) {
	d := world()
	hosts := map[string][]netip.Addr{dns.HostName: {addr("172.20.0.1")}, "mysql": {addr("172.20.0.9")}}
	both := serve(t, d, &dns.View{Networks: []string{"n1", "n2"}, Hosts: hosts, Aliases: map[string]string{"store": "db.main"}})
	one := serve(t, d, &dns.View{Networks: []string{"n2"}})
	for _, c := range []struct {
		s     *service
		name  string
		qtype uint16
		want  string
	}{
		{both, "web", wire.TypeA, "NOERROR 172.20.0.2"},
		{both, "WEB", wire.TypeA, "NOERROR 172.20.0.2"},
		{both, "web", wire.TypeAAAA, "NOERROR fd00:20::2"},
		{both, "web", wire.TypeANY, "NOERROR 172.20.0.2 fd00:20::2"},
		{both, "www", wire.TypeA, "NOERROR 172.20.0.2"},
		{both, "0123456789ab", wire.TypeA, "NOERROR 172.20.0.2"},
		{both, "api", wire.TypeA, "NOERROR 172.20.0.3 172.20.0.4"},
		{both, "api-1", wire.TypeA, "NOERROR 172.20.0.3"},
		{both, "api-1", wire.TypeAAAA, "NOERROR"}, // it exists, but not there
		{both, "api-1", wire.TypeMX, "NOERROR"},
		{both, "api-1", wire.TypeHTTPS, "NOERROR"},
		{both, "web.front", wire.TypeA, "NOERROR 172.20.0.2"},
		{both, "web.back.end", wire.TypeA, "NOERROR 172.21.0.2"},
		{both, "db.main.back.end", wire.TypeA, "NOERROR 172.21.0.2"},
		{both, "db.main", wire.TypeA, "NOERROR 172.21.0.2"},
		{both, "store", wire.TypeA, "NOERROR 172.21.0.2"},
		{one, "store", wire.TypeA, "SERVFAIL"},
		{both, "mysql", wire.TypeA, "NOERROR 172.20.0.9"},
		{both, "host.docker.internal", wire.TypeA, "NOERROR 172.20.0.1"},
		{both, "host.docker.internal", wire.TypeAAAA, "NOERROR"},
		{both, "other.docker.internal", wire.TypeA, "NXDOMAIN"},
		{both, "localhost", wire.TypeA, "NOERROR 127.0.0.1"},
		{both, "x.localhost", wire.TypeAAAA, "NOERROR ::1"},
		{both, "nobody", wire.TypeA, "SERVFAIL"}, // not known here, and nobody to ask
		{both, "2.0.20.172.in-addr.arpa", wire.TypePTR, "NOERROR web.front."},
		{both, "3.0.20.172.in-addr.arpa", wire.TypePTR, "NOERROR api-1.front."},
		{both, "2.0.21.172.in-addr.arpa", wire.TypePTR, "NOERROR db.main.back.end."},
		{both, "2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.2.0.0.0.0.d.f.ip6.arpa", wire.TypePTR, "NOERROR"},
		{both, "99.0.20.172.in-addr.arpa", wire.TypePTR, "NXDOMAIN"},
		{both, "1.1.1.1.in-addr.arpa", wire.TypePTR, "SERVFAIL"},
		{one, "web", wire.TypeA, "NOERROR 172.21.0.2"},
		{one, "api", wire.TypeA, "SERVFAIL"}, // of a network that it is not on
		{one, "web.front", wire.TypeA, "SERVFAIL"},
		{one, "2.0.20.172.in-addr.arpa", wire.TypePTR, "SERVFAIL"},
		{one, "host.docker.internal", wire.TypeA, "NXDOMAIN"},
	} {
		if strings.Contains(c.name, "ip6.arpa") {
			rev, err := wire.ReverseAddr("fd00:20::2")
			must(t, err)
			c.name, c.want = rev, "NOERROR web.front."
		}
		for _, network := range []string{"udp", "tcp"} {
			r := c.s.exchange(network, new(wire.Msg).SetQuestion(wire.Fqdn(c.name), c.qtype))
			if got := say(r); got != c.want {
				t.Errorf("%s %s by %s: %q, want %q", c.name, wire.TypeToString[c.qtype], network, got, c.want)
			}
			for _, rr := range r.Answer {
				if rr.Header().Ttl != dns.TTL {
					t.Errorf("%s: time to live %d", c.name, rr.Header().Ttl)
				}
			}
			if !r.RecursionAvailable {
				t.Errorf("%s: recursion is not offered, which makes clients give up", c.name)
			}
		}
	}
}

func TestNamesComeAndGo(t *testing.T) {
	d := world()
	s := serve(t, d, &dns.View{Networks: []string{"n1"}})
	want := func(what, name, want string) {
		t.Helper()
		if got := say(s.ask(name, wire.TypeA)); got != want {
			t.Errorf("%s: %s is %q, want %q", what, name, got, want)
		}
	}
	d.Remove("e2")
	want("one of two is gone", "api", "NOERROR 172.20.0.4")
	d.Remove("e3")
	d.Remove("e3")
	want("both are gone", "api", "SERVFAIL")
	// Renamed, with the same address.
	d.Add(front, dns.Endpoint{ID: "e1", Names: []string{"new"}, Addrs: []netip.Addr{addr("172.20.0.2")}})
	want("renamed", "new", "NOERROR 172.20.0.2")
	want("renamed", "web", "SERVFAIL")
	// The next owner of an address comes before the last one is taken out.
	d.Add(front, dns.Endpoint{ID: "e9", Names: []string{"next"}, Addrs: []netip.Addr{addr("172.20.0.2")}})
	d.Remove("e1")
	if got := say(s.ask("2.0.20.172.in-addr.arpa", wire.TypePTR)); got != "NOERROR next.front." {
		t.Errorf("reverse: %q", got)
	}
	// One that has no name has an address all the same.
	d.Add(front, dns.Endpoint{ID: "e10", Addrs: []netip.Addr{addr("172.20.0.10")}})
	d.Remove("e10")
	s.client.See(&dns.View{Networks: []string{"n2", "n1"}})
	want("connected to another network", "web", "NOERROR 172.21.0.2")
	d.Remove("e4")
	want("without that network", "web", "SERVFAIL")
}

func TestTurns(t *testing.T) {
	s := serve(t, world(), &dns.View{Networks: []string{"n1"}})
	first := map[string]int{}
	for range 200 {
		first[s.ask("api", wire.TypeA).Answer[0].(*wire.A).A.String()]++
	}
	for _, ip := range []string{"172.20.0.3", "172.20.0.4"} {
		if first[ip] < 50 {
			t.Errorf("%s came first %d times of 200", ip, first[ip])
		}
	}
}

func TestSizes(t *testing.T) {
	d := world()
	for i := range 100 {
		d.Add(front, dns.Endpoint{ID: fmt.Sprint("many", i), Names: []string{"many"}, Addrs: []netip.Addr{netip.AddrFrom4([4]byte{172, 20, 1, byte(i)})}})
	}
	s := serve(t, d, &dns.View{Networks: []string{"n1"}})
	size := func(m *wire.Msg) int { m.Compress = true; return m.Len() }
	plain := s.ask("many", wire.TypeA)
	if n := size(plain); !plain.Truncated || n > 512 || len(plain.Answer) == 0 {
		t.Errorf("plain UDP: %d bytes, %d records, truncated %v", n, len(plain.Answer), plain.Truncated)
	}
	m := new(wire.Msg).SetQuestion("many.", wire.TypeA)
	m.SetEdns0(1232, true)
	mid := s.exchange("udp", m)
	if n := size(mid); !mid.Truncated || n > 1232 || len(mid.Answer) <= len(plain.Answer) || mid.IsEdns0() == nil || !mid.IsEdns0().Do() {
		t.Errorf("EDNS 1232: %d bytes, %d records, truncated %v, %v", n, len(mid.Answer), mid.Truncated, mid.IsEdns0())
	}
	m = new(wire.Msg).SetQuestion("many.", wire.TypeA)
	m.SetEdns0(4096, false)
	if big := s.exchange("udp", m); big.Truncated || len(big.Answer) != 100 {
		t.Errorf("EDNS 4096: %d records, truncated %v", len(big.Answer), big.Truncated)
	}
	if tcp := s.exchange("tcp", new(wire.Msg).SetQuestion("many.", wire.TypeA)); tcp.Truncated || len(tcp.Answer) != 100 {
		t.Errorf("TCP: %d records, truncated %v", len(tcp.Answer), tcp.Truncated)
	}
	m = new(wire.Msg).SetQuestion("many.", wire.TypeA)
	m.SetEdns0(4096, false)
	m.IsEdns0().SetVersion(1)
	if r := s.exchange("udp", m); r.Rcode != wire.RcodeBadVers {
		t.Errorf("EDNS version 1: %s", wire.RcodeToString[r.Rcode])
	}
}

func TestWhatIsNoPlainQuestion(t *testing.T) {
	s := serve(t, world(), &dns.View{Networks: []string{"n1"}, Servers: func() []dns.Upstream {
		return []dns.Upstream{{Addr: netip.MustParseAddrPort("127.0.0.1:1"), Dial: func(context.Context, string, netip.AddrPort) (net.Conn, error) {
			t.Error("it was forwarded")
			return nil, os.ErrInvalid
		}}}
	}})
	for _, c := range []struct {
		change func(*wire.Msg)
		want   int
	}{
		{func(m *wire.Msg) { m.Opcode = wire.OpcodeUpdate }, wire.RcodeNotImplemented},
		{func(m *wire.Msg) { m.Question = nil }, wire.RcodeFormatError},
		{func(m *wire.Msg) { m.Question = append(m.Question, m.Question[0]) }, wire.RcodeFormatError},
		{func(m *wire.Msg) { m.Question[0].Qclass = wire.ClassCHAOS }, wire.RcodeRefused},
		{func(m *wire.Msg) { m.Question[0].Qtype = wire.TypeAXFR }, wire.RcodeRefused},
	} {
		m := new(wire.Msg).SetQuestion("example.com.", wire.TypeA)
		c.change(m)
		if r := s.exchange("udp", m); r.Rcode != c.want || r.Id != m.Id {
			t.Errorf("%v: %s", m, wire.RcodeToString[r.Rcode])
		}
	}
	// Not even an answer: it could be sent round in a circle.
	conn, err := net.Dial("udp", s.addr)
	must(t, err)
	defer conn.Close()
	m := new(wire.Msg).SetQuestion("web.", wire.TypeA)
	m.Response = true
	b, err := m.Pack()
	must(t, err)
	for _, junk := range [][]byte{b, {1, 2, 3}, {}} {
		_, err = conn.Write(junk)
		must(t, err)
	}
	m.Response = false
	b, err = m.Pack()
	must(t, err)
	_, err = conn.Write(append(b, 7)) // with something behind: still a question
	must(t, err)
	buf := make([]byte, 512)
	n, err := conn.Read(buf)
	must(t, err)
	var r wire.Msg
	must(t, r.Unpack(buf[:n]))
	if r.Id != m.Id {
		t.Errorf("the first answer is to %d, not to the question %d", r.Id, m.Id)
	}
}

// Many queries by one connection, answered as they come; one too large ends it.
func TestPipelining(t *testing.T) {
	s := serve(t, world(), &dns.View{Networks: []string{"n1"}})
	conn, err := net.Dial("tcp", s.tcp)
	must(t, err)
	defer conn.Close()
	co := &wire.Conn{Conn: conn}
	for i := range 50 {
		m := new(wire.Msg).SetQuestion("web.", wire.TypeA)
		m.Id = uint16(i)
		must(t, co.WriteMsg(m))
	}
	for range 50 {
		r, err := co.ReadMsg()
		must(t, err)
		if got := say(r); got != "NOERROR 172.20.0.2" {
			t.Errorf("%d: %s", r.Id, got)
		}
	}
	_, err = conn.Write([]byte{0xff, 0xff, 1, 2, 3})
	must(t, err)
	if _, err := co.ReadMsg(); err == nil {
		t.Error("a message of 65,535 bytes is waited for")
	}
}

// A container that opens all the connections it may harms only itself, and not for
// long.
func TestConnectionsAreBounded(t *testing.T) {
	group := supervise.New(context.Background())
	defer group.Stop(context.Background())
	server := dns.New(group, world())
	greedy := serveWith(t, group, server, &dns.View{Networks: []string{"n1"}})
	other := serveWith(t, group, server, &dns.View{Networks: []string{"n1"}})
	var conns []net.Conn
	for range 100 {
		c, err := net.Dial("tcp", greedy.tcp)
		must(t, err)
		conns = append(conns, c)
	}
	if got := say(other.exchange("tcp", new(wire.Msg).SetQuestion("web.", wire.TypeA))); got != "NOERROR 172.20.0.2" {
		t.Errorf("another container: %s", got)
	}
	if got := say(greedy.ask("web", wire.TypeA)); got != "NOERROR 172.20.0.2" {
		t.Errorf("by UDP: %s", got)
	}
	// They are taken over by and by: dialling is done when the kernel has them.
	for deadline := time.Now().Add(expect.Patience); ; time.Sleep(time.Millisecond) {
		n := strings.Join(group.Running(), ",")
		if strings.Contains(n, "dns-connection ×32") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("connections served: %s", n)
		}
	}
	for _, c := range conns {
		c.Close()
	}
	if got := say(greedy.exchange("tcp", new(wire.Msg).SetQuestion("web.", wire.TypeA))); got != "NOERROR 172.20.0.2" {
		t.Errorf("after they were closed: %s", got)
	}
	greedy.client.Close()
	other.client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), expect.Patience)
	defer cancel()
	must(t, group.Stop(ctx))
}

// The last of 10,000 lookups, by many at once, takes no longer than the first.
func TestLookupsAreQuick(t *testing.T) {
	d := world()
	for i := range 1000 {
		d.Add(front, dns.Endpoint{ID: fmt.Sprint("c", i), Names: []string{fmt.Sprint("c", i)}, Addrs: []netip.Addr{netip.AddrFrom4([4]byte{172, 20, byte(2 + i/250), byte(i % 250)})}})
	}
	s := serve(t, d, &dns.View{Networks: []string{"n1"}})
	conn, err := net.Dial("udp", s.addr)
	must(t, err)
	defer conn.Close()
	co := &wire.Conn{Conn: conn}
	took := make([]time.Duration, 10000)
	for i := range took {
		m := new(wire.Msg).SetQuestion(fmt.Sprintf("c%d.", i%1000), wire.TypeA)
		start := time.Now()
		must(t, co.WriteMsg(m))
		r, err := co.ReadMsg()
		took[i] = time.Since(start)
		must(t, err)
		if len(r.Answer) != 1 {
			t.Fatalf("c%d: %v", i%1000, r)
		}
	}
	slices.Sort(took)
	t.Logf("a tenth %v, median %v, p99 %v, most %v", took[1000], took[5000], took[9900], took[9999])
	// The quickest tenth: on a machine with other work the scheduler decides about the rest.
	if took[1000] > time.Millisecond {
		t.Errorf("a tenth of the lookups take less than %v, the others more", took[1000])
	}
}

func TestHostConfFollowsTheFile(t *testing.T) {
	one, two := t.TempDir()+"/one", t.TempDir()+"/two"
	must(t, os.WriteFile(one, []byte("# by hand\nnameserver 192.0.2.1 # the first\nnameserver nonsense\nnameserver fe80::1%eth0\n;nameserver 192.0.2.3\nsearch a b\n"), 0o600))
	must(t, os.WriteFile(two, []byte("nameserver ::1\n"), 0o600))
	var path atomic.Value
	path.Store(one)
	h := dns.NewHostConf(func() string { return path.Load().(string) })
	if got := fmt.Sprint(h.Servers()); got != "[192.0.2.1:53 [fe80::1%eth0]:53]" {
		t.Errorf("servers %s", got)
	}
	await := func(want string) {
		t.Helper()
		got := ""
		for deadline := time.Now().Add(expect.Patience); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
			if got = fmt.Sprint(h.Servers()); got == want {
				return
			}
		}
		t.Errorf("servers %s, want %s", got, want)
	}
	must(t, os.WriteFile(one, []byte("nameserver 192.0.2.99\n"), 0o600))
	await("[192.0.2.99:53]")
	path.Store(two)
	await("[[::1]:53]")
	must(t, os.Remove(two))
	path.Store(one)
	await("[192.0.2.99:53]")
}

func TestParseConf(t *testing.T) {
	for text, want := range map[string]string{
		"":                                      "",
		"nameserver 1.1.1.1\nnameserver":        "nameserver 1.1.1.1\n",
		"domain a\nsearch b c\n":                "search b c\n",
		"search .\n":                            "",
		"options ndots:5 edns0\noptions rotate": "options ndots:5 edns0 rotate\n",
		"\tnameserver\t2.2.2.2 # x\r\nnonsense y": "nameserver 2.2.2.2\n",
	} {
		if got := dns.ParseConf(text).String(); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func TestConcurrentChange(t *testing.T) {
	d := world()
	s := serve(t, d, &dns.View{Networks: []string{"n1"}})
	var wg sync.WaitGroup
	stop := make(chan struct{})
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			d.Add(front, dns.Endpoint{ID: "moving", Names: []string{"moving"}, Addrs: []netip.Addr{netip.AddrFrom4([4]byte{172, 20, 9, byte(i)})}})
			s.client.See(&dns.View{Networks: []string{"n1", fmt.Sprint("n", i%3)}})
		}
	})
	for range 500 {
		if got := say(s.ask("moving", wire.TypeA)); got != "SERVFAIL" && !strings.HasPrefix(got, "NOERROR 172.20.9.") {
			t.Fatal(got)
		}
	}
	close(stop)
	wg.Wait()
}

// A network is known by its name to a container that comes while the last one on it leaves.
func TestComesWhileTheLastLeaves(t *testing.T) {
	d := dns.NewDirectory()
	s := serve(t, d, &dns.View{Networks: []string{"n1"}})
	at := []netip.Addr{addr("172.20.0.2")}
	for i := range 5000 {
		leaves, comes := fmt.Sprint("e", i), fmt.Sprint("e", i+1)
		d.Add(front, dns.Endpoint{ID: leaves, Names: []string{leaves}, Addrs: at})
		var wg sync.WaitGroup
		wg.Go(func() { d.Remove(leaves) })
		wg.Go(func() { d.Add(front, dns.Endpoint{ID: comes, Names: []string{comes}, Addrs: at}) })
		wg.Wait()
		if got := say(s.ask(comes+".front", wire.TypeA)); got != "NOERROR 172.20.0.2" {
			t.Fatalf("after %d: %s", i, got)
		}
	}
}
