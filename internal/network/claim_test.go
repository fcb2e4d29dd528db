package network_test

import (
	"context"
	"fmt"
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

// The name by which a bridge is claimed is anybody's to take: that keeps no engine from starting, which says who has it,
// and no network from being made.
func TestBridgeClaimedByNoEngine(t *testing.T) {
	h := newHost(t)
	cfg := h.config()
	holder := hold(t, network.ClaimName(cfg.Bridge))
	listens := hold(t, network.ClaimName("claimed1"))
	hold(t, network.Connected+network.ClaimName("claimed2"))
	s := h.open(cfg)
	for _, bridge := range []string{"claimed1", "claimed2"} {
		h.create(s, api.CreateRequest{Name: "on-" + bridge, Options: map[string]string{"com.docker.network.bridge.name": bridge}})
	}
	h.join(s, on("a", "bridge", "on-claimed1", "on-claimed2"))
	told := strings.Join(s.Warnings(), "\n")
	for _, want := range []string{
		fmt.Sprintf("a process of user 65534 (pid %d) has taken the name by which engines keep each other off bridge %s", holder.Pid, cfg.Bridge),
		fmt.Sprintf("a process of user 65534 (pid %d) has taken the name by which engines keep each other off bridge claimed1", listens.Pid),
		"a process of user 65534 has taken the name by which engines keep each other off bridge claimed2",
	} {
		if !strings.Contains(told, want) {
			t.Errorf("%q is not in the warnings:\n%s", want, told)
		}
	}
}

// Who looks whether an engine has a bridge uses up nothing of it, however often.
func TestBridgeIsClaimedForGood(t *testing.T) {
	h := newHost(t)
	cfg, other := h.config(), h.config()
	h.open(cfg)
	for range 100 {
		if s, err := network.Open(context.Background(), other); err == nil {
			_ = s.Close()
			t.Fatal("two engines have one bridge")
		} else {
			wantError(t, err, errdefs.ErrConflict, "is in use by another engine")
		}
	}
}
