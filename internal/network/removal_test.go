package network_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	api "github.com/moby/moby/api/types/network"
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/netlink"
	"github.com/cleatlabs/cleat/internal/network"
)

// Whoever makes the network again that was just removed does not meet what the kernel still has of it: the subnet and
// the bridge's name are free.
func TestNetworkIsMadeAgainAtOnce(t *testing.T) {
	h := newHost(t)
	s := h.open(h.config())
	again := api.CreateRequest{Name: "again", IPAM: subnets("10.77.1.0/24"), Options: map[string]string{"com.docker.network.bridge.name": "again0"}}
	for range 5 {
		rec := h.create(s, again)
		if !rec.LinkMade {
			t.Fatal("the network uses the bridge of the one before")
		}
		a, b := h.join(s, on("a", "again")), h.join(s, on("b", "again"))
		h.listen(a.ns, "a", ":80")
		h.meets("neighbour", b.ns, "tcp4", a.IP.String()+":80", "a sees "+b.IP.String())
		h.detach(s, a)
		h.detach(s, b)
		_, err := s.Remove(context.Background(), "again")
		must(t, err)
	}
	// Also without a name of its own, and where the engine chooses the subnet.
	first := h.create(s, api.CreateRequest{Name: "first"})
	_, err := s.Remove(context.Background(), "first")
	must(t, err)
	if second := h.create(s, api.CreateRequest{Name: "second"}); second.Subnets[0].Prefix != first.Subnets[0].Prefix {
		t.Errorf("the subnet %s of a network that was removed is not free: %s", first.Subnets[0].Prefix, second.Subnets[0].Prefix)
	}
}

// A network that is removed is not there any more for anybody, and the bridge goes: at the latest with the engine.
func TestRemovedBridgeGoesWithTheEngine(t *testing.T) {
	h := newHost(t)
	cfg := h.config()
	s := h.open(cfg)
	var links []string
	for _, name := range []string{"one", "two", "three"} {
		links = append(links, h.create(s, api.CreateRequest{Name: name}).Link)
		_, err := s.Remove(context.Background(), name)
		must(t, err)
	}
	must(t, s.Close())
	conn, err := netlink.Dial(unix.NETLINK_ROUTE)
	must(t, err)
	defer conn.Close()
	for _, link := range links {
		if _, err := conn.LinkByName(link); err == nil {
			t.Errorf("%s is still there", link)
		}
	}
	if notes := notes(t, cfg); len(notes) > 0 {
		t.Errorf("notes are left: %v", notes)
	}
	h.open(cfg)
}

func notes(t *testing.T, cfg network.Config) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(filepath.Dir(cfg.StateFile), "networks", "*.gone"))
	must(t, err)
	return found
}

// The bridge that a killed engine was about to delete is deleted by the next one, unless somebody has taken its name.
func TestNextEngineDeletesTheBridge(t *testing.T) {
	h := newHost(t)
	cfg := h.config()
	s := h.open(cfg)
	gone := h.create(s, api.CreateRequest{Name: "gone"})
	taken := h.create(s, api.CreateRequest{Name: "taken"})
	must(t, s.Close())
	conn, err := netlink.Dial(unix.NETLINK_ROUTE)
	must(t, err)
	defer conn.Close()
	dir := filepath.Join(filepath.Dir(cfg.StateFile), "networks")
	for _, r := range []*network.Record{gone, taken} {
		must(t, os.Rename(filepath.Join(dir, r.ID+".json"), filepath.Join(dir, r.ID+".gone")))
	}
	must(t, conn.Do(netlink.SetDownNamed(gone.Link)))
	said, err := network.Check(cfg, nil)
	must(t, err)
	if text := strings.Join(said, "\n"); !strings.Contains(text, gone.Link) {
		t.Errorf("fsck does not name the bridge %s: %s", gone.Link, text)
	}
	h.open(cfg)
	if _, err := conn.LinkByName(gone.Link); err == nil {
		t.Errorf("%s is still there", gone.Link)
	}
	if _, err := conn.LinkByName(taken.Link); err != nil {
		t.Errorf("%s, which is up, was deleted: %v", taken.Link, err)
	}
	must(t, conn.Do(netlink.DeleteLink(taken.Link)))
	if notes := notes(t, cfg); len(notes) > 0 {
		t.Errorf("notes are left: %v", notes)
	}
}

// Who waits for a bridge to go may give up.
func TestAwaitedRemovalCanBeGivenUp(t *testing.T) {
	h := newHost(t)
	s := h.open(h.config())
	named := api.CreateRequest{Name: "named", Options: map[string]string{"com.docker.network.bridge.name": "named0"}}
	h.create(s, named)
	_, err := s.Remove(context.Background(), "named")
	must(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), time.Nanosecond)
	defer cancel()
	if rec, _, err := s.Create(ctx, named); err == nil {
		t.Errorf("made as %s by one who had given up", rec.Link)
	}
	h.create(s, named)
}
