package build

import (
	"fmt"
	"time"

	bkclient "github.com/moby/buildkit/client"
	"github.com/moby/buildkit/cmd/buildkitd/config"
	"github.com/moby/buildkit/util/disk"
)

// Budget bounds what the build cache takes of the disk. What was not used for longest
// goes first; what an image or a running build needs never goes.
type Budget struct {
	// Off keeps everything until it is pruned by hand.
	Off bool
	// Rules are applied in this order; none are BuildKit's own, made for the size of
	// the filesystem.
	Rules []BudgetRule
	// Reserved, MaxUsed and MinFree change the sizes in BuildKit's own rules, in bytes:
	// what the cache may keep in any case, what it may take at most, and how much of
	// the filesystem is to stay free for others. 0 leaves a size as it is.
	Reserved, MaxUsed, MinFree int64
}

// BudgetRule is one rule of a budget.
type BudgetRule struct {
	// Filters say what the rule is about, as in `docker builder prune --filter`; none
	// are everything.
	Filters []string
	// All includes what is kept for reuse by frontends.
	All bool
	// KeepFor protects what was used more recently.
	KeepFor time.Duration
	// Reserved, MaxUsed and MinFree are sizes in bytes, as in [Budget].
	Reserved, MaxUsed, MinFree int64
}

// policy makes BuildKit's rules of a budget for a cache on the filesystem of dir.
func (g Budget) policy(dir string) ([]bkclient.PruneInfo, error) {
	if g.Off {
		return nil, nil
	}
	rules := g.Rules
	if len(rules) == 0 {
		var err error
		if rules, err = g.defaultRules(dir); err != nil {
			return nil, err
		}
	}
	policy := make([]bkclient.PruneInfo, 0, len(rules))
	for _, r := range rules {
		policy = append(policy, bkclient.PruneInfo{
			Filter: r.Filters, All: r.All, KeepDuration: r.KeepFor,
			ReservedSpace: r.Reserved, MaxUsedSpace: r.MaxUsed, MinFreeSpace: r.MinFree,
		})
	}
	return policy, nil
}

func (g Budget) defaultRules(dir string) ([]BudgetRule, error) {
	stat, err := disk.GetDiskStat(dir)
	if err != nil {
		return nil, fmt.Errorf("measure the filesystem of %s: %w", dir, err)
	}
	sizes := config.DetectDefaultGCCap(stat)
	if g.Reserved > 0 {
		sizes.GCReservedSpace = config.DiskSpace{Bytes: g.Reserved}
	}
	if g.MaxUsed > 0 {
		sizes.GCMaxUsedSpace = config.DiskSpace{Bytes: g.MaxUsed}
	}
	if g.MinFree > 0 {
		sizes.GCMinFreeSpace = config.DiskSpace{Bytes: g.MinFree}
	}
	var rules []BudgetRule
	for _, p := range config.DefaultGCPolicy(sizes, stat) {
		rules = append(rules, BudgetRule{
			Filters: p.Filters, All: p.All, KeepFor: p.KeepDuration.Duration,
			Reserved: p.ReservedSpace.AsBytes(stat), MaxUsed: p.MaxUsedSpace.AsBytes(stat), MinFree: p.MinFreeSpace.AsBytes(stat),
		})
	}
	return rules, nil
}
