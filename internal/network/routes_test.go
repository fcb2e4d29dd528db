package network_test

import (
	"context"
	"fmt"
	"testing"

	api "github.com/moby/moby/api/types/network"

	"github.com/cleatlabs/cleat/test/expect"
)

// What the host reaches is remembered from one network to the next: what is new is seen
// all the same, and who names a subnet has it judged by what is there now.
func TestNewRoutesAreSeenAtOnce(t *testing.T) {
	h := newHost(t)
	s := h.open(h.config())
	subnet := func(name string) string { return h.create(s, api.CreateRequest{Name: name}).Subnets[0].Prefix.String() }
	h.expect("the first", subnet("a"), "172.17.0.0/16")
	for i, route := range []string{"172.18.0.0/16", "172.19.4.0/24", "172.20.0.0/14"} {
		h.run(h.home, "ip", "route", "add", route, "dev", "uplink")
		h.expect("past "+route, subnet(fmt.Sprint("b", i)), []string{"172.19.0.0/16", "172.20.0.0/16", "172.24.0.0/16"}[i])
		_, err := s.Remove(context.Background(), fmt.Sprint("b", i))
		must(t, err)
	}
	h.run(h.home, "ip", "route", "del", "172.18.0.0/16", "dev", "uplink")
	h.create(s, api.CreateRequest{Name: "named", IPAM: subnets("172.18.0.0/16")})
	_, err := s.Remove(context.Background(), "named")
	must(t, err)
	h.run(h.home, "ip", "link", "set", "uplink", "down") // with the other routes, of which nobody is told
	expect.Eventually(t, "a subnet that was the host's is chosen", func() bool {
		got := subnet("later")
		_, err := s.Remove(context.Background(), "later")
		must(t, err)
		return got == "172.18.0.0/16"
	})
	h.expect("and what was behind it", subnet("c"), "172.18.0.0/16")
	h.expect("and what was behind that", subnet("d"), "172.19.0.0/16")
}
