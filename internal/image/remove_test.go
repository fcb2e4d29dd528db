package image_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/errdefs"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	mobyimage "github.com/moby/moby/api/types/image"

	"github.com/cleatlabs/cleat/internal/image"
)

func TestRemoveRules(t *testing.T) {
	const ctr = "0123456789abcdef0123456789abcdef"
	running, stopped := []image.User{{ContainerID: ctr, Running: true}}, []image.User{{ContainerID: ctr}}
	cases := []struct {
		name  string
		tags  []string // names of the one image; a:1 is pulled, the others are tags
		ref   string   // ID is the image's id
		force bool
		users []image.User
		want  []string // records, or
		err   string   // the error; SHORT is the image's short id
		stays []string // names that are left; "" is a dangling image
	}{
		{name: "unknown", tags: []string{"a:1"}, ref: "b", err: "No such image: b:latest", stays: []string{"a:1"}},
		{name: "last name, unused", tags: []string{"a:1"}, ref: "a:1", want: []string{"-a:1", "ID"}},
		{name: "one of two names", tags: []string{"a:1", "b:1"}, ref: "a:1", want: []string{"-a:1"}, stays: []string{"b:1"}},
		{name: "one of two names, running", tags: []string{"a:1", "b:1"}, ref: "b:1", users: running, want: []string{"-b:1"}, stays: []string{"a:1"}},
		{name: "last name, stopped", tags: []string{"a:1"}, ref: "a:1", users: stopped, stays: []string{"a:1"},
			err: "conflict: unable to delete a:1 (must be forced) - container 0123456789ab is using its referenced image SHORT"},
		{name: "last name, running", tags: []string{"a:1"}, ref: "a:1", users: running, stays: []string{"a:1"},
			err: "conflict: unable to delete a:1 (must be forced) - container 0123456789ab is using its referenced image SHORT"},
		{name: "last name, stopped, force", tags: []string{"a:1"}, ref: "a:1", users: stopped, force: true, want: []string{"-a:1"}, stays: []string{""}},
		{name: "last name, running, force", tags: []string{"a:1"}, ref: "a:1", users: running, force: true, want: []string{"-a:1"}, stays: []string{""}},
		{name: "id, unused", tags: []string{"a:1"}, ref: "ID", want: []string{"-a:1", "ID"}},
		{name: "short id, unused", tags: []string{"a:1"}, ref: "SHORT", want: []string{"-a:1", "ID"}},
		{name: "id, stopped", tags: []string{"a:1"}, ref: "ID", users: stopped, stays: []string{"a:1"},
			err: "conflict: unable to delete SHORT (must be forced) - image is being used by stopped container 0123456789ab"},
		{name: "id, stopped, force", tags: []string{"a:1"}, ref: "ID", users: stopped, force: true, want: []string{"-a:1", "ID"}},
		{name: "id, running", tags: []string{"a:1"}, ref: "ID", users: running, stays: []string{"a:1"},
			err: "conflict: unable to delete SHORT (cannot be forced) - image is being used by running container 0123456789ab"},
		{name: "id, running, force", tags: []string{"a:1"}, ref: "ID", users: running, force: true, stays: []string{"a:1"},
			err: "conflict: unable to delete SHORT (cannot be forced) - image is being used by running container 0123456789ab"},
		{name: "id, two repositories", tags: []string{"a:1", "b:1"}, ref: "ID", stays: []string{"a:1", "b:1"},
			err: "conflict: unable to delete SHORT (must be forced) - image is referenced in multiple repositories"},
		{name: "id, two tags of one repository", tags: []string{"a:1", "a:2"}, ref: "ID", stays: []string{"a:1", "a:2"},
			err: "conflict: unable to delete SHORT (must be forced) - image is referenced in multiple repositories"},
		{name: "id, two repositories, force", tags: []string{"a:1", "b:1"}, ref: "ID", force: true, want: []string{"-a:1", "-b:1", "ID"}},
		{name: "digest of a repository", tags: []string{"a:1", "a:2", "b:1"}, ref: "a@ID", want: []string{"-a:1", "-a:2"}, stays: []string{"b:1"}},
		{name: "digest of the only repository", tags: []string{"a:1", "a:2"}, ref: "a@ID", want: []string{"-a:1", "-a:2", "ID"}},
		{name: "digest of another repository", tags: []string{"a:1"}, ref: "b@ID", err: "No such image: b@ID", stays: []string{"a:1"}},
	}
	archive := saved(t, "a:1", imageOf(t, "amd64", layerOf(t, entry{"f", "1"})))
	for _, c := range cases {
		t.Run(strings.ReplaceAll(c.name, ",", " and"), func(t *testing.T) {
			b := newBench(t)
			ctx := context.Background()
			if _, err := b.load(archive, image.LoadOptions{}); err != nil {
				t.Fatal(err)
			}
			img := b.resolve(t, "a:1")
			dirs := b.lower(t, img)
			for _, tag := range c.tags[1:] {
				repo, tag, _ := strings.Cut(tag, ":")
				if err := b.images.Tag(ctx, "a:1", repo, tag); err != nil {
					t.Fatal(err)
				}
			}
			b.events = nil
			id := img.ID.String()
			fill := strings.NewReplacer("ID", id, "SHORT", img.ID.Encoded()[:12]).Replace
			records, err := b.images.Remove(ctx, fill(c.ref), image.RemoveOptions{Force: c.force}, func(got string) []image.User {
				if got != id {
					t.Errorf("asked for the users of %s", got)
				}
				return c.users
			})
			if c.err != "" {
				if err == nil || err.Error() != fill(c.err) {
					t.Fatalf("error %v, want %s", err, fill(c.err))
				}
				if !errdefs.IsConflict(err) && !errdefs.IsNotFound(err) {
					t.Errorf("%v has another class", err)
				}
				if len(b.events) != 0 {
					t.Errorf("events %q for nothing done", b.events)
				}
			} else if err != nil {
				t.Fatal(err)
			}
			if got := describe(records, id); !slices.Equal(got, c.want) {
				t.Errorf("records %q, want %q", got, c.want)
			}
			var events []string
			for _, r := range records {
				if r.Untagged != "" {
					events = append(events, "untag "+id+" "+id)
				} else {
					events = append([]string{"delete " + id + " " + id}, events...)
				}
			}
			slices.Sort(events)
			slices.Sort(b.events)
			if !slices.Equal(b.events, events) {
				t.Errorf("events %q, want %q", b.events, events)
			}
			if err := b.store.GC(ctx); err != nil {
				t.Fatal(err)
			}
			if got := b.names(t); !slices.Equal(got, c.stays) {
				t.Errorf("left are %q, want %q", got, c.stays)
			}
			_, err = os.Stat(dirs[0])
			if kept := err == nil; kept != (len(c.stays) > 0 || len(c.users) > 0) {
				t.Errorf("layers kept: %v", kept)
			}
			if len(c.stays) == 0 {
				// And when the container goes, so does everything else.
				if err := b.images.ReleaseUnused(ctx, func(string) bool { return false }); err != nil {
					t.Fatal(err)
				}
				b.mustBeEmpty(t)
			}
		})
	}
}

func describe(records []mobyimage.DeleteResponse, id string) []string {
	var list []string
	for _, r := range records {
		switch {
		case r.Untagged != "":
			list = append(list, "-"+r.Untagged)
		case r.Deleted == id:
			list = append(list, "ID")
		default:
			list = append(list, fmt.Sprintf("%+v", r))
		}
	}
	return list
}

// names lists the tags of all images, "" for an image without one.
func (b *bench) names(t testing.TB) []string {
	t.Helper()
	list, err := b.images.List(context.Background(), image.ListRequest{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, s := range list {
		names = append(names, s.RepoTags...)
		if len(s.RepoTags) == 0 {
			names = append(names, "")
		}
	}
	slices.Sort(names)
	return names
}

func TestLayersInUseOutliveTheImageAndTheEngine(t *testing.T) {
	root := t.TempDir() + "/store"
	b := open(t, root, registryConfig)
	ctx := context.Background()
	if _, err := b.load(saved(t, "a:1", imageOf(t, "amd64", layerOf(t, entry{"f", "1"}), layerOf(t, entry{"g", "2"}))), image.LoadOptions{}); err != nil {
		t.Fatal(err)
	}
	img := b.resolve(t, "a:1")
	dirs := b.lower(t, img)
	users := func(string) []image.User { return []image.User{{ContainerID: "c"}} }
	if _, err := b.images.Remove(ctx, img.ID.String(), image.RemoveOptions{Force: true}, users); err != nil {
		t.Fatal(err)
	}
	if err := b.store.GC(ctx); err != nil {
		t.Fatal(err)
	}
	if err := b.store.Close(); err != nil {
		t.Fatal(err)
	}

	b = open(t, root, registryConfig)
	id := img.ID.String()
	if err := b.images.ReleaseUnused(ctx, func(used string) bool { return used == id }); err != nil {
		t.Fatal(err)
	}
	if err := b.store.GC(ctx); err != nil {
		t.Fatal(err)
	}
	// A container's record keeps the two digests only.
	again := b.lower(t, &image.Image{ID: img.ID, ChainID: img.ChainID})
	if !slices.Equal(again, dirs) {
		t.Errorf("after a restart the layers are %q, before %q", again, dirs)
	}
	if _, err := os.Stat(again[1]); err != nil {
		t.Error(err)
	}
	if err := b.images.ReleaseUnused(ctx, func(used string) bool { return used == id }); err != nil {
		t.Fatal(err)
	}
	if b.contents(t).leases != 1 {
		t.Error("the lease of an image in use was dropped")
	}
	if err := b.images.ReleaseUnused(ctx, func(string) bool { return false }); err != nil {
		t.Fatal(err)
	}
	b.mustBeEmpty(t)
	if _, err := b.images.Lower(ctx, &image.Image{ID: img.ID, ChainID: img.ChainID}); !errdefs.IsNotFound(err) {
		t.Errorf("layers that are gone: %v", err)
	}
}

func TestHoldBridgesResolveAndRecord(t *testing.T) {
	b := newBench(t)
	ctx := context.Background()
	if _, err := b.load(saved(t, "a:1", imageOf(t, "amd64", layerOf(t, entry{"f", "1"}))), image.LoadOptions{}); err != nil {
		t.Fatal(err)
	}
	img := b.resolve(t, "a:1")
	release := b.images.Hold(img.ID)
	dirs := b.lower(t, img)
	// The container has no record yet, so nobody seems to use the image.
	if _, err := b.images.Remove(ctx, "a:1", image.RemoveOptions{}, nil); err != nil {
		t.Fatal(err)
	}
	if err := b.images.ReleaseUnused(ctx, func(string) bool { return false }); err != nil {
		t.Fatal(err)
	}
	if err := b.store.GC(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dirs[0]); err != nil {
		t.Errorf("the layers went away under a hold: %v", err)
	}
	release()
	release()
	if err := b.images.ReleaseUnused(ctx, func(string) bool { return false }); err != nil {
		t.Fatal(err)
	}
	b.mustBeEmpty(t)
}

// A container that is made, or is being made, while its image is removed has its layers; one that comes when the image is
// about to go finds none.
func TestRemovalBesideCreates(t *testing.T) {
	for name, made := range map[string]bool{"made": true, "being made": false} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			ctx := context.Background()
			if _, err := b.load(saved(t, "a:1", imageOf(t, "amd64", layerOf(t, entry{"f", "1"}))), image.LoadOptions{}); err != nil {
				t.Fatal(err)
			}
			var img *image.Image
			release := func() {}
			// It comes when the removal has asked for the containers.
			users := func(string) (found []image.User) {
				if img == nil {
					var err error
					if img, release, err = b.images.Take(ctx, "a:1", ""); err != nil {
						t.Fatal(err)
					}
					if made {
						b.lower(t, img)
						release()
					}
				} else if made {
					found = []image.User{{ContainerID: "c", Running: true}}
				}
				return found
			}
			if _, err := b.images.Remove(ctx, "a:1", image.RemoveOptions{}, users); err != nil {
				t.Fatal(err)
			}
			if err := b.store.GC(ctx); err != nil {
				t.Fatal(err)
			}
			if dirs := b.lower(t, img); len(dirs) != 1 || !exists(dirs[0]) {
				t.Errorf("the layers of the container are gone: %q", dirs)
			}
			release()
			if err := b.images.ReleaseUnused(ctx, func(string) bool { return false }); err != nil {
				t.Fatal(err)
			}
			b.mustBeEmpty(t)
		})
	}
}

// Of two that remove an image's last two names, the later one is refused, as a container uses the image.
func TestLastNamesRemovedAtOnce(t *testing.T) {
	b := newBench(t)
	ctx := context.Background()
	if _, err := b.load(saved(t, "a:1", imageOf(t, "amd64", layerOf(t, entry{"f", "1"}))), image.LoadOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := b.images.Tag(ctx, "a:1", "b", "1"); err != nil {
		t.Fatal(err)
	}
	img := b.resolve(t, "a:1")
	used := []image.User{{ContainerID: "c"}}
	other := func() {
		if _, err := b.images.Remove(ctx, "b:1", image.RemoveOptions{}, func(string) []image.User { return used }); err != nil {
			t.Error(err)
		}
	}
	asked := 0
	_, err := b.images.Remove(ctx, "a:1", image.RemoveOptions{}, func(string) []image.User {
		if asked++; asked == 1 { // it has looked the image up
			other()
		}
		return used
	})
	if !errdefs.IsConflict(err) || asked != 2 {
		t.Errorf("%v, asked %d times", err, asked)
	}
	if err := b.store.GC(ctx); err != nil {
		t.Fatal(err)
	}
	if dirs := b.lower(t, img); !exists(dirs[0]) {
		t.Errorf("the layers of the container are gone: %q", dirs)
	}
}

// A container keeps the layers that it stands on, be they those of another platform than the engine's.
func TestRemovalKeepsLayersOfOtherPlatforms(t *testing.T) {
	b := newBench(t)
	ctx := context.Background()
	var index v1.ImageIndex = empty.Index
	for _, arch := range []string{"amd64", "arm64"} {
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: imageOf(t, arch, layerOf(t, entry{"f", arch})),
			Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}}})
	}
	if _, err := b.load(ociArchive(t, "docker.io/lab/multi:1", index.(mutate.Appendable)), image.LoadOptions{}); err != nil {
		t.Fatal(err)
	}
	img, err := b.images.Resolve(ctx, "lab/multi:1", "linux/arm64")
	if err != nil {
		t.Fatal(err)
	}
	recorded := &image.Image{ID: img.ID, Manifest: img.Manifest, ChainID: img.ChainID}
	users := func(string) []image.User { return []image.User{{ContainerID: "c", Images: []*image.Image{recorded}}} }
	if _, err := b.images.Remove(ctx, img.ID.String(), image.RemoveOptions{Force: true}, users); err != nil {
		t.Fatal(err)
	}
	if err := b.store.GC(ctx); err != nil {
		t.Fatal(err)
	}
	if dirs := b.lower(t, recorded); !exists(dirs[0]) {
		t.Errorf("the layers of the container are gone: %q", dirs)
	}
}

// A name that an image is given while its only one is removed stays, and the image with it.
func TestNameGivenBesideARemoval(t *testing.T) {
	b := newBench(t)
	ctx := context.Background()
	if _, err := b.load(saved(t, "a:1", imageOf(t, "amd64", layerOf(t, entry{"f", "1"}))), image.LoadOptions{}); err != nil {
		t.Fatal(err)
	}
	id := b.resolve(t, "a:1").ID.String()
	tag := sync.OnceValue(func() error { return b.images.Tag(ctx, "a:1", "b", "1") })
	records, err := b.images.Remove(ctx, "a:1", image.RemoveOptions{}, func(string) []image.User {
		if err := tag(); err != nil { // it has looked the image up
			t.Error(err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := describe(records, id), []string{"-a:1"}; !slices.Equal(got, want) {
		t.Errorf("records %q, want %q", got, want)
	}
	if got, want := b.names(t), []string{"b:1"}; !slices.Equal(got, want) {
		t.Errorf("left are %q, want %q", got, want)
	}
}

// An image that was found to be of no use stays if it is of use when it is to go.
func TestRemovalOfWhatWasUnused(t *testing.T) {
	b := newBench(t)
	ctx := context.Background()
	load := func(name string) string {
		t.Helper()
		if _, err := b.load(saved(t, name, imageOf(t, "amd64", layerOf(t, entry{"f", name + noise(8)}))), image.LoadOptions{}); err != nil {
			t.Fatal(err)
		}
		return b.resolve(t, name).ID.String()
	}
	named, dangling := load("named:1"), load("other:1")
	load("other:1")
	nothing, tag := func() {}, func() {
		if err := b.images.Tag(ctx, dangling, "kept", "1"); err != nil {
			t.Error(err)
		}
	}
	for _, c := range []struct {
		name, id  string
		nameless  bool
		meanwhile func()       // when it was looked up
		since     []image.User // when it is to go
		stays     bool
	}{
		{"a container was made", named, false, nothing, []image.User{{ContainerID: "c"}}, true},
		{"a name was given", dangling, true, tag, nil, true},
		{"unused", named, false, nothing, nil, false},
	} {
		asked := 0
		_, err := b.images.Remove(ctx, c.id, image.RemoveOptions{Unused: true, Nameless: c.nameless}, func(string) []image.User {
			if asked++; asked > 1 {
				return c.since
			}
			c.meanwhile()
			return nil
		})
		if c.stays && !errdefs.IsConflict(err) || !c.stays && err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if _, err := b.images.Resolve(ctx, c.id, ""); (err == nil) != c.stays {
			t.Errorf("%s, then: %v", c.name, err)
		}
	}
}

func TestNobodyTakesWhatIsBeingRemoved(t *testing.T) {
	b := newBench(t)
	if _, err := b.load(saved(t, "a:1", imageOf(t, "amd64", layerOf(t, entry{"f", "1"}))), image.LoadOptions{}); err != nil {
		t.Fatal(err)
	}
	b.resolve(t, "a:1")
	ctx := context.Background()
	impatient, cancel := context.WithCancel(ctx)
	cancel()
	asked := 0
	users := func(string) []image.User {
		if asked++; asked == 2 { // from now on it goes
			if _, _, err := b.images.Take(impatient, "a:1", ""); !errors.Is(err, context.Canceled) {
				t.Errorf("not waited for its end: %v", err)
			}
		}
		return nil
	}
	if _, err := b.images.Remove(ctx, "a:1", image.RemoveOptions{}, users); err != nil || asked != 2 {
		t.Fatalf("%v, asked %d times", err, asked)
	}
	if _, _, err := b.images.Take(ctx, "a:1", ""); !errdefs.IsNotFound(err) {
		t.Errorf("taken behind its removal: %v", err)
	}
	b.mustBeEmpty(t)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func TestImageWithoutLayersStandsOnAnEmptyDirectory(t *testing.T) {
	b := newBench(t)
	if _, err := b.load(ociArchive(t, "docker.io/library/none:1", imageOf(t, "amd64")), image.LoadOptions{}); err != nil {
		t.Fatal(err)
	}
	dirs := b.lower(t, b.resolve(t, "none:1"))
	if len(dirs) != 1 {
		t.Fatalf("lower directories %q", dirs)
	}
	if e, err := os.ReadDir(dirs[0]); err != nil || len(e) != 0 {
		t.Errorf("%v, %v", e, err)
	}
}

func TestSpaceIsFreed(t *testing.T) {
	b := newBench(t)
	ctx := context.Background()
	base := layerOf(t, entry{"base", noise(1 << 20)})
	for tag, top := range map[string]string{"a:1": "top of a", "b:1": "top of b"} {
		if _, err := b.load(saved(t, tag, imageOf(t, "amd64", base, layerOf(t, entry{"top", top}))), image.LoadOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	blobs, _, layers := files(t, b.store.Root())
	if _, err := b.images.Remove(ctx, "a:1", image.RemoveOptions{}, nil); err != nil {
		t.Fatal(err)
	}
	if err := b.store.GC(ctx); err != nil {
		t.Fatal(err)
	}
	blobs2, _, layers2 := files(t, b.store.Root())
	if blobs-blobs2 != 3 || layers-layers2 != 1 { // manifest, config and the layer that b does not have
		t.Errorf("removing one of two images that share a layer freed %d blobs and %d layers", blobs-blobs2, layers-layers2)
	}
	b.lower(t, b.resolve(t, "b:1"))
	if _, err := b.images.Remove(ctx, "b:1", image.RemoveOptions{}, nil); err != nil {
		t.Fatal(err)
	}
	b.mustBeEmpty(t)
}
