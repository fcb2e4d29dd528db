package classic_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/client/llb"
	gateway "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/opencontainers/go-digest"
	"github.com/tonistiigi/fsutil/types"

	"github.com/cleatlabs/cleat/internal/build"
	"github.com/cleatlabs/cleat/internal/classic"
	"github.com/cleatlabs/cleat/internal/failure"
)

// solver answers as BuildKit would.
type solver struct {
	asked  build.Request
	opt    client.SolveOpt
	files  map[string]string // the context as BuildKit reads it: content or link, by path
	order  []string
	status []*client.SolveStatus
	answer map[string]string
	err    error
}

func (s *solver) Attributes(r *build.Request) (map[string]string, error) {
	s.asked = *r
	if r.NetworkMode == "web" {
		return nil, failure.Invalid("refused")
	}
	return map[string]string{"filename": r.Dockerfile}, nil
}

func (s *solver) Solve(ctx context.Context, _ *llb.Definition, opt client.SolveOpt, status chan *client.SolveStatus) (*client.SolveResponse, error) {
	defer close(status)
	s.opt, s.files = opt, map[string]string{}
	if dir := opt.LocalMounts["context"]; dir != nil {
		err := dir.Walk(ctx, "", func(name string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			s.order = append(s.order, name)
			info, err := d.Info()
			if err != nil {
				return err
			}
			switch {
			case info.IsDir():
				s.files[name] = "/"
			case info.Mode().IsRegular():
				r, err := dir.Open(name)
				if err != nil {
					return err
				}
				data, err := io.ReadAll(r)
				s.files[name] = string(data)
				return err
			default:
				s.files[name] = info.Mode().Type().String() + info.Sys().(*types.Stat).Linkname
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	for _, st := range s.status {
		status <- st
	}
	return &client.SolveResponse{ExporterResponse: s.answer}, s.err
}

func archive(t testing.TB, headers ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		content := h.PAXRecords["content"]
		if content != "" {
			h.PAXRecords = nil
		}
		if h.Mode == 0 {
			h.Mode = 0o644
		}
		h.Size = int64(len(content))
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func file(name, content string) tar.Header {
	return tar.Header{Name: name, Typeflag: tar.TypeReg, PAXRecords: map[string]string{"content": content}}
}

func link(kind byte, name, target string) tar.Header {
	return tar.Header{Name: name, Typeflag: kind, Linkname: target}
}

// TestLikeContexts: a context that differs in what a file has, and in nothing else, shares no copy with another.
func TestLikeContexts(t *testing.T) {
	keys := map[string]string{}
	for _, content := range []string{"one", "two"} {
		for range 2 {
			s := &solver{}
			if _, err := request(t, s, "t=app", bytes.NewReader(archive(t, file("Dockerfile", "FROM a"), file("f", content)))); err != nil {
				t.Fatal(err)
			}
			if key := s.opt.SharedKey; key == "" || keys[content] != "" && keys[content] != key {
				t.Errorf("the key of the same context is %q, and was %q", key, keys[content])
			}
			keys[content] = s.opt.SharedKey
		}
	}
	if keys["one"] == keys["two"] {
		t.Errorf("both have the key %q", keys["one"])
	}
}

// request builds what a query asks for, and returns what the client would read.
func request(t testing.TB, s *solver, query string, body io.Reader) (string, error) {
	t.Helper()
	q, err := url.ParseQuery(query)
	if err != nil {
		t.Fatal(err)
	}
	return run(t, s, classic.Request{
		Request: build.Request{Tags: q["t"], Dockerfile: q.Get("dockerfile"), Target: q.Get("target"), Remote: q.Get("remote")},
		Quiet:   q.Get("q") == "1",
	}, body)
}

func run(t testing.TB, s *solver, r classic.Request, body io.Reader) (string, error) {
	t.Helper()
	var out strings.Builder
	b := &classic.Builder{Solver: s, Dir: t.TempDir()}
	r.Context = body
	err := b.Build(t.Context(), r, func(m jsonstream.Message) {
		out.WriteString(m.Stream)
		if m.Aux != nil {
			out.Write(*m.Aux)
			out.WriteByte('\n')
		}
	})
	if left, _ := os.ReadDir(b.Dir); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	return out.String(), err
}

const image = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func answer() map[string]string { return map[string]string{"containerimage.digest": image} }

func vertex(name string, cached, done bool) *client.Vertex {
	now := time.Now()
	v := &client.Vertex{Digest: digest.FromString(name), Name: name, Cached: cached, Started: &now}
	if done {
		v.Completed = &now
	}
	return v
}

func output(name, text string) *client.VertexLog {
	return &client.VertexLog{Vertex: digest.FromString(name), Data: []byte(text)}
}

func TestOutputOfABuild(t *testing.T) {
	const from, run, copied = "[1/3] FROM docker.io/library/busybox", "[2/3] RUN make", "[3/3] COPY . /app"
	s := &solver{answer: answer(), status: []*client.SolveStatus{
		{Vertexes: []*client.Vertex{vertex("[internal] load build definition from Dockerfile", false, true), vertex(from, true, true)}},
		// COPY ends first, but RUN stands before it.
		{Vertexes: []*client.Vertex{vertex(run, false, false), vertex(copied, false, true)}, Logs: []*client.VertexLog{output(copied, "early\n"), output(run, "one\n")}},
		{Vertexes: []*client.Vertex{vertex(run, false, true)}, Logs: []*client.VertexLog{output(run, "two\n")}},
	}}
	body := archive(t, file("Dockerfile", "FROM busybox\nENV A=b\nRUN make\nCOPY . /app\nCMD [\"x\"]\n"))
	got, err := request(t, s, "t=app&t=app:latest&t=registry.test/app:2", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	id := func(name string) string { return digest.FromString(name).Encoded()[:12] }
	want := "Step 1/5 : FROM busybox\n ---> Using cache\n ---> " + id(from) + "\nStep 2/5 : ENV A=b\nStep 3/5 : RUN make\none\ntwo\n ---> " + id(run) +
		"\nStep 4/5 : COPY . /app\nearly\n ---> " + id(copied) + "\nStep 5/5 : CMD [\"x\"]\n" + `{"ID":"` + image + `"}` +
		"\nSuccessfully built 0123456789ab\nSuccessfully tagged app:latest\nSuccessfully tagged registry.test/app:2\n"
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if names := s.opt.Exports[0].Attrs["name"]; names != "docker.io/library/app:latest,registry.test/app:2" {
		t.Errorf("names: %q", names)
	}
}

// A letter that BuildKit tells in two pieces is one in the stream, whose JSON has no halves. What is none is told at the end.
func TestLettersStayWhole(t *testing.T) {
	const run, pieces = "[2/2] RUN make", "gr\u00fc\u00dfe \u4f60\u597d \U0001f600 \xff"
	s := &solver{answer: answer()}
	for i := range len(pieces) {
		s.status = append(s.status, &client.SolveStatus{
			Vertexes: []*client.Vertex{vertex(run, false, i == len(pieces)-1)}, Logs: []*client.VertexLog{output(run, pieces[i:i+1])},
		})
	}
	var told strings.Builder
	b := &classic.Builder{Solver: s, Dir: t.TempDir()}
	body := archive(t, file("Dockerfile", "FROM busybox\nRUN make\n"))
	err := b.Build(t.Context(), classic.Request{Request: build.Request{Context: bytes.NewReader(body)}}, func(m jsonstream.Message) {
		text, err := json.Marshal(m)
		if err == nil {
			err = json.Unmarshal(text, &m)
		}
		if err != nil {
			t.Error(err)
		}
		told.WriteString(m.Stream)
	})
	if want := strings.ToValidUTF8(pieces, "\ufffd"); err != nil || !strings.Contains(told.String(), want) {
		t.Errorf("%v: %q, want %q in it", err, told.String(), want)
	}
}

func TestStagesThatAreNotNeededAreNotCounted(t *testing.T) {
	const from, copied = "[stage-2 1/2] FROM docker.io/library/busybox", "[stage-2 2/2] COPY --from=0 /a /a"
	s := &solver{answer: answer(), status: []*client.SolveStatus{{Vertexes: []*client.Vertex{
		vertex("[stage-0 1/2] FROM docker.io/library/busybox", false, true), vertex("[stage-0 2/2] RUN touch /a", false, true),
		vertex(from, false, true), vertex(copied, false, true)}}}}
	body := archive(t, file("Dockerfile", "FROM busybox\nRUN touch /a\nFROM busybox AS unused\nRUN exit 1\nFROM busybox\nCOPY --from=0 /a /a\n"))
	got, err := request(t, s, "", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Step 1/4 : FROM busybox\n", "Step 2/4 : RUN touch /a\n", "Step 3/4 : FROM busybox\n", "Step 4/4 : COPY --from=0 /a /a\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	if strings.Contains(got, "exit 1") {
		t.Errorf("a stage that is not built is named:\n%s", got)
	}
}

func TestQuietBuilds(t *testing.T) {
	const run = "[2/2] RUN make"
	body := archive(t, file("Dockerfile", "FROM busybox\nRUN make\n"))
	status := []*client.SolveStatus{{Vertexes: []*client.Vertex{vertex(run, false, true)}, Logs: []*client.VertexLog{output(run, "text\n")}}}
	if got, err := request(t, &solver{answer: answer(), status: status}, "q=1&t=app", bytes.NewReader(body)); got != image+"\n" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	got, err := request(t, &solver{err: errors.New("no luck"), status: status}, "q=1", bytes.NewReader(body))
	if !strings.Contains(got, "text\n") || err == nil {
		t.Errorf("a failure's output: %q, %v", got, err)
	}
}

func TestFailedSteps(t *testing.T) {
	body := archive(t, file("Dockerfile", "FROM busybox\nRUN exit 3\n"))
	failed := fmt.Errorf("failed to solve: process %q did not complete successfully: %w", "/bin/sh -c exit 3", &gateway.ExitError{ExitCode: 3})
	out, err := request(t, &solver{err: failed}, "", bytes.NewReader(body))
	if out != "Step 1/2 : FROM busybox\n" {
		t.Errorf("%q", out)
	}
	var record *jsonstream.Error
	if !errors.As(err, &record) || record.Code != 3 || record.Message != "The command '/bin/sh -c exit 3' returned a non-zero code: 3" {
		t.Errorf("%#v", err)
	}
	missing := errors.New(`failed to solve: failed to compute cache key: failed to calculate checksum of ref a::b: "/src/x": not found`)
	_, err = request(t, &solver{err: missing}, "", bytes.NewReader(body))
	if err == nil || !strings.Contains(err.Error(), "COPY failed: file not found in build context or excluded by .dockerignore: stat src/x") {
		t.Errorf("%v", err)
	}
}

func TestContexts(t *testing.T) {
	s := &solver{answer: answer()}
	body := archive(t,
		file("../../etc/passwd", "mine"),
		link(tar.TypeSymlink, "dir", "/etc"), file("dir/shadow", "mine, too"),
		file("a/b/c", "deep"), file("a-b", "beside"), link(tar.TypeLink, "a/hard", "a/b/c"),
		file("twice", "first"), file("twice", "second"),
		link(tar.TypeSymlink, "Dockerfile", "docker/../docker/real"), file("docker/real", "FROM scratch\n"),
		tar.Header{Name: "null", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3},
	)
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	if _, err := z.Write(body); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := request(t, s, "", &zipped); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"etc": "/", "etc/passwd": "mine", "dir": "/", "dir/shadow": "mine, too", "a": "/", "a/b": "/", "a/b/c": "deep", "a-b": "beside",
		"a/hard": "deep", "twice": "second", "Dockerfile": "L---------docker/../docker/real", "docker": "/", "docker/real": "FROM scratch\n", "null": "Dc---------",
	}
	if !maps.Equal(s.files, want) {
		t.Errorf("got  %q\nwant %q", s.files, want)
	}
	if slices.Index(s.order, "a/b/c") > slices.Index(s.order, "a-b") || slices.Index(s.order, "a") > slices.Index(s.order, "a/b") {
		t.Errorf("not in the order of a walk: %q", s.order)
	}
}

// TestIgnoredByClient sends files that a .dockerignore excludes: only it and the Dockerfile are taken out by it.
func TestIgnoredByClient(t *testing.T) {
	for _, c := range []struct {
		ignored, dockerfile string
		want                []string
	}{
		{"a\nsub/b\n", "Dockerfile", []string{".dockerignore", "Dockerfile", "Dockerfile.dockerignore", "a", "sub", "sub/D", "sub/b"}},
		{"*\n", "sub/D", []string{"Dockerfile", "Dockerfile.dockerignore", "a", "sub", "sub/b"}},
		{"*\n!.dockerignore\n", "Dockerfile", []string{".dockerignore", "Dockerfile.dockerignore", "a", "sub", "sub/D", "sub/b"}},
		{"[\nDockerfile\n", "Dockerfile", []string{".dockerignore", "Dockerfile", "Dockerfile.dockerignore", "a", "sub", "sub/D", "sub/b"}},
	} {
		s := &solver{answer: answer()}
		body := archive(t, file(".dockerignore", c.ignored), file("Dockerfile", "FROM scratch\n"), file("Dockerfile.dockerignore", "a\n"),
			file("a", "1"), file("sub/D", "FROM scratch\n"), file("sub/b", "2"))
		if _, err := request(t, s, "dockerfile="+url.QueryEscape(c.dockerfile), bytes.NewReader(body)); err != nil {
			t.Fatal(err)
		}
		if got := slices.Sorted(maps.Keys(s.files)); !slices.Equal(got, c.want) {
			t.Errorf("%q, by %s: got %q, want %q", c.ignored, c.dockerfile, got, c.want)
		}
		// What BuildKit excludes by: patterns beside the Dockerfile go before those of the context.
		patterns, err := s.opt.LocalMounts["dockerfile"].Open(c.dockerfile + ".dockerignore")
		if err != nil {
			t.Fatal(err)
		}
		if text, err := io.ReadAll(patterns); err != nil || !strings.HasPrefix(string(text), "# ") || strings.Count(string(text), "\n") != 1 {
			t.Errorf("%q, %v", text, err)
		}
	}
}

func TestBadContexts(t *testing.T) {
	loop := []tar.Header{link(tar.TypeSymlink, "Dockerfile", "b"), link(tar.TypeSymlink, "b", "Dockerfile")}
	cases := []struct {
		name  string
		body  []byte
		query string
		want  string
		class func(error) bool
	}{
		{"nothing", nil, "", "the build context is empty", errdefs.IsInvalidArgument},
		{"no archive", []byte("FROM busybox\n"), "", "no readable tar archive", errdefs.IsInvalidArgument},
		{"cut short", archive(t, file("Dockerfile", strings.Repeat("x", 5000)))[:2000], "", "unexpected EOF", nil},
		{"no Dockerfile", archive(t, file("x", "")), "", "Cannot locate specified Dockerfile: Dockerfile", nil},
		{"another name", archive(t, file("Dockerfile", "FROM scratch")), "dockerfile=sub/D", "Cannot locate specified Dockerfile: sub/D", nil},
		{"empty Dockerfile", archive(t, file("Dockerfile", "\n \n")), "", "the Dockerfile (Dockerfile) cannot be empty", errdefs.IsInvalidArgument},
		{"a directory", archive(t, tar.Header{Name: "Dockerfile", Typeflag: tar.TypeDir}), "", "Cannot locate", nil},
		{"a loop", archive(t, loop...), "", "too many symbolic links", errdefs.IsInvalidArgument},
		{"a name of bytes", archive(t, link(tar.TypeSymlink, "a\xff", "b")), "", `"a\xff" has a name, or is a link to one, that is not UTF-8`, errdefs.IsInvalidArgument},
		{"hard link to nothing", archive(t, link(tar.TypeLink, "a", "b")), "", "hard link to b", errdefs.IsInvalidArgument},
		{"unknown instruction", archive(t, file("Dockerfile", "FROM busybox\nRUNN x\n")), "", "dockerfile parse error on line 2: unknown instruction: RUNN", errdefs.IsInvalidArgument},
		{"no FROM", archive(t, file("Dockerfile", "RUN x\n")), "", "no build stage in current context", errdefs.IsInvalidArgument},
		{"COPY with one argument", archive(t, file("Dockerfile", "FROM a\nCOPY x\n")), "", "COPY requires at least two arguments", errdefs.IsInvalidArgument},
		{"no such target", archive(t, file("Dockerfile", "FROM a AS one\n")), "target=two", `target stage "two" could not be found`, errdefs.IsInvalidArgument},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			out, err := request(t, &solver{answer: answer()}, c.query, bytes.NewReader(c.body))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("%v, want %q", err, c.want)
			}
			if c.class != nil && !c.class(err) {
				t.Errorf("class of %v", err)
			}
			if out != "" {
				t.Errorf("output before the error: %q", out)
			}
		})
	}
}

// A sparse file can claim any size in a few bytes.
func TestSparseFilesAreBounded(t *testing.T) {
	body := archive(t, file("Dockerfile", "FROM scratch\n"), tar.Header{Name: "huge", Typeflag: tar.TypeReg, PAXRecords: map[string]string{"content": "map"}})
	// The GNU header of a sparse file: its real size stands in octal or, here, in base 256.
	at := bytes.Index(body, []byte("huge\x00"))
	header := body[at : at+512]
	header[156] = 'S'
	copy(header[257:], "ustar  \x00")
	copy(header[386:], "00000000000\x0000000000003\x00") // one piece of three bytes at 0
	copy(header[483:], "\x80\x00\x00\x00\x7f\xff\xff\xff\xff\xff\xff\xff")
	copy(header[148:156], "        ")
	sum := 0
	for _, c := range header {
		sum += int(c)
	}
	copy(header[148:], fmt.Sprintf("%06o\x00 ", sum))
	_, err := request(t, &solver{answer: answer()}, "", bytes.NewReader(body))
	if err == nil || !strings.Contains(err.Error(), "the build context's huge has") {
		t.Errorf("%v", err)
	}
}

// What an archive says about its files is in memory, and a compressed one says a gigabyte in a megabyte.
func TestDescriptionsAreBounded(t *testing.T) {
	const attribute = "SCHILY.xattr.user.a"
	with := func(size int) tar.Header {
		return tar.Header{Name: "f", Typeflag: tar.TypeReg, Format: tar.FormatPAX, PAXRecords: map[string]string{attribute: strings.Repeat("x", size)}}
	}
	many := []tar.Header{{Name: "f", Typeflag: tar.TypeReg}}
	for range 2100 {
		many = append(many, with(64<<10))
	}
	var deep []tar.Header // whose directories nobody names
	for i := range 100 {
		deep = append(deep, tar.Header{Name: fmt.Sprintf("%d/%sf", i, strings.Repeat("d/", 1900)), Typeflag: tar.TypeReg, Format: tar.FormatPAX})
	}
	for want, headers := range map[string][]tar.Header{
		"an extended attribute \"user.a\" of 65537 bytes":           {with(64<<10 + 1)},
		"come to more than 128 MiB":                                 many,
		"attributes of the files of the build context come to more": deep,
		"a name of 5000 bytes":                                      {{Name: strings.Repeat("d/", 2500), Typeflag: tar.TypeDir, Format: tar.FormatPAX}},
	} {
		body := archive(t, append([]tar.Header{file("Dockerfile", "FROM scratch\n")}, headers...)...)
		_, err := request(t, &solver{answer: answer()}, "", bytes.NewReader(body))
		if err == nil || !strings.Contains(err.Error(), want) || !errdefs.IsInvalidArgument(err) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	body := archive(t, file("Dockerfile", "FROM scratch\n"), with(64<<10))
	if _, err := request(t, &solver{answer: answer()}, "", bytes.NewReader(body)); err != nil {
		t.Errorf("as much as a file can have: %v", err)
	}
}

// A context that its client does not send to the end is the client's error, at whichever byte it ends.
func TestHalfSentContexts(t *testing.T) {
	whole := archive(t, file("Dockerfile", "FROM scratch\n"), file("f", strings.Repeat("x", 100_000)))
	packed := compressed(t, whole)
	for name, body := range map[string][]byte{
		"in a file": whole[:20_000], "in a header": whole[:1300], "in compressed data": packed[:len(packed)/2],
	} {
		_, err := request(t, &solver{answer: answer()}, "", bytes.NewReader(body))
		if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "build context") {
			t.Errorf("%s: %v", name, err)
		}
	}
	broken := io.MultiReader(bytes.NewReader(whole), errReader{errors.New("connection reset")})
	if _, err := request(t, &solver{answer: answer()}, "", broken); !errdefs.IsInvalidArgument(err) {
		t.Errorf("behind the archive's end: %v", err)
	}
}

type errReader struct{ err error }

func (r errReader) Read([]byte) (int, error) { return 0, r.err }

func compressed(t *testing.T, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, err := w.Write(data)
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestWhatBuildKitIsAsked(t *testing.T) {
	s := &solver{answer: answer()}
	r := classic.Request{Request: build.Request{Dockerfile: "./d/../F", NetworkMode: "host", Target: "x"}}
	if _, err := run(t, s, r, bytes.NewReader(archive(t, file("F", "FROM scratch AS x\n")))); err != nil {
		t.Fatal(err)
	}
	if s.asked.Dockerfile != "F" || s.asked.Target != "x" || s.opt.FrontendAttrs["filename"] != "F" {
		t.Errorf("%+v", s.asked)
	}
	if !slices.Contains(s.opt.AllowedEntitlements, "network.host") {
		t.Errorf("entitlements: %v", s.opt.AllowedEntitlements)
	}
	r.NetworkMode = "bridge"
	if _, err := run(t, s, r, bytes.NewReader(archive(t, file("F", "FROM scratch AS x\n")))); err != nil || s.asked.NetworkMode != "" {
		t.Errorf("%v, %q", err, s.asked.NetworkMode)
	}
}

func TestRemoteContexts(t *testing.T) {
	s := &solver{answer: answer()}
	if _, err := request(t, s, "remote=https%3A%2F%2Fhost.test%2Fapp.git%23main&t=app", strings.NewReader("")); err != nil {
		t.Fatal(err)
	}
	if s.opt.FrontendAttrs["context"] != "https://host.test/app.git#main" || len(s.opt.LocalMounts) > 0 {
		t.Errorf("%v %v", s.opt.FrontendAttrs, s.opt.LocalMounts)
	}
}

func TestBadRequests(t *testing.T) {
	for want, r := range map[string]build.Request{
		"UPPER":   {Tags: []string{"UPPER"}},
		"digest":  {Tags: []string{"a@" + image}},
		"outputs": {Outputs: []build.Output{{Type: "local"}}},
		"refused": {NetworkMode: "web"},
		"remoteURL (x) could not be recognized as URL": {Remote: "x"},
	} {
		_, err := run(t, &solver{answer: answer()}, classic.Request{Request: r}, nil)
		if err == nil || !strings.Contains(err.Error(), want) || !errdefs.IsInvalidArgument(err) {
			t.Errorf("%+v: %v, want %q", r, err, want)
		}
	}
}

func TestCredentialsHeader(t *testing.T) {
	header := base64.URLEncoding.EncodeToString([]byte(`{"https://index.docker.io/v1/":{"username":"u","password":"p"}}`))
	found, err := classic.ParseCredentials(header)
	if err != nil || found["https://index.docker.io/v1/"].Password != "p" {
		t.Errorf("%v, %v", found, err)
	}
	for _, bad := range []string{"%", base64.URLEncoding.EncodeToString([]byte("[]"))} {
		if _, err := classic.ParseCredentials(bad); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func FuzzContext(f *testing.F) {
	f.Add(archive(f, file("Dockerfile", "FROM busybox\nRUN --mount=from=x,target=/a true\nCOPY --from=0 a b\n"), link(tar.TypeLink, "x", "Dockerfile")))
	f.Add([]byte("no archive"))
	f.Fuzz(func(t *testing.T, body []byte) {
		s := &solver{answer: answer()}
		_, _ = request(t, s, "", bytes.NewReader(body))
		for _, name := range s.order {
			if strings.HasPrefix(name, "/") || slices.Contains(strings.Split(name, "/"), "..") {
				t.Errorf("a path outside: %q", name)
			}
		}
	})
}
