package store

import (
	"context"
	"errors"
	"maps"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
)

// expireLabel is containerd's for the time at which a lease holds nothing any more, by the host's clock.
const expireLabel = "containerd.io/gc.expire"

// timedLeases end temporary leases when their time has passed, as containerd's collector does, but not when the host's
// clock is set forward, or the machine has slept: a build or a pull that is under way would lose what it has. The times
// are in memory, as the leases end with the engine anyhow (recover).
type timedLeases struct {
	leases.Manager
	now func() time.Time

	mu   sync.Mutex
	ends map[timedLease]time.Time
}

type timedLease struct{ namespace, id string }

// Create implements leases.Manager.
func (t *timedLeases) Create(ctx context.Context, opts ...leases.Opt) (leases.Lease, error) {
	var lasts time.Duration
	untimed := func(l *leases.Lease) error {
		at, err := time.Parse(time.RFC3339, l.Labels[expireLabel])
		if err != nil || !isTemporary(l) {
			return nil
		}
		lasts = at.Sub(t.now())
		delete(l.Labels, expireLabel)
		return nil
	}
	l, err := t.Manager.Create(ctx, append(opts[:len(opts):len(opts)], untimed)...)
	if err == nil && lasts != 0 {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.ends[keyOf(ctx, l)] = t.now().Add(lasts)
	}
	return l, err
}

// Delete implements leases.Manager.
func (t *timedLeases) Delete(ctx context.Context, l leases.Lease, opts ...leases.DeleteOpt) error {
	t.mu.Lock()
	delete(t.ends, keyOf(ctx, l))
	t.mu.Unlock()
	return t.Manager.Delete(ctx, l, opts...)
}

// expire deletes the leases whose time has passed.
func (t *timedLeases) expire(ctx context.Context) error {
	now := t.now()
	t.mu.Lock()
	over := maps.Clone(t.ends)
	t.mu.Unlock()
	maps.DeleteFunc(over, func(_ timedLease, end time.Time) bool { return end.After(now) })
	var errs []error
	for l := range over {
		err := t.Delete(namespaces.WithNamespace(ctx, l.namespace), leases.Lease{ID: l.id})
		if err != nil && !errdefs.IsNotFound(err) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func keyOf(ctx context.Context, l leases.Lease) timedLease {
	namespace, _ := namespaces.Namespace(ctx)
	return timedLease{namespace, l.ID}
}

// isTemporary says whether a lease ends with the operation that has made it.
func isTemporary(l *leases.Lease) bool {
	return l.Labels[TemporaryLabel] != "" || l.Labels[buildkitTemporary] != ""
}
