package network

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types/network"
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/nft"
	"github.com/cleatlabs/cleat/internal/record"
)

// netw is one network. What is not said to be guarded never changes.
type netw struct {
	rec   *Record
	drv   driver // nil for host, none and config-only networks
	addrs *addresses
	claim int // keeps other engines off a bridge that a user named, or -1

	// Guarded by Service.mu.
	members map[string]*member                  // by container id
	macs    map[netip.Addr]network.HardwareAddr // that went with the addresses; see renamed
	busy    bool                                // being made or removed: not to be used
	leaving chan struct{}                       // while it is being removed: closed when that has ended
	broken  error                               // why it could not be brought up again
	unsafe  string                              // why no other engine is kept off its bridge
}

// member is a container's endpoint, from when its addresses are taken.
type member struct {
	endpoint *Endpoint
	ready    bool // the container has it
}

func newNetw(r *Record, d driver) (*netw, error) {
	a, err := newAddresses(r.Name, r.Subnets)
	if err != nil {
		return nil, err
	}
	n := &netw{rec: r, drv: d, addrs: a, claim: -1, members: map[string]*member{}}
	if b, ok := d.(*bridge); ok && b.opts.name != "" && r.Name != ModeBridge {
		if n.claim, n.unsafe, err = claimBridge(b.name()); err != nil {
			return nil, err
		}
	}
	return n, nil
}

func (n *netw) close() {
	if n.claim >= 0 {
		unix.Close(n.claim)
		n.claim = -1
	}
}

// newDriver makes the driver of a record.
func (s *Service) newDriver(r *Record) (driver, error) {
	switch r.Driver {
	case driverBridge:
		return newBridge(s.host, r)
	case driverMacvlan, driverIPvlan:
		return newLan(s.host, r)
	}
	return nil, failure.NotFound("could not find plugin %s in v1 plugin registry: plugin %q not found: this engine has drivers bridge, macvlan and ipvlan", r.Driver, r.Driver)
}

var validName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]*$`)

// Create makes a network and returns its record. warnings are for the answer.
func (s *Service) Create(ctx context.Context, req network.CreateRequest) (rec *Record, warnings []string, err error) {
	rec, err = s.newRecord(&req)
	if err != nil {
		return nil, nil, err
	}
	var configs []network.IPAMConfig
	if req.IPAM != nil {
		configs = req.IPAM.Config
	}
	if rec.ConfigFrom != "" {
		if configs, err = s.copyConfig(rec); err != nil {
			return nil, nil, err
		}
	}
	if !rec.ConfigOnly {
		if _, err := s.newDriver(rec); err != nil {
			return nil, nil, err
		}
	}
	// Whoever asks for the name of a network or a bridge that is just being deleted, means another.
	if err := s.awaitLeaving(ctx, rec.Name); err != nil {
		return nil, nil, err
	}
	if err := s.removals.await(ctx, rec.Options[optBridgeName]); err != nil {
		return nil, nil, err
	}
	if !rec.ConfigOnly {
		unlock, err := s.pools.lock(ctx)
		if err != nil {
			return nil, nil, err
		}
		defer unlock()
	}
	routes, err := s.routes(rec, len(configs) == 0)
	if err != nil {
		return nil, nil, err
	}
	n, warnings, err := s.plan(rec, configs, routes)
	if err != nil {
		return nil, nil, err
	}
	if err := ctx.Err(); err != nil {
		s.drop(n)
		return nil, nil, err
	}
	if err := s.make(n); err != nil {
		s.drop(n)
		return nil, nil, err
	}
	s.madeLink(n)
	s.mu.Lock()
	n.busy = false
	s.mu.Unlock()
	return n.rec, warnings, nil
}

// newRecord checks a request as far as it does not depend on what else there is.
func (s *Service) newRecord(req *network.CreateRequest) (*Record, error) {
	switch {
	case !validName.MatchString(req.Name):
		return nil, failure.Invalid("invalid network name %q: it includes invalid characters, only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed", req.Name)
	case predefined(req.Name):
		return nil, failure.Forbidden("operation is not permitted on predefined %s network", req.Name)
	case req.Ingress:
		return nil, failure.Unavailable("an ingress network needs swarm mode, which this engine is not in")
	case !slices.Contains([]string{"", "local", "global", "swarm"}, req.Scope):
		return nil, failure.Invalid("invalid network scope %q: this engine has local ones", req.Scope)
	case req.Scope != "" && req.Scope != "local":
		return nil, failure.Unavailable("network scope %q needs swarm mode, which this engine is not in", req.Scope)
	}
	r := &Record{
		Layout: recordLayout, ID: newID(), Name: req.Name, Created: time.Now().UTC(), Driver: req.Driver, EnableIPv4: true,
		Internal: req.Internal, Attachable: req.Attachable, ConfigOnly: req.ConfigOnly, Options: maps.Clone(req.Options), Labels: maps.Clone(req.Labels),
	}
	if req.ConfigFrom != nil {
		r.ConfigFrom = req.ConfigFrom.Network
	}
	if r.Driver == "" || r.Driver == "default" {
		r.Driver = driverBridge
	}
	if r.Driver == driverHost || r.Driver == driverNull {
		return nil, failure.Forbidden("only one instance of %q network is allowed", r.Driver)
	}
	s.defaultOptions(r)
	if err := setFamilies(r, req); err != nil {
		return nil, err
	}
	if req.IPAM != nil {
		r.IPAMDriver, r.IPAMOptions = req.IPAM.Driver, maps.Clone(req.IPAM.Options)
	}
	if r.IPAMDriver != "" && r.IPAMDriver != "default" {
		return nil, failure.Invalid("could not find IPAM driver %q: this engine has only its own, \"default\"", r.IPAMDriver)
	}
	for _, key := range slices.Sorted(maps.Keys(r.IPAMOptions)) {
		return nil, failure.Invalid("IPAM option %q is not supported: the default IPAM driver has none", key)
	}
	if r.ConfigOnly {
		r.Driver = driverNull // as dockerd does: it is no network of any driver
	}
	return r, checkConfigNetwork(r, req)
}

func predefined(name string) bool {
	return name == ModeBridge || name == ModeHost || name == ModeNone || name == network.NetworkDefault
}

// defaultOptions adds what the engine's configuration sets for every new network.
func (s *Service) defaultOptions(r *Record) {
	if r.ConfigOnly || r.ConfigFrom != "" {
		return
	}
	for key, value := range s.cfg.NetworkOptions[r.Driver] {
		if _, set := r.Options[key]; !set {
			if r.Options == nil {
				r.Options = map[string]string{}
			}
			r.Options[key] = value
		}
	}
}

// setFamilies decides about IPv4 and IPv6: by the request, else by an option.
func setFamilies(r *Record, req *network.CreateRequest) error {
	for _, f := range []struct {
		asked *bool
		key   string
		into  *bool
	}{{req.EnableIPv4, optIPv4, &r.EnableIPv4}, {req.EnableIPv6, optIPv6, &r.EnableIPv6}} {
		switch value, set := r.Options[f.key]; {
		case f.asked != nil:
			*f.into = *f.asked
		case set:
			var err error
			if *f.into, err = strconv.ParseBool(value); err != nil {
				return failure.Invalid("invalid value %q of option %s: want true or false", value, f.key)
			}
		}
	}
	if !r.EnableIPv4 && !r.EnableIPv6 {
		return failure.Invalid("IPv4 or IPv6 must be enabled: network %s would have neither", r.Name)
	}
	return nil
}

// checkConfigNetwork refuses what a network that is only a configuration, or made from
// one, cannot say.
func checkConfigNetwork(r *Record, req *network.CreateRequest) error {
	if r.ConfigOnly && (r.Internal || r.Attachable || req.Scope != "" || r.ConfigFrom != "") {
		return failure.Forbidden("configuration network can only contain network specific fields. Network operator fields like [ ingress | internal | attachable | scope ] are not supported.")
	}
	own := len(req.Options) > 0 || len(req.Labels) > 0 || req.EnableIPv6 != nil && *req.EnableIPv6 ||
		req.IPAM != nil && (len(req.IPAM.Config) > 0 || len(req.IPAM.Options) > 0)
	if r.ConfigFrom != "" && own {
		return failure.Forbidden("user specified configurations are not supported if the network depends on a configuration network")
	}
	return nil
}

// copyConfig takes over the configuration that a record names.
func (s *Service) copyConfig(r *Record) ([]network.IPAMConfig, error) {
	s.mu.Lock()
	from := s.names[r.ConfigFrom]
	s.mu.Unlock()
	if from == nil || !from.rec.ConfigOnly {
		return nil, failure.NotFound("could not find the configuration network %q", r.ConfigFrom)
	}
	r.EnableIPv4, r.EnableIPv6 = from.rec.EnableIPv4, from.rec.EnableIPv6
	r.Options, r.Labels = maps.Clone(from.rec.Options), maps.Clone(from.rec.Labels)
	return from.rec.describe().IPAM.Config, nil
}

// plan gives the network its subnets and registers it, not to be used yet.
func (s *Service) plan(rec *Record, configs []network.IPAMConfig, routes map[netip.Prefix]string) (n *netw, warnings []string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, nil, failure.Unavailable("the network service is closed")
	}
	if s.names[rec.Name] != nil {
		return nil, nil, failure.Conflict("network with name %s already exists", rec.Name)
	}
	p := &planner{pools: s.cfg.AddressPools, ula: s.state.ULA, taken: map[netip.Prefix]string{}, routes: routes}
	for _, other := range s.networks {
		if other.rec.ConfigOnly {
			continue
		}
		for _, prefix := range other.rec.prefixes() {
			p.taken[prefix] = other.rec.Name
		}
	}
	if err := checkIPAM(configs); err != nil {
		return nil, nil, err
	}
	// As dockerd tells them; its client sends them in no order.
	configs = slices.SortedStableFunc(slices.Values(configs), func(a, b network.IPAMConfig) int {
		return cmp.Compare(family(a), family(b))
	})
	if rec.ConfigOnly {
		for _, c := range configs {
			rec.Subnets = append(rec.Subnets, Subnet{Prefix: c.Subnet, Range: c.IPRange, Gateway: c.Gateway, Aux: c.AuxAddress})
		}
		n = &netw{rec: rec, addrs: &addresses{network: rec.Name}, claim: -1, members: map[string]*member{}, busy: true}
	} else {
		if rec.Subnets, warnings, err = p.plan(rec, configs); err != nil {
			return nil, nil, err
		}
		if n, err = s.newLinked(rec); err != nil {
			return nil, nil, err
		}
	}
	n.busy = true
	s.networks[rec.ID], s.names[rec.Name] = n, n
	return n, warnings, nil
}

// family is 6 for an IPv6 subnet, else 4.
func family(c network.IPAMConfig) int {
	if c.Subnet.Addr().Is6() {
		return 6
	}
	return 4
}

// newLinked names the record's link. The caller holds s.mu.
func (s *Service) newLinked(rec *Record) (*netw, error) {
	name := s.bridgeLink
	if rec.Driver != driverBridge {
		name = s.lanLink
	}
	if err := name(rec); err != nil {
		return nil, err
	}
	d, err := s.newDriver(rec)
	if err != nil {
		return nil, err
	}
	n, err := newNetw(rec, d)
	if err == nil {
		s.note(n.unsafe)
	}
	return n, err
}

// bridgeLink is the name of a bridge network's bridge. The caller holds s.mu.
func (s *Service) bridgeLink(rec *Record) error {
	rec.Link, rec.LinkMade = "br-"+rec.ID[:12], true
	if name := rec.Options[optBridgeName]; name != "" {
		for _, other := range s.networks {
			if other.rec.Link == name {
				return failure.Forbidden("bridge %q is already that of network %s", name, other.rec.Name)
			}
		}
		_, err := s.host.conn.LinkByName(name)
		rec.Link, rec.LinkMade = name, errors.Is(err, unix.ENODEV)
	}
	return nil
}

// checkIPAM refuses what is wrong in itself, in Docker's words.
func checkIPAM(configs []network.IPAMConfig) error {
	var errs []error
	say := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	for _, c := range configs {
		if !c.Subnet.IsValid() {
			if c.IPRange.IsValid() || c.Gateway.IsValid() || len(c.AuxAddress) > 0 {
				say("invalid subnet: an ip-range, gateway or auxiliary address needs one")
			}
			continue
		}
		if c.Subnet.Addr().Is4In6() {
			say("invalid subnet %s: it is one of IPv4 in the form of IPv6; write it as one of IPv4, such as %s", c.Subnet, unmapped(c.Subnet))
			continue
		}
		if c.Subnet.Masked() != c.Subnet {
			say("invalid subnet %s: it should be %s", c.Subnet, c.Subnet.Masked())
		}
		if c.Subnet.Addr().IsUnspecified() {
			continue // its addresses are not known yet
		}
		if a := c.Subnet.Addr(); a.IsLoopback() || a.IsMulticast() {
			say("invalid subnet %s: its addresses are those of loopback or of multicast groups, which no link can have", c.Subnet)
			continue
		}
		if r := c.IPRange; r.IsValid() {
			switch {
			case r.Addr().Is4() != c.Subnet.Addr().Is4():
				say("invalid ip-range %s: parent subnet is an %s block", r, familyName(c.Subnet.Addr().Is6()))
			case r.Masked() != r:
				say("invalid ip-range %s: it should be %s", r, r.Masked())
			case r.Bits() < c.Subnet.Bits():
				say("invalid ip-range %s: CIDR block is bigger than its parent subnet %s", r, c.Subnet)
			case !c.Subnet.Contains(r.Addr()):
				say("invalid ip-range %s: CIDR block doesn't start within the parent subnet %s", r, c.Subnet)
			}
		}
		if g := c.Gateway; g.IsValid() && !c.Subnet.Contains(g) {
			say("invalid gateway %s: parent subnet %s doesn't contain this address", g, c.Subnet)
		}
		for _, name := range slices.Sorted(maps.Keys(c.AuxAddress)) {
			if a := c.AuxAddress[name]; !c.Subnet.Contains(a) {
				say("invalid auxiliary address %s: parent subnet %s doesn't contain this address", a, c.Subnet)
			}
		}
	}
	if len(errs) > 0 {
		return failure.Invalid("invalid network config:\n%w", errors.Join(errs...))
	}
	return nil
}

// unmapped is a prefix of IPv4 that is written as one of IPv6.
func unmapped(p netip.Prefix) netip.Prefix {
	return netip.PrefixFrom(p.Addr().Unmap(), max(0, p.Bits()-96)).Masked()
}

// make brings a planned network into being. The record comes first: an engine that dies
// in the middle leaves a network that the next one completes.
func (s *Service) make(n *netw) error {
	if err := s.records.save(n.rec); err != nil {
		return err
	}
	record.Failpoint("network.create.after-record")
	if n.drv == nil {
		return nil
	}
	if n.rec.EnableIPv6 && !s.cfg.NoForwarding && !forwards(ipForward6) {
		s.warn(forwarding6Warning)
	}
	if err := n.drv.up(); err != nil {
		return errors.Join(err, s.unmake(n))
	}
	record.Failpoint("network.create.after-link")
	if f, ok := n.drv.firewall(); ok {
		if err := s.table.Apply(nft.Change{AddNetworks: []nft.Network{f}}); err != nil {
			return errors.Join(fmt.Errorf("network %s: %w", n.rec.Name, err), s.unmake(n))
		}
	}
	record.Failpoint("network.create.after-rules")
	s.bridgesChanged()
	return nil
}

// unmake takes a network out of being. The record goes last: an engine that dies in the
// middle leaves a network that is there, and can be removed again. Only a bridge of ours
// may go after it.
func (s *Service) unmake(n *netw) error {
	if n.drv == nil {
		return s.records.remove(n.rec)
	}
	if f, ok := n.drv.firewall(); ok {
		if err := s.table.Apply(nft.Change{DelNetworks: []nft.Network{f}}); err != nil {
			return err
		}
	}
	record.Failpoint("network.rm.after-rules")
	if s.shared(n) {
		return s.records.remove(n.rec)
	}
	b, ok := n.drv.(*bridge)
	if !ok || !b.made {
		if err := n.drv.down(); err != nil {
			return err
		}
		return s.records.remove(n.rec)
	}
	if err := b.quiet(); err != nil {
		return err
	}
	record.Failpoint("network.rm.after-down")
	if err := s.records.retire(n.rec); err != nil {
		return err
	}
	record.Failpoint("network.rm.after-record")
	s.removals.add(n.rec)
	return nil
}

// keep gives a network that could not be removed its link and its rules back: it is there, and to be used.
func (s *Service) keep(n *netw) error {
	if n.drv == nil {
		return nil
	}
	if err := n.drv.up(); err != nil {
		return err
	}
	if f, ok := n.drv.firewall(); ok {
		return s.table.Apply(nft.Change{AddNetworks: []nft.Network{f}})
	}
	return nil
}

// drop unregisters a network.
func (s *Service) drop(n *netw) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.networks, n.rec.ID)
	delete(s.names, n.rec.Name)
	n.close()
}

// Remove removes a network that no running container uses, and returns its record.
func (s *Service) Remove(ctx context.Context, nameOrID string) (*Record, error) {
	n, err := s.doom(nameOrID)
	if err != nil {
		return nil, err
	}
	return s.finishRemoval(n)
}

// finishRemoval removes a network that is doomed.
func (s *Service) finishRemoval(n *netw) (*Record, error) {
	defer close(n.leaving)
	if b, ok := n.drv.(*bridge); ok {
		s.ahead.drop(b)
	}
	if err := s.unmake(n); err != nil {
		err = errors.Join(err, s.keep(n))
		s.mu.Lock()
		n.busy = false
		s.mu.Unlock()
		return nil, fmt.Errorf("error while removing network: %w", err)
	}
	s.drop(n)
	s.bridgesChanged()
	return n.rec, nil
}

// doom marks a network that can be removed as one that is.
func (s *Service) doom(nameOrID string) (*netw, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, err := s.find(nameOrID)
	if err != nil {
		return nil, err
	}
	if n.rec.predefined() {
		return nil, failure.Forbidden("%s is a pre-defined network and cannot be removed", n.rec.Name)
	}
	if n.rec.ConfigOnly {
		for _, other := range s.networks {
			if other.rec.ConfigFrom == n.rec.Name {
				return nil, failure.Forbidden("error while removing network: configuration network %q is in use", n.rec.Name)
			}
		}
	}
	if len(n.members) > 0 {
		return nil, failure.Forbidden("error while removing network: network %s has active endpoints (%s): disconnect or stop these containers first", n.rec.Name, s.memberNames(n))
	}
	n.busy, n.leaving = true, make(chan struct{})
	return n, nil
}

// awaitLeaving waits until no network of that name is being removed. Nobody finds it any more, so that its name has to
// be free for whoever asks for it.
func (s *Service) awaitLeaving(ctx context.Context, name string) error {
	s.mu.Lock()
	n := s.names[name]
	var left <-chan struct{}
	if n != nil && n.busy {
		left = n.leaving
	}
	s.mu.Unlock()
	if left == nil {
		return nil
	}
	select {
	case <-left:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// memberNames lists who is on a network. The caller holds s.mu.
func (s *Service) memberNames(n *netw) string {
	var out []string
	for id := range n.members {
		name := ""
		if a := s.attachments[id]; a != nil {
			name = a.sandbox.Name
		}
		out = append(out, fmt.Sprintf("name:%q id:%q", name, id[:min(12, len(id))]))
	}
	slices.Sort(out)
	if more := len(out) - 5; more > 0 {
		out = append(out[:5], fmt.Sprintf("and %d more", more))
	}
	return strings.Join(out, ", ")
}

// find looks a network up by full id, name or unique id prefix. The caller holds s.mu.
func (s *Service) find(nameOrID string) (*netw, error) {
	n := s.networks[nameOrID]
	if n == nil {
		n = s.names[nameOrID]
	}
	if n == nil && nameOrID != "" {
		var found []*netw
		for id, c := range s.networks {
			if strings.HasPrefix(id, nameOrID) && !c.busy {
				found = append(found, c)
			}
		}
		if len(found) > 1 {
			return nil, failure.Invalid("network %s is ambiguous (%d matches found based on ID prefix)", nameOrID, len(found))
		}
		if len(found) == 1 {
			n = found[0]
		}
	}
	if n == nil || n.busy {
		return nil, failure.NotFound("network %s not found", nameOrID)
	}
	return n, nil
}
