package network_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/network"
	"github.com/cleatlabs/cleat/test/expect"
)

// Many containers come and go at once, some with ports that others want, while the
// ruleset is flushed and the service reconciles: nothing is lost, nothing left.
func TestManyAtOnce(t *testing.T) {
	h := newHost(t)
	s := h.open(h.config())
	ctx := context.Background()
	stay := h.attach(s, "9999:80/tcp")
	h.listen(stay.ns, "stay", ":80")
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range 25 {
				req := request(1000*w+i, ports("80/tcp", fmt.Sprint(8000+w), "81/tcp", "8100-8105", "53/udp", ""))
				req.FilesDir = t.TempDir()
				sb, ns, err := s.Attach(ctx, req)
				if err != nil {
					if !strings.Contains(err.Error(), "all ports of 8100-8105 are taken") {
						t.Error(err)
					}
					continue
				}
				if err := s.Detach(ctx, sb); err != nil {
					t.Error(err)
				}
				unix.Close(ns)
			}
		})
	}
	wg.Go(func() {
		for range 5 {
			if out, err := exec.Command("nft", "flush ruleset").CombinedOutput(); err != nil {
				t.Errorf("flush: %v %s", err, out)
			}
			s.Warnings()
			if _, err := s.Inspect(ctx, "bridge"); err != nil {
				t.Error(err)
			}
		}
	})
	wg.Wait()
	must(t, s.Reconcile(ctx, []*network.Sandbox{stay.Sandbox}))
	expect.Eventually(t, "only the container that stays has elements", func() bool {
		text := ruleset(t)
		return strings.Count(text, " : 172.29.") == 1 && strings.Contains(text, "9999 : "+stay.IP.String())
	})
	h.meets("the one that stays", h.outside, "tcp4", hostAddr+":9999", "stay sees "+outsideAddr)
	in, err := s.Inspect(ctx, "bridge")
	must(t, err)
	if len(in.Containers) != 1 {
		t.Errorf("%d endpoints left", len(in.Containers))
	}
}

// A caller that goes away while Attach works gets nothing, and nothing stays.
func TestCancelledAttachLeavesNothing(t *testing.T) {
	h := newHost(t)
	s := h.open(h.config())
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, _, err := s.Attach(ctx, request(1, ports("80/tcp", "8080"))); err == nil {
		t.Fatal("a cancelled Attach succeeded")
	}
	h.attach(s, "8080:80/tcp")
}

// A directory that is not there makes Attach fail late, after the ports were taken.
func TestLateFailureLeavesNothing(t *testing.T) {
	h := newHost(t)
	s := h.open(h.config())
	before := ruleset(t)
	req := request(1, ports("80/tcp", "8080", "53/udp", "53"))
	req.FilesDir = "/nonexistent"
	if _, _, err := s.Attach(context.Background(), req); err == nil || !strings.Contains(err.Error(), "/nonexistent") {
		t.Errorf("error %v, want one with the directory", err)
	}
	if after := ruleset(t); after != before {
		t.Errorf("left in the ruleset:\n%s", after)
	}
	h.expect("next address", h.attach(s, "8080:80/tcp", "53:53/udp").IP.String(), "172.29.0.2")
}

// A process that is just being started has copies of the engine's sockets until its exec: a port that is let go of
// meanwhile goes to the next one all the same.
func TestAPortIsTakenAgainWhileAProcessStarts(t *testing.T) {
	h := newHost(t)
	s := h.open(h.config())
	h.attach(s, "80:80/tcp")
	for _, protocol := range []string{"tcp", "udp"} {
		took, err := h.takeAgain(s, protocol)
		// A port is waited for for 200 ms, within which a busy machine may not come to close the copies.
		for end := time.Now().Add(patience); err != nil && took > 100*time.Millisecond && time.Now().Before(end); {
			took, err = h.takeAgain(s, protocol)
		}
		must(t, err)
	}
}

// takeAgain lets go of a port and takes it again while there are copies of its sockets, and says for how long there
// were.
func (h *host) takeAgain(s *network.Service, protocol string) (took time.Duration, err error) {
	t := h.t
	box, ns, err := s.Attach(context.Background(), request(7, ports("80/"+protocol, "8080")))
	must(t, err)
	unix.Close(ns)
	copies := copiesOf(t, 8080)
	if len(copies) == 0 {
		t.Fatal("no socket holds the port")
	}
	began := time.Now()
	must(t, s.Detach(context.Background(), box))
	var wg sync.WaitGroup
	wg.Go(func() {
		time.Sleep(20 * time.Millisecond) // as long as the start of a process may take
		for _, fd := range copies {
			unix.Close(fd)
		}
		took = time.Since(began)
	})
	box, ns, err = s.Attach(context.Background(), request(8, ports("80/"+protocol, "8080")))
	wg.Wait()
	if err != nil {
		return took, err
	}
	unix.Close(ns)
	return took, s.Detach(context.Background(), box)
}

// copiesOf are copies of this process's sockets that are bound to a port.
func copiesOf(t testing.TB, port int) (fds []int) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	for _, e := range entries {
		fd, _ := strconv.Atoi(e.Name())
		name, err := unix.Getsockname(fd)
		if err != nil {
			continue
		}
		four, _ := name.(*unix.SockaddrInet4)
		six, _ := name.(*unix.SockaddrInet6)
		if four != nil && four.Port == port || six != nil && six.Port == port {
			fd, err := unix.Dup(fd)
			must(t, err)
			fds = append(fds, fd)
		}
	}
	return fds
}
