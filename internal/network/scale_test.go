package network_test

import (
	"cmp"
	"context"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"

	api "github.com/moby/moby/api/types/network"
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/network"
	"github.com/cleatlabs/cleat/test/expect"
)

// cost is what operations took: bytes exchanged with the kernel, and time of the
// processor, in microseconds. Both are the whole process's: links made ahead or taken down
// behind an answer are in it, and so is the collection of garbage.
type cost struct{ bytes, cpu int64 }

// meter tells what was spent since it was last asked.
type meter struct {
	s     *network.Service
	spent cost
}

func newMeter(s *network.Service) *meter {
	m := &meter{s: s}
	m.lap()
	return m
}

func (m *meter) lap() cost {
	was := m.spent
	var r unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &r)
	m.spent = cost{m.s.Traffic(), (r.Utime.Sec+r.Stime.Sec)*1e6 + r.Utime.Usec + r.Stime.Usec}
	return cost{m.spent.bytes - was.bytes, m.spent.cpu - was.cpu}
}

// expectFlat fails if the later half of the laps cost more than the earlier. In bytes the median may be a tenth more: when
// messages of the kernel were lost, as happens on a busy machine, all links are looked at again. In processor
// time the last laps may not all cost several times what the first did, whichever of those did most: some of it is the
// neighbours' doing. Work that goes on in the background from one lap to the next is little beside half of them.
func expectFlat(t *testing.T, what string, laps []cost) {
	t.Helper()
	n := len(laps)
	early, late := medianBytes(laps[:n/2]), medianBytes(laps[(n+1)/2:])
	first, last := max(laps[0].cpu, laps[1].cpu), min(laps[n-1].cpu, laps[n-2].cpu)
	t.Logf("%s: %d and %d bytes, %d and %d µs", what, early, late, first, last)
	if late > early*11/10 {
		t.Errorf("%s: %d bytes of netlink for each of the first laps and %d of the later: %v", what, early, late, laps)
	}
	if last > 4*first {
		t.Errorf("%s: %d µs of the processor at first and %d at last", what, first, last)
	}
}

// medianBytes is what the one in the middle has cost.
func medianBytes(laps []cost) int64 {
	sorted := slices.SortedFunc(slices.Values(laps), func(a, b cost) int { return cmp.Compare(a.bytes, b.bytes) })
	return sorted[len(sorted)/2].bytes
}

// Two hundred networks with five containers each that publish five ports each: the last
// costs what the first did, and nothing is left of them.
func TestManyNetworks(t *testing.T) {
	const networks, lap, each = 200, 20, 5
	h := newHost(t)
	s := h.open(h.config())
	rules := ruleset(t)
	var boxes []*box
	var built, detached, removed []cost
	m := newMeter(s)
	for i := range networks {
		h.create(s, api.CreateRequest{Name: fmt.Sprintf("n%d", i)})
		for range each {
			req := on(fmt.Sprintf("c%d", len(boxes)), fmt.Sprintf("n%d", i))
			req.Ports = ports("80/tcp", "", "81/tcp", "", "82/tcp", "", "83/tcp", "", "84/tcp", "")
			boxes = append(boxes, h.join(s, req))
		}
		if i%lap == lap-1 {
			built = append(built, m.lap())
		}
	}
	// Two that are far apart do not meet; two on the last do.
	last := boxes[len(boxes)-1]
	h.listen(last.ns, "last", ":80")
	h.meets("neighbour", boxes[len(boxes)-2].ns, "tcp4", last.IP.String()+":80", "last sees "+boxes[len(boxes)-2].IP.String())
	h.meets("stranger", boxes[0].ns, "tcp4", last.IP.String()+":80", "no connection")
	h.meets("published", h.outside, "tcp4", hostAddr+":"+last.hostPort("80/tcp"), "last sees "+outsideAddr)
	m.lap()
	for i, b := range boxes {
		h.detach(s, b)
		if i%(lap*each) == lap*each-1 {
			detached = append(detached, m.lap())
		}
	}
	for i := range networks {
		_, err := s.Remove(context.Background(), fmt.Sprintf("n%d", i))
		must(t, err)
		if i%lap == lap-1 {
			h.expectBridges(networks - 1 - i)
			removed = append(removed, m.lap())
		}
	}
	if got := ruleset(t); got != rules {
		t.Errorf("rules are left:\n%s", got)
	}
	expectFlat(t, "create and attach", built)
	expectFlat(t, "detach", detached)
	expectFlat(t, "remove", removed)
}

// expectBridges waits until so many bridges of user-defined networks are left: they go
// behind the answer of a removal.
func (h *host) expectBridges(n int) {
	h.t.Helper()
	expect.Eventually(h.t, fmt.Sprintf("%d bridges are left", n), func() bool {
		out, err := exec.Command("ip", "-br", "link", "show", "type", "bridge").Output()
		return err == nil && strings.Count(string(out), "br-") == n
	})
}
