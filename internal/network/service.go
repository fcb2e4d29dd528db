package network

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
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
// of containers.
type state struct {
	Created    time.Time
	IDs        map[string]string // network name → 64 hex digits
	Bridge     string
	BridgeMade bool         // by us, so that Teardown may remove it
	Address    netip.Prefix // of the bridge
}

// Service is the network side of one engine. Its methods are safe for concurrent
// use.
type Service struct {
	cfg     Config
	state   state
	bridge  *bridge
	pool    *pool
	table   *nft.Table
	proxy   *loopback
	group   *supervise.Group
	sockets *sockets
	flows   *nft.Flows
	home    int // the host's network namespace
	claim   int // keeps other engines off the bridge

	mu        sync.Mutex
	endpoints map[string]*endpoint // by container id
	closed    bool
	warnings  []string // of Open
}

// endpoint is one container's attachment.
type endpoint struct {
	sandbox *Sandbox
	ports   *reservation
	ready   bool // Attach has returned
}

// Open makes or adopts the bridge, its nftables table and the host's sysctls
// (ip_forward, route_localnet of the bridge).
func Open(ctx context.Context, cfg Config) (_ *Service, err error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	s := &Service{cfg: cfg, endpoints: map[string]*endpoint{}, home: -1, claim: -1}
	defer func() {
		if err != nil {
			s.abandon()
		}
	}()
	if s.claim, err = claimBridge(cfg.Bridge); err != nil {
		return nil, err
	}
	if err := s.loadState(); err != nil {
		return nil, err
	}
	if s.home, err = netlink.CurrentNS(); err != nil {
		return nil, err
	}
	if err := s.openBridge(); err != nil {
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
	if s.proxy, err = newLoopback(s.group); err != nil {
		return nil, err
	}
	s.sockets = newSockets(s.group, s.bridge)
	return s, s.watch()
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
	switch {
	case c.StateFile == "":
		return failure.Invalid("network: no state file is configured")
	case !validLinkName(c.Bridge):
		return failure.Invalid("invalid bridge name %q: want 1 to 15 characters without blanks, '/' or ':'", c.Bridge)
	case c.BIP.IsValid() && (!c.BIP.Addr().Is4() || c.BIP.Bits() > 30 || c.BIP.Masked().Addr() == c.BIP.Addr()):
		return failure.Invalid("invalid --bip %s: want the bridge's own IPv4 address with a prefix length of at most 30, such as 172.17.0.1/16", c.BIP)
	case c.MTU != 0 && (c.MTU < 68 || c.MTU > 65535):
		return failure.Invalid("invalid MTU %d: want 68 to 65535", c.MTU)
	case c.BindIP.IsValid() && !c.BindIP.Unmap().Is4():
		return failure.NotImplemented("publishing on IPv6 address %s by default (--ip) is not supported", c.BindIP)
	}
	for _, d := range c.DNS {
		if _, err := netip.ParseAddr(d); err != nil {
			return failure.Invalid("invalid --dns %q: want an IP address", d)
		}
	}
	return nil
}

// validLinkName is the kernel's dev_valid_name.
func validLinkName(s string) bool {
	if s == "" || s == "." || s == ".." || len(s) >= unix.IFNAMSIZ {
		return false
	}
	for _, c := range s {
		if c <= ' ' || c == '/' || c == ':' || c > '~' || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}

// loadState reads the state file, or starts one with new ids.
func (s *Service) loadState() error {
	err := record.ReadJSON(s.cfg.StateFile, &s.state)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("network state: %w (removing that file gives the networks new ids)", err)
	}
	if s.state.Bridge != s.cfg.Bridge {
		// What was remembered is of another link.
		s.state.Bridge, s.state.BridgeMade, s.state.Address = s.cfg.Bridge, false, netip.Prefix{}
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
	return nil
}

// newID is 64 random hex digits.
func newID() string {
	b := make([]byte, 32)
	rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

func (s *Service) openBridge() error {
	conn, err := netlink.Dial(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	s.bridge = &bridge{name: s.cfg.Bridge, mtu: s.cfg.MTU, conn: conn, home: s.home, links: map[string]bool{}}
	forwarded := forwards()
	if err := s.bridge.setUp(s.cfg.BIP, s.state.Address, s.state.BridgeMade, s.announceBridge); err != nil {
		return err
	}
	if !forwarded {
		s.warn("IP forwarding was off and is on now, for containers to reach the network: this host routes between its other networks, too, unless a firewall forbids it")
	}
	s.state.BridgeMade, s.state.Address = s.bridge.made, s.bridge.address
	if err := record.WriteJSON(s.cfg.StateFile, s.state, 0o600); err != nil {
		return fmt.Errorf("network state: %w", err)
	}
	s.pool, err = newPool(s.bridge.address, s.bridge.address.Addr())
	return err
}

// announceBridge notes that the bridge is being made.
func (s *Service) announceBridge() error {
	s.state.BridgeMade = true
	if err := record.WriteJSON(s.cfg.StateFile, s.state, 0o600); err != nil {
		return fmt.Errorf("network state: %w", err)
	}
	return nil
}

func (s *Service) openTable() error {
	var err error
	if s.table, err = nft.Open(s.cfg.TableName); err != nil {
		return err
	}
	if err := s.table.KeepNetworks(s.network()); err != nil {
		return err
	}
	return s.table.Assert()
}

// network is the default bridge network as the firewall sees it.
func (s *Service) network() nft.Network {
	return nft.Network{Bridge: s.bridge.name, Subnet: s.bridge.address.Masked(), ICC: true, Masquerade: true}
}

// abandon closes what a failed Open has opened.
func (s *Service) abandon() {
	if s.group != nil {
		_ = s.group.Stop(context.Background())
	}
	if s.table != nil {
		s.table.Close()
	}
	if s.flows != nil {
		s.flows.Close()
	}
	if s.bridge != nil {
		s.bridge.conn.Close()
	}
	for _, fd := range []int{s.home, s.claim} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}

// Close stops the service and leaves bridge, table and containers' traffic as they
// are, for the next engine.
func (s *Service) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	endpoints := s.endpoints
	s.endpoints = map[string]*endpoint{}
	s.mu.Unlock()
	for _, e := range endpoints {
		e.ports.release(s.proxy)
	}
	s.abandon()
	return nil
}

func (s *Service) list() []*endpoint {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Values(s.endpoints))
}

// Teardown closes the service and removes what it made: the table, marked rules in
// foreign chains and the bridge, unless that existed before.
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
	err := errors.Join(nft.Withdraw(s.table.Name()), s.table.Delete())
	for _, e := range s.list() {
		s.bridge.disown(e.sandbox.Link)
	}
	strays, strayErr := s.bridge.strays()
	err = errors.Join(err, strayErr, s.bridge.deleteLinks(strays))
	if s.bridge.made {
		err = errors.Join(err, s.bridge.remove())
		s.state.BridgeMade = false
		err = errors.Join(err, record.WriteJSON(s.cfg.StateFile, s.state, 0o600))
	}
	return errors.Join(err, s.Close())
}
