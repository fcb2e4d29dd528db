package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/netlink"
)

const (
	startBridge   = "start on the default bridge"
	startUser     = "start on a user-defined network"
	startInternal = "start on an internal network"
	startPorts    = "start, publishing 1,000 ports"
	startPortsBy  = "start, publishing 1,000 ports, above one without"
	flowBare      = "iperf3, a bare veth pair"
	flowBridge    = "iperf3, container to container"
	flowRatio     = "iperf3, container to container, of the pair"
	flowLocal     = "iperf3, published on 127.0.0.1"
	connsOwn      = "new connections, from outside to the container's address"
	connsPort     = "new connections, from outside to the published port"
	connsRatio    = "new connections, published port, of the address"
	connsLocal    = "new connections, published on 127.0.0.1"
	lookupsMedian = "DNS lookup in a container, median"
	lookupsP99    = "DNS lookup in a container, p99 of 10,000"

	manyNetworks     = "create a network, the first 20 of 200"
	manyNetworksLate = "create a network, the last 20, of the first"
	manyStarts       = "start, publishing 5 ports, the first 100 of 1,000 on 200 networks"
	manyStartsLate   = "start, publishing 5 ports, the last 100, of the first"
	manyEnds         = "remove by force, the first 100 of 1,000"
	manyEndsLate     = "remove by force, the last 100, of the first"

	netRounds = 10
	netName   = "bench"
)

// networkWorks are the measurements of networks.
func networkWorks() []work {
	return []work{
		{rows: []row{{startBridge, "ms", 0, false}, {startUser, "ms", 0, false}, {startInternal, "ms", 0, false}}, prepare: twoNetworks, turn: starts},
		{rows: []row{{startPorts, "ms", 0, false}, {startPortsBy, "ms", 10, false}}, rounds: netRounds, prepare: prepareRange, turn: startRange},
		{
			rows:   []row{{flowBare, "Gbit/s", 0, true}, {flowBridge, "Gbit/s", 0, true}, {flowRatio, "%", 85, true}, {flowLocal, "Gbit/s", 0, true}},
			rounds: netRounds, prepare: prepareFlow, turn: flow,
		},
		{
			rows:   []row{{connsOwn, "/s", 0, true}, {connsPort, "/s", 0, true}, {connsRatio, "%", 90, true}, {connsLocal, "/s", 0, true}},
			rounds: netRounds, prepare: prepareConnections, turn: connections,
		},
		{
			rows: []row{
				{manyNetworks, "ms", 0, false}, {manyNetworksLate, "×", 2, false}, {manyStarts, "ms", 0, false}, {manyStartsLate, "×", 2, false},
				{manyEnds, "ms", 0, false}, {manyEndsLate, "×", 2, false},
			},
			rounds: 1, prepare: prepareRange, turn: many,
		},
		{rows: []row{{lookupsMedian, "ms", 0, false}, {lookupsP99, "ms", 1, false}}, rounds: netRounds, prepare: network(netName, nil), turn: lookups},
	}
}

// network prepares one that a user made; options are added to the request.
func network(name string, options object) func(context.Context, *system) (any, func() error, error) {
	return func(ctx context.Context, s *system) (any, func() error, error) {
		if s.bare != nil {
			return nil, nil, errNotApplicable
		}
		req := object{"Name": name, "CheckDuplicate": true, "Driver": "bridge"}
		for k, v := range options {
			req[k] = v
		}
		done := func() error { return s.call(context.Background(), "DELETE", "/networks/"+name, nil, nil) }
		if err := s.call(ctx, "POST", "/networks/create", req, nil); err != nil {
			return nil, nil, err
		}
		// The first container on it is not like the others.
		return name, done, s.life(ctx, name, nothing, func(string, float64) {})
	}
}

// internalName is a second network, beside netName.
const internalName = "bench-internal"

func twoNetworks(ctx context.Context, s *system) (any, func() error, error) {
	_, done, err := network(netName, nil)(ctx, s)
	if err != nil {
		return nil, done, err
	}
	_, doneToo, err := network(internalName, object{"Internal": true})(ctx, s)
	if doneToo == nil {
		return nil, done, err
	}
	return nil, func() error { return errors.Join(doneToo(), done()) }, err
}

// starts measures them right after one another, in an order that changes: what a start
// leaves to be done in the background is at the expense of the next one.
func starts(ctx context.Context, s *system, _ any, record func(string, float64)) error {
	kinds := []struct{ network, row string }{{"bridge", startBridge}, {netName, startUser}, {internalName, startInternal}}
	rand.Shuffle(len(kinds), func(i, j int) { kinds[i], kinds[j] = kinds[j], kinds[i] })
	for _, k := range kinds {
		err := s.life(ctx, k.network, nothing, func(step string, ms float64) {
			if strings.TrimSpace(step) == "start" {
				record(k.row, ms)
			}
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// prepareRange is for systems that take no process for each port: of such, one start
// takes half a minute.
func prepareRange(_ context.Context, s *system) (any, func() error, error) {
	if s.name != "cleat" {
		return nil, nil, errNotApplicable
	}
	return nil, func() error { return nil }, nil
}

// startRange starts a container that publishes a thousand ports and one that publishes
// none, in either order.
func startRange(ctx context.Context, s *system, _ any, record func(string, float64)) error {
	ports := object{}
	for p := 20000; p < 21000; p++ {
		ports[fmt.Sprintf("%d/tcp", p)] = []object{{"HostPort": fmt.Sprint(p)}}
	}
	took := map[bool]float64{}
	for _, with := range rand.Perm(2) {
		config := object{"NetworkMode": "bridge"}
		if with == 1 {
			config["PortBindings"] = ports
		}
		id, err := s.create(ctx, config, "true")
		if err == nil {
			err = timed(func(_ string, ms float64) { took[with == 1] = ms }, startPorts, func() error { return s.start(ctx, id) })
		}
		if err == nil {
			err = s.wait(ctx, id)
		}
		if err = errors.Join(err, s.remove(id)); err != nil {
			return err
		}
	}
	record(startPorts, took[true])
	record(startPortsBy, took[true]-took[false])
	return nil
}

// arena is what a system's network is measured with.
type arena struct {
	host   int // network namespace of the engine
	out    string
	server string // container
	ip     string // of the server
	away   *peer
	pair   *pair
}

func (a *arena) close(s *system) (err error) {
	err = s.remove(a.server)
	if a.host > 0 {
		unix.Close(a.host)
	}
	a.away.close()
	a.pair.close()
	return errors.Join(err, os.RemoveAll(a.out))
}

// flowPort is iperf3's own.
const flowPort = "5201"

func prepareFlow(ctx context.Context, s *system) (any, func() error, error) {
	if s.bare != nil {
		return nil, nil, errNotApplicable
	}
	if _, err := exec.LookPath("iperf3"); err != nil {
		return nil, nil, err
	}
	_, done, err := network(netName, nil)(ctx, s)
	if err != nil {
		return nil, done, err
	}
	a := &arena{}
	finish := func() error { return errors.Join(a.close(s), done()) }
	if err := a.enter(s); err != nil {
		return nil, finish, err
	}
	if a.pair, err = newPair(); err != nil {
		return nil, finish, err
	}
	a.server, err = s.create(ctx, object{
		"NetworkMode": netName, "Binds": []string{"/:/host:ro", a.out + ":/host/tmp"}, "PortBindings": published(flowPort),
	}, "chroot", "/host", "iperf3", "-s")
	if err == nil {
		err = s.start(ctx, a.server)
	}
	if err == nil {
		a.ip, err = s.address(ctx, a.server)
	}
	return a, finish, err
}

func published(port string) object {
	return object{port + "/tcp": []object{{"HostPort": port}}}
}

// enter opens the engine's network namespace, and makes a directory that containers
// and this program share.
func (a *arena) enter(s *system) (err error) {
	if a.out, err = os.MkdirTemp("", "cleat-bench-out."); err != nil {
		return err
	}
	a.host, err = unix.Open(fmt.Sprintf("/proc/%d/ns/net", s.held.cmd.Process.Pid), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	return err
}

func (s *system) address(ctx context.Context, id string) (string, error) {
	var got struct {
		NetworkSettings struct {
			Networks map[string]struct{ IPAddress string }
		}
	}
	err := s.call(ctx, "GET", "/containers/"+id+"/json", nil, &got)
	for _, n := range got.NetworkSettings.Networks {
		return n.IPAddress, err
	}
	return "", errors.Join(err, errors.New("the container has no network"))
}

// flow measures the pair, the bridge twice, the pair again and the published port right
// after one another: what the machine does meanwhile, and gets faster or slower by, is
// then in both sides of the ratio.
func flow(ctx context.Context, s *system, state any, record func(string, float64)) error {
	a := state.(*arena)
	bareOnce := func() (float64, error) { return a.pair.flow(ctx) }
	withinOnce := func() (float64, error) { return a.flowWithin(ctx, s) }
	var rates [4]float64
	for i, measure := range []func() (float64, error){bareOnce, withinOnce, withinOnce, bareOnce} {
		var err error
		if rates[i], err = measure(); err != nil {
			return err
		}
	}
	bare, within := (rates[0]+rates[3])/2, (rates[1]+rates[2])/2
	local, err := iperf(ctx, a.host, "127.0.0.1")
	if err != nil {
		return err
	}
	record(flowBare, bare)
	record(flowBridge, within)
	record(flowRatio, 100*within/bare)
	record(flowLocal, local)
	return nil
}

// client is iperf3's for one second of one stream. It and the server each have a processor
// of their own: where the scheduler puts the two matters more than what is between them.
func client(server string) []string {
	args := []string{"iperf3", "-c", server, "-t", "1", "-J"}
	if runtime.NumCPU() > 1 {
		args = append(args, "-A", "0,1")
	}
	return args
}

// flowWithin runs the client in a container beside the server's.
func (a *arena) flowWithin(ctx context.Context, s *system) (float64, error) {
	id, err := s.create(ctx, object{"NetworkMode": netName, "Binds": []string{"/:/host:ro", a.out + ":/host/tmp"}},
		"sh", "-c", "chroot /host "+strings.Join(client(a.ip), " ")+" >/host/tmp/flow")
	if err == nil {
		err = s.start(ctx, id)
	}
	if err == nil {
		err = s.wait(ctx, id)
	}
	if err = errors.Join(err, s.remove(id)); err != nil {
		return 0, err
	}
	b, err := os.ReadFile(filepath.Join(a.out, "flow"))
	if err != nil {
		return 0, err
	}
	return parseFlow(b)
}

// iperf runs the client in a network namespace.
func iperf(ctx context.Context, ns int, server string) (float64, error) {
	cmd := exec.CommandContext(ctx, client(server)[0], client(server)[1:]...)
	out, err := output(ns, cmd)
	if err != nil {
		return 0, err
	}
	return parseFlow(out)
}

// parseFlow reads what arrived, in Gbit/s.
func parseFlow(b []byte) (float64, error) {
	var got struct {
		Error string
		End   struct {
			Received struct {
				Bits float64 `json:"bits_per_second"`
			} `json:"sum_received"`
		}
	}
	if err := json.Unmarshal(b, &got); err != nil {
		return 0, fmt.Errorf("iperf3: %w", err)
	}
	if got.Error != "" || got.End.Received.Bits == 0 {
		return 0, fmt.Errorf("iperf3: %s", got.Error)
	}
	return got.End.Received.Bits / 1e9, nil
}

// output starts a program on a thread that is in a network namespace, where its child
// begins.
func output(ns int, cmd *exec.Cmd) (out []byte, err error) {
	err = inNS(ns, func() error {
		out, err = cmd.Output()
		var failed *exec.ExitError
		if errors.As(err, &failed) {
			return fmt.Errorf("%s: %w: %s%s", cmd.Args[0], err, out, failed.Stderr)
		}
		return err
	})
	return out, err
}

func inNS(ns int, f func() error) error {
	home, err := netlink.CurrentNS()
	if err != nil {
		return err
	}
	defer unix.Close(home)
	return netlink.InNS(home, ns, f)
}

// pair is two network namespaces with nothing but a veth between them.
type pair struct {
	near, far *peer
	server    *exec.Cmd
}

func newPair() (p *pair, err error) {
	p = &pair{}
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	if p.far, err = newPeer(-1); err != nil {
		return p, err
	}
	if p.near, err = newPeer(p.far.ns, "10.199.9.2"); err != nil {
		return p, err
	}
	p.server = exec.Command("iperf3", "-s")
	return p, inNS(p.far.ns, p.server.Start)
}

func (p *pair) flow(ctx context.Context) (float64, error) { return iperf(ctx, p.near.ns, peerGateway) }

func (p *pair) close() {
	if p == nil {
		return
	}
	if p.server != nil && p.server.Process != nil {
		_ = p.server.Process.Kill()
		_ = p.server.Wait()
	}
	p.near.close()
	p.far.close()
}

// peer is a network namespace beside another, with the addresses given; the other one
// has peerGateway.
type peer struct{ ns int }

const (
	peerGateway = "10.199.9.1"
	peerLink    = "benchpeer"
)

// newPeer makes one that is linked to the namespace beside, or to nothing if that is -1.
func newPeer(beside int, addrs ...string) (*peer, error) {
	home, err := netlink.CurrentNS()
	if err != nil {
		return nil, err
	}
	defer unix.Close(home)
	p := &peer{}
	var conn *netlink.Conn
	p.ns, err = netlink.NewNS(home, func() (err error) {
		if err = loopbackUp(); err == nil {
			conn, err = netlink.Dial(unix.NETLINK_ROUTE)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if beside >= 0 {
		err = inNS(beside, func() error { return p.wire(conn, addrs) })
	}
	if err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

// wire makes the link on a thread that is in the namespace beside; conn is in the peer's.
func (p *peer) wire(conn *netlink.Conn, addrs []string) error {
	beside, err := netlink.Dial(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer beside.Close()
	if err := beside.Do(netlink.NewVeth(netlink.Veth{Name: peerLink, Peer: "eth0", PeerNS: p.ns})); err != nil {
		return err
	}
	near, err := beside.LinkByName(peerLink)
	if err != nil {
		return err
	}
	far, err := conn.LinkByName("eth0")
	if err != nil {
		return err
	}
	prefix := func(addr string) netip.Prefix { return netip.PrefixFrom(netip.MustParseAddr(addr), 24) }
	if err := beside.Do(netlink.NewAddr(near.Index, prefix(peerGateway))); err != nil {
		return err
	}
	msgs := []*netlink.Message{netlink.SetUp(far.Index)}
	for _, a := range addrs {
		msgs = append(msgs, netlink.NewAddr(far.Index, prefix(a)))
	}
	msgs = append(msgs, netlink.NewRoute(far.Index, netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.MustParseAddr(peerGateway)))
	return conn.Do(msgs...)
}

// close ends the namespace, and the link with it.
func (p *peer) close() {
	if p != nil && p.ns > 0 {
		unix.Close(p.ns)
		p.ns = -1
	}
}

// lookups has a container ask for its own name 10,000 times.
func lookups(ctx context.Context, s *system, state any, record func(string, float64)) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	out, err := os.MkdirTemp("", "cleat-bench-out.")
	if err != nil {
		return err
	}
	defer os.RemoveAll(out)
	id, err := s.createNamed(ctx, "asker", object{"NetworkMode": state.(string), "Binds": []string{self + ":/bench:ro", out + ":/out"}},
		"/bench", "lookups", "asker", "10000", "/out/lookups")
	if err == nil {
		err = s.start(ctx, id)
	}
	if err == nil {
		err = s.wait(ctx, id)
	}
	if err = errors.Join(err, s.remove(id)); err != nil {
		return err
	}
	b, err := os.ReadFile(filepath.Join(out, "lookups"))
	if err != nil {
		return err
	}
	var middle, late float64
	if _, err := fmt.Sscan(string(b), &middle, &late); err != nil {
		return fmt.Errorf("lookups: %s", b)
	}
	record(lookupsMedian, middle)
	record(lookupsP99, late)
	return nil
}

// connsServerPort is what the server of connections listens on, in the container and outside.
const connsServerPort = "8099"

func prepareConnections(ctx context.Context, s *system) (any, func() error, error) {
	self, err := os.Executable()
	if s.bare != nil || err != nil {
		return nil, nil, errors.Join(errNotApplicable, err)
	}
	// The container's own address is to be reached from outside, which Cleat's
	// networks allow when they are asked to. The older peers know no such option, and
	// always allow it.
	options := object{}
	if s.name == "cleat" {
		options["Options"] = object{"com.docker.network.bridge.gateway_mode_ipv4": "nat-unprotected"}
	}
	_, done, err := network(netName, options)(ctx, s)
	if err != nil {
		return nil, done, err
	}
	a := &arena{}
	finish := func() error { return errors.Join(a.close(s), done()) }
	if err := a.enter(s); err != nil {
		return nil, finish, err
	}
	if a.away, err = newPeer(a.host, clientAddrs()...); err != nil {
		return nil, finish, err
	}
	a.server, err = s.create(ctx, object{"NetworkMode": netName, "Binds": []string{self + ":/bench:ro"}, "PortBindings": published(connsServerPort)},
		"/bench", "accept", connsServerPort)
	if err == nil {
		err = s.start(ctx, a.server)
	}
	if err == nil {
		a.ip, err = s.address(ctx, a.server)
	}
	return a, finish, err
}

// clientAddrs are the addresses of the outside host.
func clientAddrs() []string {
	var all []string
	for i := range connClients {
		all = append(all, fmt.Sprintf("10.199.9.%d", 10+i))
	}
	return all
}

// connections are counted over half a second each, from a host outside whose addresses
// the server must see, and from the engine's own.
func connections(ctx context.Context, s *system, state any, record func(string, float64)) error {
	a := state.(*arena)
	self, err := os.Executable()
	if err != nil {
		return err
	}
	count := func(ns int, server string, from ...string) (rate float64, err error) {
		out, err := output(ns, exec.CommandContext(ctx, self, append([]string{"dial", server, connsServerPort, "500ms"}, from...)...))
		if err == nil {
			_, err = fmt.Sscan(string(out), &rate)
		}
		return rate, err
	}
	own, err := count(a.away.ns, a.ip, clientAddrs()...)
	if err != nil {
		return fmt.Errorf("to the container's address: %w", err)
	}
	port, err := count(a.away.ns, peerGateway, clientAddrs()...)
	if err != nil {
		return fmt.Errorf("to the published port: %w", err)
	}
	local, err := count(a.host, "127.0.0.1")
	if err != nil {
		return fmt.Errorf("to 127.0.0.1: %w", err)
	}
	record(connsOwn, own)
	record(connsPort, port)
	record(connsRatio, 100*port/own)
	record(connsLocal, local)
	// What was closed is tracked for some seconds yet.
	time.Sleep(100 * time.Millisecond)
	return nil
}
