// Package registryclient talks to registries for the engine: which hosts and mirrors
// to ask for a name, in which scheme, with whose certificates and credentials, and
// what to tell the user when they do not answer as hoped.
//
// What it promises:
//
//   - Credentials given for a pull go to the registry that the name itself says, and
//     to no mirror, no other host and no redirect target.
//   - A mirror that is down, slow to know an image or broken never keeps a pull from
//     the registry itself.
//   - Every error names the address that was asked and says what to do about it, in
//     Docker's words where clients know them ([Session.Explain]).
package registryclient

import (
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"

	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/registrytrust"
)

// HubDomain is the registry of names that say none; HubHost is where it is reached.
const (
	HubDomain = "docker.io"
	HubHost   = "registry-1.docker.io"
)

// Config is how registries are reached.
type Config struct {
	// Mirrors are base URLs ("https://mirror.example:5000") asked before Docker Hub,
	// in this order.
	Mirrors []string
	// Insecure are hosts, host:port pairs and CIDRs that may be reached over plain
	// HTTP or with certificates that cannot be verified. Loopback addresses always may.
	Insecure []string
	// CertsDir holds the certificates of each registry ([registrytrust.TLS]); "" is [registrytrust.Dir].
	CertsDir string
	// UserAgent is sent with every request.
	UserAgent string
	// Proxy is how the way out is found.
	Proxy Proxy
}

// Client reaches registries. It may be used by many goroutines.
type Client struct {
	rules     atomic.Pointer[rules]
	certsDir  string
	userAgent string
	proxy     func(*http.Request) (*url.URL, error)
	patience  patience
}

// rules say which hosts are asked and trusted. They are never changed, but replaced.
type rules struct {
	mirrors       []*url.URL
	insecureHosts map[string]bool
	insecureNets  []netip.Prefix
}

// New checks the configuration and makes a client. Errors name the value at fault.
func New(cfg Config) (*Client, error) {
	c := &Client{certsDir: cfg.CertsDir, userAgent: cfg.UserAgent, proxy: cfg.Proxy.choose(), patience: usualPatience()}
	if c.certsDir == "" {
		c.certsDir = registrytrust.Dir
	}
	if c.userAgent == "" {
		c.userAgent = "cleat"
	}
	return c, c.SetRules(cfg.Mirrors, cfg.Insecure)
}

// SetRules replaces the mirrors and the insecure registries, which are written as in
// [Config], for sessions that are opened from now on. After an error the old ones stay.
func (c *Client) SetRules(mirrors, insecure []string) error {
	r := &rules{insecureHosts: map[string]bool{}}
	for _, m := range mirrors {
		u, err := parseMirror(m)
		if err != nil {
			return err
		}
		r.mirrors = append(r.mirrors, u)
	}
	for _, v := range insecure {
		if err := r.addInsecure(v); err != nil {
			return err
		}
	}
	c.rules.Store(r)
	return nil
}

func parseMirror(value string) (*url.URL, error) {
	u, err := url.Parse(value)
	switch {
	case err != nil:
		return nil, failure.Invalid("invalid mirror %q: %w", value, err)
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, failure.Invalid("invalid mirror %q: it must start with http:// or https://", value)
	case u.Host == "":
		return nil, failure.Invalid("invalid mirror %q: it names no host", value)
	case u.User != nil:
		return nil, failure.Invalid("invalid mirror %q: a user name or password in the URL is not supported", u.Redacted())
	case u.RawQuery != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "":
		return nil, failure.Invalid("invalid mirror %q: it must end after the host and port", value)
	}
	u.Path = ""
	return u, nil
}

func (r *rules) addInsecure(value string) error {
	if strings.Contains(value, "://") {
		return failure.Invalid("invalid insecure registry %q: give a host, host:port or CIDR without a scheme", value)
	}
	if p, err := netip.ParsePrefix(value); err == nil {
		r.insecureNets = append(r.insecureNets, p.Masked())
		return nil
	}
	if value == "" || strings.ContainsAny(value, "/ ,") {
		return failure.Invalid("invalid insecure registry %q: give a host, host:port or CIDR", value)
	}
	r.insecureHosts[strings.ToLower(value)] = true
	return nil
}

// insecure reports whether host (with or without port) may be reached without a
// verified certificate. A host name is looked up only if CIDRs are configured.
func (c *Client) insecure(host string) bool {
	r := c.rules.Load()
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	name = strings.Trim(name, "[]")
	if strings.EqualFold(name, "localhost") || r.insecureHosts[strings.ToLower(host)] || r.insecureHosts[strings.ToLower(name)] {
		return true
	}
	addr, err := netip.ParseAddr(name)
	if err == nil {
		return addr.Unmap().IsLoopback() || r.inInsecureNets(addr)
	}
	if len(r.insecureNets) == 0 {
		return false
	}
	ips, err := net.LookupIP(name)
	if err != nil {
		return false // the connection itself will say what is wrong with the name
	}
	for _, ip := range ips {
		if a, ok := netip.AddrFromSlice(ip); ok && r.inInsecureNets(a) {
			return true
		}
	}
	return false
}

func (r *rules) inInsecureNets(addr netip.Addr) bool {
	for _, p := range r.insecureNets {
		if p.Contains(addr.Unmap()) {
			return true
		}
	}
	return false
}
