package network

import (
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cleatlabs/cleat/internal/netlink"
	"github.com/cleatlabs/cleat/test/expect"
)

// An address that another one on the link has never comes up, as the kernel says: no container is held up for it.
func TestADuplicateAddressIsNotWaitedFor(t *testing.T) {
	u := ownUplink(t)
	ends := [2]*inside{u.namespace(t), u.namespace(t)}
	ip := netip.MustParseAddr("fd00:9:8::2")
	err := ends[0].conn.Do(netlink.NewVeth(netlink.Veth{Name: "link", Peer: "link", PeerNS: ends[1].ns}))
	var index [2]int
	for i, end := range ends {
		if err == nil {
			err = end.do(func() error { return os.WriteFile("/proc/sys/net/ipv6/conf/link/disable_ipv6", []byte("0"), 0) })
		}
		var link netlink.Link
		if err == nil {
			link, err = end.conn.LinkByName("link")
			index[i] = link.Index
		}
		if err == nil {
			err = end.conn.Do(netlink.NewAddr(link.Index, netip.PrefixFrom(ip, 64)), netlink.SetUp(link.Index))
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	loser := -1
	expect.Eventually(t, "one has found the other", func() bool {
		for i, end := range ends {
			if hasFailed(t, end) {
				loser = i
			}
		}
		return loser >= 0
	})
	begun := time.Now()
	if err := awaitAddress(ends[loser].conn, index[loser], ip); err != nil {
		t.Fatal(err)
	}
	if waited := time.Since(begun); waited > 5*time.Second {
		t.Errorf("waited for %v", waited)
	}
}

// hasFailed says whether a namespace has an address that another one on its link has.
func hasFailed(t *testing.T, in *inside) bool {
	t.Helper()
	const dadFailed = 0x08 // IFA_F_DADFAILED
	var list []byte
	if err := in.do(func() (err error) { list, err = os.ReadFile("/proc/thread-self/net/if_inet6"); return err }); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(list)) {
		if flags, err := strconv.ParseUint(strings.Fields(line)[4], 16, 32); err == nil && flags&dadFailed != 0 {
			return true
		}
	}
	return false
}
