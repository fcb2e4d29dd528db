package build_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	apibuild "github.com/moby/moby/api/types/build"

	"github.com/cleatlabs/cleat/internal/build"
)

// records gives what is in the cache, by its description.
func records(t *testing.T, b *bench) map[string]apibuild.CacheRecord {
	t.Helper()
	usage, err := b.builder.DiskUsage(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]apibuild.CacheRecord)
	for _, r := range usage.Items {
		all[r.Description] = r
	}
	return all
}

func TestPruneByFilters(t *testing.T) {
	ctx := context.Background()
	b := newBench(t)
	if _, err := b.build(t, "FROM scratch\nCOPY a /a\nCOPY b /b\n", map[string]string{"a": "the first", "b": "the second"}, "filtered", nil); err != nil {
		t.Fatal(err)
	}
	find := func(part string) apibuild.CacheRecord {
		t.Helper()
		for description, r := range records(t, b) {
			if strings.Contains(description, part) {
				return r
			}
		}
		t.Fatalf("no %q in the cache: %+v", part, records(t, b))
		return apibuild.CacheRecord{}
	}
	first, second := find("COPY a"), find("COPY b")
	for _, tc := range []struct {
		key    string
		values []string
		says   string
	}{
		{"name", []string{"x"}, "invalid filter 'name': must be one of description, id,"},
		{"id", nil, "invalid filter 'id': it takes a value"},
		{"id", []string{"a", "b"}, "invalid filter 'id': it takes one value, not 2"},
		{"shared", []string{"maybe"}, "invalid filter 'shared=maybe': it takes no value"},
	} {
		if _, err := b.builder.Prune(ctx, build.PruneRequest{Filters: map[string][]string{tc.key: tc.values}}); err == nil || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%s=%v: %v", tc.key, tc.values, err)
		}
	}
	before := len(records(t, b))
	for _, filters := range []map[string][]string{
		{"id": {"nosuch"}}, {"id": {".*"}}, {"type": {"frontend"}}, {"inuse": {}}, {"parent": {second.ID}}, {"description": {`a "quoted",thing`}},
		{"id": {first.ID}, "description": {second.Description}},
	} {
		got, err := b.builder.Prune(ctx, build.PruneRequest{All: true, Filters: filters})
		if err != nil || len(got.CachesDeleted) != 0 || len(records(t, b)) != before {
			t.Errorf("%v: pruned %+v, %v; left %d of %d", filters, got, err, len(records(t, b)), before)
		}
	}
	got, err := b.builder.Prune(ctx, build.PruneRequest{All: true, Filters: map[string][]string{"parent": {first.ID}}})
	if err != nil || len(got.CachesDeleted) != 1 || got.CachesDeleted[0] != second.ID {
		t.Errorf("what lies upon %s: pruned %+v, %v", first.ID, got, err)
	}
	// What is part of an image is not freed.
	if got.SpaceReclaimed != 0 {
		t.Errorf("%d bytes of an image's layer are told as freed", got.SpaceReclaimed)
	}
	if _, err := b.builder.Prune(ctx, build.PruneRequest{All: true, Filters: map[string][]string{"description": {first.Description}}}); err != nil {
		t.Fatal(err)
	}
	if _, left := records(t, b)[first.Description]; left {
		t.Errorf("%q is left", first.Description)
	}
	if got, err = b.builder.Prune(ctx, build.PruneRequest{All: true}); err != nil || len(got.CachesDeleted) == 0 || len(records(t, b)) != 0 {
		t.Errorf("all: pruned %+v, %v; left %v", got, err, records(t, b))
	}
}

// Who asks what the cache takes while a build has not yet made an image of its layers learns afterwards that they are the
// image's.
func TestUsageAskedForDuringABuild(t *testing.T) {
	b := newBench(t)
	if _, err := b.build(t, "FROM scratch\nCOPY a /a\n", map[string]string{"a": "other"}, "first", nil); err != nil {
		t.Fatal(err)
	}
	built, asked := make(chan struct{}), make(chan error)
	go func() {
		for {
			_, err := b.builder.DiskUsage(context.Background())
			select {
			case <-built:
				asked <- err
				return
			default:
				if err != nil {
					t.Error(err)
				}
			}
		}
	}()
	dockerfile, files := "FROM scratch\n", map[string]string{}
	for i := range 20 {
		name := fmt.Sprintf("f%d", i)
		dockerfile, files[name] = dockerfile+"COPY "+name+" /\n", name
	}
	_, err := b.build(t, dockerfile, files, "many", nil)
	close(built)
	if err := errors.Join(err, <-asked); err != nil {
		t.Fatal(err)
	}
	for description, r := range records(t, b) {
		if strings.Contains(description, "COPY") && !r.Shared {
			t.Errorf("%s: a layer of an image is told as the cache's own", description)
		}
	}
	got, err := b.builder.Prune(context.Background(), build.PruneRequest{All: true, Filters: map[string][]string{"description": {"[20/20] COPY f19 /"}}})
	if err != nil || len(got.CachesDeleted) != 1 || got.SpaceReclaimed != 0 {
		t.Errorf("pruned %+v, %v", got, err)
	}
}

// A layer that an image had unpacked, and that a build stands upon, is the cache's once the image has gone: its blob
// and its files.
func TestUsageOfABaseImage(t *testing.T) {
	const size = 1 << 20
	ctx := context.Background()
	b := newBench(t)
	if _, err := b.build(t, "FROM scratch\nCOPY big /big\n", map[string]string{"big": strings.Repeat("x", size)}, "base", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := b.builder.Prune(ctx, build.PruneRequest{All: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.build(t, "FROM base\nCOPY c /c\n", map[string]string{"c": "little"}, "upon", nil); err != nil {
		t.Fatal(err)
	}
	usage := func() int64 {
		t.Helper()
		u, err := b.builder.DiskUsage(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return u.TotalSize
	}
	if got := usage(); got >= size {
		t.Errorf("while the image is there, the cache takes %d bytes", got)
	}
	for _, name := range []string{"base", "upon"} {
		if err := b.store.Images.Delete(b.store.Context(ctx), "docker.io/library/"+name+":latest"); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.store.GC(b.store.Context(ctx)); err != nil {
		t.Fatal(err)
	}
	before := usage()
	if before < 2*size {
		t.Errorf("the cache takes %d bytes, but a blob and a file of %d are in it", before, size)
	}
	if got, err := b.builder.Prune(ctx, build.PruneRequest{All: true}); err != nil || int64(got.SpaceReclaimed) != before {
		t.Errorf("prune frees %+v of %d, %v", got, before, err)
	}
	if left := usage(); left != 0 {
		t.Errorf("%d bytes are left", left)
	}
}
