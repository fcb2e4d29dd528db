package image_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/klauspost/compress/zstd"
	"github.com/moby/moby/api/types/jsonstream"

	"github.com/cleatlabs/cleat/internal/image"
)

// saved is an image in docker save's format.
func saved(t testing.TB, tag string, img v1.Image) []byte {
	t.Helper()
	ref, err := name.NewTag(tag)
	if err != nil {
		t.Fatal(err)
	}
	var buf bytes.Buffer
	if err := tarball.Write(ref, img, &buf); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// ociArchive is an OCI layout with one image or index, as a tar archive.
func ociArchive(t testing.TB, fullName string, add mutate.Appendable) []byte {
	t.Helper()
	dir := t.TempDir()
	p, err := layout.Write(dir, empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	annotations := layout.WithAnnotations(map[string]string{"io.containerd.image.name": fullName})
	switch x := add.(type) {
	case v1.Image:
		err = p.AppendImage(x, annotations)
	case v1.ImageIndex:
		err = p.AppendIndex(x, annotations)
	}
	if err != nil {
		t.Fatal(err)
	}
	return tarTree(t, dir)
}

func tarTree(t testing.TB, dir string) []byte {
	t.Helper()
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	err := filepath.Walk(dir, func(p string, fi os.FileInfo, err error) error {
		if err != nil || !fi.Mode().IsRegular() {
			return err
		}
		rel, _ := filepath.Rel(dir, p)
		data, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		tw.WriteHeader(&tar.Header{Name: rel, Mode: 0o644, Size: int64(len(data))})
		_, err = tw.Write(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	tw.Close()
	return buf.Bytes()
}

func tarOf(t testing.TB, headers ...tar.Header) []byte {
	t.Helper()
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	for _, h := range headers {
		data := strings.Repeat("x", int(h.Size))
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		if err := tw.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		io.WriteString(tw, data)
	}
	tw.Close()
	return buf.Bytes()
}

func (b *bench) load(archive []byte, opts image.LoadOptions) (string, error) {
	var out strings.Builder
	err := b.images.Load(context.Background(), bytes.NewReader(archive), opts, func(m jsonstream.Message) { out.WriteString(m.Stream) })
	return out.String(), err
}

func gzipped(b []byte) []byte {
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	w.Write(b)
	w.Close()
	return buf.Bytes()
}

func TestLoadTakesEveryUsualForm(t *testing.T) {
	img := imageOf(t, "amd64", layerOf(t, entry{"etc/", ""}, entry{"etc/a", "a"}), layerOf(t, entry{"etc/", ""}, entry{"etc/b", "b"}))
	plain := saved(t, "thing:1", img)
	enc, _ := zstd.NewWriter(nil)
	compressed := func(program ...string) []byte {
		cmd := exec.Command(program[0], program[1:]...)
		cmd.Stdin = bytes.NewReader(plain)
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%v: %v", program, err)
		}
		return out
	}
	forms := map[string][]byte{
		"docker save":                    plain,
		"docker save as gzip":            gzipped(plain),
		"docker save as zstd":            enc.EncodeAll(plain, nil),
		"docker save as bzip2":           compressed("bzip2", "-c"),
		"docker save as xz":              compressed("xz", "-c"),
		"docker save as xz -9 in blocks": compressed("xz", "-9", "-c", "-T2", "--block-size=4096"),
		"OCI layout":                     ociArchive(t, "docker.io/library/thing:1", img),
	}
	for form, archive := range forms {
		t.Run(form, func(t *testing.T) {
			b := newBench(t)
			out, err := b.load(archive, image.LoadOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if out != "Loaded image: thing:1\n" {
				t.Errorf("said %q", out)
			}
			dirs := b.lower(t, b.resolve(t, "thing:1"))
			if data, err := os.ReadFile(filepath.Join(dirs[0], "etc/b")); err != nil || string(data) != "b" {
				t.Errorf("topmost layer: %q, %v", data, err)
			}
			if c := b.contents(t); c.ingests != 0 || c.leases != 1 || c.names != 1 {
				t.Errorf("the store holds %+v", c)
			}
		})
	}
}

// TestLoadLeavesArtifactsOut: a layout lists signatures beside the image that they are about, in an index or not.
func TestLoadLeavesArtifactsOut(t *testing.T) {
	img := imageOf(t, "amd64", layerOf(t, entry{"a", "a"}))
	signature := mutate.ConfigMediaType(mutate.MediaType(empty.Image, "application/vnd.oci.image.manifest.v1+json"), "application/vnd.oci.empty.v1+json")
	signatures := mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: signature})
	archive := func(image bool) []byte {
		dir := t.TempDir()
		p, err := layout.Write(dir, empty.Index)
		if err != nil {
			t.Fatal(err)
		}
		errs := []error{p.AppendImage(signature), p.AppendIndex(signatures)}
		if image {
			errs = append(errs, p.AppendImage(img, layout.WithAnnotations(map[string]string{"io.containerd.image.name": "docker.io/lab/signed:1"})))
		}
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
		return tarTree(t, dir)
	}
	b := newBench(t)
	said, err := b.load(archive(true), image.LoadOptions{})
	if err != nil || !strings.HasSuffix(said, "\nLoaded image: lab/signed:1\n") || strings.Count(said, "no image: it is of the type application/vnd.oci.empty.v1+json") != 2 {
		t.Errorf("%q, %v", said, err)
	}
	if c := b.contents(t); c.names != 1 {
		t.Errorf("the store holds %+v", c)
	}
	b = newBench(t)
	if _, err := b.load(archive(false), image.LoadOptions{}); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "holds no image") {
		t.Errorf("%v", err)
	}
	b.mustBeEmpty(t)
}

// TestSaveByTagAndDigest: of NAME:TAG@DIGEST the tag is the one that is saved, if the image has it.
func TestSaveByTagAndDigest(t *testing.T) {
	ctx := context.Background()
	b := newBench(t)
	for _, tag := range []string{"1", "2"} {
		if _, err := b.load(saved(t, "lab/x:"+tag, imageOf(t, "amd64", layerOf(t, entry{"a", tag}))), image.LoadOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.images.Tag(ctx, "lab/x:2", "lab/x", "0"); err != nil {
		t.Fatal(err)
	}
	id := b.resolve(t, "lab/x:2").ID.String()
	for asked, want := range map[string]string{"lab/x:2": "lab/x:2", "lab/x:1": id, "lab/x:none": id} {
		found, err := b.images.Save(ctx, []string{asked + "@" + id}, nil)
		if err != nil {
			t.Fatal(err)
		}
		var archive bytes.Buffer
		err = found.Write(ctx, &archive)
		found.Close()
		if err != nil {
			t.Fatal(err)
		}
		if said, err := newBench(t).load(archive.Bytes(), image.LoadOptions{}); err != nil || !strings.HasSuffix(said, ": "+want+"\n") || strings.Count(said, "\n") != 1 {
			t.Errorf("%s: %q, %v", asked, said, err)
		}
	}
}

// TestSaveOfIndexesThatShareAManifest: manifest.json, which is all that some programs read of an archive, has the names of
// both.
func TestSaveOfIndexesThatShareAManifest(t *testing.T) {
	ctx := context.Background()
	b := newBench(t)
	img := imageOf(t, "amd64", layerOf(t, entry{"a", "a"}))
	for _, tag := range []string{"1", "2"} {
		idx := mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "amd64"}}})
		idx = mutate.Annotations(idx, map[string]string{"made": tag}).(v1.ImageIndex)
		if _, err := b.load(ociArchive(t, "docker.io/lab/x:"+tag, idx), image.LoadOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	found, err := b.images.Save(ctx, []string{"lab/x:1", "lab/x:2"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer found.Close()
	var archive bytes.Buffer
	if err := found.Write(ctx, &archive); err != nil {
		t.Fatal(err)
	}
	for what, bytes := range map[string][]byte{"all of it": archive.Bytes(), "what docker save has written of old": withoutFile(t, archive.Bytes(), "index.json")} {
		said, err := newBench(t).load(bytes, image.LoadOptions{Quiet: true})
		if want := "Loaded image: lab/x:1\nLoaded image: lab/x:2\n"; err != nil || said != want {
			t.Errorf("%s: %q, %v", what, said, err)
		}
	}
}

func TestLoadWithoutANameGivesTheID(t *testing.T) {
	b := newBench(t)
	img := imageOf(t, "amd64", layerOf(t, entry{"a", "a"}))
	out, err := b.load(ociArchive(t, "", img), image.LoadOptions{Quiet: true})
	if err != nil {
		t.Fatal(err)
	}
	id := digestOf(t, img)
	if out != "Loaded image ID: "+id+"\n" {
		t.Errorf("said %q", out)
	}
	if err := b.store.GC(context.Background()); err != nil {
		t.Fatal(err)
	}
	list, err := b.images.List(context.Background(), image.ListRequest{}, nil)
	if err != nil || len(list) != 1 || list[0].ID != id || len(list[0].RepoTags) != 0 {
		t.Errorf("listed %+v, %v", list, err)
	}
	b.lower(t, b.resolve(t, id))
}

func TestLoadReplacesANameAndKeepsTheOldImage(t *testing.T) {
	b := newBench(t)
	old, new := imageOf(t, "amd64", layerOf(t, entry{"a", "1"})), imageOf(t, "amd64", layerOf(t, entry{"a", "2"}))
	for _, img := range []v1.Image{old, new} {
		if _, err := b.load(ociArchive(t, "docker.io/library/x:1", img), image.LoadOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if got := b.resolve(t, "x:1").ID.String(); got != digestOf(t, new) {
		t.Errorf("x:1 is %s", got)
	}
	dangling := map[string][]string{"dangling": {"true"}}
	list, err := b.images.List(context.Background(), image.ListRequest{Filters: dangling}, nil)
	if err != nil || len(list) != 1 || list[0].ID != digestOf(t, old) {
		t.Errorf("dangling: %+v, %v", list, err)
	}
}

// A platform's layers count to an image's size when they are unpacked, which is when a container needs them.
func TestSizeAfterUnpacking(t *testing.T) {
	b := newBench(t)
	ctx := context.Background()
	var index v1.ImageIndex = empty.Index
	for _, arch := range []string{"amd64", "arm64"} {
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: imageOf(t, arch, layerOf(t, entry{"a", noise(100 << 10)})),
			Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}}})
	}
	if _, err := b.load(ociArchive(t, "docker.io/lab/multi:1", index.(mutate.Appendable)), image.LoadOptions{}); err != nil {
		t.Fatal(err)
	}
	size := func() int64 {
		t.Helper()
		list, err := b.images.List(ctx, image.ListRequest{}, nil)
		if err != nil || len(list) != 1 {
			t.Fatal(list, err)
		}
		return list[0].Size
	}
	before := size()
	for _, arch := range []string{"amd64", "arm64"} {
		img, err := b.images.Resolve(ctx, "lab/multi:1", "linux/"+arch)
		if err != nil {
			t.Fatal(err)
		}
		b.lower(t, img)
	}
	if after := size(); after < before+100<<10 {
		t.Errorf("%d bytes before, %d after", before, after)
	}
}

func TestLoadChoosesPlatforms(t *testing.T) {
	amd, arm := imageOf(t, "amd64", layerOf(t, entry{"a", "amd"})), imageOf(t, "arm64", layerOf(t, entry{"a", "arm"}))
	idx := mutate.AppendManifests(empty.Index,
		mutate.IndexAddendum{Add: amd, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "amd64"}}},
		mutate.IndexAddendum{Add: arm, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "arm64"}}})
	archive := ociArchive(t, "docker.io/library/multi:1", idx)

	b := newBench(t)
	if _, err := b.load(archive, image.LoadOptions{Platforms: []string{"linux/arm64"}}); err != nil {
		t.Fatal(err)
	}
	if err := b.store.GC(context.Background()); err != nil {
		t.Fatal(err)
	}
	img := b.resolve(t, "multi:1")
	if img.Platform.Architecture != "arm64" || img.Manifest.Digest.String() != digestOf(t, arm) || img.ID.String() != digestOf(t, idx) {
		t.Errorf("resolved to %+v", img)
	}
	b.lower(t, img)
	if _, err := b.images.Resolve(context.Background(), "multi:1", "linux/amd64"); !errdefs.IsNotFound(err) {
		t.Errorf("amd64 was not asked for: %v", err)
	}

	b = newBench(t)
	_, err := b.load(archive, image.LoadOptions{Platforms: []string{"linux/s390x"}})
	if !errdefs.IsNotFound(err) || !strings.Contains(err.Error(), "linux/s390x") {
		t.Errorf("a platform that is not there: %v", err)
	}
	b.mustBeEmpty(t)
}

// TestPlatformsAfterACollection: the blobs of platforms that were not asked for are here until they are collected, and are
// told as gone from then on.
func TestPlatformsAfterACollection(t *testing.T) {
	ctx := context.Background()
	b := newBench(t)
	available := func() (list []string) {
		t.Helper()
		all, err := b.images.Manifests(ctx, "lab/multi:1")
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range all {
			if m.Available {
				list = append(list, m.ImageData.Platform.Architecture)
			}
		}
		return list
	}
	archive := bytes.NewReader(ociArchive(t, "docker.io/lab/multi:1", threePlatforms(t).(mutate.Appendable)))
	before := 0
	err := b.images.Load(ctx, archive, image.LoadOptions{Platforms: []string{"linux/arm64"}}, func(m jsonstream.Message) {
		if strings.HasPrefix(m.Stream, "Loaded image") {
			before = len(available()) // nothing can be collected yet
		}
	})
	if err != nil || before != 3 {
		t.Fatalf("%d platforms were available, %v", before, err)
	}
	if err := b.store.GC(ctx); err != nil {
		t.Fatal(err)
	}
	if got := available(); len(got) != 1 || got[0] != "arm64" {
		t.Errorf("told as available: %v", got)
	}
}

// TestLoadOfOnePlatformAfterAnother: what a load of one platform brings does not take the place of what is here of others,
// and is there at once, also where the archive has no name for it.
func TestLoadOfOnePlatformAfterAnother(t *testing.T) {
	ctx := context.Background()
	for _, name := range []string{"docker.io/lab/multi:1", ""} {
		archive := ociArchive(t, name, threePlatforms(t).(mutate.Appendable))
		b := newBench(t)
		var ref string
		for _, platform := range []string{"linux/s390x", "linux/arm64", "linux/amd64"} {
			said, err := b.load(archive, image.LoadOptions{Platforms: []string{platform}})
			if err != nil {
				t.Fatal(err)
			}
			_, ref, _ = strings.Cut(strings.TrimSpace(said), ": ")
			if err := b.store.GC(ctx); err != nil {
				t.Fatal(err)
			}
			if _, err := b.images.Resolve(ctx, ref, platform); err != nil {
				t.Errorf("%q after its load: %v", name, err)
			}
		}
		list, err := b.images.Manifests(ctx, ref)
		if err != nil || len(list) != 3 {
			t.Fatal(list, err)
		}
		for _, m := range list {
			if !m.Available {
				t.Errorf("%q: what there was for %s is gone", name, m.Descriptor.Platform.Architecture)
			}
		}
	}
}

func TestLoadRefusesBadArchivesAndLeavesNothing(t *testing.T) {
	img := imageOf(t, "amd64", layerOf(t, entry{"etc/", ""}, entry{"etc/a", noise(100_000)}))
	good := saved(t, "thing:1", img)
	layers, _ := img.Layers()
	layerName := "blobs/sha256/" + strings.TrimPrefix(digestOf(t, layers[0]), "sha256:")
	oci := ociArchive(t, "docker.io/library/thing:1", img)
	wrongDiff, err := mutate.ConfigFile(img, func() *v1.ConfigFile {
		cfg, _ := img.ConfigFile()
		cfg = cfg.DeepCopy()
		cfg.RootFS.DiffIDs[0] = v1.Hash{Algorithm: "sha256", Hex: strings.Repeat("0", 64)}
		return cfg
	}())
	if err != nil {
		t.Fatal(err)
	}
	xz := func(options ...string) []byte {
		cmd := exec.Command("xz", options...)
		cmd.Stdin = bytes.NewReader(good)
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("xz: %v", err)
		}
		return out
	}
	changed := func(b []byte) []byte {
		b = bytes.Clone(b)
		b[len(b)/2] ^= 1
		return b
	}
	cases := []struct {
		name    string
		archive []byte
		text    string
	}{
		{"empty", nil, "the image archive is empty"},
		{"not a tar archive", []byte(strings.Repeat("this is no archive ", 100)), "damaged or not a tar archive"},
		{"cut off", good[:len(good)/2], "damaged or not a tar archive"},
		{"gzip cut off", gzipped(good)[:40_000], "damaged or not a tar archive"},
		{"xz", []byte("\xfd7zXZ\x00aaaaaaaaaaaaaaaa"), "damaged or not a tar archive"},
		{"xz cut off", xz("-c")[:40_000], "damaged or not a tar archive"},
		{"xz changed", changed(xz("-c")), "damaged or not a tar archive"},
		{"xz with a large dictionary", xz("-c", "--lzma2=dict=128MiB"), "more memory to decompress than xz -9"},
		{"no image", tarOf(t, tar.Header{Name: "hello", Size: 5}), "neither docker save's manifest.json nor an OCI layout"},
		{"a filesystem", tarOf(t, tar.Header{Name: ".dockerenv"}, tar.Header{Name: "etc/mtab", Typeflag: tar.TypeSymlink, Linkname: "/proc/mounts"}), "make an image of it by import"},
		{"a filesystem of a program", tarOf(t, tar.Header{Name: "./etc/", Typeflag: tar.TypeDir}), "make an image of it by import"},
		{"a layout in a directory", tarOf(t, tar.Header{Name: "./out/oci-layout", Size: 5}), "tar -C out -cf"},
		{"an image's manifest", withJSON(t, "manifest.json", `{"schemaVersion":2,"config":{},"layers":[]}`), "docker-archive or oci-archive"},
		{"old format", tarOf(t, tar.Header{Name: "repositories", Size: 5}), "docker save before 1.10"},
		{"absolute path", tarOf(t, tar.Header{Name: "/etc/passwd", Size: 5}), `a file "/etc/passwd", outside of the archive`},
		{"parent path", tarOf(t, tar.Header{Name: "../../x", Size: 5}), `a file "../../x", outside of the archive`},
		{"link out", tarOf(t, tar.Header{Name: "a/layer.tar", Typeflag: tar.TypeSymlink, Linkname: "../../../etc/shadow"}), "outside of the archive"},
		{"absolute link", tarOf(t, tar.Header{Name: "a/layer.tar", Typeflag: tar.TypeSymlink, Linkname: "/etc/shadow"}), "outside of the archive"},
		{"hard link out", tarOf(t, tar.Header{Name: "l", Typeflag: tar.TypeLink, Linkname: "/etc/shadow"}), "outside of the archive"},
		{"a name of a megabyte", tarOf(t, tar.Header{Name: strings.Repeat("x", 1<<20-100), Typeflag: tar.TypeSymlink, Linkname: "b"}), "a name of 1048476 bytes"},
		{"a chain of links", chainOfLinks(t, 1000), "over more than 40 others"},
		{"too many links", chainOfLinks(t, 110_000), "more than 100000 files"},
		{"link in a circle", tarOf(t, tar.Header{Name: "a", Typeflag: tar.TypeSymlink, Linkname: "b"}, tar.Header{Name: "b", Typeflag: tar.TypeSymlink, Linkname: "a"}), "in a circle"},
		{"blob with another digest", bytes.Replace(oci, []byte(layerName), []byte("blobs/sha256/"+strings.Repeat("ab", 32)), 1), "damaged"},
		{"blob missing", withoutFile(t, oci, layerName), "is missing"},
		{"wrong diff id", ociArchive(t, "docker.io/library/thing:1", wrongDiff), "wrong diff id"},
		{"manifest names nothing", withJSON(t, "manifest.json", `[{"Config":"gone.json","RepoTags":["a:1"],"Layers":[]}]`), "names gone.json, which is not there"},
		{"manifest names the outside", withJSON(t, "manifest.json", `[{"Config":"../gone.json","Layers":[]}]`), "outside of the archive"},
		{"manifest is no JSON", withJSON(t, "manifest.json", `[{`), "damaged"},
		{"a million layers", withJSON(t, "manifest.json", `[{"Config":"c.json","Layers":["l"`+strings.Repeat(`,"l"`, 1_000_000)+`]}]`), "more than 1000 layers"},
		{"too many names", withJSON(t, "manifest.json", `[{"Config":"c.json","RepoTags":["a"`+strings.Repeat(`,"a"`, 10_000)+`]}]`), "more than 10000 names or images"},
		{"no images", withJSON(t, "manifest.json", `[]`), "holds no image"},
		{"upper-case name", bytes.Replace(oci, []byte("library/thing:1"), []byte("library/Thing:1"), 1), "must be lowercase"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t)
			out, err := b.load(c.archive, image.LoadOptions{})
			if err == nil || !strings.Contains(err.Error(), c.text) {
				t.Errorf("error %v, want one with %q", err, c.text)
			}
			if strings.Contains(out, "Loaded") {
				t.Errorf("said %q all the same", out)
			}
			if strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), ": invalid argument") {
				t.Errorf("the text is not for people: %q", err)
			}
			b.mustBeEmpty(t)
		})
	}
}

// chainOfLinks is an archive of n links, each to the next.
func chainOfLinks(t testing.TB, n int) []byte {
	t.Helper()
	links := make([]tar.Header, n)
	for i := range links {
		links[i] = tar.Header{Name: fmt.Sprint(i), Typeflag: tar.TypeSymlink, Linkname: fmt.Sprint(i + 1)}
	}
	return tarOf(t, links...)
}

func withJSON(t testing.TB, name, text string) []byte {
	t.Helper()
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	tw.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(text))})
	io.WriteString(tw, text)
	tw.Close()
	return buf.Bytes()
}

func withoutFile(t testing.TB, archive []byte, name string) []byte {
	t.Helper()
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	tr := tar.NewReader(bytes.NewReader(archive))
	for {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Name == name {
			continue
		}
		tw.WriteHeader(h)
		io.Copy(tw, tr)
	}
	tw.Close()
	return buf.Bytes()
}

func TestLoadIsCancelled(t *testing.T) {
	b := newBench(t)
	ctx, cancel := context.WithCancel(context.Background())
	archive := saved(t, "thing:1", imageOf(t, "amd64", layerOf(t, entry{"a", noise(1 << 20)})))
	half := &cancellingReader{r: bytes.NewReader(archive), after: len(archive) / 2, cancel: cancel}
	if err := b.images.Load(ctx, half, image.LoadOptions{}, nil); err == nil {
		t.Error("a cancelled load succeeds")
	}
	b.mustBeEmpty(t)
}

// cancellingReader cancels once half is read, and then fails as a closed connection.
type cancellingReader struct {
	r      io.Reader
	after  int
	cancel func()
}

func (c *cancellingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p[:min(len(p), 4096)])
	if c.after -= n; c.after < 0 {
		c.cancel()
		return n, context.Canceled
	}
	return n, err
}

func FuzzLoad(f *testing.F) {
	img := imageOf(f, "amd64", layerOf(f, entry{"a", "a"}))
	f.Add(saved(f, "thing:1", img))
	f.Add(withJSON(f, "manifest.json", `[{"Config":"x","RepoTags":["a:1"],"Layers":["y"]}]`))
	b := newBench(f)
	f.Fuzz(func(t *testing.T, archive []byte) {
		// Whatever it is, it is taken or refused in words, and no ingest stays.
		if _, err := b.load(archive, image.LoadOptions{}); err != nil {
			if _, jerr := json.Marshal(err.Error()); jerr != nil || err.Error() == "" {
				t.Errorf("error %q", err)
			}
		}
		if c := b.contents(t); c.ingests != 0 {
			t.Errorf("%d ingests stay", c.ingests)
		}
	})
}
