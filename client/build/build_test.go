package build_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	control "github.com/moby/buildkit/api/services/control"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cleatlabs/cleat/test/expect"
)

// TestFlagsBecomeARequest: what each flag tells the engine.
func TestFlagsBecomeARequest(t *testing.T) {
	e := start(t)
	e.labels["org.mobyproject.buildkit.worker.moby.host-gateway-ip"] = "172.17.0.1"
	t.Setenv("FROM_ENV", "yes")
	dir := files(t, map[string]string{"Dockerfile": "FROM x\n", "other/D": "FROM y\n"})
	for _, c := range []struct {
		args []string
		want map[string]string // attributes; "-" is one that must not be there
	}{
		{nil, map[string]string{"filename": "Dockerfile", "image-resolve-mode": "local", "attest:provenance": "-", "target": "-", "no-cache": "-", "platform": "-"}},
		{[]string{"-f", dir + "/other/D"}, map[string]string{"filename": "D"}},
		{[]string{"--build-arg", "A=1", "--build-arg", "FROM_ENV", "--build-arg", "UNSET_XYZ"}, map[string]string{"build-arg:A": "1", "build-arg:FROM_ENV": "yes", "build-arg:UNSET_XYZ": "-"}},
		{[]string{"--label", "a=b", "--label", "c"}, map[string]string{"label:a": "b", "label:c": ""}},
		{[]string{"--target", "test"}, map[string]string{"target": "test"}},
		{[]string{"--no-cache"}, map[string]string{"no-cache": ""}},
		{[]string{"--no-cache-filter", "a", "--no-cache-filter", "b"}, map[string]string{"no-cache": "a,b"}},
		{[]string{"--pull"}, map[string]string{"image-resolve-mode": "pull"}},
		{[]string{"--platform", "linux/amd64,linux/arm64"}, map[string]string{"platform": "linux/amd64,linux/arm64"}},
		{[]string{"--network", "none"}, map[string]string{"force-network-mode": "none"}},
		{[]string{"--network", "host"}, map[string]string{"force-network-mode": "host"}},
		{[]string{"--add-host", "a:1.2.3.4", "--add-host", "b:host-gateway"}, map[string]string{"add-hosts": "a=1.2.3.4,b=172.17.0.1"}},
		{[]string{"--shm-size", "64m"}, map[string]string{"shm-size": "67108864"}},
		{[]string{"--ulimit", "nofile=10:20"}, map[string]string{"ulimit": "nofile=10:20"}},
		{[]string{"--cgroup-parent", "/a"}, map[string]string{"cgroup-parent": "/a"}},
		{[]string{"-m", "1g", "--resource", "cpu-quota=5000"}, map[string]string{"memory": "1073741824", "cpuquota": "5000"}},
		{[]string{"--push", "-t", "x/y"}, map[string]string{"attest:provenance": "mode=min,inline-only=true"}},
		{[]string{"-o", "type=oci,dest=" + dir + "/oci.tar"}, map[string]string{"attest:provenance": "mode=min,inline-only=true"}},
		{[]string{"--push", "-t", "x/y", "--provenance=false"}, map[string]string{"attest:provenance": "-"}},
		{[]string{"--provenance=mode=max", "--sbom=true"}, map[string]string{"attest:provenance": "mode=max", "attest:sbom": ""}},
		{[]string{"--build-arg", "BUILDKIT_SYNTAX=img x"}, map[string]string{"source": "img", "cmdline": "img x"}},
		{[]string{"--build-context", "app=" + dir}, map[string]string{"context:app": "local:app", "frontend.caps": "moby.buildkit.frontend.contexts+forward"}},
		{[]string{"--build-context", "alpine=docker-image://debian"}, map[string]string{"context:alpine": "docker-image://debian"}},
	} {
		r := cleat("", append(append([]string{"build", "-q"}, c.args...), dir)...)
		if r.code != 0 {
			t.Errorf("%v: %+v", c.args, r)
			continue
		}
		got := e.last(t).FrontendAttrs
		for k, want := range c.want {
			if v, ok := got[k]; ok != (want != "-") || (ok && v != want) {
				t.Errorf("%v: %s is %q (%v), not %q", c.args, k, v, ok, want)
			}
		}
	}
}

func TestOutputsBecomeExporters(t *testing.T) {
	e := start(t)
	dir, out := files(t, map[string]string{"Dockerfile": "FROM x\n"}), t.TempDir()
	moby := map[string]string{"prefer-image-digest": "true"}
	with := func(m map[string]string, kv ...string) map[string]string {
		m = maps.Clone(m)
		for i := 0; i < len(kv); i += 2 {
			m[kv[i]] = kv[i+1]
		}
		return m
	}
	for _, c := range []struct {
		args  []string
		kind  string
		attrs map[string]string
	}{
		{nil, "moby", moby},
		{[]string{"-t", "app", "-t", "reg:5000/app:1"}, "moby", with(moby, "name", "docker.io/library/app:latest,reg:5000/app:1")},
		{[]string{"--load", "-t", "app"}, "moby", with(moby, "name", "docker.io/library/app:latest")},
		{[]string{"--push", "-t", "reg/app"}, "moby", with(moby, "name", "docker.io/reg/app:latest", "push", "true", "unpack", "false")},
		{[]string{"-o", "type=registry", "-t", "reg/app"}, "moby", with(moby, "name", "docker.io/reg/app:latest", "push", "true", "unpack", "false")},
		{[]string{"-o", "type=image,name=x"}, "moby", with(moby, "name", "x")},
		{[]string{"-o", out}, "local", map[string]string{}},
		{[]string{"-o", "type=tar,dest=" + out + "/a.tar"}, "tar", map[string]string{}},
		{[]string{"-o", "type=oci,dest=" + out + "/a.tar", "--annotation", "a=b"}, "oci", map[string]string{"annotation.a": "b"}},
		{[]string{"-o", "type=cacheonly"}, "", nil},
		{[]string{"--call", "build"}, "moby", moby},
	} {
		r := cleat("", append(append([]string{"build", "-q"}, c.args...), dir)...)
		if r.code != 0 {
			t.Errorf("%v: %+v", c.args, r)
			continue
		}
		ex := e.last(t).Exporters
		switch {
		case c.kind == "" && len(ex) == 0:
		case len(ex) != 1 || ex[0].Type != c.kind || !maps.Equal(ex[0].Attrs, c.attrs):
			t.Errorf("%v: %v", c.args, ex)
		}
	}
	for _, c := range [][]string{
		{"dest is required", "-o", "type=local"}, {"tag is needed", "--push"}, {"unknown output type", "-o", "type=floppy"}, {"is a file", "-o", dir + "/Dockerfile"},
		{"is a directory", "-o", "type=tar,dest=" + out}, {"must be lowercase", "-t", "App"}, {"multiple outputs", "-o", "-", "-o", "type=oci"},
		{"requires --allow=buildx.local.delete", "-o", "type=local,mode=delete,dest=" + out},
	} {
		if r := cleat("", append(append([]string{"build"}, c[1:]...), dir)...); r.code != 1 || !strings.Contains(r.stderr, c[0]) {
			t.Errorf("%v: %+v", c, r)
		}
	}
}

// TestContexts: what the engine can fetch, for every kind of context.
func TestContexts(t *testing.T) {
	e := start(t)
	var got map[string]string
	e.solve = func(ctx context.Context, e *engine, r *control.SolveRequest) (map[string]string, error) {
		got = map[string]string{}
		for _, name := range []string{"context", "dockerfile", "extra"} {
			list, err := e.fetch(ctx, r, name)
			if err != nil {
				continue // not offered
			}
			for k, v := range list {
				got[name+"/"+k] = v
			}
		}
		return nil, nil
	}
	dir := files(t, map[string]string{"Dockerfile": "FROM a\n", "src/x": "x"})
	lower := files(t, map[string]string{"dockerfile": "FROM b\n"})
	dir2 := files(t, map[string]string{"y": "y"})
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	if err := errors.Join(w.WriteHeader(&tar.Header{Name: "a/", Mode: 0o755}), w.Close()); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, stdin string
		args        []string
		want        map[string]string
		attrs       map[string]string
	}{
		{"a directory", "", []string{dir}, map[string]string{"context/Dockerfile": "FROM a\n", "context/src/x": "x", "dockerfile/Dockerfile": "FROM a\n", "dockerfile/src/x": "x"}, nil},
		{"a Dockerfile in lower case", "", []string{lower}, map[string]string{"context/dockerfile": "FROM b\n", "dockerfile/dockerfile": "FROM b\n"}, map[string]string{"filename": "dockerfile"}},
		{"a Dockerfile on standard input", "FROM c\n", []string{"-"}, map[string]string{"dockerfile/Dockerfile": "FROM c\n"}, map[string]string{"filename": "Dockerfile"}},
		{"a directory, and the Dockerfile on standard input", "FROM d\n", []string{"-f", "-", dir2}, map[string]string{"context/y": "y", "dockerfile/Dockerfile": "FROM d\n"}, nil},
		{"a named context", "FROM d\n", []string{"-f", "-", "--build-context", "extra=" + dir2, lower}, map[string]string{"context/dockerfile": "FROM b\n", "dockerfile/Dockerfile": "FROM d\n", "extra/y": "y"}, nil},
		{"a URL", "", []string{"https://example.com/a.tar.gz"}, map[string]string{}, map[string]string{"context": "https://example.com/a.tar.gz", "filename": "Dockerfile"}},
		{"a repository", "", []string{"-f", "sub/D", "https://example.com/a.git#main"}, map[string]string{}, map[string]string{"context": "https://example.com/a.git#main", "filename": "sub/D"}},
		{"a repository, and a Dockerfile of here", "", []string{"-f", filepath.Join(dir, "Dockerfile"), "https://example.com/a.git"}, map[string]string{"dockerfile/Dockerfile": "FROM a\n", "dockerfile/src/x": "x"}, map[string]string{"dockerfilekey": "dockerfile"}},
	} {
		r := cleat(c.stdin, append([]string{"build", "-q"}, c.args...)...)
		if r.code != 0 || !maps.Equal(got, c.want) {
			t.Errorf("%s: %+v\n got %v\nwant %v", c.name, r, got, c.want)
		}
		for k, v := range c.attrs {
			if e.last(t).FrontendAttrs[k] != v {
				t.Errorf("%s: %s is %q", c.name, k, e.last(t).FrontendAttrs[k])
			}
		}
	}
	if r := cleat(archive.String(), "build", "-q", "-"); r.code != 0 || !strings.HasPrefix(e.last(t).FrontendAttrs["context"], "http://buildkit-session/") {
		t.Errorf("an archive: %+v, %v", r, e.last(t).FrontendAttrs)
	}
}

func TestMistakes(t *testing.T) {
	start(t)
	dir := files(t, map[string]string{"Dockerfile": "FROM x\n"})
	many := files(t, map[string]string{"Dockerfile.dev": "", "prod.Dockerfile": "", "dev.dockerfile.dockerignore": ""})
	links := files(t, map[string]string{"x": ""})
	for name, target := range map[string]string{"Dockerfile": "again", "again": "../D", "whole": dir + "/Dockerfile"} {
		if err := os.Symlink(target, filepath.Join(links, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(filepath.Dir(links), "D"), []byte("FROM x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{filepath.Join(dir, "Dockerfile")}, "write '-f " + dir + "/Dockerfile " + dir + "'"},
		{[]string{}, "requires 1 argument: the context"},
		{[]string{dir, dir}, "there are 2"},
		{[]string{dir + "/nonsuch"}, `path "` + dir + `/nonsuch" not found`},
		{[]string{many}, "there are " + many + "/Dockerfile.dev, " + many + "/prod.Dockerfile, choose one by -f"},
		{[]string{t.TempDir()}, "give the Dockerfile's path by -f"},
		{[]string{"-f", dir, dir}, "is a directory"},
		{[]string{links}, links + "/Dockerfile is a link to ../D, and only relative links within its directory"},
		{[]string{"-f", links + "/whole", dir}, "is a link to " + dir + "/Dockerfile"},
		{[]string{"-"}, "standard input is empty"},
		{[]string{"--squash", dir}, "--squash is not supported"},
		{[]string{"--isolation", "hyperv", dir}, "--isolation is not supported"},
		{[]string{"--security-opt", "x=y", dir}, "--security-opt is not supported"},
		{[]string{"--network", "mynet", dir}, `network mode "mynet" not supported`},
		{[]string{"--no-cache", "--no-cache-filter", "a", dir}, "cannot currently be used together"},
		{[]string{"--progress", "fancy", dir}, "invalid progress mode fancy"},
		{[]string{"-q", "--progress", "plain", dir}, "cannot be used together"},
		{[]string{"--builder", "mine", dir}, `no builder "mine" found`},
		{[]string{"--cache-to", "type=gha", dir}, `cache type "gha" is not supported`},
		{[]string{"--cache-to", "type=disk", dir}, `unknown cache type "disk"`},
		{[]string{"--secret", "id=a,src=" + dir + "/nonsuch", dir}, "failed to stat"},
		{[]string{"--secret", "id=a,env=NONSUCH_XYZ", dir}, "the environment has no variable NONSUCH_XYZ"},
		{[]string{"--allow", "everything", dir}, `invalid --allow "everything"`},
		{[]string{"--platform", "a/b/c/d/e", dir}, "invalid platform"},
		{[]string{"--build-context", "a=" + dir + "/Dockerfile", dir}, "is not a directory"},
		{[]string{"--build-context", "a=oci-layout://" + dir, dir}, "oci-layout"},
		{[]string{"--iidfile", dir + "/iid", "-o", t.TempDir(), dir}, "has no image ID"},
		{[]string{"--nonsuch", dir}, "unknown flag: --nonsuch"},
	} {
		if r := cleat("", append([]string{"build"}, c.args...)...); r.code != 1 || r.stdout != "" || !strings.Contains(r.stderr, c.want) {
			t.Errorf("%v: %+v, want %q", c.args, r, c.want)
		}
	}
}

func TestExitCodes(t *testing.T) {
	e := start(t)
	dir := files(t, map[string]string{"Dockerfile": "FROM x\n"})
	for code, want := range map[codes.Code]int{codes.Unknown: 1, codes.Internal: 100, codes.ResourceExhausted: 102, codes.Canceled: 130} {
		e.solve = func(context.Context, *engine, *control.SolveRequest) (map[string]string, error) {
			return nil, status.Error(code, "broken")
		}
		if r := cleat("", "build", dir); r.code != want || !strings.Contains(r.stderr, "ERROR: failed to build: failed to solve: ") {
			t.Errorf("%v: %+v", code, r)
		}
	}
}

// An engine that cannot open its builder says why, and so does the client.
func TestEngineRefuses(t *testing.T) {
	e := start(t)
	e.refusal = "open the build cache: no space left on device"
	dir := files(t, map[string]string{"Dockerfile": "FROM x\n"})
	for _, args := range [][]string{{"build", dir}, {"du"}} {
		if r := cleat("", args...); r.code == 0 || !strings.Contains(r.stderr, e.refusal) {
			t.Errorf("%v: %+v", args, r)
		}
	}
}

func TestWhatIsLeftOfABuild(t *testing.T) {
	start(t)
	dir := files(t, map[string]string{"Dockerfile": "FROM x\n"})
	id, meta := filepath.Join(dir, "id"), filepath.Join(dir, "meta.json")
	digest := "sha256:" + strings.Repeat("a", 64)
	if r := cleat("", "build", "-q", "--iidfile", id, "--metadata-file", meta, dir); r.code != 0 || r.stdout != digest+"\n" || r.stderr != "" {
		t.Errorf("%+v", r)
	}
	if data, err := os.ReadFile(id); err != nil || string(data) != digest {
		t.Errorf("%s, %v", data, err)
	}
	var m map[string]any
	data, err := os.ReadFile(meta)
	if err != nil || json.Unmarshal(data, &m) != nil || m["containerimage.digest"] != digest || !strings.HasPrefix(m["buildx.build.ref"].(string), "default/default/") {
		t.Errorf("%s, %v", data, err)
	}
	if r := cleat("", "build", "--iidfile", id, "-t", "NO", dir); r.code == 0 {
		t.Errorf("%+v", r)
	} else if _, err := os.Stat(id); !errors.Is(err, os.ErrNotExist) {
		t.Error("a failed build has left the ID of another one")
	}
}

// TestResultsToLinks: what leads elsewhere, as /dev/stdout does, is written through, and stays what it is.
func TestResultsToLinks(t *testing.T) {
	start(t)
	dir := files(t, map[string]string{"Dockerfile": "FROM x\n"})
	for _, flag := range []string{"--iidfile", "--metadata-file"} {
		real, link := filepath.Join(t.TempDir(), "file"), filepath.Join(t.TempDir(), "link")
		if err := os.WriteFile(real, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(real, link); err != nil {
			t.Fatal(err)
		}
		if r := cleat("", "build", "-q", flag, link, dir); r.code != 0 {
			t.Fatal(r)
		}
		if data, err := os.ReadFile(real); err != nil || len(data) == 0 {
			t.Errorf("%s has not reached the file: %q, %v", flag, data, err)
		}
		if to, err := os.Readlink(link); to != real {
			t.Errorf("%s has taken the link away: %q, %v", flag, to, err)
		}
	}
}

func TestPluginProtocol(t *testing.T) {
	r := cleat("", "docker-cli-plugin-metadata")
	var m map[string]string
	if err := json.Unmarshal([]byte(r.stdout), &m); err != nil || r.code != 0 || m["SchemaVersion"] != "0.1.0" || m["Vendor"] == "" || m["Version"] != "test" {
		t.Errorf("%+v, %v", r, err)
	}
	e := start(t)
	dir := files(t, map[string]string{"Dockerfile": "FROM x\n"})
	host := os.Getenv("DOCKER_HOST")
	t.Setenv("DOCKER_HOST", "unix:///nonsuch")
	for i, args := range [][]string{
		{"-H", host, "build", "-q", dir}, {"--host=" + host, "buildx", "build", "-q", dir}, {"-H", host, "builder", "--builder", "default", "build", "-q", dir},
		{"-H", host, "image", "build", "-q", dir}, {"-H", host, "buildx", "b", "-q", dir},
	} {
		if r := cleat("", args...); r.code != 0 || len(e.requests) != i+1 {
			t.Errorf("%v: %+v", args, r)
		}
	}
	if r := cleat("", "build", dir); r.code != 1 || !strings.Contains(r.stderr, "Cannot connect to the Cleat engine at unix:///nonsuch") {
		t.Errorf("no engine: %+v", r)
	}
	if r := cleat("", "buildx", "nonsuch"); r.code != 1 || !strings.Contains(r.stderr, "unknown command: cleat buildx nonsuch") {
		t.Errorf("%+v", r)
	}
}

func TestHelp(t *testing.T) {
	for _, args := range [][]string{{"build"}, {"buildx"}, {"builder"}} {
		r := cleat("", append(slices.Clone(args), "--help")...)
		expect.Golden(t, "testdata/golden/help/"+strings.Join(args, "-")+".txt", r.stdout)
		if r.code != 0 || r.stderr != "" {
			t.Errorf("%v: %+v", args, r)
		}
		if again := cleat("", append([]string{"help"}, args...)...); again.stdout != r.stdout {
			t.Errorf("help %v is another text:\n%s", args, again.stdout)
		}
	}
}

func TestCompletion(t *testing.T) {
	for line, want := range map[string]string{"build --progr": "--progress", "buildx buil": "build\t", "build --network ": "host", "image b": "build"} {
		args := strings.Split(line, " ")
		if r := cleat("", append([]string{"__complete"}, args...)...); r.code != 0 || !strings.Contains(r.stdout, want) {
			t.Errorf("%q: %+v", line, r)
		}
	}
}
