package network_test

import (
	"context"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	api "github.com/moby/moby/api/types/network"
)

// Two hundred networks with five containers each: the last costs what the first did, and
// nothing is left of them.
func TestManyNetworks(t *testing.T) {
	const networks, each = 200, 5
	h := newHost(t)
	s := h.open(h.config())
	rules := ruleset(t)
	ctx := context.Background()
	var made, attached, removed []time.Duration
	var boxes []*box
	for i := range networks {
		start := time.Now()
		h.create(s, api.CreateRequest{Name: fmt.Sprintf("n%d", i)})
		made = append(made, time.Since(start))
		for range each {
			req := on(fmt.Sprintf("c%d", len(boxes)), fmt.Sprintf("n%d", i))
			req.Ports = ports("80/tcp", "")
			start = time.Now()
			b := h.join(s, req)
			attached = append(attached, time.Since(start))
			boxes = append(boxes, b)
		}
	}
	// Two that are far apart do not meet; two on the last do.
	last := boxes[len(boxes)-1]
	h.listen(last.ns, "last", ":80")
	h.expect("neighbour", h.dial(boxes[len(boxes)-2].ns, "tcp4", last.IP.String()+":80"), "last sees "+boxes[len(boxes)-2].IP.String())
	h.expect("stranger", h.dial(boxes[0].ns, "tcp4", last.IP.String()+":80"), "no connection")
	h.expect("published", h.dial(h.outside, "tcp4", hostAddr+":"+last.hostPort("80/tcp")), "last sees "+outsideAddr)
	for _, b := range boxes {
		h.detach(s, b)
	}
	for i := range networks {
		start := time.Now()
		_, err := s.Remove(ctx, fmt.Sprintf("n%d", i))
		must(t, err)
		removed = append(removed, time.Since(start))
	}
	if got := ruleset(t); got != rules {
		t.Errorf("rules are left:\n%s", got)
	}
	eventually(t, "no links are left", func() bool {
		out, err := exec.Command("ip", "-br", "link").Output()
		return err == nil && !strings.Contains(string(out), "br-")
	})
	for what, ds := range map[string][]time.Duration{"create": made, "attach": attached, "remove": removed} {
		n := len(ds) / 10
		first, last := median(ds[:n]), median(ds[len(ds)-n:])
		t.Logf("%s: the first tenth %s, the last %s", what, first, last)
		// Far above what noise of the machine does, far below what a cost that grows
		// with the number would.
		if last > 10*first+10*time.Millisecond {
			t.Errorf("%s costs %s at first and %s at last", what, first, last)
		}
	}
}

func median(ds []time.Duration) time.Duration {
	ds = slices.Sorted(slices.Values(ds))
	return ds[len(ds)/2]
}
