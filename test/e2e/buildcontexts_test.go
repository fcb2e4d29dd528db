package e2e

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"fmt"
	"maps"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cleatlabs/cleat/test/harness"
)

// tarWith packs files, in the order of their names.
func tarWith(t *testing.T, fs files) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, n := range slices.Sorted(maps.Keys(fs)) {
		if err := w.WriteHeader(&tar.Header{Name: n, Mode: 0o644, Size: int64(len(fs[n]))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(fs[n])); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func gzipped(t *testing.T, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// serveBytes answers with data by path, on loopback.
func serveBytes(t *testing.T, data map[string][]byte) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, ok := data[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write(b)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// gitServer serves the files, committed on the branch main and tagged v1, as
// /repo.git by smart HTTP; it returns the URL and the commit.
func gitServer(t *testing.T, fs files) (url, commit string) {
	t.Helper()
	dir := project(t, fs)
	git := func(args ...string) string {
		cmd := exec.Command("git", append([]string{"-C", dir, "-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false", "-c", "tag.gpgsign=false"}, args...)...)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	git("init", "-q", "-b", "main")
	git("add", ".")
	git("commit", "-q", "-m", "first")
	git("tag", "v1")
	commit = git("rev-parse", "HEAD")
	root := t.TempDir()
	if out, err := exec.Command("git", "clone", "-q", "--bare", dir, filepath.Join(root, "repo.git")).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	s := httptest.NewServer(&cgi.Handler{
		Path: filepath.Join(git("--exec-path"), "git-http-backend"),
		Env:  []string{"GIT_PROJECT_ROOT=" + root, "GIT_HTTP_EXPORT_ALL=1"},
	})
	t.Cleanup(s.Close)
	return s.URL + "/repo.git", commit
}

// TestBuildContexts: where the files of a build may come from.
func TestBuildContexts(t *testing.T) {
	e := builder(t)
	fs := files{"Dockerfile": "FROM scratch\nCOPY a /out\n", "a": "from the context", "other.Dockerfile": "FROM scratch\nCOPY a /other\n",
		"sub/Dockerfile": "FROM scratch\nCOPY a /out\n", "sub/a": "from below"}
	packed := tarWith(t, fs)
	web := serveBytes(t, map[string][]byte{"/ctx.tar.gz": gzipped(t, packed), "/Dockerfile": []byte("FROM busybox AS b\nRUN echo alone >/out\nFROM scratch\nCOPY --from=b /out /\n")})
	repo, commit := gitServer(t, fs)
	for _, c := range []struct {
		name  string
		args  []string
		stdin []byte
		file  string
		want  string
	}{
		{"a tar on standard input", []string{"-"}, packed, "out", "from the context"},
		{"a compressed tar on standard input", []string{"-"}, gzipped(t, packed), "out", "from the context"},
		{"another Dockerfile in a tar", []string{"-f", "other.Dockerfile", "-"}, packed, "other", "from the context"},
		{"a Dockerfile on standard input", []string{"-"}, []byte("FROM busybox AS b\nRUN echo alone >/out\nFROM scratch\nCOPY --from=b /out /\n"), "out", "alone\n"},
		{"a tar from the web", []string{web + "/ctx.tar.gz"}, nil, "out", "from the context"},
		{"a Dockerfile from the web", []string{web + "/Dockerfile"}, nil, "out", "alone\n"},
		{"a repository", []string{repo}, nil, "out", "from the context"},
		{"a branch's directory", []string{repo + "#main:sub"}, nil, "out", "from below"},
		{"a tag", []string{repo + "#v1"}, nil, "out", "from the context"},
		{"a commit", []string{repo + "#" + commit}, nil, "out", "from the context"},
		{"a query", []string{repo + "?ref=v1&subdir=sub&checksum=" + commit}, nil, "out", "from below"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			r := buildRun{dir: dir, args: append([]string{"-o", "out"}, c.args...), stdin: c.stdin}.do(t, e, "docker")
			if r.Code != 0 {
				t.Fatal(r)
			}
			if got := read(t, filepath.Join(dir, "out", c.file)); got != c.want {
				t.Errorf("%q", got)
			}
		})
	}
	for _, c := range []struct {
		name  string
		arg   string
		stdin []byte
		want  string
	}{
		{"a branch that is not there", repo + "#nowhere", nil, "nowhere"},
		{"a repository that is not there", strings.Replace(repo, "repo.git", "none.git", 1), nil, "none.git"},
		{"another commit than was said", repo + "?ref=v1&checksum=" + strings.Repeat("0", 40), nil, "checksum"},
		{"a page that is not there", web + "/none", nil, "404"},
		{"nothing on standard input", "-", nil, "no local sources"},
		{"half a tar", "-", packed[:1100], "unexpected EOF"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := buildRun{dir: t.TempDir(), args: []string{"-o", "type=cacheonly", c.arg}, stdin: c.stdin}.do(t, e, "docker")
			if r.Code == 0 || !strings.Contains(r.Stderr, c.want) {
				t.Errorf("not %q: %s", c.want, r)
			}
		})
	}
}

// TestBuildAdds: ADD of what is not in the context, and of archives.
func TestBuildAdds(t *testing.T) {
	e := builder(t)
	packed := tarWith(t, files{"d/in.txt": "in the archive"})
	data := gzipped(t, packed)
	web := serveBytes(t, map[string][]byte{"/a.tar.gz": data, "/file": []byte("from the web")})
	repo, commit := gitServer(t, files{"a": "from git"})
	fs := files{"local.tar.gz": string(data), "plain.tar": string(packed), "notatar.tar": "just text"}
	for suffix, tool := range map[string]string{"bz2": "bzip2", "xz": "xz"} {
		cmd := exec.Command(tool, "-c")
		cmd.Stdin = bytes.NewReader(packed)
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s: %v", tool, err)
		}
		fs["local.tar."+suffix] = string(out)
	}
	fs["Dockerfile"] = fmt.Sprintf(`FROM scratch
ADD local.tar.gz /gz/
ADD local.tar.bz2 /bz2/
ADD local.tar.xz /xz/
ADD plain.tar /plain/
ADD notatar.tar /kept/
ADD --unpack=false local.tar.gz /packed/
ADD %[1]s/file %[1]s/a.tar.gz /web/
ADD --unpack=true %[1]s/a.tar.gz /webunpacked/
ADD --chmod=600 --checksum=sha256:%[2]x %[1]s/file /sum/
ADD %[3]s#main /git/
ADD --keep-git-dir=true %[3]s#v1 /gitdir/
ADD --checksum=%[4]s %[3]s /gitsum/
`, web, sha256.Sum256([]byte("from the web")), repo, commit)
	stop{files: fs, tree: files{
		"gz/d/in.txt": "in the archive", "bz2/d/in.txt": "in the archive", "xz/d/in.txt": "in the archive", "plain/d/in.txt": "in the archive",
		"kept/notatar.tar": "just text", "packed/local.tar.gz": string(data), "web/file": "from the web", "web/a.tar.gz": string(data),
		"webunpacked/d/in.txt": "in the archive", "sum/file": "from the web", "git/a": "from git", "git/.git/HEAD": "", "gitsum/a": "from git",
	}}.run(t, e)
	stop{files: dockerfile("FROM busybox\nADD --keep-git-dir=true " + repo + " /g\nRUN [ -f /g/.git/HEAD ] && [ -f /g/a ]\n")}.run(t, e)
	bad := strings.Repeat("0", 64)
	stop{files: dockerfile("FROM scratch\nADD --checksum=sha256:" + bad + " " + web + "/file /\n"), fails: []string{"digest mismatch", bad}}.run(t, e)
	stop{files: dockerfile("FROM scratch\nADD " + web + "/none /\n"), fails: []string{"404"}}.run(t, e)
}

// TestBuildNamedContexts: --build-context replaces images, stages and adds places.
func TestBuildNamedContexts(t *testing.T) {
	e := builder(t)
	repo, _ := gitServer(t, files{"a": "from git"})
	extra := project(t, files{"x": "from a directory"})
	stop{files: dockerfile(`FROM python AS base
FROM scratch
COPY --from=dir x /
COPY --from=git a /
COPY --from=image /bin/busybox /
COPY --from=base /etc/passwd /passwd
`), args: []string{"--build-context", "dir=" + extra, "--build-context", "git=" + repo,
		"--build-context", "image=docker-image://busybox", "--build-context", "python=docker-image://alpine:3.20"},
		tree: files{"x": "from a directory", "a": "from git"}}.run(t, e)
	stop{files: dockerfile("FROM scratch\nCOPY --from=dir x /\n"), args: []string{"--build-context", "dir=" + filepath.Join(extra, "none")}, fails: []string{"none"}}.run(t, e)
}

// TestBuildSendsOnlyChanges: of a context that was sent before, what has changed.
func TestBuildSendsOnlyChanges(t *testing.T) {
	e := builder(t)
	big := strings.Repeat("0123456789abcdef", 1<<16) // 1 MiB
	dir := project(t, files{"Dockerfile": "FROM scratch\nCOPY . /\n", "big": big, "small": "1"})
	if log := build(t, e, "docker", dir, "-o", "type=cacheonly"); !strings.Contains(string(log), "transferring context: 1.0") {
		t.Errorf("the first transfer: %s", log)
	}
	// What the build before has received, the engine lets go of behind its end: until then another cannot begin with it.
	n := 1
	harness.Eventually(t, func() (bool, string) {
		n++
		if err := os.WriteFile(filepath.Join(dir, "small"), []byte(fmt.Sprint(n)), 0o644); err != nil {
			t.Fatal(err)
		}
		log := string(build(t, e, "docker", dir, "-o", "type=cacheonly"))
		return !strings.Contains(log, "transferring context: 1.0"), "all was sent again: " + log
	})
}
