package e2e

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/cleatlabs/cleat/test/expect"
	"github.com/cleatlabs/cleat/test/harness"
)

// tree makes local files to be copied.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if target, ok := strings.CutPrefix(content, "-> "); ok {
			if err := os.Symlink(target, path); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := os.WriteFile(path, []byte(content), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestCopyPathRules is Docker's table of what goes where.
func TestCopyPathRules(t *testing.T) {
	e := engine(t, "busybox")
	each(t, func(t *testing.T, program string) {
		c := name(t)
		remove(t, e, c)
		e.OK(t, program, "run", "-d", "--name", c, "busybox", "sh", "-c",
			"mkdir -p /dir/sub /link-target; echo in >/dir/sub/f; ln -s dir /dlink; ln -s /dir/sub/f /flink; ln -s /nowhere /dangling; exec sleep 600")
		ready(t, e, program, c, "/dangling")
		src := tree(t, map[string]string{"file": "one", "d/a": "a", "d/b/c": "c", "lf": "-> file", "ld": "-> d"})
		for _, tc := range []struct{ src, dst, made, want, fail string }{
			{src: "file", dst: "/new", made: "/new", want: "one"},
			{src: "file", dst: "/dir", made: "/dir/file", want: "one"},
			{src: "file", dst: "/dir/", made: "/dir/file", want: "one"},
			{src: "file", dst: "/dlink", made: "/dir/file", want: "one"},
			{src: "file", dst: "/missing/", fail: "no such directory"},
			{src: "file", dst: "/missing/x", fail: "Could not find the file /missing in container " + c},
			{src: "file", dst: "/new", made: "/new", want: "one"},
			{src: "d", dst: "/fresh", made: "/fresh/b/c", want: "c"},
			{src: "d", dst: "/dir", made: "/dir/d/b/c", want: "c"},
			{src: "d/.", dst: "/dir", made: "/dir/b/c", want: "c"},
			{src: "d/.", dst: "/fresh2", made: "/fresh2/a", want: "a"},
			{src: "d", dst: "/new", fail: "cannot copy directory"},
			{src: "lf", dst: "/l1", made: "readlink /l1", want: "file"},
			{src: "ld/", dst: "/l2", made: "/l2/a", want: "a"},
			{src: "file", dst: "/dangling", made: "/nowhere", want: "one"},
			{src: "nothing", dst: "/x", fail: "no such file or directory"},
			{src: "file", dst: "/new/x", fail: "not a directory"},
		} {
			r := e.Do(t, program, "", "cp", src+"/"+tc.src, c+":"+tc.dst)
			if tc.fail != "" {
				if r.Code == 0 || !strings.Contains(r.Stderr, tc.fail) {
					t.Errorf("%s to %s: want %q: %s", tc.src, tc.dst, tc.fail, r)
				}
				continue
			}
			if r.Code != 0 || r.Stdout+r.Stderr != "" {
				t.Errorf("%s to %s: %s", tc.src, tc.dst, r)
				continue
			}
			cmd := []string{"exec", c, "cat", tc.made}
			if path, ok := strings.CutPrefix(tc.made, "readlink "); ok {
				cmd = []string{"exec", c, "readlink", path}
			}
			if r := e.Do(t, program, "", cmd...); r.Line() != tc.want {
				t.Errorf("%s to %s: %s", tc.src, tc.dst, r)
			}
		}
		if r := e.Do(t, program, "", "cp", src+"/file", "nobody:/missing/"); program == "cleat" && !strings.Contains(r.Stderr, "No such container: nobody") {
			t.Errorf("into a container that is not there: %s", r)
		}
		e.OK(t, program, "cp", "-L", src+"/lf", c+":/l3")
		if got := e.OK(t, program, "exec", c, "cat", "/l3"); got != "one" {
			t.Errorf("-L: %q", got)
		}

		out := t.TempDir()
		for _, tc := range []struct {
			flags          []string
			src, dst, made string
			want, fail     string
		}{
			{src: "/dir/sub/f", dst: "f1", made: "f1", want: "in\n"},
			{src: "/dir/sub/f", dst: ".", made: "f", want: "in\n"},
			{src: "/dir/sub", dst: "s1", made: "s1/f", want: "in\n"},
			{src: "/dir/sub", dst: "s1", made: "s1/sub/f", want: "in\n"},
			{src: "/dir/sub/.", dst: "s2", made: "s2/f", want: "in\n"},
			{src: "/dlink/", dst: "s3", made: "s3/sub/f", want: "in\n"},
			{src: "/flink", dst: "ln", made: "readlink ln", want: "/dir/sub/f"},
			{flags: []string{"-L"}, src: "/flink", dst: "fl", made: "fl", want: "in\n"},
			{flags: []string{"-L"}, src: "/flink", dst: ".", made: "flink", want: "in\n"},
			{src: "/dir/sub/f", dst: "none/x", fail: "does not exist"},
			{src: "/dir", dst: "f1", fail: "cannot copy directory"},
			{src: "/gone", dst: "x", fail: "Could not find the file /gone in container " + c},
			{src: "/proc/version", dst: "x", fail: "Could not find the file /proc/version in container " + c},
			{src: "/dir/sub/f/", dst: "x", fail: "not a directory"},
		} {
			r := e.Do(t, program, "", append(append([]string{"container", "cp"}, tc.flags...), c+":"+tc.src, out+"/"+tc.dst)...)
			if tc.fail != "" {
				if r.Code == 0 || !strings.Contains(r.Stderr, tc.fail) {
					t.Errorf("%s to %s: want %q: %s", tc.src, tc.dst, tc.fail, r)
				}
				continue
			}
			got, err := []byte(nil), error(nil)
			if path, ok := strings.CutPrefix(tc.made, "readlink "); ok {
				var target string
				target, err = os.Readlink(out + "/" + path)
				got = []byte(target)
			} else {
				got, err = os.ReadFile(out + "/" + tc.made)
			}
			if r.Code != 0 || err != nil || string(got) != tc.want {
				t.Errorf("%s to %s: %q, %v: %s", tc.src, tc.dst, got, err, r)
			}
		}
	})
}

// ready waits until a path is there in a running container.
func ready(t *testing.T, e *harness.Engine, program, c, path string) {
	t.Helper()
	e.OK(t, program, "exec", c, "sh", "-c", "until [ -L "+path+" ] || [ -e "+path+" ]; do sleep 0.01; done")
}

// TestCopyEverywhere copies into a container before its start, while it runs, while it
// is over, and into whatever is mounted there.
func TestCopyEverywhere(t *testing.T) {
	e := engine(t, "busybox")
	each(t, func(t *testing.T, program string) {
		c, vol, bind := name(t), name(t)+"-vol", t.TempDir()
		t.Cleanup(func() { e.OK(t, "cleat", "volume", "rm", "-f", vol) })
		remove(t, e, c) // goes first
		src := tree(t, map[string]string{"file": "content"})
		e.OK(t, program, "create", "--name", c, "-v", vol+":/etc", "-v", bind+":/made/bind", "--tmpfs", "/t", "busybox", "sleep", "600")
		// before the first start; the volume gets what the image has there, all the same
		for _, dst := range []string{"/created", "/etc/created", "/made/bind/created"} {
			e.OK(t, program, "cp", src+"/file", c+":"+dst)
		}
		if b, err := os.ReadFile(bind + "/created"); err != nil || string(b) != "content" {
			t.Errorf("the bind mount has %q, %v", b, err)
		}
		e.OK(t, program, "start", c)
		for _, f := range []string{"/created", "/etc/created", "/made/bind/created"} {
			if got := e.OK(t, program, "exec", c, "cat", f); got != "content" {
				t.Errorf("%s: %q", f, got)
			}
		}
		if got := e.OK(t, program, "exec", c, "grep", "^root:", "/etc/passwd"); got == "" {
			t.Error("the volume was not filled from the image")
		}
		for _, dst := range []string{"/running", "/etc/running", "/made/bind/running", "/t/running", "/dev/shm/running"} {
			e.OK(t, program, "cp", src+"/file", c+":"+dst)
			if got := e.OK(t, program, "exec", c, "cat", dst); got != "content" {
				t.Errorf("%s: %q", dst, got)
			}
			if got := e.Do(t, program, "", "cp", c+":"+dst, "-"); !strings.Contains(got.Stdout, "content") {
				t.Errorf("%s out: %s", dst, got)
			}
		}
		// What the engine mounts stays mounted, and what is the kernel's is no file.
		for dst, want := range map[string]string{"/etc/hosts": "device or resource busy", "/proc/x": "interface of the kernel", "/sys/x": "read-only"} {
			if r := e.Do(t, program, "", "cp", src+"/file", c+":"+dst); r.Code == 0 || !strings.Contains(r.Stderr, want) {
				t.Errorf("%s: %s", dst, r)
			}
		}
		if got := e.OK(t, program, "exec", c, "grep", "-c", "localhost", "/etc/hosts"); got == "0" {
			t.Error("/etc/hosts is lost")
		}
		e.OK(t, program, "stop", "-t", "0", c)
		for _, dst := range []string{"/over", "/etc/over", "/made/bind/over"} {
			e.OK(t, program, "cp", src+"/file", c+":"+dst)
			if got := e.Do(t, program, "", "cp", c+":"+dst, "-"); !strings.Contains(got.Stdout, "content") {
				t.Errorf("%s: %s", dst, got)
			}
		}
		e.OK(t, program, "start", c)
		for _, f := range []string{"/running", "/over", "/etc/over", "/made/bind/over"} {
			if got := e.OK(t, program, "exec", c, "cat", f); got != "content" {
				t.Errorf("%s: %q", f, got)
			}
		}
	})
}

func TestCopyReadOnly(t *testing.T) {
	e := engine(t, "busybox")
	src := tree(t, map[string]string{"file": "x"})
	each(t, func(t *testing.T, program string) {
		c := name(t)
		remove(t, e, c)
		e.OK(t, program, "run", "-d", "--name", c, "--read-only", "-v", "/vol", "-v", t.TempDir()+":/ro:ro", "--tmpfs", "/t", "busybox", "sleep", "600")
		for range 2 {
			for dst, want := range map[string]string{"/": "container rootfs is marked read-only", "/ro": "mounted volume is marked read-only: /ro in container "} {
				if r := e.Do(t, program, "", "cp", src+"/file", c+":"+dst); r.Code == 0 || !strings.Contains(r.Stderr, want) {
					t.Errorf("%s: %s", dst, r)
				}
			}
			e.OK(t, program, "cp", src+"/file", c+":/vol")
			e.OK(t, program, "stop", "-t", "0", c) // and the same again
		}
	})
}

// TestCopyKeepsWhatFilesHave goes through tar streams both ways.
func TestCopyKeepsWhatFilesHave(t *testing.T) {
	e := engine(t, "busybox")
	c := name(t)
	remove(t, e, c)
	e.OK(t, "docker", "run", "-d", "--name", c, "-u", "1000:2000", "busybox", "sleep", "600")
	const size = 64 << 20
	var in bytes.Buffer
	tw := tar.NewWriter(&in)
	for _, h := range []*tar.Header{
		{Name: "in/", Typeflag: tar.TypeDir, Mode: 0o1750, Uid: 7, Gid: 8},
		{Name: "in/suid", Typeflag: tar.TypeReg, Mode: 0o4711, Uid: 9, Gid: 10, Size: 3, PAXRecords: map[string]string{"SCHILY.xattr.user.note": "kept"}},
		{Name: "in/again", Typeflag: tar.TypeLink, Linkname: "in/suid"},
		{Name: "in/link", Typeflag: tar.TypeSymlink, Linkname: "../../nowhere"},
		{Name: "in/pipe", Typeflag: tar.TypeFifo, Mode: 0o600},
		{Name: "in/dev", Typeflag: tar.TypeChar, Mode: 0o666, Devmajor: 1, Devminor: 3},
		{Name: "in/sparse", Typeflag: tar.TypeReg, Mode: 0o600, Size: size},
		{Name: "in/" + strings.Repeat("long", 60) + "/deep", Typeflag: tar.TypeReg, Mode: 0o600},
	} {
		if err := tw.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Size == 3 {
			tw.Write([]byte("abc"))
		} else if h.Size > 0 {
			zeros := make([]byte, 1<<20)
			for range size >> 20 {
				tw.Write(zeros)
			}
		}
	}
	tw.Close()
	cmd := e.Command(t, "cleat", "cp", "-", c+":/tmp")
	cmd.Stdin = bytes.NewReader(in.Bytes())
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	got := e.OK(t, "docker", "exec", "-u", "0", c, "sh", "-c",
		"cd /tmp/in; stat -c '%n %F %a %u:%g %h' . suid again pipe dev; readlink link; stat -c %t:%T dev; [ $(stat -c %b sparse) -lt 64 ] && stat -c %s sparse; ls -d long*/deep | wc -l")
	want := ". directory 1750 7:8 3\nsuid regular file 4711 9:10 2\nagain regular file 4711 9:10 2\npipe fifo 600 0:0 1\ndev character special file 666 0:0 1\n../../nowhere\n1:3\n67108864\n1"
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	out := map[string]*tar.Header{}
	r := e.Command(t, "docker", "cp", c+":/tmp/in", "-")
	stream, err := r.Output()
	if err != nil {
		t.Fatal(err)
	}
	for tr := tar.NewReader(bytes.NewReader(stream)); ; {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		out[h.Name] = h
	}
	for n, check := range map[string]func(h *tar.Header) bool{
		"in/":     func(h *tar.Header) bool { return h.Mode == 0o1750 && h.Uid == 7 },
		"in/suid": func(h *tar.Header) bool { return h.Typeflag == tar.TypeLink && h.Linkname == "in/again" },
		"in/again": func(h *tar.Header) bool {
			return h.Mode == 0o4711 && h.Gid == 10 && h.Size == 3 && h.PAXRecords["SCHILY.xattr.user.note"] == "kept"
		},
		"in/link":   func(h *tar.Header) bool { return h.Linkname == "../../nowhere" },
		"in/pipe":   func(h *tar.Header) bool { return h.Typeflag == tar.TypeFifo },
		"in/dev":    func(h *tar.Header) bool { return h.Devminor == 3 },
		"in/sparse": func(h *tar.Header) bool { return h.Size == size },
	} {
		if h := out[n]; h == nil || !check(h) {
			t.Errorf("%s came back as %+v", n, h)
		}
	}
	// -a gives the files to the container's user.
	e.OK(t, "cleat", "cp", "-a", tree(t, map[string]string{"f": "x"})+"/f", c+":/tmp/mine")
	if got := e.OK(t, "docker", "exec", c, "stat", "-c", "%u:%g %a", "/tmp/mine"); got != "1000:2000 640" {
		t.Errorf("-a: %s", got)
	}
}

// TestCopyAPI is about what programs rely on: the header, the status codes, the texts.
func TestCopyAPI(t *testing.T) {
	e := engine(t, "busybox")
	g := gophers(t, e)
	id := g.busybox("mkdir /d; touch /d/f; ln -s /d/f /l; exec sleep 600")
	if _, err := g.ContainerStart(g.ctx, id, client.ContainerStartOptions{}); err != nil {
		t.Fatal(err)
	}
	ready(t, e, "cleat", id, "/l")
	st, err := g.ContainerStatPath(g.ctx, id, client.ContainerStatPathOptions{Path: "/l"})
	if err != nil || st.Stat.Name != "l" || st.Stat.Mode&os.ModeSymlink == 0 || st.Stat.LinkTarget != "/d/f" {
		t.Errorf("%+v, %v", st, err)
	}
	st, err = g.ContainerStatPath(g.ctx, id, client.ContainerStatPathOptions{Path: "/d/."})
	if err != nil || st.Stat.Name != "." || !st.Stat.Mode.IsDir() {
		t.Errorf("%+v, %v", st, err)
	}
	for _, tc := range []struct {
		method, path, query, body string
		status                    int
		text                      string
	}{
		{"HEAD", id, "path=/d", "", 200, ""},
		{"HEAD", id, "path=/no", "", 404, ""},
		{"HEAD", id, "", "", 400, ""},
		{"GET", id, "path=/no", "", 404, "Could not find the file /no in container " + id},
		{"GET", id, "", "", 400, "bad parameter: path cannot be empty"},
		{"GET", "unknown", "path=/", "", 404, "No such container: unknown"},
		{"PUT", id, "path=/d/f", "", 400, "extraction point is not a directory: /d/f in container "},
		{"PUT", id, "path=/no", "", 404, "Could not find the file /no in container " + id},
		{"PUT", id, "path=/d", "this is no archive" + strings.Repeat("x", 1024), 400, "not a tar archive"},
		{"PUT", id, "path=/d", "", 200, ""},
		{"PUT", id, "path=/d", tarOf("../escaped", "x"), 400, "outside of the directory"},
		{"PUT", id, "path=/d", tarOf("/../../escaped", "x"), 400, "outside of the directory"},
		{"PUT", id, "path=/&noOverwriteDirNonDir=1", tarOf("d", "x"), 400, `cannot overwrite directory \"/d\" with non-directory \"/\"`},
		{"PUT", id, "path=/&noOverwriteDirNonDir=1", tarOf("l/", ""), 400, `cannot overwrite non-directory \"/l\" with directory \"/\"`},
		{"PUT", id, "path=/", tarOf("d", "x"), 200, ""}, // the directory goes
		{"PUT", id, "path=/", "\xfd7zXZ\x00 and so on", 400, "xz"},
	} {
		status, header, body := request(t, e, tc.method, "/v1.52/containers/"+tc.path+"/archive?"+tc.query, tc.body)
		if status != tc.status || !strings.Contains(body, tc.text) {
			t.Errorf("%s %s: %d %s, want %d %q", tc.method, tc.query, status, body, tc.status, tc.text)
		}
		if tc.method == "HEAD" && status == 200 {
			var stat container.PathStat
			text, err := base64.StdEncoding.DecodeString(header.Get("X-Docker-Container-Path-Stat"))
			if err != nil || json.Unmarshal(text, &stat) != nil || stat.Name != "d" {
				t.Errorf("header %q, %v", header, err)
			}
		}
	}
	if _, err := g.CopyFromContainer(g.ctx, id, client.CopyFromContainerOptions{SourcePath: "/nope"}); !errdefs.IsNotFound(err) {
		t.Errorf("%v", err)
	}
}

// request calls the engine as no client library does it.
func request(t *testing.T, e *harness.Engine, method, path, body string) (status int, header http.Header, text string) {
	t.Helper()
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", e.Socket)
	}}}
	req, err := http.NewRequestWithContext(t.Context(), method, "http://engine"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	res, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, res.Header, string(b)
}

func tarOf(name, content string) string {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	h := &tar.Header{Name: name, Mode: 0o644, Size: int64(len(content)), Typeflag: tar.TypeReg}
	if strings.HasSuffix(name, "/") {
		h.Typeflag = tar.TypeDir
	}
	w.WriteHeader(h)
	io.WriteString(w, content)
	w.Close()
	return b.String()
}

// TestCopyAgainstSwappedLinks copies through a directory that the container swaps all the
// time for a link to the host's. It is made anew each time: a copy that has found it may make it itself where it is gone.
func TestCopyAgainstSwappedLinks(t *testing.T) {
	e := engine(t, "busybox")
	g := gophers(t, e)
	outside := t.TempDir()
	if err := os.WriteFile(outside+"/secret", []byte("of the host"), 0o644); err != nil {
		t.Fatal(err)
	}
	id := g.busybox(fmt.Sprintf("mkdir /w; cd /w; touch up; while :; do mkdir d; echo inside >d/secret; rm -rf d; ln -s %s d; rm -rf d; done", outside))
	if _, err := g.ContainerStart(g.ctx, id, client.ContainerStartOptions{}); err != nil {
		t.Fatal(err)
	}
	ready(t, e, "cleat", id, "/w/up")
	found := 0
	for i, begun := 0, time.Now(); i < 300 || found == 0 && time.Since(begun) < expect.Patience; i++ {
		res, err := g.CopyFromContainer(g.ctx, id, client.CopyFromContainerOptions{SourcePath: "/w/d/secret"})
		if err == nil {
			b, _ := io.ReadAll(res.Content)
			res.Content.Close()
			if bytes.Contains(b, []byte("of the host")) {
				t.Fatal("read a file of the host")
			}
			found++
		}
		_, _ = g.CopyToContainer(g.ctx, id, client.CopyToContainerOptions{
			DestinationPath: "/w/d", Content: strings.NewReader(tarOf(fmt.Sprintf("n%d", i), "x")),
		})
	}
	entries, err := os.ReadDir(outside)
	if err != nil || len(entries) != 1 {
		t.Errorf("the host's directory has %v, %v", entries, err)
	}
	if found == 0 {
		t.Error("no read met the directory, so none shows that links are not followed")
	}
}

// TestCopyCancelled ends a copy in the middle: the former file stays, nothing else is left.
func TestCopyCancelled(t *testing.T) {
	e := engine(t, "busybox")
	c := name(t)
	remove(t, e, c)
	e.OK(t, "docker", "run", "-d", "--name", c, "busybox", "sh", "-c", "mkdir /d; echo former >/d/f; exec sleep 600")
	ready(t, e, "cleat", c, "/d/f")
	r, w := io.Pipe()
	cmd := e.Command(t, "cleat", "cp", "-", c+":/d")
	cmd.Stdin = r
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	tw := tar.NewWriter(w)
	tw.WriteHeader(&tar.Header{Name: "f", Mode: 0o644, Size: 1 << 30, Typeflag: tar.TypeReg})
	tw.Write(make([]byte, 1<<20))
	cmd.Process.Signal(syscall.SIGINT)
	r.Close()
	w.Close()
	cmd.Wait()
	harness.Eventually(t, func() (bool, string) { // the engine hears of it when the client is gone
		got := e.OK(t, "docker", "exec", c, "sh", "-c", "cat /d/f; ls -A /d | wc -l")
		return got == "former\n1", got
	})
	// A container that is copied into can still be removed, and the engine lives.
	e.OK(t, "cleat", "rm", "-f", c)
	if status, _, _ := request(t, e, http.MethodGet, "/_ping", ""); status != 200 {
		t.Error("the engine does not answer")
	}
}

// TestCopyThatNeverEnds: a client that sends no more keeps a container that does not run neither from being removed by
// force, started, renamed or removed, nor the engine from ending.
func TestCopyThatNeverEnds(t *testing.T) {
	e := harness.Start(t, harness.Options{})
	e.Load(t, "busybox")
	stalled := func(t *testing.T, c string) net.Conn {
		t.Helper()
		id := e.OK(t, "docker", "create", "--name", c, "busybox")
		conn, err := net.Dial("unix", e.Socket)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		var b bytes.Buffer
		tw := tar.NewWriter(&b)
		tw.WriteHeader(&tar.Header{Name: "dir", Mode: 0o755, Typeflag: tar.TypeDir})
		tw.WriteHeader(&tar.Header{Name: "f", Mode: 0o644, Size: 1 << 20, Typeflag: tar.TypeReg})
		tw.Write([]byte("the beginning"))
		fmt.Fprintf(conn, "PUT /containers/%s/archive?path=/tmp HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-tar\r\nContent-Length: 2000000\r\n\r\n%s", c, b.Bytes())
		// The engine has begun: what came first is there.
		harness.Eventually(t, func() (bool, string) {
			found, err := filepath.Glob(filepath.Join(e.DataRoot, "containers", id, "upper", "tmp", "dir"))
			return err == nil && len(found) == 1, "not unpacked yet"
		})
		return conn
	}
	conn := stalled(t, "doomed")
	e.OK(t, "docker", "rm", "-f", "doomed")
	answer, err := io.ReadAll(conn)
	if err != nil || !bytes.HasPrefix(answer, []byte("HTTP/1.1 409 ")) || !bytes.Contains(answer, []byte("the container is being removed")) {
		t.Errorf("%q, %v", answer, err)
	}
	// Who wants the container otherwise waits for a moment only.
	t.Run("wanted", func(t *testing.T) {
		for _, verb := range [][]string{{"start", "one"}, {"restart", "two"}, {"rename", "three", "drei"}, {"rm", "four"}} {
			t.Run(verb[0], func(t *testing.T) {
				t.Parallel()
				conn := stalled(t, verb[1])
				e.OK(t, "docker", verb...)
				answer, err := io.ReadAll(conn)
				if err != nil || !bytes.HasPrefix(answer, []byte("HTTP/1.1 409 ")) || !bytes.Contains(answer, []byte("the client has sent nothing for 2s")) {
					t.Errorf("%q, %v", answer, err)
				}
				if verb[0] != "rm" {
					e.OK(t, "docker", "rm", "-f", verb[len(verb)-1])
				}
			})
		}
	})
	stalled(t, "other")
	e.Stop(t)
}

// TestCopyTellsItsProgress: on a terminal one line that is written over, at the end how much it was and where to; nothing
// in a pipe or with -q.
func TestCopyTellsItsProgress(t *testing.T) {
	e := engine(t, "busybox")
	c := name(t)
	remove(t, e, c)
	e.OK(t, "cleat", "create", "--name", c, "busybox")
	src := filepath.Join(t.TempDir(), "big")
	if err := os.WriteFile(src, make([]byte, 30<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	line := regexp.MustCompile(`^(\r\x1b\[2KCopying (to|from) container - [0-9.]+[kM]?B)*\r\x1b\[2KSuccessfully copied 31\.5MB( \(transferred 31\.5MB\))? to (\S+)\r\n$`)
	for _, args := range [][]string{{src, c + ":/tmp/big"}, {c + ":/tmp/big", src + "-back"}} {
		tm := onTerminal(t, e, 24, 100, "cleat", "cp", args[0], args[1])
		if code := tm.Exit(t); code != 0 {
			t.Errorf("cp %v: exit %d", args, code)
		}
		said := tm.String()
		if m := line.FindStringSubmatch(said); m == nil || m[4] != args[1] {
			t.Errorf("cp %v says %q", args, said)
		}
		quiet := onTerminal(t, e, 24, 100, "cleat", "cp", "-q", args[0], args[1])
		if code := quiet.Exit(t); code != 0 || quiet.String() != "" {
			t.Errorf("cp -q %v: exit %d, %q", args, code, quiet)
		}
		if r := e.Cleat(t, "cp", args[0], args[1]); r.Code != 0 || r.Stdout+r.Stderr != "" {
			t.Errorf("%s", r)
		}
	}
}
