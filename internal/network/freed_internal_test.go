package network

import (
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/moby/moby/api/types/network"
)

// A port counts as let go of for a while only, whatever is said about its being taken; another one does not.
func TestFreedPorts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		taken := func(proto network.IPProtocol, num uint16) error {
			return fmt.Errorf("container web: %w", &errTaken{proto: proto, host: netip.IPv4Unspecified(), port: num})
		}
		var f freed
		f.add([]bound{{network.MustParsePort("80/tcp"), netip.IPv4Unspecified(), 8080}})
		time.Sleep(passing / 2)
		f.add([]bound{{network.MustParsePort("53/udp"), netip.IPv4Unspecified(), 5353}})
		for _, c := range []struct {
			err  error
			want bool
		}{{taken(network.TCP, 8080), true}, {taken(network.UDP, 8080), false}, {taken(network.UDP, 5353), true}, {fmt.Errorf("other"), false}, {nil, false}} {
			if got := f.has(c.err); got != c.want {
				t.Errorf("%v: %v", c.err, got)
			}
		}
		time.Sleep(passing/2 + 1)
		if f.has(taken(network.TCP, 8080)) || !f.has(taken(network.UDP, 5353)) {
			t.Error("not what is left after a while")
		}
	})
}
