package cli

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/fvbommel/sortorder"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
	"github.com/spf13/pflag"
)

func (a *app) port() spec {
	return spec{
		use: "port CONTAINER [PRIVATE_PORT[/PROTO]]", short: "List port mappings or a specific mapping for the container",
		args: a.rangeArgs(1, 2), shownAs: []string{"container port", "port"},
		setup: func(*pflag.FlagSet) action {
			return func(ctx context.Context, args []string) error {
				c, err := a.api()
				if err != nil {
					return err
				}
				info, err := c.ContainerInspect(ctx, args[0], client.ContainerInspectOptions{})
				if err != nil {
					return err
				}
				ports := network.PortMap{}
				if s := info.Container.NetworkSettings; s != nil {
					ports = s.Ports
				}
				lines, err := portLines(ports, args)
				for _, l := range lines {
					_, _ = fmt.Fprintln(a.out, l)
				}
				return err
			}
		},
	}
}

// portLines is what port prints for CONTAINER [PORT]: where all ports are published, or
// the one. An empty PORT is none.
func portLines(ports network.PortMap, args []string) ([]string, error) {
	var lines []string
	if len(args) == 1 || args[1] == "" {
		for port, bindings := range ports {
			for _, b := range bindings {
				lines = append(lines, port.String()+" -> "+hostAddress(b))
			}
		}
		slices.SortFunc(lines, sortorder.NaturalCompare)
		return lines, nil
	}
	number, proto, _ := strings.Cut(args[1], "/")
	if proto == "" {
		proto = string(network.TCP)
	}
	if _, err := strconv.ParseUint(number, 10, 16); err != nil {
		return nil, fmt.Errorf("invalid port (%s): %w", number, err)
	}
	port, err := network.ParsePort(number + "/" + proto)
	if err != nil {
		return nil, fmt.Errorf("invalid port (%s): %w", args[1], err)
	}
	for _, b := range ports[port] {
		lines = append(lines, hostAddress(b))
	}
	if len(lines) == 0 {
		return nil, fmt.Errorf("no public port '%s' published for %s", args[1], args[0])
	}
	slices.SortFunc(lines, sortorder.NaturalCompare)
	return lines, nil
}

func hostAddress(b network.PortBinding) string {
	host := ""
	if b.HostIP.IsValid() {
		host = b.HostIP.String()
	}
	return net.JoinHostPort(host, b.HostPort)
}
