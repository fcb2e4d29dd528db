package engine

import (
	"fmt"
	"strings"

	"github.com/moby/moby/api/types/network"
)

// mostExposed bounds the ports of all entries together: all that TCP, UDP and SCTP have, and some said twice. Each range
// is a few bytes of hostile input, and may stand for 65,535 ports.
const mostExposed = 4 << 16

// ExposedPorts are the ports that entries like 80, 53/udp and 9001-9003/tcp stand for. Engines before Docker 29 take ranges,
// docker compose up to 2.40 sends them, and other builders than Docker's leave them in images.
func ExposedPorts(entries map[string]struct{}) (network.PortSet, error) {
	ports := make(network.PortSet, len(entries))
	told := 0
	for entry := range entries {
		number, _, _ := strings.Cut(entry, "/")
		if !strings.Contains(number, "-") {
			single, err := network.ParsePort(entry)
			if err != nil {
				return nil, err
			}
			ports[single] = struct{}{}
			continue
		}
		r, err := network.ParsePortRange(entry)
		if err != nil {
			return nil, err
		}
		if told += int(r.End()) - int(r.Start()) + 1; told > mostExposed {
			return nil, fmt.Errorf("the ranges of exposed ports stand for more than %d ports", mostExposed)
		}
		for port := range r.All() {
			ports[port] = struct{}{}
		}
	}
	return ports, nil
}
