package network_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	api "github.com/moby/moby/api/types/network"
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/netlink"
	"github.com/cleatlabs/cleat/internal/network"
	"github.com/cleatlabs/cleat/test/expect"
)

const (
	inWorld  = "CLEAT_NETWORK_TEST_WORLD"
	asHolder = "CLEAT_NETWORK_TEST_HOLDER"
)

// TestMain moves the whole test process into a network namespace of its own, which
// plays the host: links, rules and sysctls of the real one are out of reach, and
// everything is gone when the process ends.
func TestMain(m *testing.M) {
	if os.Getenv(inWorld) == "" {
		runtime.LockOSThread()
		check(unix.Unshare(unix.CLONE_NEWNET))
		check(syscall.Exec("/proc/self/exe", os.Args, append(os.Environ(), inWorld+"=1")))
	}
	if name := os.Getenv(asHolder); name != "" {
		check(network.HoldUntil(name, os.Stdin))
	}
	if spec := os.Getenv(asEngine); spec != "" {
		runEngine(spec)
	}
	check(exec.Command("ip", "link", "set", "lo", "up").Run())
	check(os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0))
	check(os.WriteFile("/proc/sys/net/ipv6/conf/all/forwarding", []byte("1"), 0))
	os.Exit(m.Run())
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

// host is the machine that the tests run on: it has an uplink to outside, another
// machine.
type host struct {
	t       testing.TB
	home    int
	outside int
}

const (
	hostAddr    = "192.0.2.2"
	outsideAddr = "192.0.2.1"
)

func newHost(t testing.TB) *host {
	t.Helper()
	home, err := netlink.CurrentNS()
	if err != nil {
		t.Fatal(err)
	}
	out, err := netlink.NewNS(home, func() error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	h := &host{t: t, home: home, outside: out}
	conn, err := netlink.Dial(unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	must(t, conn.Do(netlink.NewVeth(netlink.Veth{Name: "uplink", Peer: "wan0", PeerNS: out})))
	l, err := conn.LinkByName("uplink")
	must(t, err)
	must(t, conn.Do(netlink.NewAddr(l.Index, netip.MustParsePrefix(hostAddr+"/24"))))
	h.in(out, func() error {
		c, err := netlink.Dial(unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		defer c.Close()
		l, err := c.LinkByName("wan0")
		if err != nil {
			return err
		}
		return c.Do(netlink.SetUp(1), netlink.NewAddr(l.Index, netip.MustParsePrefix(outsideAddr+"/24")), netlink.SetUp(l.Index))
	})
	// Asking makes the kernel act on the new carrier (see bridge.awaitCarrier).
	expect.Eventually(t, "uplink", func() bool { l, err := conn.LinkByName("uplink"); return err == nil && l.Ready })
	t.Cleanup(func() {
		unix.Close(out)
		unix.Close(home)
		// The namespace may live a little longer than its descriptor.
		if c, err := netlink.Dial(unix.NETLINK_ROUTE); err == nil {
			_ = c.Do(netlink.DeleteLink("uplink"))
			c.Close()
		}
	})
	return h
}

// in runs f on a thread inside a namespace.
func (h *host) in(ns int, f func() error) {
	h.t.Helper()
	if err := netlink.InNS(h.home, ns, f); err != nil {
		h.t.Fatal(err)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// listen opens a TCP listener inside a namespace that answers every connection with
// who is there: "NAME sees CLIENT".
func (h *host) listen(ns int, name, addr string) {
	h.t.Helper()
	h.serve(ns, "tcp4", name, addr)
}

// listen6 does so for IPv4 and IPv6.
func (h *host) listen6(ns int, name, addr string) {
	h.t.Helper()
	h.serve(ns, "tcp", name, addr)
}

func (h *host) serve(ns int, proto, name, addr string) {
	h.t.Helper()
	h.in(ns, func() error {
		l, err := net.Listen(proto, addr)
		if err != nil {
			return err
		}
		h.t.Cleanup(func() { l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				ip := client(c.RemoteAddr())
				fmt.Fprintf(c, "%s sees %s\n", name, ip)
				c.Close()
			}
		}()
		return nil
	})
}

// listenUDP answers each datagram in the same way.
func (h *host) listenUDP(ns int, name, addr string) {
	h.t.Helper()
	h.serveUDP(ns, "udp4", name, addr)
}

func (h *host) listenUDP6(ns int, name, addr string) {
	h.t.Helper()
	h.serveUDP(ns, "udp", name, addr)
}

func (h *host) serveUDP(ns int, proto, name, addr string) {
	h.t.Helper()
	h.in(ns, func() error {
		l, err := net.ListenPacket(proto, addr)
		if err != nil {
			return err
		}
		h.t.Cleanup(func() { l.Close() })
		go func() {
			buf := make([]byte, 1500)
			for {
				_, from, err := l.ReadFrom(buf)
				if err != nil {
					return
				}
				ip := client(from)
				_, _ = l.WriteTo([]byte(name+" sees "+ip+"\n"), from)
			}
		}()
		return nil
	})
}

// client is an address without port, IPv4 as IPv4.
func client(a net.Addr) string {
	return netip.MustParseAddrPort(a.String()).Addr().Unmap().String()
}

// meets opens one connection from a namespace, as dial does, and compares what comes of it. What is to be answered may
// be so as late as the machine is slow, but is by the first packet: nothing was sent again.
func (h *host) meets(what string, ns int, proto, addr, want string) {
	h.t.Helper()
	within := patience
	if want == noConnection {
		within = shortly
	}
	h.expect(what, h.dialWithin(within, ns, proto, addr), want)
}

const (
	noConnection = "no connection"
	patience     = expect.Patience
	// shortly is waited for what is not to come, and for what is asked for again and again.
	shortly = time.Second
)

// dial opens one connection from a namespace and returns the answer, or that there was none before long.
func (h *host) dial(ns int, proto, addr string) string {
	h.t.Helper()
	return h.dialWithin(shortly, ns, proto, addr)
}

func (h *host) dialWithin(within time.Duration, ns int, proto, addr string) string {
	h.t.Helper()
	var conn net.Conn
	var err error
	begun := time.Now()
	h.in(ns, func() error {
		d := net.Dialer{Timeout: within}
		conn, err = d.Dial(proto, addr)
		return nil
	})
	if err != nil {
		h.t.Logf("no connection after %v: %v", time.Since(begun), err) // seen where it was not wanted
		return noConnection
	}
	defer conn.Close()
	if n := sentAgain(conn); n > 0 {
		h.t.Logf("connected to %s after %v", addr, time.Since(begun))
		return fmt.Sprintf("%s before the %d. packet", noConnection, n+1)
	}
	return askWithin(within, conn)
}

// sentAgain is how often something had to be sent once more over a connection of TCP.
func sentAgain(conn net.Conn) (n uint32) {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return 0
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return 0
	}
	_ = raw.Control(func(fd uintptr) {
		if info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			n = info.Total_retrans
		}
	})
	return n
}

func ask(conn net.Conn) string { return askWithin(shortly, conn) }

func askWithin(within time.Duration, conn net.Conn) string {
	_ = conn.SetDeadline(time.Now().Add(within))
	if strings.HasPrefix(conn.LocalAddr().Network(), "udp") {
		if _, err := io.WriteString(conn, "hello"); err != nil {
			return "no answer"
		}
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return "no answer"
	}
	return strings.TrimSpace(line)
}

func (h *host) config() network.Config {
	return network.Config{
		StateFile:  filepath.Join(h.t.TempDir(), "network.json"),
		Bridge:     fmt.Sprintf("clt%d", os.Getpid()%1e6),
		BIP:        netip.MustParsePrefix("172.29.0.1/16"),
		ResolvConf: "/dev/null",
	}
}

// open starts a service that is torn down with the test; the test fails if that
// leaves anything.
func (h *host) open(cfg network.Config) *network.Service {
	h.t.Helper()
	s, err := network.Open(context.Background(), cfg)
	must(h.t, err)
	h.t.Cleanup(func() {
		_ = s.Teardown()
		if out, err := exec.Command("nft", "list", "ruleset").Output(); err != nil || strings.Contains(string(out), "cleat-"+cfg.Bridge) || strings.Contains(string(out), "cleat-names") {
			h.t.Errorf("left in the ruleset (%v):\n%s", err, out)
		}
	})
	return s
}

// box is a connected container.
type box struct {
	*network.Sandbox
	*network.Endpoint // the first
	ns                int
}

var containers int

func (h *host) attach(s *network.Service, ports ...string) *box {
	h.t.Helper()
	b, err := h.tryAttach(s, ports...)
	must(h.t, err)
	return b
}

// tryAttach publishes ports written as HOSTIP:HOSTPORT:PORT/PROTO.
func (h *host) tryAttach(s *network.Service, ports ...string) (*box, error) {
	h.t.Helper()
	containers++
	req := network.Request{
		ContainerID: fmt.Sprintf("%064x", containers), Name: fmt.Sprintf("box%d", containers), Hostname: "box",
		Ports: api.PortMap{},
	}
	for _, p := range ports {
		i := strings.LastIndex(p, ":")
		port := api.MustParsePort(p[i+1:])
		host := p[:i]
		j := strings.LastIndex(host, ":")
		var b api.PortBinding
		b.HostPort = host[j+1:]
		if j > 0 {
			b.HostIP = netip.MustParseAddr(host[:j])
		}
		req.Ports[port] = append(req.Ports[port], b)
	}
	return h.request(s, req)
}

func (h *host) request(s *network.Service, req network.Request) (*box, error) {
	sb, ns, err := s.Attach(context.Background(), req)
	if err != nil {
		return nil, err
	}
	b := &box{sb, sb.Endpoints[0], ns}
	h.t.Cleanup(func() { b.close() })
	return b, nil
}

func (b *box) close() {
	if b.ns >= 0 {
		unix.Close(b.ns)
		b.ns = -1
	}
}

func (h *host) detach(s *network.Service, b *box) {
	h.t.Helper()
	must(h.t, s.Detach(context.Background(), b.Sandbox))
	b.close()
}

func (b *box) hostPort(port string) string {
	bindings := b.Ports[api.MustParsePort(port)]
	if len(bindings) == 0 {
		return ""
	}
	return bindings[0].HostPort
}

func (h *host) expect(what, got, want string) {
	h.t.Helper()
	if got != want {
		h.t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

func (h *host) nft(script string) {
	h.t.Helper()
	if out, err := exec.Command("nft", script).CombinedOutput(); err != nil {
		h.t.Fatalf("nft %s: %v: %s", script, err, out)
	}
}

var (
	errConflict  = errdefs.ErrConflict
	errInvalid   = errdefs.ErrInvalidArgument
	errNotFound  = errdefs.ErrNotFound
	errExhausted = errdefs.ErrResourceExhausted
	errForbidden = errdefs.ErrPermissionDenied

	errUnavailable = errdefs.ErrUnavailable
)

func mustPrefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func runOutput(name string, args ...string) (string, error) {
	out, err := exec.Command(name, args...).CombinedOutput()
	return string(out), err
}

func isClass(err, class error) bool { return errors.Is(err, class) }

func ruleset(t testing.TB) string {
	t.Helper()
	out, err := exec.Command("nft", "list", "ruleset").Output()
	must(t, err)
	return string(out)
}

// run runs a command inside a namespace.
func (h *host) run(ns int, name string, args ...string) {
	h.t.Helper()
	h.in(ns, func() error {
		if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s %v: %w: %s", name, args, err, out)
		}
		return nil
	})
}

// address6 gives a link an address of IPv6, which the kernel brings up behind its answer.
func (h *host) address6(ns int, link, addr string) {
	h.t.Helper()
	h.run(ns, "ip", "addr", "add", addr+"/64", "dev", link, "nodad")
	expect.Eventually(h.t, "the kernel has "+addr, func() bool {
		var out []byte
		h.in(ns, func() (err error) {
			out, err = exec.Command("ip", "-6", "route", "show", "table", "local", addr).Output()
			return err
		})
		return len(out) > 0
	})
}

// routeLoopback makes a namespace send packets for 127.0.0.1 to a gateway, as an
// attacker with a network stack of his own can.
func (h *host) routeLoopback(ns int, via string) error {
	return netlink.InNS(h.home, ns, func() error {
		for _, c := range [][]string{
			{"ip", "addr", "flush", "dev", "lo"},
			{"sh", "-c", "for f in /proc/sys/net/ipv4/conf/*/route_localnet; do echo 1 > $f; done"},
			{"sh", "-c", "ip route del local 127.0.0.0/8 dev lo table local 2>/dev/null; ip route del local 127.0.0.1 dev lo table local 2>/dev/null; true"},
			{"ip", "route", "add", "127.0.0.1", "via", via},
		} {
			if out, err := exec.Command(c[0], c[1:]...).CombinedOutput(); err != nil {
				return fmt.Errorf("%v: %w: %s", c, err, out)
			}
		}
		return nil
	})
}

// startHolder starts another process that listens on a port of the host.
func startHolder(t *testing.T, port string) (pid int, stop func()) {
	t.Helper()
	cmd := exec.Command("busybox", "nc", "-l", "-p", port)
	must(t, cmd.Start())
	expect.Eventually(t, "busybox listens", func() bool {
		out, _ := os.ReadFile("/proc/net/tcp")
		out6, _ := os.ReadFile("/proc/net/tcp6")
		n, _ := strconv.Atoi(port)
		return strings.Contains(string(out)+string(out6), fmt.Sprintf(":%04X ", n))
	})
	return cmd.Process.Pid, func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }
}
