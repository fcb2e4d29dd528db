package build

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	controlapi "github.com/moby/buildkit/api/services/control"
	bkclient "github.com/moby/buildkit/client"
	apibuild "github.com/moby/moby/api/types/build"
	"google.golang.org/grpc"

	"github.com/cleatlabs/cleat/internal/failure"
)

// PruneRequest says what of the build cache is to go. What a running build uses stays.
type PruneRequest struct {
	// All removes also what images share with the cache and what frontends came from.
	All bool
	// UnusedFor protects what was used more recently; 0 protects nothing.
	UnusedFor time.Duration
	// Reserved, MaxUsed and MinFree are sizes in bytes, as in [Budget]; 0 is no bound.
	Reserved, MaxUsed, MinFree int64
	// Filters choose records by what is told of them: id, parent, type, description
	// with one value each, inuse, shared and private with none. A record matches that
	// matches all.
	Filters map[string][]string
}

// PruneFilters are the keys that [PruneRequest.Filters] knows.
func PruneFilters() []string {
	return []string{"description", "id", "inuse", "parent", "private", "shared", "type"}
}

// Prune removes what req says from the build cache; what it took of the disk is free
// when it returns. A record that is part of an image as well is told of, but counts
// nothing. Where nothing was ever built there is nothing to do, and no error.
func (b *Builder) Prune(ctx context.Context, req PruneRequest) (*apibuild.CachePruneReport, error) {
	if err := checkPruneFilters(req.Filters); err != nil {
		return nil, err
	}
	report := &apibuild.CachePruneReport{CachesDeleted: []string{}}
	if empty, err := b.empty(); empty || err != nil {
		return report, err
	}
	defer b.pace.begin()()
	s, err := b.open()
	if err != nil {
		return nil, err
	}
	before, err := s.worker.DiskUsage(ctx, bkclient.DiskUsageInfo{})
	if err != nil {
		return nil, fmt.Errorf("measure the build cache: %w", err)
	}
	filter, some := cacheFilter(req.Filters, before)
	if !some {
		return report, nil
	}
	err = s.control.Prune(&controlapi.PruneRequest{
		All: req.All, KeepDuration: int64(req.UnusedFor), Filter: filter,
		ReservedSpace: req.Reserved, MaxUsedSpace: req.MaxUsed, MinFreeSpace: req.MinFree,
	}, &pruned{ctx: ctx, report: report})
	if err != nil {
		return nil, fmt.Errorf("prune the build cache: %w", err)
	}
	return report, nil
}

func checkPruneFilters(filters map[string][]string) error {
	for key, values := range filters {
		switch _, flag := slices.BinarySearch(flagFilters(), key); {
		case !slices.Contains(PruneFilters(), key):
			return failure.Invalid("invalid filter '%s': must be one of %s", key, strings.Join(PruneFilters(), ", "))
		case len(values) > 1:
			return failure.Invalid("invalid filter '%s': it takes one value, not %d", key, len(values))
		case flag && len(values) == 1 && !slices.Contains([]string{"", "1", "true"}, values[0]):
			return failure.Invalid("invalid filter '%s=%s': it takes no value", key, values[0])
		case !flag && len(values) == 0:
			return failure.Invalid("invalid filter '%s': it takes a value", key)
		}
	}
	return nil
}

// flagFilters ask only whether a record has what they name.
func flagFilters() []string { return []string{"inuse", "private", "shared"} }

// cacheFilter is filters, which are checked, as BuildKit takes them, for the records that
// there are. Without some, no record matches.
func cacheFilter(filters map[string][]string, records []*bkclient.UsageInfo) (filter []string, some bool) {
	var parts []string
	for _, key := range PruneFilters() {
		values, asked := filters[key]
		if !asked {
			continue
		}
		switch {
		case slices.Contains(flagFilters(), key):
			parts = append(parts, key)
		case key == "id":
			parts = append(parts, "id~="+strconv.Quote(regexp.QuoteMeta(values[0])))
		case key == "parent":
			children := childrenOf(values[0], records)
			if len(children) == 0 {
				return nil, false
			}
			parts = append(parts, "id~="+strconv.Quote("^("+strings.Join(children, "|")+")$"))
		default:
			parts = append(parts, key+"=="+strconv.Quote(values[0]))
		}
	}
	if len(parts) == 0 {
		return nil, true
	}
	return []string{strings.Join(parts, ",")}, true
}

// childrenOf gives the ids of the records that lie upon the one of the id parent.
func childrenOf(parent string, records []*bkclient.UsageInfo) (ids []string) {
	for _, r := range records {
		if slices.Contains(r.Parents, parent) {
			ids = append(ids, regexp.QuoteMeta(r.ID))
		}
	}
	return ids
}

// pruned takes what is told while the cache is pruned, in place of a client's stream.
type pruned struct {
	grpc.ServerStream
	ctx    context.Context
	report *apibuild.CachePruneReport
}

func (p *pruned) Context() context.Context { return p.ctx }

func (p *pruned) Send(r *controlapi.UsageRecord) error {
	p.report.CachesDeleted = append(p.report.CachesDeleted, r.ID)
	if !r.Shared && r.Size > 0 {
		p.report.SpaceReclaimed += uint64(r.Size)
	}
	return nil
}
