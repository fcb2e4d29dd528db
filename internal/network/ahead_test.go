package network_test

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	api "github.com/moby/moby/api/types/network"

	"github.com/cleatlabs/cleat/internal/network"
	"github.com/cleatlabs/cleat/test/expect"
)

// portsOf are the links that are plugged into a bridge.
func portsOf(t *testing.T, bridge string) []string {
	t.Helper()
	out, err := exec.Command("ip", "-br", "link", "show", "master", bridge).Output()
	must(t, err)
	return strings.Split(strings.TrimSpace(string(out)), "\n")
}

// A network that containers come to again and again has a link plugged in ahead. It goes
// with the network, belongs to the next container, and is no container's to fsck.
func TestLinksThatArePluggedInAhead(t *testing.T) {
	h := newHost(t)
	s := h.open(h.config())
	bridgeOf := func(name string) string { return "br-" + name }
	for i := range 6 {
		name := fmt.Sprintf("n%d", i)
		h.create(s, api.CreateRequest{Name: name, Options: map[string]string{"com.docker.network.bridge.name": bridgeOf(name)}})
	}
	a, b := h.join(s, on("a", "n0")), h.join(s, on("b", "n0"))
	expect.Eventually(t, "a third link is plugged in", func() bool { return len(portsOf(t, bridgeOf("n0"))) == 3 })
	c := h.join(s, on("c", "n0"))
	if links := strings.Join(portsOf(t, bridgeOf("n0")), "\n"); !strings.Contains(links, c.Link) {
		t.Errorf("the third container's link %s is not among %s", c.Link, links)
	}
	h.listen(c.ns, "c", ":80")
	h.meets("by its link", a.ns, "tcp4", c.IP.String()+":80", "c sees "+a.IP.String())
	if odd := s.Check([]*network.Sandbox{a.Sandbox, b.Sandbox, c.Sandbox}); len(odd) > 0 {
		t.Errorf("fsck: %q", odd)
	}
	// Another container comes once to each of five more networks: the first is forgotten.
	for i := 1; i < 6; i++ {
		h.join(s, on(fmt.Sprintf("d%d", i), fmt.Sprintf("n%d", i)))
	}
	expect.Eventually(t, "what was plugged in ahead is gone", func() bool { return len(portsOf(t, bridgeOf("n0"))) == 3 })

	h.join(s, on("e", "n5"))
	expect.Eventually(t, "another one is plugged in", func() bool { return len(portsOf(t, bridgeOf("n5"))) == 3 })
	h.run(h.home, "ip", "link", "del", bridgeOf("n5"))
	expect.Eventually(t, "the bridge is made again with its containers", func() bool {
		out, _ := exec.Command("ip", "-br", "link", "show", "master", bridgeOf("n5")).Output()
		return strings.Count(string(out), "\n") >= 2
	})
	f := h.join(s, on("f", "n5"))
	h.listen(f.ns, "f", ":80")
	g := h.join(s, on("g", "n5"))
	h.meets("on the bridge that was made again", g.ns, "tcp4", f.IP.String()+":80", "f sees "+g.IP.String())

	for _, x := range []*box{a, b, c} {
		h.detach(s, x)
		x.close()
	}
	_, err := s.Remove(context.Background(), "n0")
	must(t, err)
}
