package cli

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/docker/go-connections/nat"
	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types/network"
	"github.com/spf13/pflag"
)

// describe writes what a parsed -p publishes, in order.
func describe(m network.PortMap) string {
	var out []string
	for port, bindings := range m {
		for _, b := range bindings {
			ip := ""
			if b.HostIP.IsValid() {
				ip = b.HostIP.String()
			}
			out = append(out, fmt.Sprintf("%s|%s>%s", ip, b.HostPort, port))
		}
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func TestPublished(t *testing.T) {
	for spec, want := range map[string]string{
		"80": "|>80/tcp", "8080:80": "|8080>80/tcp", "8080:80/udp": "|8080>80/udp", "8080:80/UDP": "|8080>80/udp", "127.0.0.1:8080:80": "127.0.0.1|8080>80/tcp",
		"127.0.0.1::80": "127.0.0.1|>80/tcp", "[::1]:8080:80": "::1|8080>80/tcp", "::1:8080:80": "::1|8080>80/tcp", "[::]::53/udp": "::|>53/udp",
		"1-2:3-4": "|1>3/tcp |2>4/tcp", "3-4": "|>3/tcp |>4/tcp", "8000-8010:80": "|8000-8010>80/tcp", "0:80": "|0>80/tcp", ":80": "|>80/tcp",
		"published=1,target=2": "|1>2/tcp", "target=2,protocol=sctp": "|>2/sctp", "1:1/sctp": "|1>1/sctp",
	} {
		exposed, got, err := parsePublished([]string{spec})
		if err != nil || describe(got) != want {
			t.Errorf("%s: %q, %v; want %q", spec, describe(got), err, want)
		}
		if len(exposed) != len(got) {
			t.Errorf("%s: %v is exposed", spec, slices.Collect(maps.Keys(exposed)))
		}
	}
	for spec, want := range map[string]string{
		"": "no port specified", "80:": "no port specified", "x": "invalid containerPort: x", "70000": "invalid containerPort: 70000", "-1": "invalid containerPort", "70000:1": "invalid hostPort: 70000",
		"80/foo": "invalid proto: foo", "1-2:3-5": "invalid ranges specified for container and host Ports: 3-5 and 1-2", "2-1:1": "invalid hostPort: 2-1", "5-4": "invalid containerPort: 5-4",
		"256.0.0.1:1:1": "invalid IP address: 256.0.0.1", "host:1:1": "invalid IP address: host", "published=1": "target is missing", "published=1,foo=2": "invalid publish option 'foo'",
		"target=1,x": "invalid publish opts format", "1/tcp/udp": "invalid proto",
	} {
		if _, got, err := parsePublished([]string{spec}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %s, %v; want %q", spec, describe(got), err, want)
		}
	}
	if _, got, err := parsePublished([]string{"1-65535:1-65535"}); err != nil || len(got) != 65535 {
		t.Errorf("all ports: %d, %v", len(got), err)
	}
}

// FuzzPublished holds our parser against the one that docker uses: what both accept
// they understand alike, and ours accepts nothing that would crash or wrap around.
func FuzzPublished(f *testing.F) {
	for _, s := range []string{"80", "8080:80/udp", "127.0.0.1:1-2:3-4", "[::1]:1:2", "1-2:3", "a:b:c", ":::", "[", "0-65535:0-65535", "1:2/"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if strings.Contains(s, "=") || len(s) > 60 {
			t.Skip()
		}
		_, got, err := parsePublished([]string{s})
		_, theirs, theirErr := nat.ParsePortSpecs([]string{s})
		if err != nil || theirErr != nil {
			return
		}
		var want []string
		for port, bindings := range theirs {
			for _, b := range bindings {
				want = append(want, fmt.Sprintf("%s|%s>%s", b.HostIP, b.HostPort, port))
			}
		}
		slices.Sort(want)
		if strings.Contains(s, "[") || strings.Count(s, ":") > 2 {
			return // other ways to write the same IPv6 address
		}
		if g := describe(got); g != strings.Join(want, " ") {
			t.Errorf("%q: ours %q, docker's %q", s, g, want)
		}
	})
}

func TestVolumes(t *testing.T) {
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for spec, want := range map[string][2]string{
		"/a:/b": {"/a:/b", ""}, "/a:/b:ro,z": {"/a:/b:ro,z", ""}, "named:/n": {"named:/n", ""}, "/anon": {"", "/anon"}, "./x:/y": {wd + "/x:/y", ""},
		".:/y:ro": {wd + ":/y:ro", ""}, "../x:/y": {filepath.Dir(wd) + "/x:/y", ""}, "/a": {"", "/a"}, ".hidden:/x": {wd + "/.hidden:/x", ""},
	} {
		bind, anon, err := parseVolume(spec)
		if err != nil || bind != want[0] || anon != want[1] {
			t.Errorf("%s: %q, %q, %v", spec, bind, anon, err)
		}
	}
	for spec, want := range map[string]string{"": "empty volume spec", "a::b": "empty section between colons", ":/x": "empty section", "/x::": "empty section", "a:b:c:d": "too many colons"} {
		if _, _, err := parseVolume(spec); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", spec, err)
		}
	}
}

func FuzzVolume(f *testing.F) {
	for _, s := range []string{"/a:/b", "./x:/y:ro", "/x", "a:b:c:d", "::", ".", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		bind, anon, err := parseVolume(s)
		if err == nil && (bind == "") == (anon == "") {
			t.Errorf("%q: bind %q, anonymous %q", s, bind, anon)
		}
		if err == nil && strings.HasPrefix(s, ".") && bind != "" && !filepath.IsAbs(strings.Split(bind, ":")[0]) {
			t.Errorf("%q stays relative: %q", s, bind)
		}
	})
}

func TestDevices(t *testing.T) {
	for spec, want := range map[string]string{
		"/dev/a": "/dev/a /dev/a rwm", "/dev/a:/dev/b": "/dev/a /dev/b rwm", "/dev/a:r": "/dev/a /dev/a r", "/dev/a:/dev/b:mw": "/dev/a /dev/b mw", "/dev/a:/dev/b/../c": "/dev/a /dev/c rwm",
	} {
		d, err := parseDevice(spec)
		if got := strings.Join([]string{d.PathOnHost, d.PathInContainer, d.CgroupPermissions}, " "); err != nil || got != want {
			t.Errorf("%s: %q, %v", spec, got, err)
		}
	}
	for _, bad := range []string{"", ":/x", "/a:/b:x", "/a:/b:rr", "/a:b", "a", "/a:/b:r:w"} {
		if d, err := parseDevice(bad); err == nil {
			t.Errorf("%q is taken as %+v", bad, d)
		}
	}
	for rule, ok := range map[string]bool{
		"c 1:3 rwm": true, "a *:* rwm": true, "b 8:* r": true, "c 1:3": false, "x 1:3 r": false, "c 1 r": false, "c 1:3 rwmr": false, "c a:3 r": false, "c 1:3 x": false, "": false, "c 1:3 ": false,
	} {
		if _, err := validDeviceRule(rule); (err == nil) != ok {
			t.Errorf("%q: %v", rule, err)
		}
	}
	for name, cdi := range map[string]bool{"vendor.com/class=name": true, "/dev/x": false, "/dev/x=y": false, "a=b": false, "v/c=": false} {
		if isCDIDevice(name) != cdi {
			t.Errorf("%q: %v", name, !cdi)
		}
	}
}

func FuzzDevice(f *testing.F) {
	f.Add("/dev/a:/dev/b:rwm")
	f.Add(":")
	f.Fuzz(func(t *testing.T, s string) {
		d, err := parseDevice(s)
		if err == nil && (!filepath.IsAbs(d.PathInContainer) || !validDeviceMode(d.CgroupPermissions) || d.PathOnHost == "") {
			t.Errorf("%q: %+v", s, d)
		}
		if _, err := validDeviceRule(s); err == nil && len(strings.Fields(s)) != 3 {
			t.Errorf("rule %q is taken", s)
		}
	})
}

// parseRun parses flags as `run` does.
func parseRun(args ...string) (*containerFlags, *request, error) {
	fs := pflag.NewFlagSet("run", pflag.ContinueOnError)
	f := newContainerFlags(fs, "running")
	if err := fs.Parse(args); err != nil {
		return nil, nil, err
	}
	req, err := f.request(fs.Args())
	return f, req, err
}

func TestFlagsOfTheContainer(t *testing.T) {
	_, req, err := parseRun("--memory", "1.5g", "--memory-swap=-1", "--cpus=.5", "--ulimit", "nofile=1:2", "--stop-timeout", "0", "img", "-x", "--rm")
	if err != nil {
		t.Fatal(err)
	}
	if h := req.host; h.Memory != 1610612736 || h.MemorySwap != -1 || h.NanoCPUs != 5e8 || h.Ulimits[0].Hard != 2 || h.AutoRemove || *req.config.StopTimeout != 0 {
		t.Errorf("%+v", h)
	}
	if !reflect.DeepEqual(req.config.Cmd, []string{"-x", "--rm"}) {
		t.Errorf("flags after the image are the command's: %q", req.config.Cmd)
	}
	for _, bad := range [][]string{
		{"--memory=1x"}, {"--memory=-"}, {"--cpus=a"}, {"--ulimit=nofile"}, {"--ulimit=bogus=1"}, {"--ulimit=nofile=3:2"}, {"--label=="}, {"--env=="}, {"--shm-size=x"},
		{"--gpus=some"}, {"--isolation=hyperv"}, {"--cpu-count=1"}, {"--io-maxiops=1"}, {"--kernel-memory=1m"}, {"--use-api-socket"}, {"--restart=always", "--rm"}, {"--network=a", "--network=a"},
		{"--network=host", "--network=a"}, {"--log-driver=none", "--log-opt=a=b"}, {"--storage-opt=a"}, {"--mac-address=x"}, {"--health-retries=-1"}, {"--ip=x"}, {"--mount=type=bind,src=/x"},
		{"--network=name=a,alias=x", "--network-alias=y"}, {"--dns=x"}, {"--add-host=a"}, {"--sysctl=a=b"}, {"--device-cgroup-rule=x"}, {"--umask=9"}, {"--blkio-weight-device=a"},
	} {
		if _, _, err := parseRun(append(bad, "img")...); err == nil {
			t.Errorf("%v is accepted", bad)
		}
	}
}

// FuzzFlags feeds every parser behind a flag: what is accepted is a request.
func FuzzFlags(f *testing.F) {
	for _, s := range [][2]string{{"memory", "1g"}, {"ulimit", "core=1"}, {"label", "a=b"}, {"env", "X"}, {"mount", "type=tmpfs,dst=/x"}, {"cpus", "1.5"}, {"network", "name=a,ip=1.2.3.4"}, {"security-opt", "a=b"},
		{"restart", "on-failure:3"}, {"device-read-bps", "/dev/sda:1m"}, {"detach-keys", "a,b"}, {"publish", "1:1"}, {"tmpfs", "/x:size=1"}, {"link", "a:b"}, {"add-host", "a:1.1.1.1"}, {"expose", "1-2"}} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, name, value string) {
		if name == "security-opt" && strings.Contains(value, "seccomp") || strings.HasSuffix(name, "-file") || name == "expose" && len(value) > 7 {
			t.Skip() // these read files, or count up to 65535
		}
		_, req, err := parseRun("--"+name, value, "img")
		if err == nil && (req == nil || req.config == nil || req.host == nil) {
			t.Errorf("--%s %q: no error and no request", name, value)
		}
	})
}

func TestEnvAndLabelFiles(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	t.Setenv("CLEAT_TEST_HERE", "here")
	for content, want := range map[string][]string{
		"A=1\n#c\n\n  B=2\nCLEAT_TEST_HERE\nCLEAT_TEST_NOT\nC=\nD=a=b": {"A=1", "B=2", "CLEAT_TEST_HERE=here", "C=", "D=a=b"}, "": nil, "\uFEFFA=1\r\nB=2\r\n": {"A=1", "B=2"},
	} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		_, req, err := parseRun("--env-file", path, "img")
		if err != nil || !slices.Equal(req.config.Env, want) {
			t.Errorf("%q: %q, %v", content, req.config.Env, err)
		}
	}
	for _, bad := range []string{"=x\n", "A B=1\n", "\xff\xfe=1\n"} {
		if err := os.WriteFile(path, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, flag := range []string{"--env-file", "--label-file"} {
			if _, _, err := parseRun(flag, path, "img"); err == nil || !strings.Contains(err.Error(), path) {
				t.Errorf("%s with %q: %v", flag, bad, err)
			}
		}
	}
}

func TestSeekLastLines(t *testing.T) {
	long := strings.Repeat("x", 40<<10)
	for _, c := range []struct {
		text string
		n    int
		want string
	}{
		{"a\nb\nc\n", 2, "b\nc\n"}, {"a\nb\nc", 2, "b\nc"}, {"a\nb\n", 5, "a\nb\n"}, {"a\n", 0, ""}, {"", 3, ""}, {"\n\n\n", 2, "\n\n"}, {"a\n" + long + "\n", 1, long + "\n"}, {long + "\na\n" + long + "\nb\n", 2, long + "\nb\n"},
	} {
		r := strings.NewReader(c.text)
		if err := seekLastLines(r, c.n); err != nil {
			t.Fatal(err)
		}
		rest := c.text[len(c.text)-r.Len():]
		if rest != c.want {
			t.Errorf("last %d of %.20q…: %.20q…", c.n, c.text, rest)
		}
	}
}

func muxed(frames ...string) string {
	var b strings.Builder
	for _, f := range frames {
		head := []byte{f[0] - '0', 0, 0, 0, 0, 0, 0, 0}
		binary.BigEndian.PutUint32(head[4:], uint32(len(f)-1))
		b.Write(head)
		b.WriteString(f[1:])
	}
	return b.String()
}

func TestDemultiplex(t *testing.T) {
	long := strings.Repeat("x", 300<<10)
	for _, c := range []struct{ in, out, errOut, fails string }{
		{muxed("1a", "2b", "1c"), "ac", "b", ""}, {muxed("1"+long, "2e", "1f"), long + "f", "e", ""}, {muxed("1", "1a"), "a", "", ""}, {"", "", "", ""},
		{muxed("0in"), "in", "", ""}, {muxed("1ok", "3the disk is full"), "ok", "", "the disk is full"}, {muxed("1ok", "7x"), "ok", "", "unrecognized stream: 7"},
		{muxed("1abc")[:9], "a", "", ""}, {muxed("1a") + "\x01\x00", "a", "", ""},
	} {
		for _, r := range []io.Reader{strings.NewReader(c.in), iotest.OneByteReader(strings.NewReader(c.in)), iotest.DataErrReader(strings.NewReader(c.in))} {
			var out, errOut strings.Builder
			err := demultiplex(&out, &errOut, bufio.NewReaderSize(r, 64<<10))
			if out.String() != c.out || errOut.String() != c.errOut || (err == nil) != (c.fails == "") || err != nil && !strings.Contains(err.Error(), c.fails) {
				t.Errorf("%.40q: %.40q, %q, %v", c.in, out.String(), errOut.String(), err)
			}
		}
	}
	// What has come is shown while more is waited for, and in order.
	in, feed := io.Pipe()
	shown := make(chan string, 10)
	go demultiplex(tagged{"out ", shown}, tagged{"err ", shown}, bufio.NewReader(in))
	for _, f := range []string{"1prompt> ", "2oops", "1x"} {
		io.WriteString(feed, muxed(f))
		want := map[byte]string{'1': "out ", '2': "err "}[f[0]] + f[1:]
		select {
		case got := <-shown:
			if got != want {
				t.Errorf("%q, want %q", got, want)
			}
		case <-time.After(time.Minute):
			t.Fatalf("%q is held back", want)
		}
	}
	feed.Close()
	if err := demultiplex(failing{}, io.Discard, bufio.NewReader(strings.NewReader(muxed("1a")))); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("a closed stdout: %v", err)
	}
}

type tagged struct {
	tag string
	ch  chan string
}

func (w tagged) Write(p []byte) (int, error) { w.ch <- w.tag + string(p); return len(p), nil }

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

func BenchmarkDemultiplex(b *testing.B) {
	in := strings.Repeat(muxed("1"+strings.Repeat("x", 99)+"\n"), 10000)
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer null.Close()
	b.SetBytes(int64(len(in)))
	for range b.N {
		if err := demultiplex(null, null, bufio.NewReaderSize(strings.NewReader(in), 64<<10)); err != nil {
			b.Fatal(err)
		}
	}
}

// FuzzDemultiplex holds ours against the library's, which takes as much memory as a frame says that it needs.
func FuzzDemultiplex(f *testing.F) {
	f.Add([]byte(muxed("1a", "2b")))
	f.Add([]byte(muxed("0in", "2", "1a\n", "3the engine's own words")))
	f.Add([]byte{9, 0, 0, 0, 255, 255, 255, 255, 1})
	f.Fuzz(func(t *testing.T, in []byte) {
		var out, errOut strings.Builder
		err := demultiplex(&out, &errOut, bufio.NewReader(bytes.NewReader(in)))
		if out.Len()+errOut.Len() > len(in) {
			t.Errorf("%d bytes come out of %d", out.Len()+errOut.Len(), len(in))
		}
		for rest := in; len(rest) >= 8; {
			size := binary.BigEndian.Uint32(rest[4:])
			if uint64(size) > uint64(len(rest)-8) {
				return
			}
			rest = rest[8+size:]
		}
		var theirOut, theirErrOut strings.Builder
		_, theirErr := stdcopy.StdCopy(&theirOut, &theirErrOut, bytes.NewReader(in))
		if (err == nil) != (theirErr == nil) || out.String() != theirOut.String() || errOut.String() != theirErrOut.String() {
			t.Errorf("%q: %q %q %v, the library's %q %q %v", in, &out, &errOut, err, &theirOut, &theirErrOut, theirErr)
		}
	})
}

func TestIDMapOfMounts(t *testing.T) {
	for in, want := range map[string]string{
		"type=bind,src=/a,dst=/b":                       "type=bind,src=/a,dst=/b",
		"type=bind,src=/a,dst=/b,idmap":                 "type=bind,src=/a,dst=/b,consistency=idmap=7.8",
		"type=bind,idmap=1.2,src=/a,dst=/b,readonly":    "type=bind,src=/a,dst=/b,readonly,consistency=idmap=1.2",
		`type=bind,"src=/a,b",idmap,consistency=cached`: `type=bind,"src=/a,b",consistency=cached,consistency=idmap=7.8`,
		"type=bind,src=/idmap,dst=/b":                   "type=bind,src=/idmap,dst=/b",
		`type=bind,"src=/a`:                             `type=bind,"src=/a`,
	} {
		if got, err := withIDMap(in, 7, 8); got != want || err != nil {
			t.Errorf("%s: %q, %v", in, got, err)
		}
	}
	if got, err := withIDMap("type=bind,idmap", 0, 0); got != "type=bind,consistency=idmap" || err != nil {
		t.Errorf("root: %q, %v", got, err)
	}
}
