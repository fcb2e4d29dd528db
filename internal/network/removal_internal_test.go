package network

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/netlink"
	"github.com/cleatlabs/cleat/internal/supervise"
)

// stubbornKernel deletes a bridge only when it has been asked often enough.
type stubbornKernel struct {
	mu    sync.Mutex
	left  map[string]int // by link: how many more attempts fail
	asked []time.Time
}

// attempts are when it was asked.
func (k *stubbornKernel) attempts() []time.Time {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.asked)
}

func (k *stubbornKernel) remove(recs []*Record) []error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.asked = append(k.asked, time.Now())
	errs := make([]error, len(recs))
	for i, rec := range recs {
		if k.left[rec.Link] > 0 {
			k.left[rec.Link]--
			errs[i] = stillThere(rec, errors.New("no buffers"))
		}
	}
	return errs
}

// A bridge that cannot be deleted is told of, and tried again after pauses that grow, until it has gone.
func TestFailedRemovalIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const failures = 12
		k := &stubbornKernel{left: map[string]int{"br-bad": failures}}
		group := supervise.New(context.Background())
		r := newBridgeRemovals(group, k.remove)
		begin := time.Now()
		r.add(&Record{Name: "bad", Link: "br-bad"})
		synctest.Wait()
		for range failures {
			want := []string{"bridge br-bad of network bad, which was removed, is still there: no buffers; it is tried again"}
			if got := r.warnings(); !slices.Equal(got, want) {
				t.Fatalf("told: %q", got)
			}
			attempts := len(k.attempts())
			for len(k.attempts()) == attempts {
				time.Sleep(time.Second)
				synctest.Wait()
			}
		}
		if left := r.warnings(); len(left) > 0 {
			t.Errorf("still told when it has gone: %q", left)
		}
		var pauses []time.Duration
		asked := k.attempts()
		for i, at := range asked[1:] {
			pauses = append(pauses, at.Sub(asked[i]))
		}
		if pauses[0] != firstRetry || pauses[1] != 2*firstRetry || pauses[failures-1] != lastRetry {
			t.Errorf("pauses: %v", pauses)
		}
		if took := time.Since(begin); took > time.Hour {
			t.Errorf("gone after %s", took)
		}
		attempts := len(k.attempts())
		time.Sleep(24 * time.Hour)
		if len(k.attempts()) != attempts {
			t.Errorf("%d attempts when there was nothing to delete", len(k.attempts())-attempts)
		}
		if err := group.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
}

// Who wants the name of a bridge that cannot be deleted has it tried at once, and is told why it does not go; other
// bridges go. At the end of the engine it is tried once more, and that does not wait.
func TestFailedRemovalIsAwaited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &stubbornKernel{left: map[string]int{"br-bad": 1 << 30, "br-slow": 2}}
		group := supervise.New(context.Background())
		r := newBridgeRemovals(group, k.remove)
		for _, name := range []string{"bad", "good", "slow"} {
			r.add(&Record{Name: name, Link: "br-" + name})
		}
		begin := time.Now()
		for name, want := range map[string]string{"bad": "network bad, which was removed, is still there: no buffers", "good": "", "other": ""} {
			err := r.await(context.Background(), "br-"+name)
			if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
				t.Errorf("%s: %v", name, err)
			}
		}
		for r.await(context.Background(), "br-slow") != nil {
		}
		if took := time.Since(begin); took > 0 {
			t.Errorf("waited %s", took)
		}
		attempts := len(k.attempts())
		if err := group.Stop(context.Background()); err != nil {
			t.Error(err)
		}
		if n := len(k.attempts()) - attempts; n != 1 {
			t.Errorf("%d attempts at the end", n)
		}
		if err := r.await(context.Background(), "br-bad"); err != nil {
			t.Error(err)
		}
		r.add(&Record{Name: "late", Link: "br-late"})
		if n := len(k.attempts()) - attempts; n != 2 {
			t.Errorf("one that came after the end: %d attempts", n-1)
		}
	})
}

// The port of an ended container that its bridge cannot be had to silence is deleted, and if that fails, too, tried again.
func TestPortThatCannotBeSilenced(t *testing.T) {
	conn, err := netlink.Dial(unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close() // the kernel takes nothing from it any more
	synctest.Test(t, func(t *testing.T) {
		group := supervise.New(context.Background())
		const port = "lo" // a link that there is
		attempts := 0
		host := &uplink{conn: conn, unused: newLinkRemovals(group, func(names []string) []error {
			if attempts++; !slices.Equal(names, []string{port}) {
				t.Errorf("attempt %d is about %q", attempts, names)
			}
			if attempts < 4 {
				return []error{errors.New("no buffers")}
			}
			return []error{nil}
		})}
		b := &bridge{host: host, rec: &Record{Link: "br-bad"}, made: true}
		if err := b.silence(-1, &Endpoint{Link: port}); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if want := []string{"no buffers; it is tried again"}; attempts != 2 || !slices.Equal(host.unused.warnings(), want) {
			t.Errorf("%d attempts, told: %q", attempts, host.unused.warnings())
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if left := host.unused.warnings(); attempts != 4 || len(left) > 0 {
			t.Errorf("%d attempts, told: %q", attempts, left)
		}
		if err := group.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
}

// Who begins to wait between the last attempt and the end of it all does not wait for what nobody does.
func TestAwaitedAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &stubbornKernel{left: map[string]int{"br-bad": 1 << 30}}
		group := supervise.New(context.Background())
		r := newBridgeRemovals(group, k.remove)
		r.add(&Record{Name: "bad", Link: "br-bad"})
		synctest.Wait()
		if err := group.Stop(context.Background()); err != nil {
			t.Fatal(err)
		}
		r.closed = false // as it is until just after that attempt
		if err := r.await(context.Background(), "br-bad"); err != nil {
			t.Error(err)
		}
	})
}
