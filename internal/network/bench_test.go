package network_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	api "github.com/moby/moby/api/types/network"
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/network"
)

// BenchmarkAttach is connecting a container, netns and files included, and in a
// metric of its own disconnecting it.
func BenchmarkAttach(b *testing.B) {
	for _, c := range []struct {
		name   string
		ports  int
		others int
	}{{"no ports", 0, 0}, {"one port", 1, 0}, {"one port, 200 others", 1, 200}, {"1000 ports", 1000, 0}} {
		b.Run(c.name, func(b *testing.B) {
			h := newHost(b)
			s := h.open(h.config())
			for range c.others {
				h.attach(s, ":80/tcp")
			}
			dir := b.TempDir()
			req := network.Request{ContainerID: fmt.Sprintf("%064x", 1<<40), Name: "bench", Hostname: "bench", FilesDir: dir, Ports: api.PortMap{}}
			for i := range c.ports {
				p, _ := api.PortFrom(uint16(8000+i), api.TCP)
				req.Ports[p] = []api.PortBinding{{HostPort: fmt.Sprint(8000 + i)}}
			}
			for b.Loop() {
				sb, ns, err := s.Attach(context.Background(), req)
				if err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				unix.Close(ns)
				if err := s.Detach(context.Background(), sb); err != nil {
					b.Fatal(err)
				}
				// A container lives for a while; without this, the cost of its end and of
				// the next spare namespace would be counted.
				time.Sleep(20 * time.Millisecond)
				b.StartTimer()
			}
		})
	}
}

func BenchmarkDetach(b *testing.B) {
	h := newHost(b)
	s := h.open(h.config())
	req := network.Request{ContainerID: fmt.Sprintf("%064x", 1<<40), Name: "bench", Ports: api.PortMap{api.MustParsePort("80/tcp"): {{HostPort: "8000"}}}}
	for b.Loop() {
		b.StopTimer()
		sb, ns, err := s.Attach(context.Background(), req)
		if err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		if err := s.Detach(context.Background(), sb); err != nil {
			b.Fatal(err)
		}
		unix.Close(ns)
	}
}
