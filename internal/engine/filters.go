package engine

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"

	"github.com/cleatlabs/cleat/internal/container"
	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/filter"
)

// listFilter is the filters of a container list. Different keys are joined by
// AND, values of one key by OR, except labels and annotations, which must all
// match.
type listFilter struct {
	impliesAll bool // it asks for containers that do not run
	tests      []func(*container.Record) bool
}

func (f *listFilter) match(r *container.Record) bool {
	for _, t := range f.tests {
		if !t(r) {
			return false
		}
	}
	return true
}

// filterMakers turns the values of one key into a test.
var filterMakers = map[string]func(context.Context, *Queries, []string) (func(*container.Record) bool, error){
	"ancestor":   ancestorFilter,
	"annotation": keyValueFilter(func(r *container.Record) map[string]string { return r.HostConfig.Annotations }),
	"label":      keyValueFilter(func(r *container.Record) map[string]string { return r.Config.Labels }),
	"before":     ageFilter(func(r, ref time.Time) bool { return r.Before(ref) }),
	"since":      ageFilter(func(r, ref time.Time) bool { return r.After(ref) }),
	"exited":     exitedFilter,
	"expose":     portFilter(false),
	"publish":    portFilter(true),
	"health":     healthFilter,
	"id":         idFilter,
	"is-task":    isTaskFilter,
	"name":       nameFilter,
	"network":    networkFilter,
	"status":     statusFilter,
	"volume":     volumeFilter,
}

func newListFilter(ctx context.Context, q *Queries, filters map[string][]string) (*listFilter, error) {
	f := &listFilter{}
	for key, values := range filters {
		maker := filterMakers[key]
		if maker == nil {
			return nil, failure.Invalid("invalid filter '%s'", key)
		}
		if len(values) == 0 {
			continue
		}
		test, err := maker(ctx, q, values)
		if err != nil {
			return nil, err
		}
		if key == "status" || key == "exited" {
			f.impliesAll = true
		}
		f.tests = append(f.tests, test)
	}
	return f, nil
}

func ancestorFilter(ctx context.Context, q *Queries, values []string) (func(*container.Record) bool, error) {
	ids := map[string]bool{}
	for _, v := range values {
		if img, err := q.images.Resolve(ctx, v, ""); err == nil {
			ids[img.ID.String()] = true
		}
	}
	return func(r *container.Record) bool {
		return ids[r.Image.ID.String()] || slices.Contains(values, r.Config.Image) || slices.Contains(values, r.Image.Ref)
	}, nil
}

func keyValueFilter(of func(*container.Record) map[string]string) func(context.Context, *Queries, []string) (func(*container.Record) bool, error) {
	return func(_ context.Context, _ *Queries, values []string) (func(*container.Record) bool, error) {
		return func(r *container.Record) bool { return filter.HasLabels(of(r), values) }, nil
	}
}

func ageFilter(keep func(r, ref time.Time) bool) func(context.Context, *Queries, []string) (func(*container.Record) bool, error) {
	return func(_ context.Context, q *Queries, values []string) (func(*container.Record) bool, error) {
		var refs []time.Time
		for _, v := range values {
			c, err := q.containers.Find(v)
			if err != nil {
				return nil, err
			}
			refs = append(refs, c.Load().Created)
		}
		return func(r *container.Record) bool {
			return slices.ContainsFunc(refs, func(ref time.Time) bool { return keep(r.Created, ref) })
		}, nil
	}
}

func exitedFilter(_ context.Context, _ *Queries, values []string) (func(*container.Record) bool, error) {
	var codes []int
	for _, v := range values {
		n, err := strconv.Atoi(v)
		if err != nil {
			return nil, failure.Invalid("invalid filter 'exited=%s': it must be an exit code", v)
		}
		codes = append(codes, n)
	}
	return func(r *container.Record) bool {
		return !r.State.Running() && !r.State.StartedAt.IsZero() && slices.Contains(codes, r.State.ExitCode)
	}, nil
}

// portFilter reads port[-port][/proto] and matches published ports, by host
// port, or exposed ones.
func portFilter(published bool) func(context.Context, *Queries, []string) (func(*container.Record) bool, error) {
	type span struct {
		lo, hi uint64
		proto  string
	}
	return func(_ context.Context, _ *Queries, values []string) (func(*container.Record) bool, error) {
		var spans []span
		for _, v := range values {
			ports, proto, _ := strings.Cut(v, "/")
			if proto == "" {
				proto = "tcp"
			}
			first, last, ranged := strings.Cut(ports, "-")
			lo, err := strconv.ParseUint(first, 10, 16)
			hi := lo
			if err == nil && ranged {
				hi, err = strconv.ParseUint(last, 10, 16)
			}
			if err != nil || hi < lo || !slices.Contains([]string{"tcp", "udp", "sctp"}, proto) {
				return nil, failure.Invalid("invalid port filter %q: use port[-port][/proto]", v)
			}
			spans = append(spans, span{lo, hi, proto})
		}
		has := func(n uint64, proto string) bool {
			return slices.ContainsFunc(spans, func(s span) bool { return s.proto == proto && s.lo <= n && n <= s.hi })
		}
		return func(r *container.Record) bool {
			if !published {
				for p := range r.Config.ExposedPorts {
					if has(uint64(p.Num()), string(p.Proto())) {
						return true
					}
				}
				return false
			}
			if r.State.Sandbox == nil {
				return false
			}
			for p, bindings := range r.State.Sandbox.Ports {
				for _, b := range bindings {
					n, err := strconv.ParseUint(b.HostPort, 10, 16)
					if err == nil && has(n, string(p.Proto())) {
						return true
					}
				}
			}
			return false
		}, nil
	}
}

func healthFilter(_ context.Context, _ *Queries, values []string) (func(*container.Record) bool, error) {
	for _, v := range values {
		if err := api.ValidateHealthStatus(api.HealthStatus(v)); err != nil {
			return nil, failure.Invalid("invalid filter 'health=%s': %w", v, err)
		}
	}
	return func(r *container.Record) bool { return slices.Contains(values, string(healthSummary(&r.State).Status)) }, nil
}

func idFilter(_ context.Context, _ *Queries, values []string) (func(*container.Record) bool, error) {
	found := filter.Names(values)
	return func(r *container.Record) bool {
		return found(r.ID) || slices.ContainsFunc(values, func(v string) bool { return strings.HasPrefix(r.ID, v) })
	}, nil
}

func isTaskFilter(_ context.Context, _ *Queries, values []string) (func(*container.Record) bool, error) {
	want := make(map[bool]bool)
	for _, v := range values {
		b, err := strconv.ParseBool(v)
		if err != nil {
			return nil, failure.Invalid("invalid filter 'is-task=%s': it must be true or false", v)
		}
		want[b] = true
	}
	return func(*container.Record) bool { return want[false] }, nil // there is no swarm here
}

func nameFilter(_ context.Context, _ *Queries, values []string) (func(*container.Record) bool, error) {
	found := filter.Names(values)
	return func(r *container.Record) bool { return found(r.Name) || found("/"+r.Name) }, nil
}

func networkFilter(_ context.Context, q *Queries, values []string) (func(*container.Record) bool, error) {
	names := map[string]bool{}
	for _, v := range values {
		names[v] = true
		if _, name, err := q.networks.Resolve(v); err == nil {
			names[name] = true
		}
	}
	return func(r *container.Record) bool {
		for name := range r.Networks() {
			if names[name] {
				return true
			}
		}
		return false
	}, nil
}

func statusFilter(_ context.Context, _ *Queries, values []string) (func(*container.Record) bool, error) {
	for _, v := range values {
		if err := api.ValidateContainerState(api.ContainerState(v)); err != nil {
			return nil, failure.Invalid("invalid filter 'status=%s': %w", v, err)
		}
	}
	return func(r *container.Record) bool { return slices.Contains(values, string(r.State.Status)) }, nil
}

func volumeFilter(_ context.Context, _ *Queries, values []string) (func(*container.Record) bool, error) {
	return func(r *container.Record) bool {
		return slices.ContainsFunc(r.Mounts, func(m container.Mount) bool {
			if m.Type == mount.TypeTmpfs {
				return false
			}
			return slices.Contains(values, m.Name) && m.Name != "" || slices.Contains(values, m.Destination) || slices.Contains(values, m.Source)
		})
	}, nil
}
