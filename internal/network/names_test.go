package network_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	api "github.com/moby/moby/api/types/network"

	"github.com/cleatlabs/cleat/internal/network"
	"github.com/cleatlabs/cleat/test/expect"
)

// member is a container with the directory of its files.
type member struct {
	*box
	files string
}

// on attaches a container to networks.
func (h *host) on(s *network.Service, name string, networks ...network.EndpointRequest) *member {
	h.t.Helper()
	containers++
	dir := h.t.TempDir()
	b, err := h.request(s, network.Request{ContainerID: fmt.Sprintf("%012x%052x", containers, 0), Name: name, Hostname: name, Endpoints: networks, FilesDir: dir})
	must(h.t, err)
	return &member{b, dir}
}

func (h *host) network(s *network.Service, req api.CreateRequest) {
	h.t.Helper()
	_, _, err := s.Create(context.Background(), req)
	must(h.t, err)
}

// lookUp asks the name server of a namespace, as a resolver does.
func (h *host) lookUp(ns int, proto, name string, qtype uint16) string {
	h.t.Helper()
	m := new(dns.Msg).SetQuestion(dns.Fqdn(name), qtype)
	var conn net.Conn
	h.in(ns, func() (err error) {
		d := net.Dialer{Timeout: expect.Patience}
		conn, err = d.Dial(proto, "127.0.0.11:53")
		return err
	})
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(expect.Patience))
	co := &dns.Conn{Conn: conn}
	must(h.t, co.WriteMsg(m))
	r, err := co.ReadMsg()
	if err != nil {
		return err.Error()
	}
	out := []string{}
	for _, rr := range r.Answer {
		f := strings.Split(rr.String(), "\t")
		out = append(out, f[len(f)-1])
	}
	slices.Sort(out)
	return strings.TrimSpace(dns.RcodeToString[r.Rcode] + " " + strings.Join(out, " "))
}

func at(name string) network.EndpointRequest { return network.EndpointRequest{Network: name} }

func TestContainersFindEachOtherByName(t *testing.T) {
	h := newHost(t)
	upstream := h.nameServer(h.outside, outsideAddr+":53", "203.0.113.7")
	cfg := h.config()
	cfg.ResolvConf = filepath.Join(t.TempDir(), "resolv.conf")
	must(t, os.WriteFile(cfg.ResolvConf, []byte("nameserver "+outsideAddr+"\nsearch example.org\noptions timeout:20\n"), 0o600))
	s := h.open(cfg)
	h.network(s, api.CreateRequest{Name: "front"})
	h.network(s, api.CreateRequest{Name: "back", Internal: true})
	web := h.on(s, "web", network.EndpointRequest{Network: "front", Aliases: []string{"www"}}, network.EndpointRequest{Network: "back", Links: []string{"db:store"}})
	db := h.on(s, "db", network.EndpointRequest{Network: "back", Aliases: []string{"sql"}})
	plain := h.attach(s)
	ip := func(b *member, i int) string { return b.Endpoints[i].IP.String() }
	reverse := func(ip string) string {
		n, err := dns.ReverseAddr(ip)
		must(t, err)
		return n
	}
	for _, c := range []struct {
		b     *member
		name  string
		qtype uint16
		want  string
	}{
		{web, "db", dns.TypeA, "NOERROR " + ip(db, 0)},
		{web, "sql.back", dns.TypeA, "NOERROR " + ip(db, 0)},
		{web, "store", dns.TypeA, "NOERROR " + ip(db, 0)},
		{web, "web", dns.TypeA, "NOERROR " + ip(web, 0)},
		{web, db.ContainerID[:12], dns.TypeA, "NOERROR " + ip(db, 0)},
		{web, "db", dns.TypeAAAA, "NOERROR"},
		{web, reverse(ip(db, 0)), dns.TypePTR, "NOERROR db.back."},
		{web, "host.docker.internal", dns.TypeA, "NOERROR 172.29.0.1"},
		{web, "example.com", dns.TypeA, "NOERROR 203.0.113.7"},
		{db, "web", dns.TypeA, "NOERROR " + ip(web, 1)},
		{db, "www", dns.TypeA, "SERVFAIL"},         // of the other network
		{db, "store", dns.TypeA, "SERVFAIL"},       // a name that only web has
		{db, "example.com", dns.TypeA, "SERVFAIL"}, // internal: nothing goes outside
		{db, "secret", dns.TypeA, "SERVFAIL"},
	} {
		for _, proto := range []string{"udp4", "tcp4"} {
			h.expect(c.b.Sandbox.Name+" asks for "+c.name+" by "+proto, h.lookUp(c.b.ns, proto, c.name, c.qtype), c.want)
		}
	}
	if got := upstream(); strings.Contains(got, "secret") || strings.Contains(got, "db") || !strings.Contains(got, "example.com.") {
		t.Errorf("asked outside: %s", got)
	}
	resolv := func(b *member) string {
		text, err := os.ReadFile(filepath.Join(b.files, "resolv.conf"))
		must(t, err)
		return string(text)
	}
	h.expect("resolv.conf", resolv(web), "nameserver 127.0.0.11\nsearch example.org\noptions timeout:20 ndots:0\n")
	if plain.ns < 0 {
		t.Fatal("not attached")
	}
	if _, err := h.dialNames(plain.ns); err == nil {
		t.Error("a container on the default bridge has a name server of ours")
	}
	h.detach(s, db.box)
	h.expect("one that is gone", h.lookUp(web.ns, "udp4", "db", dns.TypeA), "NXDOMAIN")
}

// alone is a host without a name server.
func (h *host) alone() network.Config {
	cfg := h.config()
	cfg.ResolvConf = filepath.Join(h.t.TempDir(), "resolv.conf")
	must(h.t, os.WriteFile(cfg.ResolvConf, []byte("nameserver 127.0.0.1\n"), 0o600))
	return cfg
}

// dialNames says whether anything listens at the name server's address.
func (h *host) dialNames(ns int) (net.Conn, error) {
	var conn net.Conn
	var failed error
	h.in(ns, func() error {
		conn, failed = net.DialTimeout("tcp4", "127.0.0.11:53", time.Second)
		return nil
	})
	return conn, failed
}

// nameServer is one outside: it has one address for names with a dot, and none for
// others. It returns what it was asked so far.
func (h *host) nameServer(ns int, addr, ip string) func() string {
	h.t.Helper()
	asked := make(chan string, 1000)
	var p net.PacketConn
	var l net.Listener
	h.in(ns, func() (err error) {
		if p, err = net.ListenPacket("udp4", addr); err == nil {
			l, err = net.Listen("tcp4", addr)
		}
		return err
	})
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		name := q.Question[0].Name
		select {
		case asked <- name:
		default:
		}
		m := new(dns.Msg).SetReply(q)
		if strings.Count(name, ".") > 1 {
			m.Answer = append(m.Answer, &dns.A{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}, A: net.ParseIP(ip)})
		} else {
			m.Rcode = dns.RcodeNameError
		}
		_ = w.WriteMsg(m)
	})
	for _, s := range []*dns.Server{{PacketConn: p, Handler: handler}, {Listener: l, Handler: handler}} {
		go func() { _ = s.ActivateAndServe() }()
		h.t.Cleanup(func() { _ = s.Shutdown() })
	}
	var all []string
	return func() string {
		for {
			select {
			case n := <-asked:
				all = append(all, n)
			default:
				return strings.Join(all, " ")
			}
		}
	}
}

// A server of the container's own may have port 53.
func TestPort53StaysFree(t *testing.T) {
	h := newHost(t)
	s := h.open(h.alone())
	h.network(s, api.CreateRequest{Name: "net1"})
	a, b := h.on(s, "a", at("net1")), h.on(s, "b", at("net1"))
	h.nameServer(b.ns, "0.0.0.0:53", "203.0.113.8")
	m := new(dns.Msg).SetQuestion("x.example.", dns.TypeA)
	h.in(a.ns, func() error {
		r, err := dns.Exchange(m, b.Endpoints[0].IP.String()+":53")
		if err == nil && (len(r.Answer) != 1 || !strings.Contains(r.Answer[0].String(), "203.0.113.8")) {
			err = fmt.Errorf("answer %v", r)
		}
		return err
	})
	h.expect("ours beside it", h.lookUp(b.ns, "udp4", "a", dns.TypeA), "NOERROR "+a.Endpoints[0].IP.String())
	h.expect("ours beside it", h.lookUp(b.ns, "tcp4", "a", dns.TypeA), "NOERROR "+a.Endpoints[0].IP.String())
}

func TestNamesFollowLiveChanges(t *testing.T) {
	h := newHost(t)
	cfg := h.alone()
	s := h.open(cfg)
	ctx := context.Background()
	h.network(s, api.CreateRequest{Name: "net1"})
	b := h.on(s, "b", at("net1"))
	a := h.on(s, "a") // on the default bridge: no names
	req := network.Request{ContainerID: a.ContainerID, Name: "a", Hostname: "a", FilesDir: a.files, Started: time.Now()}
	must(t, os.WriteFile(cfg.ResolvConf, []byte("nameserver 192.0.2.1\n"), 0o600)) // the host has moved
	keep := func(*network.Sandbox) error { return nil }
	e, err := s.Connect(ctx, req, network.EndpointRequest{Network: "net1", Aliases: []string{"other"}}, a.ns, keep)
	must(t, err)
	text, err := os.ReadFile(filepath.Join(a.files, "resolv.conf"))
	must(t, err)
	if !strings.HasPrefix(string(text), "nameserver 127.0.0.11\n") {
		t.Errorf("resolv.conf after connect:\n%s", text)
	}
	h.expect("connected", h.lookUp(a.ns, "udp4", "b", dns.TypeA), "NOERROR "+b.Endpoints[0].IP.String())
	h.expect("seen by others", h.lookUp(b.ns, "udp4", "other", dns.TypeA), "NOERROR "+e.IP.String())
	_, err = s.Disconnect(ctx, req, e.NetworkID, a.ns, keep)
	must(t, err)
	if got := h.lookUp(b.ns, "udp4", "other", dns.TypeA); got == "NOERROR "+e.IP.String() {
		t.Error("its name is still there")
	}
	if got := h.lookUp(a.ns, "udp4", "b", dns.TypeA); strings.Contains(got, b.Endpoints[0].IP.String()) {
		t.Error("it still sees the network's names")
	}

	const edited = "nameserver 192.0.2.99\n"
	c := h.on(s, "c")
	path := filepath.Join(c.files, "resolv.conf")
	must(t, os.WriteFile(path, []byte(edited), 0o644))
	must(t, os.Chtimes(path, time.Time{}, req.Started.Add(time.Second)))
	req = network.Request{ContainerID: c.ContainerID, Name: "c", Hostname: "c", FilesDir: c.files, Started: req.Started}
	_, err = s.Connect(ctx, req, network.EndpointRequest{Network: "net1"}, c.ns, keep)
	must(t, err)
	text, err = os.ReadFile(path)
	must(t, err)
	h.expect("edited", string(text), edited)
}

// A container that ends while it is connected to a network has no names there, and nobody answers in its namespace.
func TestEndWhileConnecting(t *testing.T) {
	h := newHost(t)
	s := h.open(h.alone())
	ctx := context.Background()
	h.network(s, api.CreateRequest{Name: "net1"})
	b := h.on(s, "b", at("net1"))
	a := h.on(s, "a")
	req := network.Request{ContainerID: a.ContainerID, Name: "a", Hostname: "a", FilesDir: a.files}
	ends := func(*network.Sandbox) error { return s.Detach(ctx, a.Sandbox) }
	if _, err := s.Connect(ctx, req, network.EndpointRequest{Network: "net1"}, a.ns, ends); err != nil {
		t.Log(err)
	}
	if n := s.Answered(); n != 1 {
		t.Errorf("the lookups of %d containers are answered", n)
	}
	if got := h.lookUp(b.ns, "udp4", "a", dns.TypeA); strings.HasPrefix(got, "NOERROR ") {
		t.Errorf("its name is known: %s", got)
	}
}

// A container cannot make the engine read a file of any size, which costs the container nothing.
func TestHostsFileOfAnySize(t *testing.T) {
	h := newHost(t)
	s := h.open(h.alone())
	h.network(s, api.CreateRequest{Name: "net1"})
	a := h.on(s, "a")
	must(t, os.Truncate(filepath.Join(a.files, "hosts"), 64<<20))
	req := network.Request{ContainerID: a.ContainerID, Name: "a", Hostname: "a", FilesDir: a.files}
	keep := func(*network.Sandbox) error { return nil }
	_, err := s.Connect(context.Background(), req, network.EndpointRequest{Network: "net1"}, a.ns, keep)
	if err == nil || !strings.Contains(err.Error(), "/etc/hosts, to which the container has written, is larger than") {
		t.Errorf("%v", err)
	}
}

// Lookups while no engine runs wait for the next one, if the sockets are kept; else they
// work again when it has come.
func TestNamesOutliveTheEngine(t *testing.T) {
	for _, kept := range []bool{true, false} {
		t.Run(fmt.Sprint("kept=", kept), func(t *testing.T) {
			h := newHost(t)
			cfg := h.alone()
			ctx := context.Background()
			s, err := network.Open(ctx, cfg)
			must(t, err)
			h.network(s, api.CreateRequest{Name: "net1"})
			a, b := h.on(s, "a", at("net1")), h.on(s, "b", at("net1"))
			held := map[string][]*os.File{}
			if kept {
				for _, x := range []*member{a, b} {
					for _, fd := range s.TakeNameSockets(x.Sandbox) {
						held[x.Name] = append(held[x.Name], os.NewFile(uintptr(fd), "held"))
					}
					if len(held[x.Name]) != 2 {
						t.Fatalf("%d sockets", len(held[x.Name]))
					}
				}
			}
			want := "NOERROR " + b.Endpoints[0].IP.String()
			h.expect("before", h.lookUp(a.ns, "udp4", "b", dns.TypeA), want)
			must(t, s.Close())
			answers := make(chan string, 2)
			if kept {
				for _, proto := range []string{"udp4", "tcp4"} {
					go func() { answers <- h.lookUp(a.ns, proto, "b", dns.TypeA) }()
				}
			}
			s = h.open(cfg)
			for _, x := range []*member{a, b} {
				holder := h.holder(x.ns)
				must(t, s.Adopt(ctx, x.Sandbox, holder, held[x.Name]...))
			}
			must(t, s.Reconcile(ctx, []*network.Sandbox{a.Sandbox, b.Sandbox}))
			if kept {
				for range 2 {
					h.expect("asked while no engine was there", <-answers, want)
				}
			}
			h.expect("after, by UDP", h.lookUp(a.ns, "udp4", "b", dns.TypeA), want)
			h.expect("after, by TCP", h.lookUp(a.ns, "tcp4", "b", dns.TypeA), want)
			h.detach(s, b.box)
			if got := h.lookUp(a.ns, "udp4", "b", dns.TypeA); got == want {
				t.Error("one that is gone is still known")
			}
		})
	}
}

// holder is the PID of a process in a namespace.
func (h *host) holder(ns int) int {
	h.t.Helper()
	cmd := exec.Command("sleep", "1000")
	h.in(ns, cmd.Start)
	h.t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return cmd.Process.Pid
}

// No thread is left in a container's namespace, and nothing stays open.
func TestNamesLeaveNothing(t *testing.T) {
	h := newHost(t)
	cfg := h.alone()
	s := h.open(cfg)
	h.network(s, api.CreateRequest{Name: "net1"})
	fds := func() int {
		n, err := os.ReadDir("/proc/self/fd")
		must(t, err)
		return len(n)
	}
	round := func() {
		a := h.on(s, "a", at("net1"))
		h.lookUp(a.ns, "udp4", "nobody.example", dns.TypeA)
		h.detach(s, a.box)
	}
	round()
	before := fds()
	const rounds = 40
	for range rounds {
		round()
	}
	// Spare namespaces come and go: four, with four descriptors each.
	expect.Eventually(t, "descriptors are closed", func() bool { return fds() < before+rounds/2 })
	own, err := os.Readlink("/proc/self/ns/net")
	must(t, err)
	expect.Eventually(t, "all threads are at home", func() bool {
		tasks, err := os.ReadDir("/proc/self/task")
		must(t, err)
		for _, task := range tasks {
			if ns, err := os.Readlink("/proc/self/task/" + task.Name() + "/ns/net"); err == nil && ns != own {
				return false
			}
		}
		return true
	})
}

// The host's own resolver on a loopback address is asked from the host's namespace.
func TestHostsResolverOnLoopback(t *testing.T) {
	h := newHost(t)
	asked := h.nameServer(h.home, "127.0.0.53:53", "203.0.113.9")
	cfg := h.config()
	cfg.ResolvConf = filepath.Join(t.TempDir(), "resolv.conf")
	must(t, os.WriteFile(cfg.ResolvConf, []byte("nameserver 127.0.0.53\n"), 0o600))
	s := h.open(cfg)
	h.network(s, api.CreateRequest{Name: "net1"})
	a := h.on(s, "a", at("net1"))
	h.expect("by UDP", h.lookUp(a.ns, "udp4", "www.example", dns.TypeA), "NOERROR 203.0.113.9")
	h.expect("by TCP", h.lookUp(a.ns, "tcp4", "www.example", dns.TypeA), "NOERROR 203.0.113.9")
	if !strings.Contains(asked(), "www.example.") {
		t.Error("not asked")
	}
	// One that the user named is the container's own.
	containers++
	b, err := h.request(s, network.Request{ContainerID: fmt.Sprintf("%064x", containers), Name: "b", Endpoints: []network.EndpointRequest{at("net1")}, DNS: []string{"127.0.0.53"}})
	must(t, err)
	h.expect("nobody listens there", h.lookUp(b.ns, "udp4", "other.example", dns.TypeA), "SERVFAIL")
	h.nameServer(b.ns, "127.0.0.53:53", "203.0.113.10")
	expect.Eventually(t, "its own resolver answers", func() bool { return h.lookUp(b.ns, "udp4", "other.example", dns.TypeA) == "NOERROR 203.0.113.10" })
}

// --add-host is for all programs: for those that read the hosts file and for those that ask.
func TestExtraHostsHaveNames(t *testing.T) {
	h := newHost(t)
	cfg := h.alone()
	ctx := context.Background()
	s, err := network.Open(ctx, cfg)
	must(t, err)
	h.network(s, api.CreateRequest{Name: "net1", Internal: true})
	req := on("a", "net1")
	req.ExtraHosts = []string{"Files.example:192.0.2.7", "files.example=[2001:db8::7]", "gate:host-gateway", "host.docker.internal:192.0.2.8", "b:192.0.2.9"}
	req.FilesDir = t.TempDir()
	a := h.join(s, req)
	h.on(s, "b", at("net1"))
	ask := func(when string) {
		t.Helper()
		for _, c := range []struct {
			name  string
			qtype uint16
			want  string
		}{
			{"files.example", dns.TypeA, "NOERROR 192.0.2.7"}, {"FILES.example", dns.TypeAAAA, "NOERROR 2001:db8::7"}, {"gate", dns.TypeA, "NOERROR 172.29.0.1"},
			{"host.docker.internal", dns.TypeA, "NOERROR 192.0.2.8"}, {"b", dns.TypeA, "NOERROR 192.0.2.9"}, {"other.example", dns.TypeA, "SERVFAIL"},
		} {
			h.expect(c.name+" "+when, h.lookUp(a.ns, "udp4", c.name, c.qtype), c.want)
		}
	}
	ask("at first")
	must(t, s.Close())
	kept := &network.Sandbox{}
	data, err := json.Marshal(a.Sandbox)
	must(t, err)
	must(t, json.Unmarshal(data, kept))
	s = h.open(cfg)
	must(t, s.Adopt(ctx, kept, h.holder(a.ns)))
	must(t, s.Reconcile(ctx, []*network.Sandbox{kept}))
	ask("by the next engine")
}
