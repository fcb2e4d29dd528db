package network_test

import (
	"context"
	"fmt"
	"os/exec"
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

// expectFlat fails if the last laps cost more than the first: in bytes more than a tenth,
// and in processor time several times as much. Laps are to be long enough that it does not
// matter whose the work is that goes on in the background at their ends.
func expectFlat(t *testing.T, what string, laps []cost) {
	t.Helper()
	first, last := laps[0], laps[len(laps)-1]
	t.Logf("%s: at first %+v, at last %+v", what, first, last)
	if last.bytes > first.bytes*11/10 {
		t.Errorf("%s: %d bytes of netlink at first and %d at last", what, first.bytes, last.bytes)
	}
	if last.cpu > 4*first.cpu {
		t.Errorf("%s: %d µs of the processor at first and %d at last", what, first.cpu, last.cpu)
	}
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
	h.expect("neighbour", h.dial(boxes[len(boxes)-2].ns, "tcp4", last.IP.String()+":80"), "last sees "+boxes[len(boxes)-2].IP.String())
	h.expect("stranger", h.dial(boxes[0].ns, "tcp4", last.IP.String()+":80"), "no connection")
	h.expect("published", h.dial(h.outside, "tcp4", hostAddr+":"+last.hostPort("80/tcp")), "last sees "+outsideAddr)
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
