package network

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/network"
)

// listener is a socket that waits for clients.
type listener struct {
	proto network.IPProtocol
	addr  netip.AddrPort
}

// readSockets lists the listening TCP and SCTP sockets and the unconnected UDP sockets of the
// namespace whose tables are in dir, such as "/proc/PID/net/".
func readSockets(dir string) ([]listener, error) {
	var all []listener
	for _, proto := range []network.IPProtocol{network.TCP, network.UDP} {
		for _, suffix := range []string{"", "6"} {
			f, err := os.Open(dir + string(proto) + suffix)
			if errors.Is(err, fs.ErrNotExist) && suffix != "" {
				continue // a kernel without IPv6
			}
			if err != nil {
				return nil, err
			}
			some, err := parseSockets(f, proto)
			f.Close()
			if err != nil {
				return nil, fmt.Errorf("%s: %w", f.Name(), err)
			}
			all = append(all, some...)
		}
	}
	f, err := os.Open(dir + "sctp/eps")
	if errors.Is(err, fs.ErrNotExist) {
		return all, nil // a kernel without SCTP
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	some, err := parseEndpoints(f)
	return append(all, some...), err
}

// parseEndpoints reads /proc/net/sctp/eps: in the fourth column is the state, in the sixth
// the port, from the ninth on the addresses.
func parseEndpoints(r io.Reader) ([]listener, error) {
	const listening = "10"
	var all []listener
	lines := bufio.NewScanner(r)
	for lines.Scan() && len(all) < mostListeners {
		f := strings.Fields(lines.Text())
		if len(f) < 9 || f[3] != listening {
			continue
		}
		port, err := strconv.ParseUint(f[5], 10, 16)
		if err != nil {
			continue
		}
		for _, a := range f[8:] {
			if addr, err := netip.ParseAddr(a); err == nil {
				all = append(all, listener{network.SCTP, netip.AddrPortFrom(addr.Unmap(), uint16(port))})
			}
		}
	}
	return all, lines.Err()
}

// mostListeners is where a list is cut: nobody has more to show.
const mostListeners = 10000

// parseSockets reads /proc/net/tcp and its like, line by line: a busy container has a
// hundred thousand connections.
func parseSockets(r io.Reader, proto network.IPProtocol) ([]listener, error) {
	const (
		tcpListen    = "0A"
		udpUnconnect = "07"
	)
	state := tcpListen
	if proto == network.UDP {
		state = udpUnconnect
	}
	var all []listener
	lines := bufio.NewScanner(r)
	for lines.Scan() && len(all) < mostListeners {
		f := strings.Fields(lines.Text())
		if len(f) < 4 || f[3] != state {
			continue
		}
		if addr, ok := parseSocketAddr(f[1]); ok {
			all = append(all, listener{proto, addr})
		}
	}
	return all, lines.Err()
}

// parseSocketAddr reads "0100007F:1F90": words of an address in the machine's byte
// order, which is little-endian on all machines that the engine runs on.
func parseSocketAddr(s string) (netip.AddrPort, bool) {
	host, port, ok := strings.Cut(s, ":")
	num, err := strconv.ParseUint(port, 16, 16)
	b, herr := hex.DecodeString(host)
	if !ok || err != nil || herr != nil || len(b) != 4 && len(b) != 16 {
		return netip.AddrPort{}, false
	}
	for word := range slices.Chunk(b, 4) {
		slices.Reverse(word)
	}
	addr, _ := netip.AddrFromSlice(b)
	return netip.AddrPortFrom(addr.Unmap(), uint16(num)), true
}

// listenedOn are the addresses on which a port of the container is listened on.
func listenedOn(all []listener, port network.Port) []netip.Addr {
	var out []netip.Addr
	for _, l := range all {
		if l.proto == port.Proto() && l.addr.Port() == port.Num() && !slices.Contains(out, l.addr.Addr()) {
			out = append(out, l.addr.Addr())
		}
	}
	return out
}

// listening names the ports that others can reach, each once, without our own name
// server's sockets.
func listening(all []listener) []string {
	var out []string
	for _, l := range all {
		if l.addr.Addr().IsLoopback() {
			continue
		}
		if name := fmt.Sprintf("%d/%s", l.addr.Port(), l.proto); !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}
