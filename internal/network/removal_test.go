package network_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	api "github.com/moby/moby/api/types/network"
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/netlink"
	"github.com/cleatlabs/cleat/internal/network"
	"github.com/cleatlabs/cleat/test/expect"
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

// Whoever asks for the name of a network while that is still being removed gets it: nobody finds the old one any more.
func TestNetworkIsMadeAgainWhileItIsRemoved(t *testing.T) {
	h := newHost(t)
	s := h.open(h.config())
	again := api.CreateRequest{Name: "again", IPAM: subnets("10.77.2.0/24")}
	first := h.create(s, again)
	finish := network.BeginRemoval(t, s, "again")
	if _, err := s.Find("again"); err == nil {
		t.Error("it is found")
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, _, err := s.Create(ctx, again); !errors.Is(err, context.Canceled) {
		t.Errorf("who waits no longer: %v", err)
	}
	made := make(chan error, 1)
	go func() {
		_, _, err := s.Create(context.Background(), again)
		made <- err
	}()
	must(t, finish())
	must(t, <-made)
	if rec, err := s.Find("again"); err != nil || rec.ID == first.ID {
		t.Errorf("%v, %v", rec, err)
	}
	_, _, err := s.Create(context.Background(), again)
	wantError(t, err, errConflict, "network with name again already exists")
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

// A network whose record cannot be done away with is not removed, and goes on to be of use.
func TestNetworkThatCannotBeRemoved(t *testing.T) {
	h := newHost(t)
	cfg := h.config()
	s := h.open(cfg)
	rec := h.create(s, api.CreateRequest{Name: "stays"})
	inTheWay := filepath.Join(filepath.Dir(cfg.StateFile), "networks", rec.ID+".gone", "x")
	must(t, os.MkdirAll(inTheWay, 0o700))
	if _, err := s.Remove(context.Background(), "stays"); err == nil {
		t.Fatal("removed")
	}
	req := on("a", "stays")
	req.Ports = ports("80/tcp", "8080")
	a, b := h.join(s, req), h.join(s, on("b", "stays"))
	h.listen(a.ns, "a", ":80")
	h.meets("neighbour", b.ns, "tcp4", a.IP.String()+":80", "a sees "+b.IP.String())
	h.meets("published port", h.outside, "tcp4", hostAddr+":8080", "a sees "+outsideAddr)
	h.listen(h.outside, "outside", outsideAddr+":81")
	h.meets("the world", a.ns, "tcp4", outsideAddr+":81", "outside sees "+hostAddr)
	h.detach(s, a)
	h.detach(s, b)
	must(t, os.RemoveAll(filepath.Dir(inTheWay)))
	_, err := s.Remove(context.Background(), "stays")
	must(t, err)
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

// A container that has left a network is kept off it while its link cannot be deleted. That is told of, and tried again
// until the link has gone.
func TestLinkThatCannotBeDeleted(t *testing.T) {
	h := newHost(t)
	s := h.open(h.config())
	h.create(s, api.CreateRequest{Name: "left"})
	req := on("a", "left")
	a, b := h.join(s, req), h.join(s, on("b", "left"))
	h.listen(a.ns, "a", ":80")
	h.meets("before", b.ns, "tcp4", a.IP.String()+":80", "a sees "+b.IP.String())
	var stuck atomic.Bool
	stuck.Store(true)
	s.FailLinkRemovals(func() error {
		if stuck.Load() {
			return errors.New("no buffers for " + a.Link)
		}
		return nil
	})
	_, err := s.Disconnect(context.Background(), req, a.NetworkID, a.ns, func(*network.Sandbox) error { return nil })
	if want := "no buffers for " + a.Link + "; it is tried again"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("disconnected: %v, not: %s", err, want)
	}
	if !exists(t, a.Link) {
		t.Fatal("the link was deleted all the same")
	}
	told := func() bool { return strings.Contains(strings.Join(s.Warnings(), "\n"), a.Link) }
	expect.Eventually(t, "warning", told)
	h.meets("disconnected", b.ns, "tcp4", a.IP.String()+":80", "no connection")
	stuck.Store(false)
	s.RetryLinkRemovals()
	expect.Eventually(t, "removal of the link", func() bool { return !exists(t, a.Link) })
	expect.Eventually(t, "end of the warning", func() bool { return !told() })
	expect.Eventually(t, "return of the address", func() bool { return s.Leaving() == 0 })
	h.expect("address of the next", h.join(s, on("c", "left")).IP.String(), a.IP.String())
}

// A link that can only be deleted from inside is down while it cannot be, and is tried again: whatever the container has
// made of the names meanwhile. With the container it goes by itself.
func TestInnerLinkThatCannotBeDeleted(t *testing.T) {
	h := newHost(t)
	if !hasKind(t, "macvlan") {
		t.Skip("the kernel has no macvlan links")
	}
	s := h.open(h.config())
	rec, _, err := s.Create(context.Background(), lanRequest("lan", "macvlan", "10.5.0.0/24", map[string]string{"parent": "uplink"}))
	must(t, err)
	var stuck atomic.Bool
	s.FailLinkRemovals(func() error {
		if stuck.Load() {
			return errors.New("no buffers")
		}
		return nil
	})
	told := func() bool { return strings.Contains(strings.Join(s.Warnings(), "\n"), "no buffers") }
	disconnect := func(n int) *box {
		b := h.onLAN(s, n)
		stuck.Store(true)
		req := network.Request{ContainerID: b.ContainerID, Name: b.Name, FilesDir: t.TempDir()}
		_, err := s.Disconnect(context.Background(), req, rec.ID, b.ns, func(*network.Sandbox) error { return nil })
		if err == nil || !strings.Contains(err.Error(), "no buffers; it is tried again") {
			t.Errorf("disconnected: %v", err)
		}
		h.in(b.ns, func() error {
			conn, err := netlink.Dial(unix.NETLINK_ROUTE)
			must(t, err)
			defer conn.Close()
			if link, err := conn.LinkByName("eth0"); err != nil || link.Up {
				t.Errorf("the link of the disconnected: %+v, %v", link, err)
			}
			return nil
		})
		expect.Eventually(t, "warning", told)
		return b
	}
	one := disconnect(1)
	h.run(one.ns, "ip", "link", "set", "eth0", "name", "mine")
	h.run(one.ns, "ip", "link", "add", "eth0", "type", "bridge")
	stuck.Store(false)
	s.RetryLinkRemovals()
	expect.Eventually(t, "end of the warning", func() bool { return !told() })
	h.in(one.ns, func() error {
		if exists(t, "mine") || !exists(t, "eth0") {
			t.Error("the container's own link is deleted instead")
		}
		return nil
	})
	two := disconnect(2)
	h.detach(s, two)
	expect.Eventually(t, "end of the warning with the container", func() bool { return !told() })
}

// A link that nobody uses and that the engine cannot delete when it starts is deleted later.
func TestStrayThatCannotBeDeleted(t *testing.T) {
	h := newHost(t)
	s := h.open(h.config())
	const stray = "cltstray"
	h.addPort(h.config().Bridge, stray, "02:00:00:00:00:01")
	t.Cleanup(func() { _ = exec.Command("ip", "link", "del", stray).Run() })
	var tries atomic.Int32
	s.FailLinkRemovals(func() error {
		if tries.Add(1) < 3 {
			return errors.New("no buffers")
		}
		return nil
	})
	if err := s.Reconcile(context.Background(), nil); err == nil || !strings.Contains(err.Error(), "no buffers; it is tried again") {
		t.Errorf("reconciled: %v", err)
	}
	expect.Eventually(t, "removal of the link", func() bool { return !exists(t, stray) })
}

func exists(t *testing.T, link string) bool {
	t.Helper()
	conn, err := netlink.Dial(unix.NETLINK_ROUTE)
	must(t, err)
	defer conn.Close()
	_, err = conn.LinkByName(link)
	if err != nil && !errors.Is(err, unix.ENODEV) {
		t.Fatal(err)
	}
	return err == nil
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
