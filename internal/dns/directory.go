package dns

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
)

// Network is a network as the directory knows it.
type Network struct {
	ID      string
	Name    string
	Subnets []netip.Prefix // nothing in them is looked for outside
}

// Endpoint is a container on a network.
type Endpoint struct {
	ID string // of the endpoint
	// Names are those that it answers to; the first is what its address is called.
	Names []string
	Addrs []netip.Addr
}

// Directory knows who is called what on each network. Its methods are safe for
// concurrent use; the zero value is not ready, use NewDirectory.
type Directory struct {
	mu        sync.RWMutex
	networks  map[string]*zone
	endpoints map[string]located
}

// located is an endpoint in a network, by its id.
type located struct {
	Endpoint
	network string
}

// zone is one network.
type zone struct {
	name    string
	subnets []netip.Prefix
	names   map[string][]Endpoint // by name in lower case, in order of arrival
	owners  map[netip.Addr]string // what an address is called
}

// NewDirectory returns an empty directory.
func NewDirectory() *Directory {
	return &Directory{networks: map[string]*zone{}, endpoints: map[string]located{}}
}

// Add puts an endpoint of a network in, in place of an earlier one with its id, and has
// the network's name and subnets be these. A network is forgotten with the last that is
// on it.
func (d *Directory) Add(n Network, e Endpoint) {
	e.Names, e.Addrs = lowered(e.Names), slices.Clone(e.Addrs)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.takeOut(e.ID)
	d.endpoints[e.ID] = located{e, n.ID}
	z := d.networks[n.ID]
	if z == nil {
		z = &zone{names: map[string][]Endpoint{}, owners: map[netip.Addr]string{}}
		d.networks[n.ID] = z
	}
	z.name, z.subnets = strings.ToLower(n.Name), slices.Clone(n.Subnets)
	for _, name := range e.Names {
		z.names[name] = append(z.names[name], e)
	}
	if len(e.Names) > 0 {
		for _, a := range e.Addrs {
			z.owners[a] = e.Names[0]
		}
	}
}

// lowered are the names in lower case, each once, without a dot at the end.
func lowered(names []string) []string {
	var out []string
	for _, n := range names {
		n = strings.TrimSuffix(strings.ToLower(n), ".")
		if n != "" && !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	return out
}

// Remove forgets an endpoint. One that is not there is no error.
func (d *Directory) Remove(id string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if e, ok := d.takeOut(id); ok && len(d.networks[e.network].names) == 0 {
		delete(d.networks, e.network) // the next on it brings it back
	}
}

func (d *Directory) takeOut(id string) (located, bool) {
	e, ok := d.endpoints[id]
	if !ok {
		return e, false
	}
	delete(d.endpoints, id)
	z := d.networks[e.network]
	for _, n := range e.Names {
		rest := slices.DeleteFunc(slices.Clone(z.names[n]), func(o Endpoint) bool { return o.ID == id })
		if len(rest) == 0 {
			delete(z.names, n)
		} else {
			z.names[n] = rest
		}
	}
	for _, a := range e.Addrs {
		if len(e.Names) > 0 && z.owners[a] == e.Names[0] {
			delete(z.owners, a)
		}
	}
	return e, true
}

// find answers for a name in lower case: the addresses, and whether it exists at all.
func (d *Directory) find(networks []string, name string) (addrs []netip.Addr, found bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	for _, id := range networks {
		z := d.networks[id]
		if z == nil {
			continue
		}
		es := z.names[name]
		if len(es) == 0 && z.name != "" {
			// Both names of containers and of networks may hold dots.
			if short, ok := strings.CutSuffix(name, "."+z.name); ok {
				es = z.names[short]
			}
		}
		if len(es) > 0 {
			return turned(es), true
		}
	}
	return nil, false
}

// turned are the addresses of the endpoints, starting with another one every time.
func turned(es []Endpoint) []netip.Addr {
	addrs := make([]netip.Addr, 0, len(es))
	first := 0
	if len(es) > 1 {
		first = rand.IntN(len(es))
	}
	for i := range es {
		addrs = append(addrs, es[(first+i)%len(es)].Addrs...)
	}
	return addrs
}

// owner answers what an address is called on one of the networks, with the network's
// name behind a dot. local: it is an address of one of them, whoever has it.
func (d *Directory) owner(networks []string, a netip.Addr) (name string, local bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	for _, id := range networks {
		z := d.networks[id]
		if z == nil {
			continue
		}
		if n, ok := z.owners[a]; ok {
			if z.name != "" {
				n += "." + z.name
			}
			return n, true
		}
		local = local || slices.ContainsFunc(z.subnets, func(p netip.Prefix) bool { return p.Contains(a) })
	}
	return "", local
}
