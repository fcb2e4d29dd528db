package network

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"

	"github.com/moby/moby/api/types/network"
	"golang.org/x/sys/unix"
)

// renamed lists the addresses of an endpoint that neighbours may know by another hardware
// address, from the container that had them before: they would go on sending there until
// they ask anew, which takes up to a minute. As a rule there are none: a hardware address
// follows from the IPv4 address. There are where one was asked for, and where the IPv6
// addresses of a network were not given out in step with those of IPv4. The caller holds
// s.mu.
func (n *netw) renamed(e *Endpoint) []netip.Addr {
	if len(e.MAC) == 0 {
		return nil // all of the network have their parent's
	}
	var all []netip.Addr
	for _, ip := range []netip.Addr{e.IP, e.IP6} {
		if !ip.IsValid() {
			continue
		}
		last, known := n.macs[ip]
		if !known && (ip == e.IP || !e.IP.IsValid()) {
			last = macOf(e) // an earlier engine's container had that, if there was one
		}
		if !bytes.Equal(last, e.MAC) {
			all = append(all, ip)
		}
	}
	return all
}

// remember keeps what hardware address went with an endpoint's addresses. The caller holds
// s.mu.
func (n *netw) remember(e *Endpoint) {
	for _, ip := range []netip.Addr{e.IP, e.IP6} {
		if !ip.IsValid() || len(e.MAC) == 0 {
			continue
		}
		if n.macs == nil {
			n.macs = map[netip.Addr]network.HardwareAddr{}
		}
		n.macs[ip] = e.MAC
	}
}

// announce tells the neighbours of an endpoint which addresses it has, where that is needed.
func (s *Service) announce(in *inside, index int, e *Endpoint) error {
	s.mu.Lock()
	var all []netip.Addr
	if n := s.networks[e.NetworkID]; n != nil {
		all = n.renamed(e)
	}
	s.mu.Unlock()
	if len(all) == 0 {
		return nil
	}
	return in.do(func() error {
		for _, ip := range all {
			tell := announce4
			if ip.Is6() {
				tell = announce6
			}
			if err := tell(index, ip, net.HardwareAddr(e.MAC)); err != nil {
				return fmt.Errorf("announce address %s in the container's namespace: %w", ip, err)
			}
		}
		return nil
	})
}

// announce4 sends an ARP announcement (RFC 5227, section 2.3), on a thread in the namespace.
func announce4(index int, ip netip.Addr, mac net.HardwareAddr) error {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Sendto(fd, arpAnnouncement(ip, mac), 0, &unix.SockaddrLinklayer{
		Protocol: bigEndian(unix.ETH_P_ARP), Ifindex: index, Halen: 6, Addr: [8]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
	})
}

// bigEndian is a number as the network has it.
func bigEndian(n uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, n))
}

// arpAnnouncement is a request of the address's owner for its own address.
func arpAnnouncement(ip netip.Addr, mac net.HardwareAddr) []byte {
	a := ip.As4()
	p := []byte{0, 1, 8, 0, 6, 4, 0, 1} // Ethernet, IPv4, their sizes, request
	p = append(append(p, mac...), a[:]...)
	return append(append(p, 0, 0, 0, 0, 0, 0), a[:]...)
}

// announce6 sends an unsolicited neighbour advertisement (RFC 4861, section 7.2.6), on a
// thread in the namespace. The kernel adds the checksum.
func announce6(index int, ip netip.Addr, mac net.HardwareAddr) error {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMPV6)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	const hops = 255 // so that the receivers know that it comes from their own link
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, hops); err != nil {
		return err
	}
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_IF, index); err != nil {
		return err
	}
	// On a busy machine the address may not be up yet (see awaitAddress).
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_FREEBIND, 1); err != nil {
		return err
	}
	if err := unix.Bind(fd, &unix.SockaddrInet6{Addr: ip.As16(), ZoneId: uint32(index)}); err != nil {
		return err
	}
	allNodes := netip.IPv6LinkLocalAllNodes()
	return unix.Sendto(fd, neighborAdvertisement(ip, mac), 0, &unix.SockaddrInet6{Addr: allNodes.As16(), ZoneId: uint32(index)})
}

func neighborAdvertisement(ip netip.Addr, mac net.HardwareAddr) []byte {
	const (
		advertisement = 136
		override      = 0x20
		targetOption  = 2
	)
	a := ip.As16()
	p := append([]byte{advertisement, 0, 0, 0, override, 0, 0, 0}, a[:]...)
	return append(append(p, targetOption, 1), mac...) // of 1 × 8 bytes
}
