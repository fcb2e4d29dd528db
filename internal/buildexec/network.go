package buildexec

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	resourcestypes "github.com/moby/buildkit/executor/resources/types"
	"github.com/moby/buildkit/solver/pb"
	bknetwork "github.com/moby/buildkit/util/network"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/netlink"
	"github.com/cleatlabs/cleat/internal/network"
)

// Networks is what steps need of the engine's networks.
type Networks interface {
	// Attach connects something to networks, and gives its network namespace.
	Attach(ctx context.Context, req network.Request) (*network.Sandbox, int, error)
	// Detach ends that.
	Detach(ctx context.Context, sb *network.Sandbox) error
	// ResolvConf is the resolver file that goes with a predefined network.
	ResolvConf(mode string) (string, error)
}

// place is a network namespace on the default bridge.
type place struct {
	sandbox *network.Sandbox
	ns      int
}

// bridgePool keeps namespaces for the steps that follow: to make and take down one takes the kernel longer than a short
// step runs. What a step leaves in a namespace, once its processes have ended, are connections that TCP is not done with:
// it may not configure it. One with such connections, or of a step that could have configured it, is not kept.
type bridgePool struct {
	networks Networks
	log      *slog.Logger

	mu     sync.Mutex
	idle   []*place
	timer  *time.Timer // of idle
	closed bool
}

const (
	// idlePlaces bounds what lies idle. More steps than processors seldom run at a time.
	idlePlaces = 8
	// idleTime is how long it lies: a build's next step comes sooner.
	idleTime = 2 * time.Second
)

func newBridgePool(n Networks, log *slog.Logger) *bridgePool {
	return &bridgePool{networks: n, log: log}
}

// take gives a namespace that nobody else has.
func (b *bridgePool) take(ctx context.Context) (*place, error) {
	b.mu.Lock()
	if n := len(b.idle); n > 0 {
		// The one that was used last: the others get old together.
		p := b.idle[n-1]
		b.idle = b.idle[:n-1]
		b.mu.Unlock()
		return p, nil
	}
	b.mu.Unlock()
	id := newID()
	sb, ns, err := b.networks.Attach(ctx, network.Request{
		ContainerID: "build-" + id, Name: "build-" + id[:12], Hostname: defaultHostname, Mode: network.ModeBridge, Unlisted: true,
	})
	if gone := context.Cause(ctx); err != nil && gone != nil {
		err = gone
	}
	if err != nil {
		return nil, fmt.Errorf("network of a build step: %w", err)
	}
	return &place{sandbox: sb, ns: ns}, nil
}

// give takes a namespace back, from a step that has ended. Only a clean one is kept.
func (b *bridgePool) give(p *place, clean bool) {
	clean = clean && !lingers(p.ns)
	b.mu.Lock()
	keep := clean && !b.closed && len(b.idle) < idlePlaces
	if keep {
		b.idle = append(b.idle, p)
		if b.timer == nil {
			b.timer = time.AfterFunc(idleTime, b.expire)
		} else {
			b.timer.Reset(idleTime)
		}
	}
	b.mu.Unlock()
	if !keep {
		b.discard(p)
	}
}

// lingers says whether a namespace without processes has connections of TCP all the same: for a minute after the end of
// one (TIME-WAIT) no server listens at its port that does not ask for that (SO_REUSEADDR). What cannot be read is taken
// for so.
func lingers(ns int) bool {
	home, err := netlink.CurrentNS()
	if err != nil {
		return true
	}
	defer unix.Close(home)
	var stat, stat6 []byte
	err = netlink.InNS(home, ns, func() (err error) {
		if stat, err = os.ReadFile("/proc/thread-self/net/sockstat"); err != nil {
			return err
		}
		stat6, err = os.ReadFile("/proc/thread-self/net/sockstat6")
		if errors.Is(err, os.ErrNotExist) { // a kernel without IPv6
			return nil
		}
		return err
	})
	return err != nil || !idle(stat) || !idle(stat6)
}

// idle reads "TCP: inuse 0 orphan 0 tw 0 …" and "TCP6: inuse 0"; "orphan" and what follows on "tw" are the machine's.
func idle(sockstat []byte) bool {
	for line := range strings.Lines(string(sockstat)) {
		f := strings.Fields(line)
		if len(f) == 0 || f[0] != "TCP:" && f[0] != "TCP6:" {
			continue
		}
		for i := 1; i+1 < len(f); i += 2 {
			if (f[i] == "inuse" || f[i] == "tw") && f[i+1] != "0" {
				return false
			}
		}
	}
	return true
}

// expire gives up what lies idle.
func (b *bridgePool) expire() {
	b.mu.Lock()
	old := b.idle
	b.idle = nil
	b.mu.Unlock()
	for _, p := range old {
		b.discard(p)
	}
}

func (b *bridgePool) discard(p *place) {
	err := errors.Join(b.networks.Detach(context.Background(), p.sandbox), unix.Close(p.ns))
	if err != nil {
		b.log.Warn("network of a build step", "error", err)
	}
}

func (b *bridgePool) close() {
	b.mu.Lock()
	b.closed = true
	if b.timer != nil {
		b.timer.Stop()
	}
	b.mu.Unlock()
	b.expire()
}

// openNetwork gives the step its place on the default bridge. A step with the host's network, or with none, needs
// nothing made.
func (s *step) openNetwork(ctx context.Context) (err error) {
	switch s.meta.NetMode {
	case pb.NetMode_UNSET:
		s.place, err = s.e.bridge.take(ctx)
		return err
	case pb.NetMode_HOST, pb.NetMode_NONE:
		return nil
	}
	return fmt.Errorf("unknown network mode %s", s.meta.NetMode)
}

// provider is BuildKit's view of a network. BuildKit only closes it.
type provider struct {
	e    *Executor
	mode pb.NetMode
}

// New makes a namespace for a process that is not run by the Executor.
func (p *provider) New(ctx context.Context, _ string, _ bknetwork.NamespaceOptions) (bknetwork.Namespace, error) {
	n := &namespace{e: p.e, mode: p.mode}
	var err error
	if p.mode == pb.NetMode_UNSET {
		n.place, err = p.e.bridge.take(ctx)
	}
	return n, err
}

// Close does nothing: the Executor's Close does all.
func (p *provider) Close() error { return nil }

type namespace struct {
	e     *Executor
	mode  pb.NetMode
	place *place
}

// Set names the namespace in an OCI specification.
func (n *namespace) Set(s *specs.Spec) error {
	if s.Linux == nil {
		s.Linux = &specs.Linux{}
	}
	var kept []specs.LinuxNamespace
	for _, ns := range s.Linux.Namespaces {
		if ns.Type != specs.NetworkNamespace {
			kept = append(kept, ns)
		}
	}
	switch {
	case n.place != nil:
		path := fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), n.place.ns)
		kept = append(kept, specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: path})
	case n.mode == pb.NetMode_NONE:
		kept = append(kept, specs.LinuxNamespace{Type: specs.NetworkNamespace})
	}
	s.Linux.Namespaces = kept
	return nil
}

// Sample measures nothing.
func (n *namespace) Sample() (*resourcestypes.NetworkSample, error) { return nil, nil }

// Close gives the namespace up. Who had it may have configured it.
func (n *namespace) Close() error {
	if n.place != nil {
		n.e.bridge.give(n.place, false)
		n.place = nil
	}
	return nil
}
