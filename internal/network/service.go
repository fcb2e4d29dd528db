package network

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/netlink"
	"github.com/cleatlabs/cleat/internal/nft"
	"github.com/cleatlabs/cleat/internal/record"
	"github.com/cleatlabs/cleat/internal/supervise"
)

// state is what StateFile holds. Everything else is in the kernel or in the records
// of networks and containers.
type state struct {
	Created    time.Time
	IDs        map[string]string // name of a predefined network → 64 hex digits
	Bridge     string
	BridgeMade bool         // by us, so that Teardown may remove it
	Address    netip.Prefix // of the bridge
	Address6   netip.Prefix `json:",omitzero"`
	// ULA is the /48 that IPv6 subnets are cut from: random, so that two hosts that are
	// joined one day do not clash (RFC 4193), and the same over the engine's life.
	ULA netip.Prefix `json:",omitzero"`
}

// Service is the network side of one engine. Its methods are safe for concurrent
// use.
type Service struct {
	cfg      Config
	state    state
	records  records
	host     *uplink
	bridge   *bridge // the default network's
	table    *nft.Table
	proxy    *proxy
	group    *supervise.Group
	spares   *sockets // plugged into the default bridge
	loose    *sockets // not plugged in, for other networks
	ahead    *ahead   // plugged into other networks
	flows    *nft.Flows
	stale    *forgetter
	leaving  *departures
	removals *removals[*Record]
	removing *netlink.Conn // by which removals go
	lookups  *nameService
	zone     zone
	pools    poolLock
	foreign  [2]foreignRoutes // of IPv4 and of IPv6; guarded by pools
	claim    int              // keeps other engines off the bridge

	mu          sync.Mutex
	networks    map[string]*netw       // by id
	names       map[string]*netw       // by name
	attachments map[string]*attachment // by container id
	held        map[string][]heldAddr  // static addresses, by container id
	closed      bool
	warnings    []string  // of Open
	undeleted   []*Record // bridges that Open could not delete

	freed freed
}

// Open makes or adopts the bridges, the nftables table and the host's sysctls.
func Open(ctx context.Context, cfg Config) (_ *Service, err error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	s := &Service{
		cfg: cfg, claim: -1, records: records{cfg.Dir}, networks: map[string]*netw{}, names: map[string]*netw{},
		attachments: map[string]*attachment{}, held: map[string][]heldAddr{},
		host: &uplink{ns: -1, links: map[string]bool{}, stays: cfg.NoForwarding, direct: cfg.DirectRouting},
		zone: zone{wake: make(chan struct{}, 1), patience: zonePatience},
	}
	defer func() {
		if err != nil {
			s.abandon()
		}
	}()
	var unsafe string
	if s.claim, unsafe, err = claimBridge(cfg.Bridge); err != nil {
		return nil, err
	}
	s.warn(unsafe)
	if err := s.loadState(); err != nil {
		return nil, err
	}
	if s.host.ns, err = netlink.CurrentNS(); err != nil {
		return nil, err
	}
	s.host.traffic.open()
	if s.host.conn, err = netlink.Dial(unix.NETLINK_ROUTE); err != nil {
		return nil, err
	}
	unlock, err := s.pools.lock(ctx)
	if err != nil {
		return nil, err
	}
	err = s.openNetworks()
	unlock()
	if err != nil {
		return nil, err
	}
	if err := s.openTable(); err != nil {
		return nil, err
	}
	if s.flows, err = nft.OpenFlows(); err != nil {
		return nil, err
	}
	// The group outlives ctx, which is that of the start only.
	s.group = supervise.New(context.WithoutCancel(ctx))
	if err := s.start(); err != nil {
		return nil, err
	}
	return s, nil
}

// start begins what goes on by itself: what is removed behind the answers, what is made ahead, who watches the host.
func (s *Service) start() (err error) {
	s.stale = newForgetter(s.group, s.forgetNow)
	s.leaving = newDepartures(s.group, s.host.traffic.mute, s.silence, s.release)
	// Of its own: others would wait for the kernel, too.
	if s.removing, err = netlink.Dial(unix.NETLINK_ROUTE); err != nil {
		return err
	}
	s.host.unused = newLinkRemovals(s.group, s.host.deleteLinks)
	s.host.inners = newInnerRemovals(s.group, s.host.deleteInners)
	s.removals = newBridgeRemovals(s.group, func(recs []*Record) []error { return removeBridges(s.removing, s.records, recs) })
	for _, rec := range s.undeleted {
		s.removals.add(rec)
	}
	if s.proxy, err = newProxy(s.group); err != nil {
		return err
	}
	s.lookups = s.newNames()
	s.spares = newSockets(s.group, "network-sockets", s.bridge.prepare, s.host)
	s.spares.refill()
	s.loose = newSockets(s.group, "network-loose-sockets", s.prepareLoose, s.host)
	s.ahead = newAhead(s.group, s.host, s.loose)
	if err := s.watchLinks(); err != nil {
		return err
	}
	return s.watch()
}

func (c *Config) complete() error {
	if c.Bridge == "" {
		c.Bridge = "cleat0"
	}
	if c.TableName == "" {
		c.TableName = "cleat-" + c.Bridge
	}
	if c.HostsFile == "" {
		c.HostsFile = "/etc/hosts"
	}
	if c.Dir == "" {
		c.Dir = filepath.Join(filepath.Dir(c.StateFile), "networks")
	}
	if len(c.AddressPools) == 0 {
		c.AddressPools = defaultPools()
	}
	if err := checkPools(c.AddressPools); err != nil {
		return err
	}
	switch {
	case c.StateFile == "":
		return failure.Invalid("network: no state file is configured")
	case !validLinkName(c.Bridge):
		return failure.Invalid("invalid bridge name %q: want 1 to 15 characters without blanks, '/', ':' or '%%'", c.Bridge)
	case c.BIP.IsValid() && (!c.BIP.Addr().Is4() || c.BIP.Bits() > 30 || c.BIP.Masked().Addr() == c.BIP.Addr()):
		return failure.Invalid("invalid --bip %s: want the bridge's own IPv4 address with a prefix length of at most 30, such as 172.17.0.1/16", c.BIP)
	case c.MTU != 0 && (c.MTU < 68 || c.MTU > 65535):
		return failure.Invalid("invalid MTU %d: want 68 to 65535", c.MTU)
	case c.BindIP.Zone() != "":
		return failure.Invalid("invalid --ip %s: want an address without a zone", c.BindIP)
	}
	if err := c.Default.check(); err != nil {
		return err
	}
	for _, d := range c.DNS {
		if _, err := netip.ParseAddr(d); err != nil {
			return failure.Invalid("invalid --dns %q: want an IP address", d)
		}
	}
	return nil
}

// check is about what is wrong in itself; openBridge knows the subnets.
func (d DefaultNetwork) check() error {
	for _, c := range []struct {
		flag string
		addr netip.Addr
		six  bool
	}{
		{"--bip6", d.BIP6.Addr(), true}, {"--fixed-cidr", d.FixedCIDR.Addr(), false}, {"--fixed-cidr-v6", d.FixedCIDR6.Addr(), true},
		{"--default-gateway", d.Gateway, false}, {"--default-gateway-v6", d.Gateway6, true},
	} {
		if c.addr.IsValid() && (c.addr.Is4In6() || c.addr.Is6() != c.six) {
			return failure.Invalid("invalid %s %s: want an %s address", c.flag, c.addr, familyName(c.six))
		}
	}
	switch {
	case d.BIP6.IsValid() && (d.BIP6.Bits() > 126 || d.BIP6.Masked().Addr() == d.BIP6.Addr()):
		return failure.Invalid("invalid --bip6 %s: want the bridge's own IPv6 address with a prefix length of at most 126, such as fd00:1::1/64", d.BIP6)
	case d.FixedCIDR.IsValid() && d.FixedCIDR.Bits() > 30, d.FixedCIDR6.IsValid() && d.FixedCIDR6.Bits() > 126:
		return failure.Invalid("--fixed-cidr and --fixed-cidr-v6 must have room for a gateway and a container")
	}
	return nil
}

// validLinkName is the kernel's dev_valid_name, and more: of a name with a '%' the kernel makes another.
func validLinkName(s string) bool {
	if s == "" || s == "." || s == ".." || len(s) >= unix.IFNAMSIZ {
		return false
	}
	for _, c := range s {
		if c <= ' ' || c == '/' || c == ':' || c > '~' || c == '%' || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}

// loadState reads the state file, or starts one with new ids. A damaged one is put aside.
func (s *Service) loadState() error {
	err := record.ReadJSON(s.cfg.StateFile, &s.state)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		aside := freePath(s.cfg.StateFile + ".damaged")
		if merr := os.Rename(s.cfg.StateFile, aside); merr != nil {
			return fmt.Errorf("network state: %w", errors.Join(err, merr))
		}
		s.warn(fmt.Sprintf("network state: %v: the predefined networks have new ids, and \"bridge\" another subnet if its link is gone; what was in the file is in %s", err, aside))
		s.state = state{}
	}
	if s.state.Bridge != s.cfg.Bridge {
		// What was remembered is of another link.
		s.state.Bridge, s.state.BridgeMade, s.state.Address, s.state.Address6 = s.cfg.Bridge, false, netip.Prefix{}, netip.Prefix{}
	}
	if s.state.Created.IsZero() {
		s.state.Created = time.Now().UTC()
	}
	if s.state.IDs == nil {
		s.state.IDs = map[string]string{}
	}
	for _, name := range []string{ModeBridge, ModeHost, ModeNone} {
		if s.state.IDs[name] == "" {
			s.state.IDs[name] = newID()
		}
	}
	if !s.state.ULA.IsValid() {
		s.state.ULA = newULA()
	}
	return nil
}

// freePath is path, or that with a number, of which there is nothing.
func freePath(path string) string {
	free := path
	for n := 1; ; n++ {
		if _, err := os.Lstat(free); err != nil {
			return free
		}
		free = fmt.Sprint(path, ".", n)
	}
}

// newID is 64 random hex digits.
func newID() string {
	b := make([]byte, 32)
	rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

// newULA is a random /48 of fd00::/8.
func newULA() netip.Prefix {
	b := [16]byte{0: 0xfd}
	rand.Read(b[1:6]) // never fails
	return netip.PrefixFrom(netip.AddrFrom16(b), 48)
}

// openNetworks brings up the predefined networks and those of the records.
func (s *Service) openNetworks() error {
	recs, damaged, err := s.records.load()
	if err != nil {
		return err
	}
	for _, d := range damaged {
		s.warn(fmt.Sprintf("a network cannot be used: %v: put a copy of that file back, or move it away, and start cleatd again", d))
	}
	if err := s.sweepRemoved(); err != nil {
		return err
	}
	taken := map[netip.Prefix]string{}
	for _, r := range recs {
		for _, p := range r.prefixes() {
			taken[p] = r.Name
		}
	}
	if err := s.openBridge(taken); err != nil {
		return err
	}
	if err := s.register(s.bridge.rec, s.bridge); err != nil {
		return err
	}
	for name, driver := range map[string]string{ModeHost: driverHost, ModeNone: driverNull} {
		r := &Record{ID: s.state.IDs[name], Name: name, Driver: driver, Created: s.state.Created, EnableIPv4: true}
		if err := s.register(r, nil); err != nil {
			return err
		}
	}
	for _, r := range recs {
		s.revive(r)
	}
	return nil
}

// register adds a network that is there.
func (s *Service) register(r *Record, d driver) error {
	if other := s.names[r.Name]; other != nil {
		return fmt.Errorf("networks %s and %s both have the name %q", other.rec.ID, r.ID, r.Name)
	}
	n, err := newNetw(r, d)
	if err != nil {
		return fmt.Errorf("network %s: %w", r.Name, err)
	}
	s.warn(n.unsafe)
	s.networks[r.ID], s.names[r.Name] = n, n
	return nil
}

// revive brings up a network of an earlier engine. One that cannot be used at present,
// as when somebody else has a link of its name, is there all the same: its containers
// say at their start what is wrong with it.
func (s *Service) revive(r *Record) {
	var d driver
	var err error
	if !r.ConfigOnly {
		d, err = s.newDriver(r)
	}
	if err == nil {
		err = s.register(r, d)
	}
	if err != nil {
		s.shelve(r, err)
		return
	}
	if r.ConfigOnly {
		return
	}
	if err := d.up(); err != nil {
		if _, ok := d.(*lan); !ok { // a start asks for its parent anew, which may come up later than the engine
			s.networks[r.ID].broken = err
		}
		s.warn(fmt.Sprintf("network %s cannot be used: %v", r.Name, err))
	}
}

// shelve adds a network whose bridge another engine has, or whose record says what cannot be. Without a driver nothing
// touches the link, which may be somebody else's; and the network can be removed.
func (s *Service) shelve(r *Record, why error) {
	if err := s.register(r, nil); err != nil { // its name is another's, for one
		s.warn(fmt.Sprintf("network %s (%s) cannot be used: %v: put a copy of %s back, or move it away, and start cleatd again", r.Name, r.ID, why, s.records.path(r.ID)))
		return
	}
	s.networks[r.ID].broken = why
	s.warn(fmt.Sprintf("network %s cannot be used: %v", r.Name, why))
}

func (s *Service) openTable() error {
	var err error
	if s.table, err = nft.Open(s.cfg.TableName); err != nil {
		return err
	}
	if s.cfg.AcceptMark != nil {
		s.table.Accept(*s.cfg.AcceptMark)
	}
	var all []nft.Network
	known := map[string]bool{}
	for _, n := range s.networks {
		known[n.rec.Link] = true
		if n.drv == nil {
			continue
		}
		if f, ok := n.drv.firewall(); ok {
			all = append(all, f)
		}
	}
	// A network whose record is damaged has containers that run on. They are not to reach more than before: without these
	// elements an internal network would be open, and the host's own loopback to any.
	unrecorded := func(bridge string) bool {
		_, err := s.host.conn.LinkByName(bridge)
		return err == nil && !known[bridge]
	}
	if err := s.table.KeepNetworks(unrecorded, all...); err != nil {
		return err
	}
	return s.table.Assert()
}

// abandon closes what a failed Open has opened.
func (s *Service) abandon() {
	if s.group != nil {
		_ = s.group.Stop(context.Background())
	}
	if s.lookups != nil {
		s.lookups.close()
	}
	if s.table != nil {
		s.table.Close()
	}
	if s.flows != nil {
		s.flows.Close()
	}
	s.pools.mu.Lock()
	for i := range s.foreign {
		s.foreign[i].close()
	}
	s.pools.mu.Unlock()
	if s.host.conn != nil {
		s.host.conn.Close()
	}
	if s.removing != nil {
		s.removing.Close()
	}
	s.host.proc.shut()
	s.host.traffic.shut()
	for _, n := range s.networks {
		n.close()
	}
	for _, fd := range []int{s.host.ns, s.claim} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}

// Close stops the service and leaves bridges, table and containers' traffic as they
// are, for the next engine.
func (s *Service) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	all := s.attachments
	s.attachments = map[string]*attachment{}
	s.mu.Unlock()
	for _, a := range all {
		a.ports.release(s.proxy)
	}
	s.abandon()
	return nil
}

// list is the sandboxes of all containers.
func (s *Service) list() []*Sandbox {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []*Sandbox
	for _, a := range s.attachments {
		all = append(all, a.sandbox)
	}
	return all
}

// bridges are the names of all bridges.
func (s *Service) bridges() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []string
	for _, n := range s.networks {
		if b, ok := n.drv.(*bridge); ok {
			names = append(names, b.name())
		}
	}
	slices.Sort(names)
	return names
}

// forwarded are the same with what of their traffic other firewalls see.
func (s *Service) forwarded() []nft.Forwarded {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []nft.Forwarded
	for _, n := range s.networks {
		if b, ok := n.drv.(*bridge); ok {
			all = append(all, b.forwarded())
		}
	}
	slices.SortFunc(all, func(a, b nft.Forwarded) int { return cmp.Compare(a.Bridge, b.Bridge) })
	return all
}

// Teardown closes the service and removes what it made on the host: the table, marked
// rules in foreign chains and the bridges, unless they existed before. The networks'
// records stay.
func (s *Service) Teardown() error {
	s.mu.Lock()
	closed := s.closed
	s.mu.Unlock()
	if closed {
		return errors.New("network: the service is closed")
	}
	if err := s.group.Stop(context.Background()); err != nil {
		return err
	}
	err := errors.Join(s.leaveZone(context.Background()), nft.Withdraw(s.table.Name()), s.table.Delete())
	for _, sb := range s.list() {
		for _, e := range sb.Endpoints {
			s.host.disown(e.Link)
		}
	}
	strays, strayErr := s.host.strays(s.bridgeIndexes())
	err = errors.Join(append(s.host.deleteLinks(strays), err, strayErr)...)
	s.mu.Lock()
	all := slices.Collect(maps.Values(s.networks))
	s.mu.Unlock()
	for _, n := range all {
		if n.drv != nil {
			err = errors.Join(err, n.drv.down())
		}
	}
	if s.bridge.made {
		s.state.BridgeMade = false
		err = errors.Join(err, s.saveState())
	}
	return errors.Join(err, s.Close())
}

// bridgeIndexes are the links of all bridges.
func (s *Service) bridgeIndexes() map[int]bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := map[int]bool{}
	for _, n := range s.networks {
		if b, ok := n.drv.(*bridge); ok && b.index.Load() != 0 {
			all[int(b.index.Load())] = true
		}
	}
	return all
}

func (s *Service) warn(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.note(text)
}

// note is warn for who holds s.mu; "" is nothing to warn of.
func (s *Service) note(text string) {
	if text != "" && !slices.Contains(s.warnings, text) {
		s.warnings = append(s.warnings, text)
	}
}
