package cli

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/build"
)

var buildCacheHeaders = map[string]string{
	"ID": "CACHE ID", "CacheType": "CACHE TYPE", "Size": "SIZE", "CreatedSince": "CREATED", "LastUsedSince": "LAST USED", "UsageCount": "USAGE",
	"Shared": "SHARED",
}

const rawBuildCache = "build_cache_id: {{.ID}}\nparent_id: {{.Parent}}\nbuild_cache_type: {{.CacheType}}\ndescription: {{.Description}}\n" +
	"created_at: {{.CreatedAt}}\ncreated_since: {{.CreatedSince}}\nlast_used_at: {{.LastUsedAt}}\nlast_used_since: {{.LastUsedSince}}\n" +
	"usage_count: {{.UsageCount}}\nin_use: {{.InUse}}\nshared: {{.Shared}}\n"

// buildCacheRow is a record of the build cache as system df -v shows it.
type buildCacheRow struct {
	r     *build.CacheRecord
	trunc bool
}

// buildCacheRows are the records, those that were used last at the end.
func buildCacheRows(records []build.CacheRecord, trunc bool) []*buildCacheRow {
	records = slices.Clone(records)
	slices.SortFunc(records, func(x, y build.CacheRecord) int {
		return cmp.Or(lastUsed(x).Compare(lastUsed(y)), strings.Compare(x.ID, y.ID))
	})
	rows := make([]*buildCacheRow, len(records))
	for i := range records {
		rows[i] = &buildCacheRow{r: &records[i], trunc: trunc}
	}
	return rows
}

// lastUsed is the zero time for a record that was never used.
func lastUsed(r build.CacheRecord) time.Time {
	if r.LastUsedAt == nil {
		return time.Time{}
	}
	return *r.LastUsedAt
}

func (r *buildCacheRow) MarshalJSON() ([]byte, error) { return marshalRow(r) }

// ID has a star where something uses the record.
func (r *buildCacheRow) ID() string {
	id := r.shown(r.r.ID)
	if r.r.InUse {
		id += "*"
	}
	return id
}

func (r *buildCacheRow) shown(id string) string {
	if r.trunc {
		return shortID(id)
	}
	return id
}

func (r *buildCacheRow) Parent() string      { return r.shown(strings.Join(r.r.Parents, ", ")) }
func (r *buildCacheRow) CacheType() string   { return r.r.Type }
func (r *buildCacheRow) Description() string { return r.r.Description }
func (r *buildCacheRow) Size() string        { return units.HumanSizeWithPrecision(float64(r.r.Size), 3) }
func (r *buildCacheRow) CreatedAt() string   { return r.r.CreatedAt.String() }

func (r *buildCacheRow) CreatedSince() string { return ago(r.r.CreatedAt.Unix()) }

func (r *buildCacheRow) LastUsedAt() string {
	if r.r.LastUsedAt == nil {
		return ""
	}
	return r.r.LastUsedAt.String()
}

func (r *buildCacheRow) LastUsedSince() string {
	if r.r.LastUsedAt == nil {
		return ""
	}
	return ago(r.r.LastUsedAt.Unix())
}

func (r *buildCacheRow) UsageCount() string { return strconv.Itoa(r.r.UsageCount) }
func (r *buildCacheRow) InUse() string      { return strconv.FormatBool(r.r.InUse) }
func (r *buildCacheRow) Shared() string     { return strconv.FormatBool(r.r.Shared) }
