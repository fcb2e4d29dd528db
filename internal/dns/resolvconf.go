package dns

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// Port is where name servers listen.
const Port = 53

// Conf is what a resolv.conf(5) says.
type Conf struct {
	Servers, Search, Options []string
}

// ParseConf reads a resolver file: of several search or domain lines the last counts.
func ParseConf(text string) Conf {
	var c Conf
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		f := strings.Fields(line)
		if len(f) < 2 || strings.HasPrefix(f[0], ";") {
			continue
		}
		switch f[0] {
		case "nameserver":
			c.Servers = append(c.Servers, f[1])
		case "search", "domain":
			c.Search = f[1:]
		case "options":
			c.Options = append(c.Options, f[1:]...)
		}
	}
	return c
}

// String is the file. The search domain "." alone means none.
func (c Conf) String() string {
	var b strings.Builder
	for _, s := range c.Servers {
		fmt.Fprintf(&b, "nameserver %s\n", s)
	}
	if len(c.Search) > 0 && !slices.Equal(c.Search, []string{"."}) {
		fmt.Fprintf(&b, "search %s\n", strings.Join(c.Search, " "))
	}
	if len(c.Options) > 0 {
		fmt.Fprintf(&b, "options %s\n", strings.Join(c.Options, " "))
	}
	return b.String()
}

// Addrs are the addresses of the servers, with Port; what is no address is left out.
func (c Conf) Addrs() []netip.AddrPort { return ServerAddrs(c.Servers) }

// ServerAddrs makes of addresses, as resolv.conf or --dns name them, those of servers.
func ServerAddrs(servers []string) []netip.AddrPort {
	var addrs []netip.AddrPort
	for _, s := range servers {
		if a, err := netip.ParseAddr(s); err == nil {
			addrs = append(addrs, netip.AddrPortFrom(a.Unmap(), Port))
		}
	}
	return addrs
}

// HostConf follows the host's resolver file: a laptop that changes its network gets
// other name servers, and running containers with it. Its methods are safe for
// concurrent use.
type HostConf struct {
	path func() string

	mu      sync.Mutex
	checked time.Time
	name    string
	stamp   stamp
	servers []netip.AddrPort
}

// stamp tells one content of a file from another.
type stamp struct {
	mtime time.Time
	size  int64
}

// NewHostConf follows the file that path names; it is asked again every time.
func NewHostConf(path func() string) *HostConf { return &HostConf{path: path} }

// fresh is how long a look at the file is good for. Nobody looks unless a container
// asks for something.
const fresh = time.Second

// Servers are the name servers of the file as it is, or was a second ago. A file that
// cannot be read for the moment, as while it is replaced, changes nothing.
func (h *HostConf) Servers() []netip.AddrPort {
	h.mu.Lock()
	defer h.mu.Unlock()
	if now := time.Now(); now.Sub(h.checked) >= fresh {
		h.checked = now
		h.look()
	}
	return h.servers
}

func (h *HostConf) look() {
	name := h.path()
	info, err := os.Stat(name)
	if err != nil {
		return
	}
	s := stamp{info.ModTime(), info.Size()}
	if name == h.name && s == h.stamp {
		return
	}
	text, err := os.ReadFile(name)
	if err != nil {
		return
	}
	h.name, h.stamp, h.servers = name, s, ParseConf(string(text)).Addrs()
}
