package network_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"

	api "github.com/moby/moby/api/types/network"

	"github.com/cleatlabs/cleat/internal/network"
	"github.com/cleatlabs/cleat/test/expect"
)

func TestFlushedRulesetComesBackByItself(t *testing.T) {
	h := newHost(t)
	s := h.open(h.config())
	a := h.attach(s, "8080:80/tcp", "8000:8000/tcp", "8001:8001/tcp")
	before := ruleset(t)
	for range 3 {
		h.nft("flush ruleset")
		expect.Eventually(t, "the ruleset is back", func() bool { return ruleset(t) == before })
	}
	h.listen(a.ns, "a", ":80")
	h.meets("after a flush", h.outside, "tcp4", hostAddr+":8080", "a sees "+outsideAddr)
	// Only our rules, not the table.
	h.nft("flush table inet " + tableOf(t, before))
	expect.Eventually(t, "the rules are back", func() bool { return ruleset(t) == before })
	// A reload, as a firewall's service does it: flush and its own rules in one.
	h.nft("flush ruleset; add table inet theirs; add chain inet theirs c")
	expect.Eventually(t, "ours beside theirs", func() bool { return strings.Contains(ruleset(t), before) })
	h.nft("delete table inet theirs")
}

func tableOf(t *testing.T, ruleset string) string {
	t.Helper()
	f := strings.Fields(ruleset)
	if len(f) < 3 {
		t.Fatalf("no table in %q", ruleset)
	}
	return f[2]
}

func TestForeignDropPolicyIsReported(t *testing.T) {
	h := newHost(t)
	cfg := h.config()
	s := h.open(cfg)
	if got := s.Warnings(); len(got) != 0 {
		t.Fatalf("warnings on a clean host: %q", got)
	}
	for _, c := range []struct{ name, script, text, allow string }{
		{"nftables", "add table inet fw; add chain inet fw guard { type filter hook forward priority 0; policy drop; }", `"inet fw"`,
			"nft insert rule inet fw guard iifname BR accept && nft insert rule inet fw guard oifname BR accept"},
		{"iptables-nft", "", `"ip filter"`, "iptables -I FORWARD -i BR -j ACCEPT && iptables -I FORWARD -o BR -j ACCEPT"},
		{"ufw", "add table ip filter; add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }; add chain ip filter ufw-before-forward", `"ip filter"`,
			"ufw route allow in on BR && ufw route allow out on BR"},
		{"firewalld", "add table inet firewalld; add chain inet firewalld filter_FORWARD { type filter hook forward priority 10; policy accept; }", `"inet firewalld"`,
			"--add-interface=BR"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.script != "" {
				h.nft(c.script)
			} else {
				h.run(h.home, "iptables-nft", "-P", "FORWARD", "DROP")
			}
			got := strings.Join(s.Warnings(), "\n")
			allow := strings.ReplaceAll(c.allow, "BR", cfg.Bridge)
			if !strings.Contains(got, c.text) || !strings.Contains(got, allow) || strings.Count(got, "\n") > 0 {
				t.Errorf("warnings %q, want one with %s and %q", got, c.text, allow)
			}
			// What it says works: the warning goes away.
			if strings.HasPrefix(allow, "nft") || strings.HasPrefix(allow, "iptables") {
				h.run(h.home, "sh", "-c", strings.ReplaceAll(allow, "iptables", "iptables-nft"))
				if got := s.Warnings(); len(got) != 0 {
					t.Errorf("after %q still %q", allow, got)
				}
			}
			for _, table := range []string{"inet fw", "ip filter", "inet firewalld"} {
				_ = exec.Command("nft", "delete", "table", table).Run()
				_ = exec.Command("sh", "-c", "nft delete table "+table).Run()
			}
		})
	}
}

// A firewall of IPv6 alone is somebody else's trouble where no network has IPv6.
func TestForeignDropPolicyOfIPv6(t *testing.T) {
	h := newHost(t)
	cfg := h.config()
	s := h.open(cfg)
	h.nft("add table ip6 fw; add chain ip6 fw guard { type filter hook forward priority 0; policy drop; }")
	h.run(h.home, "ip6tables-nft", "-P", "FORWARD", "DROP")
	defer exec.Command("sh", "-c", "nft delete table ip6 fw; nft delete table ip6 filter").Run()
	if got := s.Warnings(); len(got) != 0 {
		t.Errorf("without IPv6: %q", got)
	}
	rec := h.create(s, api.CreateRequest{Name: "dual", EnableIPv6: yes()})
	got := s.Warnings()
	text := strings.Join(got, "\n")
	for _, want := range []string{
		"nft insert rule ip6 fw guard iifname " + rec.Link + " accept && nft insert rule ip6 fw guard oifname " + rec.Link + " accept",
		"ip6tables -I FORWARD -i " + rec.Link + " -j ACCEPT && ip6tables -I FORWARD -o " + rec.Link + " -j ACCEPT",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("warnings %q, want %q", got, want)
		}
		h.run(h.home, "sh", "-c", strings.ReplaceAll(want, "ip6tables", "ip6tables-nft"))
	}
	if strings.Contains(text, cfg.Bridge) {
		t.Errorf("the default bridge has no IPv6: %q", got)
	}
	if got := s.Warnings(); len(got) != 0 {
		t.Errorf("after the commands: %q", got)
	}
}

func TestFirewallIntegrate(t *testing.T) {
	h := newHost(t)
	h.nft("add table inet fw; add chain inet fw guard { type filter hook forward priority 0; policy drop; }; add rule inet fw guard tcp dport 1 accept")
	h.run(h.home, "iptables-nft", "-P", "FORWARD", "DROP")
	defer exec.Command("sh", "-c", "nft delete table inet fw; nft delete table ip filter").Run()
	before := ruleset(t)
	cfg := h.config()

	cfg.FirewallIntegrate = false
	s := h.open(cfg)
	a := h.attach(s, "8080:80/tcp")
	h.listen(a.ns, "a", ":80")
	h.meets("without", h.outside, "tcp4", hostAddr+":8080", "no connection")
	must(t, s.Teardown())
	a.close()

	cfg.FirewallIntegrate = true
	s = h.open(cfg)
	b := h.attach(s, "8080:80/tcp")
	h.listen(b.ns, "b", ":80")
	h.listen(h.outside, "outside", ":80")
	h.meets("in", h.outside, "tcp4", hostAddr+":8080", "b sees "+outsideAddr)
	h.meets("out", b.ns, "tcp4", outsideAddr+":80", "outside sees "+hostAddr)
	if got := s.Warnings(); len(got) != 0 {
		t.Errorf("warnings %q", got)
	}
	h.run(h.home, "iptables-nft", "-S") // still can read its table
	// The foreign firewall reloads.
	h.nft("flush chain inet fw guard")
	expect.Eventually(t, "integrated again", func() bool { return strings.Count(ruleset(t), "comment \"cleat-") == 4 })
	h.meets("after a reload", h.outside, "tcp4", hostAddr+":8080", "b sees "+outsideAddr)
	h.nft("add rule inet fw guard tcp dport 1 accept")
	must(t, s.Teardown())
	if after := ruleset(t); after != before {
		t.Errorf("Teardown left\n%s\nwant\n%s", after, before)
	}
}

func TestTwoServicesDoNotMeet(t *testing.T) {
	h := newHost(t)
	one, two := h.config(), h.config()
	two.Bridge += "b"
	two.BIP = netip.MustParsePrefix("172.30.0.1/16")
	s1, s2 := h.open(one), h.open(two)
	a, b := h.attach(s1, "8080:80/tcp"), h.attach(s2, "8081:80/tcp")
	h.listen(a.ns, "a", ":80")
	h.listen(b.ns, "b", ":80")
	h.meets("first", h.outside, "tcp4", hostAddr+":8080", "a sees "+outsideAddr)
	h.meets("second", h.outside, "tcp4", hostAddr+":8081", "b sees "+outsideAddr)
	h.meets("container of the other, directly", a.ns, "tcp4", b.IP.String()+":80", "no connection")
	h.meets("container of the other, published", a.ns, "tcp4", hostAddr+":8081", "b sees 172.30.0.1")
	if _, err := h.tryAttach(s2, "8080:80/tcp"); err == nil {
		t.Error("both could publish 8080")
	}
	must(t, s1.Reconcile(context.Background(), nil))
	h.meets("second, after the first threw all out", h.outside, "tcp4", hostAddr+":8081", "b sees "+outsideAddr)
	must(t, s1.Teardown())
	h.meets("second, after the first was torn down", h.outside, "tcp4", hostAddr+":8081", "b sees "+outsideAddr)
}

func TestOneEngineForEachBridge(t *testing.T) {
	h := newHost(t)
	cfg := h.config()
	s := h.open(cfg)
	a := h.attach(s, "8080:80/tcp")
	h.listen(a.ns, "a", ":80")
	other := cfg
	other.StateFile += ".other"
	_, err := network.Open(context.Background(), other)
	wantError(t, err, errConflict, cfg.Bridge, fmt.Sprintf("(pid %d)", os.Getpid()), "--bridge")
	h.meets("the first one's container", h.outside, "tcp4", hostAddr+":8080", "a sees "+outsideAddr)
	must(t, s.Close())
	h.open(cfg)
}

func TestExistingBridgeIsUsedAndKept(t *testing.T) {
	h := newHost(t)
	cfg := h.config()
	cfg.BIP = netip.Prefix{}
	h.run(h.home, "ip", "link", "add", cfg.Bridge, "type", "bridge")
	h.run(h.home, "ip", "addr", "add", "198.51.100.1/24", "dev", cfg.Bridge)
	defer exec.Command("ip", "link", "del", cfg.Bridge).Run()
	s := h.open(cfg)
	a := h.attach(s, "8080:80/tcp")
	h.expect("address", a.IP.String()+" "+a.Gateway.String(), "198.51.100.2 198.51.100.1")
	h.listen(a.ns, "a", ":80")
	h.meets("published", h.outside, "tcp4", hostAddr+":8080", "a sees "+outsideAddr)
	must(t, s.Teardown())
	if out, err := exec.Command("ip", "-br", "addr", "show", cfg.Bridge).Output(); err != nil || !strings.Contains(string(out), "198.51.100.1/24") {
		t.Errorf("the bridge that was there is gone or changed (%v): %s", err, out)
	}
	cfg.BIP = netip.MustParsePrefix("198.51.100.9/24")
	_, err := network.Open(context.Background(), cfg)
	wantError(t, err, errInvalid, "198.51.100.1/24", "198.51.100.9/24", "--bip")
	h.run(h.home, "ip", "link", "add", "clt-dummy", "type", "veth", "peer", "name", "clt-dummy2")
	defer exec.Command("ip", "link", "del", "clt-dummy").Run()
	cfg.Bridge = "clt-dummy"
	_, err = network.Open(context.Background(), cfg)
	wantError(t, err, errInvalid, "clt-dummy", "not a bridge", "--bridge")
}

func TestSubnetAvoidsTheHostsRoutes(t *testing.T) {
	h := newHost(t)
	cfg := h.config()
	cfg.BIP = netip.Prefix{}
	for _, route := range []string{"172.17.0.0/16", "172.18.5.0/24", "172.16.0.0/14"} {
		h.run(h.home, "ip", "route", "add", route, "dev", "uplink")
	}
	s := h.open(cfg)
	// 172.16.0.0/14 covers up to 172.19.
	h.expect("gateway", h.attach(s).Gateway.String(), "172.20.0.1")
	must(t, s.Teardown())
	// The choice is remembered, though 172.17 is free now.
	for _, route := range []string{"172.17.0.0/16", "172.18.5.0/24", "172.16.0.0/14"} {
		h.run(h.home, "ip", "route", "del", route, "dev", "uplink")
	}
	s = h.open(cfg)
	h.expect("gateway after a restart", h.attach(s).Gateway.String(), "172.20.0.1")
	must(t, s.Teardown())

	h.run(h.home, "ip", "route", "add", "10.8.0.0/16", "dev", "uplink")
	cfg.BIP = netip.MustParsePrefix("10.8.3.1/24")
	_, err := network.Open(context.Background(), cfg)
	wantError(t, err, errInvalid, "10.8.3.0/24", "10.8.0.0/16 dev uplink", "--bip")
	if out, _ := exec.Command("ip", "link", "show", cfg.Bridge).Output(); len(out) != 0 {
		t.Errorf("a refused Open left %s", out)
	}
}

func TestBadConfig(t *testing.T) {
	for _, c := range []struct {
		change func(*network.Config)
		text   string
	}{
		{func(c *network.Config) { c.Bridge = "a/b" }, "a/b"},
		{func(c *network.Config) { c.Bridge = "sixteen-letters-" }, "sixteen-letters-"},
		{func(c *network.Config) { c.Bridge = "made%d" }, "made%d"},
		{func(c *network.Config) {
			c.AddressPools = []network.AddressPool{{Base: netip.MustParsePrefix("::ffff:10.0.0.0/104"), Size: 120}}
		}, "::ffff:10.0.0.0/104"},
		{func(c *network.Config) { c.BIP = netip.MustParsePrefix("10.0.0.0/24") }, "10.0.0.0/24"},
		{func(c *network.Config) { c.BIP = netip.MustParsePrefix("10.0.0.1/31") }, "10.0.0.1/31"},
		{func(c *network.Config) { c.BIP = netip.MustParsePrefix("fd00::1/64") }, "fd00::1/64"},
		{func(c *network.Config) { c.MTU = 5 }, "MTU 5"},
		{func(c *network.Config) { c.DNS = []string{"x"} }, `"x"`},
		{func(c *network.Config) { c.StateFile = "" }, "state file"},
	} {
		cfg := network.Config{StateFile: t.TempDir() + "/state", Bridge: "clt-bad"}
		c.change(&cfg)
		_, err := network.Open(context.Background(), cfg)
		wantError(t, err, errInvalid, c.text)
	}
}

func TestForwardingIsTurnedOnAndReported(t *testing.T) {
	h := newHost(t)
	const knob = "/proc/sys/net/ipv4/ip_forward"
	must(t, os.WriteFile(knob, []byte("0"), 0))
	cfg := h.config()
	s := h.open(cfg)
	got, err := os.ReadFile(knob)
	must(t, err)
	h.expect("ip_forward", strings.TrimSpace(string(got)), "1")
	if w := strings.Join(s.Warnings(), "\n"); !strings.Contains(w, "IP forwarding was off") {
		t.Errorf("warnings %q do not report it", w)
	}
	must(t, s.Close())
	if w := h.open(cfg).Warnings(); len(w) != 0 {
		t.Errorf("the next engine found it on and still warns: %q", w)
	}
}

// Sandboxes that the engine keeps are left alone even if they could not be adopted.
func TestReconcileKeepsWhatWasNotAdopted(t *testing.T) {
	h := newHost(t)
	cfg := h.config()
	boxes, kill := h.engine(job{Config: cfg, Attach: []network.Request{request(1, ports("80/tcp", "8080"))}})
	kill()
	h.listen(boxes[0].ns, "a", ":80")
	s := h.open(cfg)
	must(t, s.Reconcile(context.Background(), []*network.Sandbox{boxes[0].Sandbox}))
	h.meets("kept", h.outside, "tcp4", hostAddr+":8080", "a sees "+outsideAddr)
}
