package network_test

import (
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

// cost is what an operation took: bytes exchanged with the kernel, and time of the
// processor, in microseconds. The latter is the whole process's, spares and collection
// of garbage included; how busy the machine is matters little to it.
type cost struct{ bytes, cpu int64 }

func (h *host) cost(s *network.Service, do func()) cost {
	before, at := s.Traffic(), cpuTime()
	do()
	return cost{s.Traffic() - before, cpuTime() - at}
}

func cpuTime() int64 {
	var r unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &r)
	return (r.Utime.Sec+r.Stime.Sec)*1e6 + r.Utime.Usec + r.Stime.Usec
}

// median of each figure.
func median(cs []cost) cost {
	one := func(of func(cost) int64) int64 {
		var vs []int64
		for _, c := range cs {
			vs = append(vs, of(c))
		}
		slices.Sort(vs)
		return vs[len(vs)/2]
	}
	return cost{one(func(c cost) int64 { return c.bytes }), one(func(c cost) int64 { return c.cpu })}
}

// expectFlat fails if the last tenth cost more than the first: in bytes more than a
// tenth, and in processor time several times as much.
func expectFlat(t *testing.T, what string, cs []cost) {
	t.Helper()
	n := max(1, len(cs)/10)
	first, last := median(cs[:n]), median(cs[len(cs)-n:])
	t.Logf("%s: the first tenth %+v, the last %+v", what, first, last)
	if last.bytes > first.bytes*11/10+256 {
		t.Errorf("%s: %d bytes of netlink at first and %d at last", what, first.bytes, last.bytes)
	}
	if last.cpu > 4*first.cpu+4000 {
		t.Errorf("%s: %d µs of the processor at first and %d at last", what, first.cpu, last.cpu)
	}
}

// Two hundred networks with five containers each that publish five ports each: the last
// costs what the first did, and nothing is left of them.
func TestManyNetworks(t *testing.T) {
	const networks, each = 200, 5
	h := newHost(t)
	s := h.open(h.config())
	rules := ruleset(t)
	ctx := context.Background()
	var made, attached, detached, removed []cost
	var boxes []*box
	for i := range networks {
		made = append(made, h.cost(s, func() { h.create(s, api.CreateRequest{Name: fmt.Sprintf("n%d", i)}) }))
		for range each {
			req := on(fmt.Sprintf("c%d", len(boxes)), fmt.Sprintf("n%d", i))
			req.Ports = ports("80/tcp", "", "81/tcp", "", "82/tcp", "", "83/tcp", "", "84/tcp", "")
			var b *box
			attached = append(attached, h.cost(s, func() { b = h.join(s, req) }))
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
		detached = append(detached, h.cost(s, func() { h.detach(s, b) }))
	}
	for i := range networks {
		removed = append(removed, h.cost(s, func() {
			_, err := s.Remove(ctx, fmt.Sprintf("n%d", i))
			must(t, err)
		}))
	}
	if got := ruleset(t); got != rules {
		t.Errorf("rules are left:\n%s", got)
	}
	expect.Eventually(t, "no links are left", func() bool {
		out, err := exec.Command("ip", "-br", "link").Output()
		return err == nil && !strings.Contains(string(out), "br-")
	})
	expectFlat(t, "create", made)
	expectFlat(t, "attach", attached)
	expectFlat(t, "detach", detached)
	expectFlat(t, "remove", removed)
}
