package nft_test

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/nft"
	"github.com/cleatlabs/cleat/test/expect"
)

// inNewNS runs the test's body on a thread with a network namespace of its own, so
// that neither the host's ruleset nor another test can be met. The thread ends with
// the test's goroutine, and the namespace with it.
func inNewNS(t *testing.T) {
	t.Helper()
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
}

func nftList(t *testing.T, table string) string {
	t.Helper()
	out, err := exec.Command("nft", "list", "table", "inet", table).CombinedOutput()
	if err != nil {
		t.Fatalf("nft list: %v: %s", err, out)
	}
	return string(out)
}

func open(t *testing.T, name string) *nft.Table {
	t.Helper()
	tab, err := nft.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tab.Close() })
	return tab
}

// asserted is the table cleat-clt0, put into the kernel.
func asserted(t *testing.T) *nft.Table {
	t.Helper()
	tab := open(t, "cleat-clt0")
	if err := tab.Assert(); err != nil {
		t.Fatal(err)
	}
	return tab
}

func apply(t *testing.T, tab *nft.Table, c nft.Change) {
	t.Helper()
	if err := tab.Apply(c); err != nil {
		t.Fatal(err)
	}
}

var bridge = nft.Network{Bridge: "clt0", ICC: true, Subnets: []nft.Subnet{{Prefix: netip.MustParsePrefix("172.17.0.0/16"), Masquerade: true}}}

// dual is a network with everything that a network can have.
var dual = nft.Network{
	Bridge: "clt2", ICC: true, Trusted: []string{"uplink"}, Subnets: []nft.Subnet{
		{Prefix: netip.MustParsePrefix("172.16.0.0/16"), Access: nft.Routed},
		{Prefix: netip.MustParsePrefix("fd00:c1ea:7::/64"), Masquerade: true},
		{Prefix: netip.MustParsePrefix("fd00:c1ea:7:1::/64"), Access: nft.Unprotected},
	},
}

func ports6() []nft.Publish {
	c := netip.MustParseAddr("fd00:c1ea:7::2")
	return []nft.Publish{
		{Proto: nft.TCP, First: 8080, Last: 8080, To: c, ToPort: 80},
		{HostIP: netip.MustParseAddr("2001:db8::2"), Proto: nft.UDP, First: 443, Last: 443, To: c, ToPort: 8443},
		{HostIP: netip.IPv6Unspecified(), Proto: nft.TCP, First: 8000, Last: 8079, To: c, ToPort: 8000},
		{Proto: nft.TCP, First: 80, Last: 80, To: netip.MustParseAddr("172.16.0.2"), ToPort: 80, Open: true},
		{Proto: nft.UDP, First: 53, Last: 53, To: c, ToPort: 53, Open: true},
		{Proto: nft.UDP, First: 53, Last: 53, Served: true},
		{Proto: nft.TCP, First: 9000, Last: 9079, Served: true},
		{HostIP: netip.MustParseAddr("2001:db8::2"), Proto: nft.TCP, First: 443, Last: 443, Served: true},
	}
}

func ports() []nft.Publish {
	c := netip.MustParseAddr("172.17.0.2")
	return []nft.Publish{
		{Proto: nft.TCP, First: 8080, Last: 8080, To: c, ToPort: 80},
		{Proto: nft.UDP, First: 53, Last: 53, To: c, ToPort: 53},
		{Proto: nft.SCTP, First: 3868, Last: 3868, To: c, ToPort: 3868},
		{HostIP: netip.MustParseAddr("192.0.2.2"), Proto: nft.TCP, First: 443, Last: 443, To: c, ToPort: 8443},
		{Proto: nft.TCP, First: 8000, Last: 8079, To: c, ToPort: 8000},
		{HostIP: netip.MustParseAddr("127.0.0.1"), Proto: nft.UDP, First: 5000, Last: 5999, To: c, ToPort: 5000},
	}
}

// TestTableIsWhatItsTextSays holds three forms of the table against each other: its
// own text (a golden file), what the nft program makes of the kernel's rules, and
// what it makes of that text.
func TestTableIsWhatItsTextSays(t *testing.T) {
	steps := []struct {
		name   string
		change nft.Change
	}{
		{"empty", nft.Change{}},
		{"network", nft.Change{AddNetworks: []nft.Network{bridge}}},
		{"published", nft.Change{Add: ports()}},
		{"second-network", nft.Change{AddNetworks: []nft.Network{{Bridge: "clt1", Internal: true, Subnets: []nft.Subnet{{Prefix: netip.MustParsePrefix("172.18.0.0/16")}}}}}},
		{"dual-stack", nft.Change{AddNetworks: []nft.Network{dual}, Add: ports6()}},
		{"some-freed", nft.Change{Del: append(ports()[3:5], ports6()[2])}},
		{"network-removed", nft.Change{DelNetworks: []nft.Network{dual}, Del: ports6()}},
	}
	inNewNS(t)
	tab := asserted(t)
	for _, s := range steps {
		if err := tab.Apply(s.change); err != nil {
			t.Fatalf("%s: %v", s.name, err)
		}
		text := tab.String()
		expect.Golden(t, "testdata/"+s.name+".nft", text)
		listed := nftList(t, tab.Name())
		if loaded := loadText(t, text, tab.Name()); listed != loaded {
			t.Errorf("%s: the kernel holds\n%s\nwhile the text means\n%s", s.name, listed, loaded)
		}
	}
}

func TestMarkedPacketsAreAccepted(t *testing.T) {
	inNewNS(t)
	for _, mark := range []nft.Mark{{Value: 0x10, Mask: 0x30}, {Value: 7, Mask: math.MaxUint32}} {
		tab := open(t, "cleat-clt0")
		tab.Accept(mark)
		if err := tab.Assert(); err != nil {
			t.Fatal(err)
		}
		if listed, loaded := nftList(t, tab.Name()), loadText(t, tab.String(), tab.Name()); listed != loaded || strings.Count(listed, "meta mark") != 2 {
			t.Errorf("the kernel holds\n%s\nwhile the text means\n%s", listed, loaded)
		}
	}
}

// loadText has the nft program load a script into a namespace of its own.
func loadText(t *testing.T, text, table string) string {
	t.Helper()
	cmd := exec.Command("unshare", "-n", "sh", "-c", "nft -f - && nft list table inet "+table)
	cmd.Stdin = strings.NewReader(text)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("nft -f: %v: %s\n%s", err, stderr.String(), text)
	}
	return string(out)
}

func TestFlushedTableComesBackWhole(t *testing.T) {
	inNewNS(t)
	tab := asserted(t)
	apply(t, tab, nft.Change{AddNetworks: []nft.Network{bridge}, Add: ports()})
	before := nftList(t, tab.Name())
	nftRun(t, "flush ruleset")
	if err := tab.Assert(); err != nil {
		t.Fatal(err)
	}
	if after := nftList(t, tab.Name()); after != before {
		t.Errorf("before the flush\n%s\nafter\n%s", before, after)
	}
	// A change finds out by itself, too.
	nftRun(t, "flush ruleset")
	apply(t, tab, nft.Change{Del: ports()[:1]})
	apply(t, tab, nft.Change{Add: ports()[:1]})
	if after := nftList(t, tab.Name()); after != before {
		t.Errorf("before the second flush\n%s\nafter\n%s", before, after)
	}
}

func TestAdminChainSurvivesAssert(t *testing.T) {
	inNewNS(t)
	tab := asserted(t)
	nftRun(t, "add rule inet cleat-clt0 admin ip saddr 192.0.2.7 drop")
	if err := tab.Assert(); err != nil {
		t.Fatal(err)
	}
	if got := nftList(t, tab.Name()); strings.Count(got, "ip saddr 192.0.2.7 drop") != 1 {
		t.Errorf("the administrator's rule is not there once:\n%s", got)
	}
}

func TestOpenTakesOverWhatTheKernelHas(t *testing.T) {
	inNewNS(t)
	first := asserted(t)
	apply(t, first, nft.Change{AddNetworks: []nft.Network{bridge, dual}, Add: append(ports(), ports6()...)})
	second := open(t, "cleat-clt0")
	if got, want := second.String(), first.String(); got != want {
		t.Errorf("taken over\n%s\nwant\n%s", got, want)
	}
	if got := len(second.Published()); got != len(ports())+len(ports6()) {
		t.Errorf("%d published ports, want %d", got, len(ports())+len(ports6()))
	}
	if err := second.Delete(); err != nil {
		t.Fatal(err)
	}
	if err := second.Delete(); err != nil {
		t.Errorf("deleting twice: %v", err)
	}
	if out, err := exec.Command("nft", "list", "ruleset").Output(); err != nil || len(out) != 0 {
		t.Errorf("left behind (%v):\n%s", err, out)
	}
}

func TestApplyIsAllOrNothing(t *testing.T) {
	inNewNS(t)
	tab := asserted(t)
	apply(t, tab, nft.Change{AddNetworks: []nft.Network{bridge}, Add: ports()})
	before := nftList(t, tab.Name())
	clash := ports()[0]
	clash.To = netip.MustParseAddr("172.17.0.9")
	fresh := nft.Publish{Proto: nft.TCP, First: 9, Last: 9, To: clash.To, ToPort: 9}
	err := tab.Apply(nft.Change{Add: []nft.Publish{fresh, clash}})
	if !errors.Is(err, unix.EEXIST) {
		t.Errorf("the same port for two containers: %v, want EEXIST", err)
	}
	if after := nftList(t, tab.Name()); after != before {
		t.Errorf("a refused change left\n%s\nwant\n%s", after, before)
	}
}

func TestManySinglePortsInOneTransaction(t *testing.T) {
	inNewNS(t)
	tab := asserted(t)
	var add []nft.Publish
	for p := uint16(20000); p < 24000; p++ {
		add = append(add, nft.Publish{Proto: nft.UDP, First: p, Last: p, To: netip.MustParseAddr("172.17.0.2"), ToPort: p - 1000})
	}
	apply(t, tab, nft.Change{Add: add})
	if got := len(open(t, "cleat-clt0").Published()); got != len(add) {
		t.Errorf("%d elements in the kernel, want %d", got, len(add))
	}
	apply(t, tab, nft.Change{Del: add})
	if got := len(open(t, "cleat-clt0").Published()); got != 0 {
		t.Errorf("%d elements left", got)
	}
}

func TestWhatCannotBePublishedIsRefused(t *testing.T) {
	inNewNS(t)
	tab := open(t, "cleat-clt0")
	c := netip.MustParseAddr("172.17.0.2")
	for _, p := range []nft.Publish{
		{Proto: 33, First: 1, Last: 1, To: c, ToPort: 1},
		{Proto: nft.TCP, First: 0, Last: 1, To: c, ToPort: 1},
		{Proto: nft.TCP, First: 2, Last: 1, To: c, ToPort: 2},
		{Proto: nft.TCP, First: 1, Last: 2, To: c, ToPort: 3},
		{Proto: nft.TCP, First: 1, Last: 1, To: netip.MustParseAddr("::ffff:192.0.2.1"), ToPort: 1},
		{HostIP: netip.MustParseAddr("::1"), Proto: nft.TCP, First: 1, Last: 1, To: c, ToPort: 1},
		{HostIP: netip.MustParseAddr("192.0.2.1"), Proto: nft.TCP, First: 1, Last: 1, To: netip.MustParseAddr("fd00::1"), ToPort: 1},
		{Proto: nft.TCP, First: 1, Last: 2, To: c, ToPort: 1, Open: true},
		{Proto: nft.TCP, First: 1, Last: 1, To: c, ToPort: 2, Open: true},
	} {
		if err := tab.Apply(nft.Change{Add: []nft.Publish{p}}); err == nil {
			t.Errorf("%+v was accepted", p)
		}
	}
}

func nftRun(t *testing.T, script string) {
	t.Helper()
	if out, err := exec.Command("nft", script).CombinedOutput(); err != nil {
		t.Fatalf("nft %s: %v: %s", script, err, out)
	}
}

func BenchmarkPublishAndFree(b *testing.B) {
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		b.Fatal(err)
	}
	for _, others := range []int{0, 1000} {
		for _, last := range []uint16{8080, 9079} {
			b.Run(fmt.Sprintf("others=%d/ports=%d", others, last-8080+1), func(b *testing.B) {
				tab, err := nft.Open(fmt.Sprintf("cleat-b%d-%d", others, last))
				if err != nil {
					b.Fatal(err)
				}
				defer tab.Close()
				defer tab.Delete()
				if err := tab.Assert(); err != nil {
					b.Fatal(err)
				}
				c := netip.MustParseAddr("172.17.0.2")
				for i := range others {
					p := uint16(20000 + i)
					if err := tab.Apply(nft.Change{Add: []nft.Publish{{Proto: nft.TCP, First: p, Last: p, To: c, ToPort: 80}}}); err != nil {
						b.Fatal(err)
					}
				}
				one := []nft.Publish{{Proto: nft.TCP, First: 8080, Last: last, To: c, ToPort: 8080}}
				for b.Loop() {
					if err := tab.Apply(nft.Change{Add: one}); err != nil {
						b.Fatal(err)
					}
					if err := tab.Apply(nft.Change{Del: one}); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
