package e2e

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/client"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatlabs/cleat/test/expect"
	"github.com/cleatlabs/cleat/test/harness"
)

// TestBuildNamesImages: tags, ids and what else tells a script what was made.
func TestBuildNamesImages(t *testing.T) {
	e := builder(t)
	dir := project(t, dockerfile("FROM busybox\nRUN echo named >/made\nCMD [\"cat\", \"/made\"]\n"))
	aux := t.TempDir()
	dropImages(t, e, "out-one", "out-two:v1", "localhost:1/out-three")
	build(t, e, "docker", dir, "-t", "out-one", "-t", "out-two:v1", "-t", "localhost:1/out-three", "--iidfile", aux+"/iid", "--metadata-file", aux+"/meta")
	id := read(t, aux+"/iid")
	for _, n := range []string{"out-one", "out-two:v1", "localhost:1/out-three", id} {
		if got := e.OK(t, "docker", "run", "--rm", n); got != "named" {
			t.Errorf("%s: %q", n, got)
		}
	}
	if got := e.OK(t, "docker", "image", "inspect", "-f", "{{.Id}}", "out-one"); got != id {
		t.Errorf("the id of the build is %s, that of the image %s", id, got)
	}
	var meta map[string]any
	if err := json.Unmarshal([]byte(read(t, aux+"/meta")), &meta); err != nil || meta["image.name"] == nil || meta["buildx.build.ref"] == nil || meta["containerimage.digest"] != id {
		t.Errorf("metadata: %v %v", meta, err)
	}
	// Quiet prints the id alone, and the same build gives the same image.
	if r := (buildRun{dir: dir, args: []string{"-q", "."}}).do(t, e, "docker"); r.Code != 0 || !regexp.MustCompile(`^sha256:[0-9a-f]{64}\n$`).MatchString(r.Stdout) {
		t.Errorf("%s", r)
	}
	for _, row := range strings.Fields(e.OK(t, "docker", "history", "--format", "{{.CreatedBy}}", "out-one")) {
		if strings.Contains(row, "buildkit") {
			return
		}
	}
	t.Errorf("history does not tell the steps: %s", e.OK(t, "docker", "history", "--no-trunc", "out-one"))
}

// TestBuildUntagsWhatItReplaces: the image that had the name stays, without one.
func TestBuildUntagsWhatItReplaces(t *testing.T) {
	e := builder(t)
	fs := files{"Dockerfile": "FROM busybox\nCOPY f /\nLABEL replaced=here\n", "f": "1"}
	dir := project(t, fs)
	dropImages(t, e, "out-replaced")
	build(t, e, "docker", dir, "-t", "out-replaced")
	first := e.OK(t, "docker", "image", "inspect", "-f", "{{.Id}}", "out-replaced")
	replace(t, filepath.Join(dir, "f"), "1", "2")
	build(t, e, "docker", dir, "-t", "out-replaced")
	if got := e.OK(t, "docker", "image", "ls", "-q", "--no-trunc", "--filter", "dangling=true", "--filter", "label=replaced=here"); got != first {
		t.Errorf("dangling is %q, not the image before, %s", got, first)
	}
	e.OK(t, "docker", "image", "prune", "-f", "--filter", "label=replaced=here")
	if got := e.OK(t, "docker", "run", "--rm", "out-replaced", "cat", "/f"); got != "2" {
		t.Errorf("%q", got)
	}
}

// TestBuildAttestedTwiceIsOneImage: a build that changes nothing gives the image that is there, though it would be attested
// with another time: neither does its id go, nor is another one left without a name.
func TestBuildAttestedTwiceIsOneImage(t *testing.T) {
	e := builder(t)
	mark := "attested-" + name(t)
	dir := project(t, files{"Dockerfile": "FROM busybox\nCOPY f /\nLABEL mark=" + mark + "\n", "f": "1"})
	dropImages(t, e, "out-twice", "out-twice:also")
	all := func() []string {
		ids := strings.Fields(e.OK(t, "docker", "image", "ls", "-aq", "--no-trunc", "--filter", "label=mark="+mark))
		slices.Sort(ids)
		return slices.Compact(ids) // one with two names is listed twice
	}
	t.Cleanup(func() { e.OK(t, "docker", "image", "prune", "-f", "--filter", "label=mark="+mark) })
	for i, args := range [][]string{
		{"--provenance=mode=min", "-t", "out-twice"},
		{"--provenance=mode=max", "-t", "out-twice"}, // says more
		{"--provenance=mode=max,version=v0.2", "-t", "out-twice"},
		{"--provenance=mode=min", "-t", "out-twice:also", "-t", "out-twice"}, // the names are attested, too
		{"--provenance=mode=max"},
	} {
		first := ""
		for range 2 {
			aux := filepath.Join(t.TempDir(), "iid")
			build(t, e, "docker", dir, append(args, "--iidfile", aux)...)
			id := read(t, aux)
			if first != "" && id != first {
				t.Errorf("%v: %s, and then %s", args, first, id)
			}
			first = id
		}
		if got := all(); len(got) != i+1 || !slices.Contains(got, first) {
			t.Errorf("%v: %s is not one of %d: %v", args, first, i+1, got)
		}
		if len(args) > 1 && e.OK(t, "docker", "image", "inspect", "-f", "{{.Id}}", "out-twice") != first {
			t.Errorf("%v: out-twice is not %s", args, first)
		}
	}
	// Builds of the same at the same time are one image, too.
	replace(t, filepath.Join(dir, "f"), "1", "2")
	var ids [4]harness.Result
	var wait sync.WaitGroup
	for i := range ids {
		wait.Go(func() {
			ids[i] = buildRun{dir: dir, args: []string{"-q", "-t", "out-twice", "."}}.do(t, e, "docker")
		})
	}
	wait.Wait()
	for _, r := range ids {
		if r.Code != 0 || r.Stdout != ids[0].Stdout {
			t.Errorf("%s\n%s", ids[0], r)
		}
	}
}

// TestBuildOutputs: every type of output.
func TestBuildOutputs(t *testing.T) {
	e := builder(t)
	dir := project(t, files{"Dockerfile": "FROM busybox AS run\nCOPY --chmod=755 f /f\nCMD [\"cat\", \"/f\"]\nFROM scratch AS files\nCOPY --from=run /f /deep/f\n", "f": "text"})
	out := t.TempDir()
	at := func(name string) string { return filepath.Join(out, name) }

	t.Run("local", func(t *testing.T) {
		build(t, e, "docker", dir, "--target", "files", "-o", at("local"))
		if got := read(t, at("local/deep/f")); got != "text" {
			t.Errorf("%q", got)
		}
	})
	t.Run("tar", func(t *testing.T) {
		r := buildRun{dir: dir, args: []string{"--target", "files", "-o", "-", "."}}.do(t, e, "docker")
		if names := namesIn(t, strings.NewReader(r.Stdout)); !names["deep/f"] {
			t.Errorf("%v in %s", names, r.Stderr)
		}
	})
	t.Run("docker", func(t *testing.T) {
		dropImages(t, e, "out-docker")
		build(t, e, "docker", dir, "--target", "run", "-t", "out-docker", "-o", "type=docker,dest="+at("docker.tar"))
		if r := e.Do(t, "docker", "", "image", "inspect", "out-docker"); r.Code == 0 {
			t.Error("the image is in the engine, too")
		}
		e.OK(t, "docker", "load", "-i", at("docker.tar"))
		if got := e.OK(t, "docker", "run", "--rm", "out-docker"); got != "text" {
			t.Errorf("%q", got)
		}
	})
	t.Run("oci", func(t *testing.T) {
		dropImages(t, e, "out-oci")
		build(t, e, "docker", dir, "--target", "run", "-t", "out-oci", "-o", "type=oci,dest="+at("oci.tar"))
		f, err := os.Open(at("oci.tar"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if names := namesIn(t, f); !names["oci-layout"] || !names["index.json"] {
			t.Errorf("%v", names)
		}
		e.OK(t, "docker", "load", "-i", at("oci.tar"))
		if got := e.OK(t, "docker", "run", "--rm", "out-oci"); got != "text" {
			t.Errorf("%q", got)
		}
	})
	t.Run("oci, as a directory and as a context", func(t *testing.T) {
		build(t, e, "docker", dir, "--target", "run", "-t", "x", "-o", "type=oci,tar=false,dest="+at("layout"))
		from := project(t, dockerfile("FROM base\nRUN [ \"$(cat /f)\" = text ]\n"))
		build(t, e, "docker", from, "--build-context", "base=oci-layout://"+at("layout")+":latest", "-o", "type=cacheonly")
	})
	t.Run("registry", func(t *testing.T) {
		reg := harness.StartRegistry(t)
		ref := reg.Addr + "/team/app:v1"
		dropImages(t, e, ref)
		build(t, e, "docker", dir, "--target", "run", "-t", ref, "--push")
		e.Do(t, "docker", "", "rmi", "-f", ref)
		if got := e.OK(t, "docker", "run", "--rm", "--pull", "always", ref); !strings.HasSuffix(got, "text") {
			t.Errorf("%q", got)
		}
		build(t, e, "docker", dir, "--target", "files", "-t", reg.Addr+"/team/files", "-o", "type=registry")
		e.OK(t, "docker", "buildx", "imagetools", "inspect", reg.Addr+"/team/files")
	})
	t.Run("several", func(t *testing.T) {
		dropImages(t, e, "out-several")
		build(t, e, "docker", dir, "--target", "run", "-t", "out-several", "-o", "type=image", "-o", "type=local,dest="+at("several"))
		if got := read(t, at("several/f")); got != "text" {
			t.Errorf("%q", got)
		}
		if got := e.OK(t, "docker", "run", "--rm", "out-several"); got != "text" {
			t.Errorf("%q", got)
		}
	})
	t.Run("a directory that cannot be written", func(t *testing.T) {
		if err := os.WriteFile(at("file"), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		buildFails(t, e, "docker", dir, []string{"--target", "files", "-o", at("file/below")}, "not a directory")
	})
}

func namesIn(t *testing.T, r io.Reader) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return names
		}
		if err != nil {
			t.Fatal(err)
		}
		names[h.Name] = true
	}
}

// TestBuildReproducibly: with SOURCE_DATE_EPOCH the same files give the same image,
// whenever it is made and whatever their dates.
func TestBuildReproducibly(t *testing.T) {
	e := builder(t)
	out := t.TempDir()
	digest := func(n string) string {
		dir := project(t, files{"Dockerfile": "FROM busybox\nCOPY f /d/f\nRUN echo made >/made && mkdir /there\nLABEL a=b\n", "f": "text"})
		r := buildRun{dir: dir, args: []string{"--no-cache", "--provenance=false", "-t", "x", "--metadata-file", filepath.Join(out, n),
			"-o", "type=oci,rewrite-timestamp=true,dest=" + filepath.Join(out, n+".tar"), "."}, env: []string{"SOURCE_DATE_EPOCH=1700000000"}}.do(t, e, "docker")
		if r.Code != 0 {
			t.Fatal(r)
		}
		var meta struct {
			Digest string `json:"containerimage.digest"`
		}
		if err := json.Unmarshal([]byte(read(t, filepath.Join(out, n))), &meta); err != nil {
			t.Fatal(err)
		}
		return meta.Digest
	}
	one, two := digest("one"), digest("two")
	if one != two || one == "" {
		t.Errorf("%q and %q", one, two)
	}
}

// TestBuildForPlatforms: one name for several architectures.
func TestBuildForPlatforms(t *testing.T) {
	e := builder(t)
	reg := harness.StartRegistry(t)
	ref := reg.Addr + "/team/multi"
	dir := project(t, dockerfile(`FROM --platform=$BUILDPLATFORM busybox AS make
ARG TARGETARCH
RUN echo "for $TARGETARCH" >/arch
FROM scratch
COPY --from=make /arch /
`))
	build(t, e, "docker", dir, "--platform", "linux/amd64,linux/arm64", "-t", ref, "--push")
	seen := e.OK(t, "docker", "buildx", "imagetools", "inspect", ref)
	for _, p := range []string{"linux/amd64", "linux/arm64"} {
		if !strings.Contains(seen, p) {
			t.Errorf("%s is not in %s", p, seen)
		}
	}
	out := filepath.Join(t.TempDir(), "out")
	build(t, e, "docker", dir, "--platform", "linux/amd64,linux/arm64", "-o", out)
	for _, a := range []string{"amd64", "arm64"} {
		if got := read(t, filepath.Join(out, "linux_"+a, "arch")); got != "for "+a+"\n" {
			t.Errorf("%q", got)
		}
	}
	dropImages(t, e, "out-multi")
	build(t, e, "docker", dir, "--platform", "linux/amd64,linux/arm64", "-t", "out-multi")
	// A base image that is there for one architecture only is told of.
	other := map[string]string{"amd64": "arm64", "arm64": "amd64"}[runtime.GOARCH]
	build(t, e, "docker", project(t, dockerfile("FROM busybox\nCOPY Dockerfile /\n")), "--platform", "linux/"+other, "-o", "type=cacheonly").
		has(t, "InvalidBaseImagePlatform", "expected \"linux/"+other)
}

// TestBuildAttests: provenance by default and in full, and an SBOM by a scanner of
// the user's choice.
func TestBuildAttests(t *testing.T) {
	e := builder(t)
	reg := harness.StartRegistry(t)
	scanner := reg.Addr + "/team/scanner"
	build(t, e, "docker", project(t, files{"Dockerfile": "FROM busybox\nCOPY --chmod=755 scan /scan\nCMD [\"/scan\"]\n", "scan": `#!/bin/sh
set -e
[ -d "$BUILDKIT_SCAN_SOURCE" ]
cat >"$BUILDKIT_SCAN_DESTINATION/found.spdx.json" <<END
{"_type":"https://in-toto.io/Statement/v0.1","predicateType":"https://spdx.dev/Document","predicate":{"name":"found by our scanner"}}
END
`}), "-t", scanner, "--push")
	ref := reg.Addr + "/team/attested"
	dir := project(t, dockerfile("FROM busybox\nRUN echo 1 >/one\n"))
	build(t, e, "docker", dir, "-t", ref, "--push", "--provenance=mode=max", "--attest", "type=sbom,generator="+scanner)
	for format, want := range map[string]string{"{{json .Provenance}}": "echo 1", "{{json .SBOM}}": "found by our scanner"} {
		if got := e.OK(t, "docker", "buildx", "imagetools", "inspect", ref, "--format", format); !strings.Contains(got, want) {
			t.Errorf("%s is %s", format, got)
		}
	}
	// An image with attestations runs like any other.
	dropImages(t, e, "out-attested")
	build(t, e, "docker", dir, "-t", "out-attested", "--provenance=mode=max")
	c := e.Client(t)
	for _, statements := range []bool{false, true} {
		options := []client.ImageAttestationsOption{client.ImageAttestationsWithPredicateTypes("https://slsa.dev/provenance/v0.2", "https://slsa.dev/provenance/v1")}
		if statements {
			options = append(options, client.ImageAttestationsWithStatement())
		}
		res, err := c.ImageAttestations(t.Context(), "out-attested", options...)
		if err != nil || len(res.Items) != 1 {
			t.Fatalf("attestations: %+v, %v", res.Items, err)
		}
		if st := res.Items[0].Statement; (st != nil) != statements || st != nil && !strings.Contains(string(*st), "echo 1") {
			t.Errorf("statements %v: %+v", statements, res.Items[0])
		}
	}
	if res, err := c.ImageAttestations(t.Context(), "out-attested", client.ImageAttestationsWithPredicateTypes("https://spdx.dev/Document")); err != nil || len(res.Items) != 0 {
		t.Errorf("attestations of another type: %+v, %v", res.Items, err)
	}
	other := client.ImageAttestationsWithPlatform(ocispec.Platform{OS: "linux", Architecture: "riscv64"})
	if _, err := c.ImageAttestations(t.Context(), "out-attested", other); !errdefs.IsNotFound(err) {
		t.Errorf("attestations for another platform: %v", err)
	}
	if got := e.OK(t, "docker", "run", "--rm", "out-attested", "cat", "/one"); got != "1" {
		t.Errorf("%q", got)
	}
}

// TestBuildCacheTravels: a builder that has forgotten all takes steps from a cache in a
// registry, in an image, or in a directory.
func TestBuildCacheTravels(t *testing.T) {
	e := ownBuilder(t)
	reg := harness.StartRegistry(t)
	local := filepath.Join(t.TempDir(), "cache")
	for _, c := range []struct {
		name     string
		to, from []string
	}{
		{"registry", []string{"--cache-to", "type=registry,mode=max,ref=" + reg.Addr + "/cache/app"}, []string{"--cache-from", "type=registry,ref=" + reg.Addr + "/cache/app"}},
		{"local", []string{"--cache-to", "type=local,mode=max,dest=" + local}, []string{"--cache-from", "type=local,src=" + local}},
		{"inline", []string{"--cache-to", "type=inline", "-t", reg.Addr + "/inline/app", "--push"}, []string{"--cache-from", "type=registry,ref=" + reg.Addr + "/inline/app"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			fs := files{"Dockerfile": "FROM busybox\nCOPY f /f\nRUN cat /f >/made && echo ran$((40+2))\n", "f": c.name}
			build(t, e, "docker", project(t, fs), c.to...)
			forget(t, e)
			if build(t, e, "docker", project(t, fs), "-o", "type=cacheonly").cached(t, "RUN cat /f") {
				t.Error("a pruned step came from the cache")
			}
			forget(t, e)
			out := t.TempDir()
			log := build(t, e, "docker", project(t, fs), append(c.from, "-o", out)...)
			if strings.Contains(string(log), "ran42") {
				t.Errorf("the step was run again: %s", log)
			}
			if got := read(t, filepath.Join(out, "made")); got != c.name {
				t.Errorf("%q", got)
			}
		})
	}
	buildFails(t, e, "docker", project(t, dockerfile("FROM scratch\nCOPY Dockerfile /\n")), []string{"--cache-to", "type=gha,url=http://127.0.0.1:1/,token=x"}, "gha")

	// A script reads of what it can do something about, in a line that is the command's own.
	dir, missing := project(t, dockerfile("FROM scratch\nCOPY Dockerfile /\n")), filepath.Join(t.TempDir(), "missing")
	said := e.Cleat(t, "build", "-q", "--cache-to", "type=local,dest="+filepath.Join(t.TempDir(), "to"), "--cache-from", "type=local,src="+missing, dir)
	if said.Code != 0 || !strings.HasPrefix(said.Stderr, "WARNING: local cache import at "+missing) || strings.Count(said.Stderr, "\n") != 1 {
		t.Errorf("a build without its cache: %s", said)
	}
	if _, err := os.Stat(missing); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("where there is no cache a build leaves something: %v", err)
	}
}

// TestBuildCacheIsKept and pruned, and told about.
func TestBuildCacheIsKept(t *testing.T) {
	e := ownBuilder(t)
	fs := files{"Dockerfile": "FROM busybox AS made\nRUN dd if=/dev/zero of=/big bs=1M count=20 2>/dev/null\nRUN --mount=type=cache,target=/c echo kept >/c/f\nRUN [ -z \"$LATER\" ]\nCOPY f /\n", "f": "1"}
	dir := project(t, fs)
	build(t, e, "docker", dir, "-o", "type=cacheonly")
	all := []string{"RUN dd", "RUN --mount=type=cache", "COPY f /"}
	build(t, e, "docker", dir, "-o", "type=cacheonly").wantCached(t, all, nil)
	build(t, e, "docker", dir, "-o", "type=cacheonly", "--no-cache-filter", "made").wantCached(t, nil, all)
	build(t, e, "docker", dir, "-o", "type=cacheonly", "--no-cache").wantCached(t, nil, all)

	// The engine's death loses nothing.
	e.Kill()
	e.Run(t)
	build(t, e, "docker", dir, "-o", "type=cacheonly").wantCached(t, all, nil)

	for _, du := range [][]string{{"buildx", "du"}, {"buildx", "du", "--verbose"}, {"system", "df", "-v"}} {
		if got := e.OK(t, "docker", du...); !strings.Contains(got, "exec.cachemount") && !strings.Contains(got, "Total") && !strings.Contains(got, "Build cache usage") {
			t.Errorf("%v: %s", du, got)
		}
	}
	harness.Eventually(t, func() (bool, string) { // what a build has used it lets go of behind its end
		e.OK(t, "docker", "builder", "prune", "-f", "--filter", "type=exec.cachemount")
		got := e.OK(t, "docker", "buildx", "du", "--filter", "type=exec.cachemount", "--verbose")
		return !strings.Contains(got, "exec.cachemount"), "the cache mount is still there: " + got
	})
	build(t, e, "docker", dir, "-o", "type=cacheonly").wantCached(t, []string{"RUN dd"}, nil)
	if got := e.OK(t, "docker", "builder", "prune", "-af"); !strings.Contains(got, "Total") {
		t.Errorf("%q", got)
	}
	forget(t, e)
	build(t, e, "docker", dir, "-o", "type=cacheonly").wantCached(t, nil, []string{"RUN dd"})
	e.OK(t, "docker", "buildx", "prune", "-af", "--max-used-space", "1mb")
}

// TestBuildHistory: what was built can be looked up.
func TestBuildHistory(t *testing.T) {
	e := ownBuilder(t)
	dir := project(t, dockerfile("FROM busybox\nRUN echo said in a step\n"))
	build(t, e, "docker", dir, "-o", "type=cacheonly")
	buildFails(t, e, "docker", project(t, dockerfile("FROM busybox\nRUN exit 9\n")), nil, "exit code: 9")
	ls := e.OK(t, "docker", "buildx", "history", "ls", "--format", "{{.Ref}} {{.Status}}")
	if n := strings.Count(ls+"\n", "\n"); n != 2 || !strings.Contains(ls, "Completed") || !strings.Contains(ls, "Error") {
		t.Fatalf("%s", ls)
	}
	var done string
	for row := range strings.Lines(ls) {
		if ref, status, _ := strings.Cut(row, " "); strings.TrimSpace(status) == "Completed" {
			done = ref[strings.LastIndex(ref, "/")+1:]
		}
	}
	r := buildRun{dir: dir, args: []string{done}}.command(t, e, "docker", "buildx", "history", "logs")
	if r.Code != 0 || !strings.Contains(r.Stdout+r.Stderr, "said in a step") {
		t.Error(r)
	}
	if got := e.OK(t, "docker", "buildx", "history", "inspect", done); !strings.Contains(got, "Duration:") {
		t.Error(got)
	}
	e.Kill()
	e.Run(t)
	if got := e.OK(t, "docker", "buildx", "history", "ls", "--format", "{{.Ref}}"); !strings.Contains(got, done) {
		t.Errorf("forgotten over a kill: %s", got)
	}
	e.OK(t, "docker", "buildx", "history", "rm", done)
	if got := e.OK(t, "docker", "buildx", "history", "ls", "--format", "{{.Ref}}"); strings.Contains(got, done) {
		t.Errorf("%s", got)
	}
}

// TestBuildHistoryIsBounded by what daemon.json says: to the newest ones, which is looked at when the builder is opened,
// or to none.
func TestBuildHistoryIsBounded(t *testing.T) {
	settings := filepath.Join(t.TempDir(), "daemon.json")
	writeSettings(t, settings, `{"builder": {"history": {"maxEntries": 2}}}`)
	e := ownBuilder(t, "--config-file", settings)
	dir := project(t, dockerfile("FROM busybox\n"))
	recorded := func() []string {
		t.Helper()
		return strings.Fields(e.OK(t, "docker", "buildx", "history", "ls", "--format", "{{.Ref}}"))
	}
	var all []string // the newest first, as ls has them
	for range 4 {
		build(t, e, "docker", dir, "-o", "type=cacheonly")
		all = recorded()
	}
	e.Kill()
	e.Run(t)
	expect.Eventually(t, "two builds recorded", func() bool { return len(recorded()) == 2 })
	if got := recorded(); !slices.Equal(got, all[:2]) {
		t.Errorf("kept %q of %q", got, all)
	}
	e.Kill()
	writeSettings(t, settings, `{"builder": {"history": {}}}`)
	e.Run(t)
	build(t, e, "docker", dir, "-o", "type=cacheonly")
	build(t, e, "cleat", dir, "-t", "unrecorded")
	if got := e.OK(t, "docker", "run", "--rm", "unrecorded", "echo", "runs"); got != "runs" {
		t.Error(got)
	}
	for _, ref := range recorded() {
		if !slices.Contains(all, ref) {
			t.Errorf("%s is recorded", ref)
		}
	}
}

// TestBake builds what a HCL file and a compose file describe.
func TestBake(t *testing.T) {
	e := builder(t)
	dir := project(t, files{
		"Dockerfile":      "FROM busybox\nARG WHO=nobody\nRUN echo \"hello $WHO\" >/made\nCMD [\"cat\", \"/made\"]\n",
		"docker-bake.hcl": "variable \"TAG\" { default = \"v1\" }\ngroup \"default\" { targets = [\"a\", \"b\"] }\ntarget \"a\" {\n  tags = [\"bake-a:${TAG}\"]\n  args = { WHO = upper(\"a\") }\n}\ntarget \"b\" {\n  inherits = [\"a\"]\n  tags = [\"bake-b:${TAG}\"]\n  args = { WHO = \"b\" }\n}\n",
		"compose.yaml":    "services:\n  web:\n    image: bake-compose\n    build:\n      context: .\n      args: { WHO: compose }\n",
	})
	dropImages(t, e, "bake-a:v2", "bake-b:v2", "bake-compose")
	if r := (buildRun{dir: dir, env: []string{"TAG=v2"}, args: []string{"-f", "docker-bake.hcl", "--load"}}).command(t, e, "docker", "buildx", "bake"); r.Code != 0 {
		t.Fatal(r)
	}
	if r := (buildRun{dir: dir, args: []string{"-f", "compose.yaml"}}).command(t, e, "docker", "buildx", "bake"); r.Code != 0 {
		t.Fatal(r)
	}
	for image, want := range map[string]string{"bake-a:v2": "hello A", "bake-b:v2": "hello b", "bake-compose": "hello compose"} {
		if got := e.OK(t, "docker", "run", "--rm", image); got != want {
			t.Errorf("%s: %q", image, got)
		}
	}
}

// TestBuildCalls: questions about a Dockerfile that build nothing.
func TestBuildCalls(t *testing.T) {
	e := builder(t)
	dir := project(t, dockerfile("ARG VERSION=1\nFROM busybox AS base\n# What it says.\nARG WORDS=hello\nRUN echo $WORDS\nFROM base AS final\n"))
	for call, want := range map[string][]string{
		"outline": {"WORDS", "hello"}, "targets": {"base", "final"}, "check": {"Check complete, no warnings found."},
	} {
		r := buildRun{dir: dir, args: []string{"--call", call, "."}}.do(t, e, "docker")
		for _, w := range want {
			if r.Code != 0 || !strings.Contains(r.Stdout, w) {
				t.Errorf("%s: %q is not in %s", call, w, r)
			}
		}
	}
}

// TestBuildWarnsOfFailed: what the checks have found is told of a build that fails, too, where it may be why.
func TestBuildWarnsOfFailed(t *testing.T) {
	e := builder(t)
	dir := project(t, files{"Dockerfile": "# check=error=true\nfrom busybox\nCMD echo hi\n", "docker-bake.hcl": "target \"default\" {}\n"})
	for _, client := range []string{"docker", "cleat"} {
		for command, args := range map[string][]string{"build": {"."}, "bake": nil} {
			r := buildRun{dir: dir, args: args}.command(t, e, client, "buildx", command)
			for _, want := range []string{"2 warnings found", "Command 'from' should match the case", "(line 2)", "lint violation found"} {
				if r.Code == 0 || !strings.Contains(r.Stderr, want) {
					t.Errorf("%s %s: %q is not in %s", client, command, want, r)
				}
			}
		}
	}
}

// TestBuildDriver: buildx finds one builder, the engine, and its platforms.
func TestBuildDriver(t *testing.T) {
	e := builder(t)
	got := e.OK(t, "docker", "buildx", "inspect")
	for _, want := range []string{"Driver:", "docker", "Status:", "running", "BuildKit version:", "linux/" + runtime.GOARCH} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in %s", want, got)
		}
	}
	if !bytes.Contains([]byte(e.OK(t, "docker", "buildx", "ls")), []byte("default*")) {
		t.Error(e.OK(t, "docker", "buildx", "ls"))
	}
}

// TestBakeLists shows what bake files have as buildx does, but for the width of columns.
func TestBakeLists(t *testing.T) {
	e := builder(t)
	dir := project(t, files{"docker-bake.hcl": `
variable "WHO" { default = "lab" }
variable "COUNT" {
  type = number
  default = 2
  description = "how many"
}
variable "UNSET" {}
group "default" { targets = ["plain", "both"] }
group "all" {
  description = "everything"
  targets = ["default"]
}
target "plain" { description = "one" }
target "_private" {}
target "both" {
  name = "both-${n}"
  matrix = { n = ["1", "2"] }
}
`})
	list := func(program, how string) string {
		t.Helper()
		r := buildRun{dir: dir, args: []string{"--list=" + how}}.command(t, e, program, "buildx", "bake")
		if r.Code != 0 {
			t.Error(r)
		}
		return r.Stdout
	}
	for _, how := range []string{"targets", "variables", "type=targets", "type=variables,format=table"} {
		if got, want := strings.Fields(list("cleat", how)), strings.Fields(list("docker", how)); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", how, got, want)
		}
	}
	for _, how := range []string{"type=targets,format=json", "type=variables,format=json"} {
		if got, want := list("cleat", how), list("docker", how); got != want || !strings.Contains(got, "description") {
			t.Errorf("%s: %s, want %s", how, got, want)
		}
	}
	if r := (buildRun{dir: dir, args: []string{"--list=type=targets,format=xml"}}).command(t, e, "cleat", "buildx", "bake"); r.Code == 0 || !strings.Contains(r.Stderr, `invalid list format "xml"`) {
		t.Error(r)
	}
}
