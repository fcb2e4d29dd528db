package network

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/moby/moby/api/types/network"
	"golang.org/x/sys/unix"
)

// absent are sentences about published ports on addresses that no interface has, for as long as none has them.
func (s *Service) absent() []string {
	containers := map[netip.Addr][]string{}
	s.mu.Lock()
	for _, a := range s.attachments {
		if a.ports == nil {
			continue
		}
		for _, b := range a.ports.ports {
			if names := containers[b.host]; !b.host.IsUnspecified() && !b.host.IsLoopback() && !slices.Contains(names, a.sandbox.Name) {
				containers[b.host] = append(names, a.sandbox.Name)
			}
		}
	}
	s.mu.Unlock()
	var out []string
	for host, names := range containers {
		if isAbsent(host) {
			for _, name := range names {
				out = append(out, fmt.Sprintf("container %s publishes ports on %s, which no interface of this host has: nobody reaches them until one has it", name, host))
			}
		}
	}
	slices.Sort(out)
	return out
}

// isAbsent says whether nothing can be bound to an address as it is none of this host's.
func isAbsent(host netip.Addr) bool {
	domain := unix.AF_INET
	if host.Is6() {
		domain = unix.AF_INET6
	}
	fd, err := reservingSocket(network.UDP, domain, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	return errors.Is(unix.Bind(fd, sockaddr(host, 0)), unix.EADDRNOTAVAIL)
}
