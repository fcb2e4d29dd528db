package dns_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	wire "github.com/miekg/dns"

	"github.com/cleatlabs/cleat/internal/dns"
	"github.com/cleatlabs/cleat/internal/supervise"
	"github.com/cleatlabs/cleat/test/expect"
)

// outside is a name server of the test: UDP and TCP at one port.
type outside struct {
	addr   netip.AddrPort
	asked  atomic.Int32
	handle func(w wire.ResponseWriter, q *wire.Msg)
}

func newOutside(t *testing.T, handle func(w wire.ResponseWriter, q *wire.Msg)) *outside {
	t.Helper()
	o := &outside{handle: handle}
	var p net.PacketConn
	var l net.Listener
	for {
		var err error
		p, err = net.ListenPacket("udp4", "127.0.0.1:0")
		must(t, err)
		l, err = net.Listen("tcp4", p.LocalAddr().String())
		if err == nil {
			break
		}
		p.Close()
		if !errors.Is(err, syscall.EADDRINUSE) {
			t.Fatal(err)
		}
	}
	o.addr = netip.MustParseAddrPort(p.LocalAddr().String())
	h := wire.HandlerFunc(func(w wire.ResponseWriter, q *wire.Msg) {
		o.asked.Add(1)
		o.handle(w, q)
	})
	for _, s := range []*wire.Server{{PacketConn: p, Handler: h, UDPSize: 4096}, {Listener: l, Handler: h}} {
		go s.ActivateAndServe()
		t.Cleanup(func() { s.Shutdown() })
	}
	return o
}

func (o *outside) upstream() dns.Upstream { return dns.Upstream{Addr: o.addr, Dial: dns.Dial} }

// says answers every A question with one address.
func says(ip string) func(wire.ResponseWriter, *wire.Msg) {
	return func(w wire.ResponseWriter, q *wire.Msg) {
		m := new(wire.Msg).SetReply(q)
		m.Answer = append(m.Answer, &wire.A{Hdr: wire.RR_Header{Name: q.Question[0].Name, Rrtype: wire.TypeA, Class: wire.ClassINET, Ttl: 60}, A: net.ParseIP(ip)})
		w.WriteMsg(m)
	}
}

func code(rcode int) func(wire.ResponseWriter, *wire.Msg) {
	return func(w wire.ResponseWriter, q *wire.Msg) { w.WriteMsg(new(wire.Msg).SetRcode(q, rcode)) }
}

func after(d time.Duration, h func(wire.ResponseWriter, *wire.Msg)) func(wire.ResponseWriter, *wire.Msg) {
	return func(w wire.ResponseWriter, q *wire.Msg) { time.Sleep(d); h(w, q) }
}

func silent(wire.ResponseWriter, *wire.Msg) {}

func withServers(t *testing.T, us ...dns.Upstream) *service {
	t.Helper()
	return serve(t, world(), &dns.View{Networks: []string{"n1"}, Servers: func() []dns.Upstream { return us }})
}

func TestForwarding(t *testing.T) {
	t.Parallel()
	good, nx, fail, refused := newOutside(t, says("192.0.2.1")), newOutside(t, code(wire.RcodeNameError)), newOutside(t, code(wire.RcodeServerFailure)), newOutside(t, code(wire.RcodeRefused))
	late := newOutside(t, after(400*time.Millisecond, says("192.0.2.7")))
	dead := newOutside(t, silent)
	gone := dns.Upstream{Addr: netip.MustParseAddrPort("127.0.0.1:1"), Dial: dns.Dial}
	for _, c := range []struct {
		name    string
		servers []dns.Upstream
		want    string
		quick   bool // well before a name server's time is over
	}{
		{"one", []dns.Upstream{good.upstream()}, "NOERROR 192.0.2.1", true},
		{"no such name", []dns.Upstream{nx.upstream()}, "NXDOMAIN", true},
		{"the first fails", []dns.Upstream{fail.upstream(), refused.upstream(), good.upstream()}, "NOERROR 192.0.2.1", true},
		{"the first is not there", []dns.Upstream{gone, good.upstream()}, "NOERROR 192.0.2.1", true},
		{"the first is silent", []dns.Upstream{dead.upstream(), good.upstream()}, "NOERROR 192.0.2.1", true},
		{"the second does not know what the first does", []dns.Upstream{late.upstream(), nx.upstream()}, "NOERROR 192.0.2.7", true},
		{"the first knows that there is none", []dns.Upstream{nx.upstream(), good.upstream()}, "NXDOMAIN", true},
		{"all fail", []dns.Upstream{fail.upstream(), refused.upstream()}, "SERVFAIL", true},
		{"none is there", []dns.Upstream{gone, gone}, "SERVFAIL", true},
		{"silence", []dns.Upstream{dead.upstream()}, "SERVFAIL", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := withServers(t, c.servers...)
			var got string
			var took time.Duration
			for try := 0; try < 3 && got != c.want; try++ { // a busy machine may come to a timely answer when its time is over
				start := time.Now()
				got = say(s.ask("Example.com", wire.TypeA))
				took = time.Since(start)
			}
			if got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
			// The order of the answers above is what counts; this only tells "at once"
			// from "when the time was over".
			if c.quick && took > dns.Patience-500*time.Millisecond || !c.quick && took < dns.Patience/2 {
				t.Errorf("it took %v", took)
			}
		})
	}
}

// A server that was silent once is not waited for the next time.
func TestSilentServerIsRemembered(t *testing.T) {
	t.Parallel()
	dead, nx := newOutside(t, silent), newOutside(t, code(wire.RcodeNameError))
	s := withServers(t, dead.upstream(), nx.upstream())
	if got := say(s.ask("a.example", wire.TypeA)); got != "NXDOMAIN" {
		t.Error(got)
	}
	// The question that was given up does not count: one that waited to the end does.
	lone := dead.upstream()
	both := serve(t, world(), &dns.View{Servers: func() []dns.Upstream { return []dns.Upstream{lone} }})
	if got := say(both.ask("b.example", wire.TypeA)); got != "SERVFAIL" {
		t.Error(got)
	}
	both.client.See(&dns.View{Servers: func() []dns.Upstream { return []dns.Upstream{lone, nx.upstream()} }})
	quickest := time.Hour // of a few: any may meet a processor that is busy with something else
	for i := 0; i < 5 && quickest > 900*time.Millisecond; i++ {
		start := time.Now()
		if got := say(both.ask(fmt.Sprintf("c%d.example", i), wire.TypeA)); got != "NXDOMAIN" {
			t.Error(got)
		}
		quickest = min(quickest, time.Since(start))
	}
	if quickest > 900*time.Millisecond {
		t.Errorf("it waited %v for a server that is known to be silent", quickest)
	}
}

// A server that has no answer to one question has one to others, of names that nobody else knows.
func TestUnansweredQuestionIsNotASilentServer(t *testing.T) {
	t.Parallel()
	butSlow := func(h func(wire.ResponseWriter, *wire.Msg)) func(wire.ResponseWriter, *wire.Msg) {
		return func(w wire.ResponseWriter, q *wire.Msg) {
			if q.Question[0].Name != "slow.example." {
				h(w, q)
			}
		}
	}
	denied := make(chan struct{}, 100)
	inner := newOutside(t, butSlow(func(w wire.ResponseWriter, q *wire.Msg) {
		<-denied
		after(20*time.Millisecond, says("192.0.2.1"))(w, q)
	}))
	outer := newOutside(t, butSlow(func(w wire.ResponseWriter, q *wire.Msg) { code(wire.RcodeNameError)(w, q); denied <- struct{}{} }))
	s := withServers(t, inner.upstream(), outer.upstream())
	if got := say(s.ask("slow.example", wire.TypeA)); got != "SERVFAIL" {
		t.Fatal(got)
	}
	got := ""
	for i := 0; i < 10 && got != "NOERROR 192.0.2.1"; i++ { // any may meet a processor that is busy with something else
		got = say(s.ask(fmt.Sprintf("db%d.example", i), wire.TypeA))
	}
	if got != "NOERROR 192.0.2.1" {
		t.Error(got)
	}
}

// Nor is one silent by UDP that cannot be reached by TCP.
func TestServerWithoutTCP(t *testing.T) {
	t.Parallel()
	inner, outer := newOutside(t, after(400*time.Millisecond, says("192.0.2.1"))), newOutside(t, code(wire.RcodeNameError))
	up := inner.upstream()
	up.Dial = func(ctx context.Context, network string, server netip.AddrPort) (net.Conn, error) {
		if network == "tcp" {
			return nil, syscall.EHOSTUNREACH
		}
		return dns.Dial(ctx, network, server)
	}
	s := withServers(t, up, outer.upstream())
	if got := say(s.exchange("tcp", new(wire.Msg).SetQuestion("a.example.", wire.TypeA))); got != "NXDOMAIN" {
		t.Fatal(got)
	}
	if got := say(s.ask("db.example", wire.TypeA)); got != "NOERROR 192.0.2.1" {
		t.Error(got)
	}
}

func TestForwardedByteForByte(t *testing.T) {
	var seen atomic.Pointer[wire.Msg]
	up := newOutside(t, func(w wire.ResponseWriter, q *wire.Msg) {
		seen.Store(q)
		m := new(wire.Msg).SetReply(q)
		m.AuthenticatedData = true
		m.Answer = append(m.Answer, &wire.RFC3597{Hdr: wire.RR_Header{Name: q.Question[0].Name, Rrtype: 65333, Class: wire.ClassINET, Ttl: 60}, Rdata: "abcdef"})
		w.WriteMsg(m)
	})
	s := withServers(t, up.upstream())
	m := new(wire.Msg).SetQuestion("eXaMple.com.", 65333)
	m.SetEdns0(1400, true)
	m.IsEdns0().Option = append(m.IsEdns0().Option, &wire.EDNS0_NSID{Code: wire.EDNS0NSID})
	m.AuthenticatedData, m.CheckingDisabled = true, true
	r := s.exchange("udp", m)
	q := seen.Load()
	if q.Question[0] != m.Question[0] || !q.CheckingDisabled || q.IsEdns0() == nil || q.IsEdns0().UDPSize() != 1400 || len(q.IsEdns0().Option) != 1 || q.Id == m.Id {
		t.Errorf("asked was\n%v\nforwarded\n%v", m, q)
	}
	if r.Id != m.Id || !r.AuthenticatedData || len(r.Answer) != 1 || r.Question[0].Name != "eXaMple.com." {
		t.Errorf("answer %v", r)
	}
}

// What is cut off by UDP comes whole by TCP.
func TestTruncatedAnswerByTCP(t *testing.T) {
	var overTCP atomic.Int32
	up := newOutside(t, func(w wire.ResponseWriter, q *wire.Msg) {
		m := new(wire.Msg).SetReply(q)
		for i := range 100 {
			m.Answer = append(m.Answer, &wire.A{Hdr: wire.RR_Header{Name: q.Question[0].Name, Rrtype: wire.TypeA, Class: wire.ClassINET, Ttl: 60}, A: net.IPv4(192, 0, 2, byte(i))})
		}
		if w.RemoteAddr().Network() == "udp" {
			m.Truncate(512)
		} else {
			overTCP.Add(1)
		}
		w.WriteMsg(m)
	})
	s := withServers(t, up.upstream())
	if r := s.ask("big.example", wire.TypeA); !r.Truncated {
		t.Error("by UDP it is not marked as truncated")
	}
	if r := s.exchange("tcp", new(wire.Msg).SetQuestion("big.example.", wire.TypeA)); r.Truncated || len(r.Answer) != 100 || overTCP.Load() != 1 {
		t.Errorf("by TCP: %d records, truncated %v, %d questions by TCP", len(r.Answer), r.Truncated, overTCP.Load())
	}
}

// Answers that nobody asked for do not count, from whomever they seem to come.
func TestForgedAnswers(t *testing.T) {
	t.Parallel()
	up := newOutside(t, func(w wire.ResponseWriter, q *wire.Msg) {
		for _, forge := range []func(*wire.Msg){
			func(m *wire.Msg) { m.Id++ },
			func(m *wire.Msg) { m.Question[0].Name = "other.example." },
			func(m *wire.Msg) { m.Response = false },
			func(m *wire.Msg) { m.Question = nil },
		} {
			m := new(wire.Msg).SetReply(q.Copy())
			m.Answer = append(m.Answer, &wire.A{Hdr: wire.RR_Header{Name: q.Question[0].Name, Rrtype: wire.TypeA, Class: wire.ClassINET, Ttl: 60}, A: net.IPv4(6, 6, 6, 6)})
			forge(m)
			w.WriteMsg(m)
		}
		w.Write([]byte{1})
		says("192.0.2.1")(w, q)
	})
	s := withServers(t, up.upstream())
	if got := say(s.ask("bank.example", wire.TypeA)); got != "NOERROR 192.0.2.1" {
		t.Error(got)
	}
}

// By TCP, too, an answer to another question is none.
func TestForgedAnswerByTCP(t *testing.T) {
	up := newOutside(t, func(w wire.ResponseWriter, q *wire.Msg) {
		q = q.Copy()
		q.Question[0].Name = "other.example."
		says("6.6.6.6")(w, q)
	})
	s := withServers(t, up.upstream())
	if got := say(s.exchange("tcp", new(wire.Msg).SetQuestion("bank.example.", wire.TypeA))); got != "SERVFAIL" {
		t.Error(got)
	}
}

// Some servers leave the question out of an error. It is one for the client all the same, in reply to its question.
func TestErrorWithoutTheQuestion(t *testing.T) {
	up := newOutside(t, func(w wire.ResponseWriter, q *wire.Msg) {
		m := new(wire.Msg).SetRcode(q, wire.RcodeRefused)
		m.Question = nil
		w.WriteMsg(m)
	})
	s := withServers(t, up.upstream())
	if got := say(s.ask("a-name-that-is-longer-than-the-header.of-a-message.example", wire.TypeA)); got != "REFUSED" {
		t.Error(got)
	}
}

// The host's resolver is a container, whose own name server is ours, whose name
// server is the host's resolver: the question must end, asked once a round.
func TestCircleEnds(t *testing.T) {
	t.Parallel()
	var ours atomic.Value // the address of our server, which the resolver is older than
	up := newOutside(t, func(w wire.ResponseWriter, q *wire.Msg) {
		c := wire.Client{Timeout: expect.Patience}
		fwd := q.Copy()
		fwd.Id = wire.Id()
		r, _, err := c.Exchange(fwd, ours.Load().(string))
		if err != nil {
			return
		}
		r.Id = q.Id
		w.WriteMsg(r)
	})
	s := withServers(t, up.upstream())
	ours.Store(s.addr)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if got := say(s.ask("round.example", wire.TypeA)); got != "SERVFAIL" {
				t.Errorf("answer %q", got)
			}
		})
	}
	wg.Wait()
	// Once, and again each second while there is no answer; not 20 times, nor 20².
	if n := up.asked.Load(); n > 10 {
		t.Errorf("the resolver was asked %d times", n)
	}
}

// same is one name, as clients spell it differently.
func same(i int) string { return []string{"SAME.example.", "same.example."}[i%2] }

// The same question by many is one question; each gets its own answer.
func TestSameQuestionIsAskedOnce(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	up := newOutside(t, func(w wire.ResponseWriter, q *wire.Msg) { <-release; says("192.0.2.1")(w, q) })
	s := withServers(t, up.upstream())
	conns := make([]*wire.Conn, 20)
	for i := range conns {
		conn, err := net.Dial("udp", s.addr)
		must(t, err)
		defer conn.Close()
		conns[i] = &wire.Conn{Conn: conn}
		must(t, conns[i].WriteMsg(new(wire.Msg).SetQuestion(same(i), wire.TypeA)))
	}
	if got := say(s.ask("web", wire.TypeA)); got != "NOERROR 172.20.0.2" { // read behind the others
		t.Error(got)
	}
	close(release)
	for i, co := range conns {
		must(t, co.SetReadDeadline(time.Now().Add(expect.Patience)))
		r, err := co.ReadMsg()
		must(t, err)
		if say(r) != "NOERROR 192.0.2.1" || r.Question[0].Name != same(i) {
			t.Errorf("%v", r)
		}
	}
	// Once, and again each second while there is no answer.
	if n := up.asked.Load(); n > 5 {
		t.Errorf("asked %d times", n)
	}
}

// A flood of questions that nobody answers is refused beyond a bound; names of
// containers are answered all the time.
// Names may hold any bytes. Those that are no letters of ASCII are told apart, also where they are no characters at all.
func TestNamesOfOtherBytesAreDifferentQuestions(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	o := newOutside(t, func(w wire.ResponseWriter, q *wire.Msg) {
		if q.Question[0].Name == `\255.example.` {
			<-release
		}
		says("192.0.2.1")(w, q)
	})
	s := withServers(t, o.upstream())
	first := make(chan string)
	go func() { first <- say(s.ask(`\255.example.`, wire.TypeA)) }()
	expect.Eventually(t, "the first is asked", func() bool { return o.asked.Load() > 0 })
	got := say(s.ask(`\254.example.`, wire.TypeA))
	close(release)
	<-first
	if got != "NOERROR 192.0.2.1" {
		t.Error(got)
	}
}

func TestFloodIsBounded(t *testing.T) {
	t.Parallel()
	up := newOutside(t, silent)
	s := withServers(t, up.upstream())
	conn, err := net.Dial("udp", s.addr)
	must(t, err)
	defer conn.Close()
	co := &wire.Conn{Conn: conn}
	for i := range 2000 {
		m := new(wire.Msg).SetQuestion(wire.Fqdn(strings.Repeat("x", 1+i%60)+".example"), uint16(1000+i))
		must(t, co.WriteMsg(m))
	}
	// Its datagrams share a queue with the flood: one of them gets through.
	web := func() {
		t.Helper()
		c := wire.Client{Timeout: 50 * time.Millisecond}
		for deadline := time.Now().Add(expect.Patience); ; {
			r, _, err := c.Exchange(new(wire.Msg).SetQuestion("web.", wire.TypeA), s.addr)
			if err == nil && say(r) == "NOERROR 172.20.0.2" {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%v %v", r, err)
			}
		}
	}
	web()
	for _, r := range s.group.Running() {
		if n, ok := strings.CutPrefix(r, "dns-forward ×"); ok && len(n) > 3 {
			t.Errorf("%s under way", r)
		}
	}
	web()
}

// A container that asks by TCP and reads no answer keeps nobody else from asking, and is not waited for long.
func TestUnreadAnswersAreBounded(t *testing.T) {
	t.Parallel()
	text := slices.Repeat([]string{strings.Repeat("x", 250)}, 200)
	busy := newOutside(t, func(w wire.ResponseWriter, q *wire.Msg) {
		m := new(wire.Msg).SetReply(q)
		m.Answer = append(m.Answer, &wire.TXT{Hdr: wire.RR_Header{Name: q.Question[0].Name, Rrtype: wire.TypeTXT, Class: wire.ClassINET}, Txt: text})
		w.WriteMsg(m)
	})
	group := supervise.New(context.Background())
	defer group.Stop(context.Background())
	server := dns.New(group, world())
	asking := func(o *outside) *service {
		return serveWith(t, group, server, &dns.View{Networks: []string{"n1"}, Servers: func() []dns.Upstream { return []dns.Upstream{o.upstream()} }})
	}
	greedy, other := asking(busy), asking(newOutside(t, says("192.0.2.1"))) // whose server does not have all those large answers to give
	conn, err := net.Dial("tcp", greedy.tcp)
	must(t, err)
	defer conn.Close()
	must(t, conn.(*net.TCPConn).SetReadBuffer(1))
	sent := make(chan error, 1)
	go func() {
		co := &wire.Conn{Conn: conn}
		var err error
		for i := 0; err == nil; i++ {
			err = co.WriteMsg(new(wire.Msg).SetQuestion(fmt.Sprintf("q%d.example.", i), wire.TypeTXT))
		}
		sent <- err
	}()
	for over, deadline := false, time.Now().Add(expect.Patience); !over; {
		if time.Now().After(deadline) {
			t.Fatal("who reads nothing is waited for")
		}
		if got := say(other.exchange("tcp", new(wire.Msg).SetQuestion("small.example.", wire.TypeA))); got != "NOERROR 192.0.2.1" {
			t.Fatalf("another container: %s, with %v", got, group.Running())
		}
		select {
		case <-sent:
			over = true
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func TestNothingLeavesWithoutServers(t *testing.T) {
	s := serve(t, world(), &dns.View{Networks: []string{"n1"}})
	for _, name := range []string{"nobody", "secret.example.com"} {
		if got := say(s.ask(name, wire.TypeA)); got != "SERVFAIL" {
			t.Errorf("%s: %s", name, got)
		}
	}
}

// A dialer that cannot reach a server costs nothing but that.
func TestUnreachable(t *testing.T) {
	good := newOutside(t, says("192.0.2.1"))
	no := dns.Upstream{Addr: good.addr, Via: "nowhere", Dial: func(context.Context, string, netip.AddrPort) (net.Conn, error) {
		return nil, os.NewSyscallError("connect", syscall.ENETUNREACH)
	}}
	s := withServers(t, no, good.upstream())
	if got := say(s.ask("x.example", wire.TypeA)); got != "NOERROR 192.0.2.1" {
		t.Error(got)
	}
}
