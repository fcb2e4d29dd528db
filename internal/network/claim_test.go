package network_test

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	api "github.com/moby/moby/api/types/network"

	"github.com/cleatlabs/cleat/internal/network"
)

// A network whose bridge another engine has taken meanwhile keeps no engine from starting: it says at its use what is
// wrong, and its removal leaves the other's bridge alone.
func TestBridgeOfAnotherEngine(t *testing.T) {
	h := newHost(t)
	cfg, other := h.config(), h.config()
	other.Bridge, other.BIP = "other0", netip.Prefix{}
	// After the engines: the one that has it has not made it.
	t.Cleanup(func() { h.run(h.home, "ip", "link", "delete", "claimed0") })
	first, err := network.Open(context.Background(), cfg)
	must(t, err)
	t.Cleanup(func() { _ = first.Close() })
	named := map[string]string{"com.docker.network.bridge.name": "claimed0"}
	h.create(first, api.CreateRequest{Name: "named", IPAM: subnets("10.77.1.0/24"), Options: named})
	h.create(first, api.CreateRequest{Name: "plain"})
	kept := h.join(first, on("kept", "named"))
	must(t, first.Close())
	second := h.open(other)
	h.create(second, api.CreateRequest{Name: "taker", IPAM: subnets("10.77.1.0/24"), Options: named})

	s := h.open(cfg)
	if w := s.Warnings(); !slices.ContainsFunc(w, func(w string) bool {
		return strings.Contains(w, "network named cannot be used") && strings.Contains(w, `"claimed0" is in use by another engine (pid `)
	}) {
		t.Errorf("warnings: %q", w)
	}
	_, err = h.request(s, on("a", "named"))
	wantError(t, err, errdefs.ErrConflict, "network named cannot be used", `"claimed0" is in use by another engine`)
	h.join(s, on("b", "plain"))
	must(t, s.Adopt(context.Background(), kept.Sandbox, 0))
	h.detach(s, kept)
	_, err = s.Remove(context.Background(), "named")
	must(t, err)
	h.join(second, on("c", "taker"))
}
