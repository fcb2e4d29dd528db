package network

import (
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/dns"
	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/kernel"
)

// Where resolver settings are looked for, and what stands in when none are usable
// inside a container.
const (
	resolvConf         = "/etc/resolv.conf"
	resolvedUpstream   = "/run/systemd/resolve/resolv.conf"
	resolvedStub       = "127.0.0.53"
	hostGatewayKeyword = "host-gateway"
)

func fallbackNameservers() []string { return []string{"8.8.8.8", "8.8.4.4"} }

// writeFiles writes resolv.conf, hosts and hostname into the request's directory.
// They are not synced: a start writes them anew.
func (s *Service) writeFiles(req *Request, sb *Sandbox) error {
	if req.FilesDir == "" {
		return nil
	}
	hosts, err := s.hostsFile(req, sb)
	if err != nil {
		return err
	}
	resolv, err := s.resolvFile(req, sb)
	if err != nil {
		return err
	}
	for _, f := range []struct{ name, content string }{
		{"hosts", hosts}, {"resolv.conf", resolv}, {"hostname", req.Hostname + "\n"},
	} {
		if err := writeFile(filepath.Join(req.FilesDir, f.name), f.content); err != nil {
			return fmt.Errorf("container %s: %w", req.ContainerID, err)
		}
	}
	return nil
}

// writeFile replaces a file's content in place. It does not truncate first, as
// os.WriteFile does: ext4 takes that for a careless replacement and flushes it to
// the disk, which costs a restart ten times what all three files do.
func writeFile(path, content string) error {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CREAT|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	for left := content; left != "" && err == nil; {
		n := 0
		if n, err = unix.Write(fd, []byte(left)); err == nil {
			left = left[n:]
		}
	}
	var st unix.Stat_t
	if err == nil {
		err = unix.Fstat(fd, &st)
	}
	if err == nil && st.Mode&0o7777 != 0o644 {
		err = unix.Fchmod(fd, 0o644) // whatever the engine's umask is: a container's users read it
	}
	if err == nil && st.Size > int64(len(content)) {
		err = unix.Ftruncate(fd, int64(len(content)))
	}
	if cerr := unix.Close(fd); err == nil {
		err = cerr
	}
	if err != nil {
		return &os.PathError{Op: "write", Path: path, Err: err}
	}
	return nil
}

// hostsFile is Docker's: loopback names, then the extra ones, then the container's
// own. In host mode it starts with the host's file.
func (s *Service) hostsFile(req *Request, sb *Sandbox) (string, error) {
	var b strings.Builder
	if req.Mode == ModeHost {
		host, err := os.ReadFile(s.cfg.HostsFile)
		if err != nil && !os.IsNotExist(err) {
			return "", err
		}
		b.Write(host)
		if n := len(host); n > 0 && host[n-1] != '\n' {
			b.WriteByte('\n')
		}
	} else {
		b.WriteString("127.0.0.1\tlocalhost\n")
	}
	if req.Mode != ModeHost && !req.NoIPv6 {
		b.WriteString("::1\tlocalhost ip6-localhost ip6-loopback\n" +
			"fe00::\tip6-localnet\n" +
			"ff00::\tip6-mcastprefix\n" +
			"ff02::1\tip6-allnodes\n" +
			"ff02::2\tip6-allrouters\n")
	}
	for _, extra := range req.ExtraHosts {
		name, addr, err := s.extraHost(extra)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&b, "%s\t%s\n", addr, name)
	}
	for _, l := range req.Links {
		fmt.Fprintf(&b, "%s\t%s\n", l.Addr, strings.Join(l.Names, " "))
	}
	for _, e := range sb.Endpoints {
		b.WriteString(ownLines(e, req.Hostname, req.Domainname))
	}
	return b.String(), nil
}

// ownLines are the lines of a container's hosts file for itself on one network.
func ownLines(e *Endpoint, hostname, domainname string) string {
	if hostname == "" {
		return ""
	}
	names := hostname
	if domainname != "" {
		names = hostname + "." + domainname + " " + hostname
	}
	if bare, _, full := strings.Cut(hostname, "."); full && bare != "" {
		names += " " + bare
	}
	var b strings.Builder
	for _, ip := range []netip.Addr{e.IP, e.IP6} {
		if ip.IsValid() {
			fmt.Fprintf(&b, "%s\t%s\n", ip, names)
		}
	}
	return b.String()
}

// editHosts adds lines to a container's hosts file and takes others out of it. The file
// is edited in place, since the container has it mounted, and has perhaps written to it.
func (s *Service) editHosts(dir, add, drop string) error {
	if dir == "" || add == drop {
		return nil
	}
	path := filepath.Join(dir, "hosts")
	text, err := readMounted(path)
	if err != nil {
		return err
	}
	lines := strings.SplitAfter(string(text), "\n")
	for line := range strings.Lines(drop) {
		if i := slices.Index(lines, line); i >= 0 {
			lines = slices.Delete(lines, i, i+1)
		}
	}
	kept := strings.Join(lines, "")
	if kept != "" && !strings.HasSuffix(kept, "\n") {
		kept += "\n"
	}
	return writeFile(path, kept+add)
}

// mostMounted is how large a file of the engine's may become, in bytes, that a container has mounted and can write to: it
// makes one of any size of nothing.
const mostMounted = 1 << 20

// readMounted reads such a file.
func readMounted(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, mostMounted+1))
	if err == nil && len(text) > mostMounted {
		err = failure.Conflict("/etc/%s, to which the container has written, is larger than %d bytes: restart the container, which gets another one", filepath.Base(path), mostMounted)
	}
	return text, err
}

// extraHost reads "name:address" or "name=address"; an IPv6 address may stand in
// brackets.
func (s *Service) extraHost(entry string) (name string, addr netip.Addr, err error) {
	i := strings.IndexAny(entry, ":=")
	if i <= 0 {
		return "", addr, failure.Invalid("invalid extra host %q: want NAME:ADDRESS", entry)
	}
	name, value := entry[:i], entry[i+1:]
	if strings.ContainsAny(name, " \t\r\n#") {
		return "", addr, failure.Invalid("invalid extra host %q: a host name has no blanks or '#'", entry)
	}
	if value == hostGatewayKeyword {
		return name, s.HostGateway(), nil
	}
	addr, err = netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(value, "["), "]"))
	if err != nil {
		return "", addr, failure.Invalid("invalid extra host %q: %q is neither an IP address nor %q", entry, value, hostGatewayKeyword)
	}
	return name, addr, nil
}

// HostGateway is the address by which containers reach the host.
func (s *Service) HostGateway() netip.Addr {
	if s.cfg.HostGateway.IsValid() {
		return s.cfg.HostGateway
	}
	return s.bridge.rec.Subnets[0].Gateway
}

// resolvFile is the host's, with what the request or the engine asks for in place of
// each part. Nameservers that cannot be reached from a container (but in host mode) are left out: those on the host's
// loopback, by a link of the host, and by IPv6 where the container has none.
func (s *Service) resolvFile(req *Request, sb *Sandbox) (string, error) {
	for _, d := range req.DNS {
		if _, err := netip.ParseAddr(d); err != nil {
			return "", failure.Invalid("invalid DNS server %q: want an IP address", d)
		}
	}
	text, err := s.resolverText(req.Mode)
	if err != nil && !os.IsNotExist(err) {
		return "", err
	}
	servers := cmpOr(req.DNS, s.cfg.DNS)
	search := cmpOr(req.DNSSearch, s.cfg.DNSSearch)
	options := cmpOr(req.DNSOptions, s.cfg.DNSOptions)
	if req.Mode == ModeHost && len(servers)+len(search)+len(options) == 0 {
		return string(text), nil
	}
	r := dns.ParseConf(string(text))
	if len(servers) > 0 {
		r.Servers = servers
	} else if req.Mode != ModeHost {
		six := slices.ContainsFunc(sb.Endpoints, func(e *Endpoint) bool { return e.IP6.IsValid() })
		r.Servers = slices.DeleteFunc(r.Servers, func(server string) bool { return !reachedInside(server, six) })
		if len(r.Servers) == 0 {
			r.Servers = fallbackNameservers()
		}
	}
	if len(search) > 0 {
		r.Search = search
	}
	if len(options) > 0 {
		r.Options = options
	}
	if sb.hasNames() {
		useNames(&r)
	}
	return r.String(), nil
}

func cmpOr(a, b []string) []string {
	if len(a) > 0 {
		return a
	}
	return b
}

// resolverPath is the file with the host's own settings.
func (s *Service) resolverPath() string {
	if s.cfg.ResolvConf != "" {
		return s.cfg.ResolvConf
	}
	return resolvConf
}

// resolverText is what that file says, or systemd-resolved's upstream file where it
// names only its stub, which a container cannot reach.
func (s *Service) resolverText(mode string) ([]byte, error) {
	text, err := kernel.ReadFile(s.resolverPath())
	if err != nil || s.cfg.ResolvConf != "" || mode == ModeHost {
		return text, err
	}
	r := dns.ParseConf(string(text))
	if len(r.Servers) == 1 && r.Servers[0] == resolvedStub {
		if upstream, err := kernel.ReadFile(resolvedUpstream); err == nil {
			return upstream, nil
		}
	}
	return text, nil
}

// reachedInside says whether a name server of the host can be one of a container, with IPv6 or without.
func reachedInside(server string, six bool) bool {
	addr, err := netip.ParseAddr(server)
	return err == nil && addr.Zone() == "" && !addr.Unmap().IsLoopback() && (six || addr.Unmap().Is4())
}
