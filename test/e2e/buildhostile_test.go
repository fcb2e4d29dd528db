package e2e

import (
	"archive/tar"
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// disk is the device number of the disk that the test's directory lies on.
func disk(t *testing.T) (major, minor uint32) {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(t.TempDir(), &st); err != nil {
		t.Fatal(err)
	}
	return unix.Major(st.Dev), unix.Minor(st.Dev)
}

// TestBuildStepIsConfined: a step reads and changes nothing of the host, of the
// engine, or of other builds.
func TestBuildStepIsConfined(t *testing.T) {
	e := builder(t)
	major, minor := disk(t)
	hostFile := filepath.Join(e.Dir, "host-secret")
	if err := os.WriteFile(hostFile, []byte("of the host"), 0o644); err != nil {
		t.Fatal(err)
	}
	host := listenLoopback(t)
	go func() {
		for {
			c, err := host.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	port := host.Addr().(*net.TCPAddr).Port
	// Another build has a secret at the same time.
	mark := fmt.Sprint(480000 + os.Getpid())
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("of another build"), 0o600); err != nil {
		t.Fatal(err)
	}
	other := startBuild(t, e, project(t, dockerfile("FROM busybox\nRUN --mount=type=secret,id=s cat /run/secrets/s >/dev/null; echo under way; sleep "+mark+"\n")), "--secret", "id=s,src="+secret)
	other.Shows(t, "under way")
	for _, s := range []stop{
		{name: "devices", files: dockerfile(fmt.Sprintf("FROM busybox\nRUN mknod /tmp/disk b %d %d && ! head -c 1 /tmp/disk\nRUN mknod /tmp/mem c 1 1 && ! head -c 1 /tmp/mem\nRUN [ ! -e /dev/kvm ] && [ ! -e /dev/fuse ]\n", major, minor))},
		{name: "mounts", files: dockerfile("FROM busybox\nRUN ! mount -t tmpfs none /tmp\nRUN ! mount --bind /proc /tmp\nRUN ! unshare -m true\nRUN ! chroot /proc/1/root/../.. ls " + e.Dir + "\n")},
		{name: "the kernel's settings", files: dockerfile("FROM busybox\nRUN ! sh -c 'echo 1 >/proc/sys/kernel/panic'\nRUN ! sh -c 'echo h >/proc/sysrq-trigger'\nRUN ! sh -c 'echo 1 >/sys/kernel/mm/ksm/run'\nRUN ! head -c 1 /proc/kcore\nRUN ! dmesg\n")},
		{name: "files of the engine and the host", files: dockerfile(fmt.Sprintf("FROM busybox\nRUN [ ! -e %[1]s ] && [ ! -e %[2]s ] && [ ! -e /run/cleat.sock ] && [ ! -e /proc/1/root%[1]s ]\nRUN ! grep -r 'of the host' / --include=host-secret -s\n", hostFile, e.Socket))},
		{name: "processes", files: dockerfile("FROM busybox\nRUN [ \"$(ls -d /proc/[0-9]* | wc -l)\" -le 4 ] && ! pgrep cleatd\nRUN ! pgrep -f " + mark[:3] + "[0-9]*" + mark[len(mark)-1:] + "$\nRUN ! kill -9 -1 || true\n")},
		{name: "secrets of another build", files: dockerfile("FROM busybox\nRUN [ ! -e /run/secrets/s ] && ! grep -l 'of another' /proc/[0-9]*/root/run/secrets/* -s\n")},
		{name: "the network of the host", files: dockerfile(fmt.Sprintf("FROM busybox\nRUN ! nc -w 2 127.0.0.1 %d </dev/null\nRUN ! ls /sys/class/net/%s\n", port, e.Bridge))},
		{name: "open files", files: dockerfile("FROM busybox\nRUN [ \"$(ls /proc/self/fd | wc -l)\" -le 5 ] && ! ls -l /proc/1/fd | grep -E 'socket|/data|memfd'\nWORKDIR /proc/self/fd/7/../../../../..\nRUN [ ! -e " + strings.TrimPrefix(hostFile, "/") + " ]\n"), fails: nil},
		{name: "privileges", files: dockerfile("FROM busybox\nRUN grep -E '^CapEff:[[:space:]]*00000000a80425fb$' /proc/self/status && grep -E '^Seccomp:[[:space:]]*2$' /proc/self/status && grep -E '^CapInh:[[:space:]]*0000000000000000$' /proc/self/status\n")},
	} {
		t.Run(s.name, func(t *testing.T) { s.args = append(s.args, "--no-cache"); s.run(t, e) })
	}
}

// TestBuildCacheMountStaysInside: the source of a cache or bind mount cannot leave it.
func TestBuildCacheMountStaysInside(t *testing.T) {
	e := builder(t)
	for _, s := range []stop{
		{name: "a link in a cache", files: dockerfile("FROM busybox\nRUN --mount=type=cache,target=/c,id=evil ln -s / /c/root && ln -s /etc /c/etc\nRUN --mount=type=cache,target=/c,id=evil,source=root [ ! -e /c" + e.Dir + " ]\n")},
		{name: "a source above", files: files{"Dockerfile": "FROM busybox\nRUN --mount=type=bind,source=../../../../../../.." + e.Dir + ",target=/x ls /x\n", "a": "a"}, fails: []string{"not found"}},
		{name: "a link in a stage", files: dockerfile("FROM busybox AS evil\nRUN ln -s " + e.Dir + " /link\nFROM busybox\nRUN --mount=from=evil,source=/link,target=/x ls /x | grep -v data\n"), fails: []string{`"/link": not found`}},
		{name: "a target in another process's root", files: dockerfile("FROM busybox\nRUN ln -s /proc/1/root /p\nRUN --mount=type=tmpfs,target=/p/mnt true\n"), fails: []string{"symbolic link"}},
		{name: "a target through a link", files: dockerfile("FROM busybox\nRUN ln -s / /r\nRUN --mount=type=cache,target=/r/../../../../tmp/x touch /tmp/x/y\n")},
	} {
		t.Run(s.name, func(t *testing.T) { s.args = append(s.args, "--no-cache"); s.run(t, e) })
	}
}

// TestBuildHostileTar: entries of a context that point out of it.
func TestBuildHostileTar(t *testing.T) {
	e := builder(t)
	outside := t.TempDir()
	shadow, _, _ := strings.Cut(read(t, "/etc/shadow"), "\n")
	major, minor := disk(t)
	file := func(name, text string) (tar.Header, string) { return tar.Header{Name: name, Mode: 0o644}, text }
	link := func(name, to string, kind byte) (tar.Header, string) {
		return tar.Header{Name: name, Linkname: to, Typeflag: kind, Mode: 0o777}, ""
	}
	type entry struct {
		h    tar.Header
		text string
	}
	one := func(h tar.Header, text string) entry { return entry{h, text} }
	up := strings.Repeat("../", 20)
	for name, entries := range map[string][]entry{
		"a path above":             {one(file(up+outside[1:]+"/made", "x"))},
		"an absolute path":         {one(file(outside+"/made", "x"))},
		"through a link":           {one(link("l", outside, tar.TypeSymlink)), one(file("l/made", "x"))},
		"through a link above":     {one(link("l", up+outside[1:], tar.TypeSymlink)), one(file("l/made", "x"))},
		"a hard link outside":      {one(link("h", "/etc/shadow", tar.TypeLink))},
		"a hard link above":        {one(link("h", up+"etc/shadow", tar.TypeLink))},
		"a link to a link":         {one(link("a", outside, tar.TypeSymlink)), one(link("b", "a/made", tar.TypeLink)), one(file("b", "x"))},
		"the Dockerfile as a link": {one(link("Dockerfile", "/etc/shadow", tar.TypeSymlink))},
		"a device": {entry{tar.Header{Name: "disk", Typeflag: tar.TypeBlock, Devmajor: int64(major), Devminor: int64(minor), Mode: 0o666}, ""},
			entry{tar.Header{Name: "fifo", Typeflag: tar.TypeFifo, Mode: 0o666}, ""}},
		"a whiteout":             {one(file(".wh.f", "")), one(file(".wh..wh..opq", ""))},
		"a name with no end":     {one(file(strings.Repeat("d/", 3000)+"f", "x"))},
		"a name of odd bytes":    {one(file("\xff\xfe\n\x1b[31m", "x"))},
		"a size that is a lie":   {one(file("f", strings.Repeat("x", 100)))},
		"the same name as other": {one(file("f/g", "x")), one(file("f", "x")), one(file("f/g", "x"))},
	} {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			w := tar.NewWriter(&b)
			if !strings.HasPrefix(name, "the Dockerfile") {
				entries = append(entries, one(file("Dockerfile", "FROM busybox\nCOPY . /c/\nRUN if [ -e /c/disk ]; then ! head -c 1 /c/disk; fi; if [ -e /c/h ]; then ! grep root: /c/h; fi; ! find /c -type f -exec grep 'root:[$*!]' {} +\n")))
			}
			for _, en := range entries {
				en.h.Size = int64(len(en.text))
				if err := w.WriteHeader(&en.h); err != nil {
					t.Fatal(err)
				}
				if _, err := w.Write([]byte(en.text)); err != nil {
					t.Fatal(err)
				}
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			data := b.Bytes()
			if strings.Contains(name, "lie") {
				data = data[:600]
			}
			r := buildRun{dir: t.TempDir(), args: []string{"--no-cache", "-o", "type=cacheonly", "-"}, stdin: data}.do(t, e, "docker")
			if r.Code != 0 && strings.Contains(r.Stderr, "exit code: 1") {
				t.Errorf("the step saw what it must not: %s", r)
			}
			if r.Code != 0 && !strings.Contains(r.Stderr, "ERROR") {
				t.Errorf("no error: %s", r)
			}
			if strings.Contains(r.Stdout+r.Stderr, shadow) {
				t.Errorf("the host's file is told: %s", r)
			}
			if left, _ := os.ReadDir(outside); len(left) > 0 {
				t.Fatalf("%v was made on the host: %s", left, r)
			}
		})
	}
}

// TestBuildOddContexts: what lies in a directory that is no plain file.
func TestBuildOddContexts(t *testing.T) {
	e := builder(t)
	dir := project(t, files{"Dockerfile": "FROM busybox\nCOPY . /c/\nRUN [ \"$(cat /c/plain)\" = text ] && [ \"$(readlink /c/out)\" = /etc/shadow ] && [ -L /c/loop ] && ! head -c 1 /c/disk 2>/dev/null\n", "plain": "text"})
	l, err := net.Listen("unix", filepath.Join(dir, "socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	major, minor := disk(t)
	for _, err := range []error{
		syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o644), os.Symlink("loop", filepath.Join(dir, "loop")), os.Symlink("/etc/shadow", filepath.Join(dir, "out")),
		os.Symlink("nowhere", filepath.Join(dir, "dangling")), unix.Mknod(filepath.Join(dir, "disk"), unix.S_IFBLK|0o644, int(unix.Mkdev(major, minor))),
		os.WriteFile(filepath.Join(dir, "odd\n name"), nil, 0), os.WriteFile(filepath.Join(dir, strings.Repeat("n", 255)), nil, 0o600),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	build(t, e, "docker", dir, "-o", "type=cacheonly")
	stop{files: files{"Dockerfile": "FROM busybox\nCOPY out /\n"}, fails: []string{"not found"}}.run(t, e)
}

// TestBuildManyFiles: a hundred thousand of them, and one that is larger than it is.
func TestBuildManyFiles(t *testing.T) {
	e := builder(t)
	const dirs, each = 100, 1000
	dir := project(t, files{"Dockerfile": "FROM busybox\nCOPY . /c\nRUN [ $(find /c -type f | wc -l) = " + fmt.Sprint(dirs*each) + " ]\n", ".dockerignore": "Dockerfile\n.dockerignore\nignored\n"})
	for d := range dirs {
		sub := filepath.Join(dir, fmt.Sprint("d", d))
		if err := os.Mkdir(sub, 0o755); err != nil {
			t.Fatal(err)
		}
		for f := range each {
			if err := os.WriteFile(filepath.Join(sub, fmt.Sprint("f", f)), nil, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	// What is ignored is not read: no build would move a terabyte.
	if err := os.WriteFile(filepath.Join(dir, "ignored"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(filepath.Join(dir, "ignored"), 1<<40); err != nil {
		t.Fatal(err)
	}
	build(t, e, "docker", dir, "-o", "type=cacheonly")
	build(t, e, "docker", dir, "-o", "type=cacheonly").wantCached(t, []string{"COPY . /c", "RUN [ $(find"}, nil)
}

// TestBuildLargeFile: half a gigabyte that a file does not have on disk comes through in
// little memory of the engine's, whichever way the context is sent.
func TestBuildLargeFile(t *testing.T) {
	const size, most = 512 << 20, 256 << 20
	e := ownBuilder(t)
	check := fmt.Sprintf("[ $(stat -c %%s /c/sparse) = %d ] && [ $(tail -c 4 /c/sparse) = end. ]", size)
	dir := project(t, files{"Dockerfile": "FROM busybox\nRUN --mount=target=/c " + check + "\n", "sparse": ""})
	f, err := os.OpenFile(filepath.Join(dir, "sparse"), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err = f.WriteAt([]byte("end."), size-4); err == nil {
		err = f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	build(t, e, "docker", dir, "-o", "type=cacheonly")
	if out, errs, code := classicBuild(t, e, dir, "--no-cache", "."); code != 0 {
		t.Errorf("%s\n%s", out, errs)
	}
	if used := peakMemory(t, e.PID()); used > most {
		t.Errorf("the engine has had %d MiB of memory", used>>20)
	}
}

// peakMemory is the most that a process has had, in bytes.
func peakMemory(t *testing.T, pid int) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		var kb int
		if n, _ := fmt.Sscanf(line, "VmHWM: %d kB", &kb); n == 1 {
			return kb << 10
		}
	}
	t.Fatalf("no peak of memory in %s", text)
	return 0
}

// TestBuildBombs: a few lines that ask for more memory than any machine has are refused by their number, whoever builds.
func TestBuildBombs(t *testing.T) {
	e := builder(t)
	bomb := &strings.Builder{}
	bomb.WriteString("FROM busybox\nARG A0=xxxxxxxxxx\n")
	for i := range 40 {
		fmt.Fprintf(bomb, "ARG A%d=%s\n", i+1, strings.Repeat(fmt.Sprintf("$A%d", i), 10))
	}
	nested := "FROM busybox\nENV A=" + strings.Repeat("${A:-", 10_000) + strings.Repeat("}", 10_000) + "\n"
	// Small enough to be seen when they are not refused.
	long, longer := "A="+strings.Repeat("x", 60_000)+"\n", "ENV B="+strings.Repeat("$A", 100)+"\n"
	before := peakMemory(t, e.PID())
	for name, c := range map[string]struct{ text, want string }{
		"inherited":         {"FROM busybox AS a\nARG " + long + "FROM a\n" + longer, "line 4: the variables of ENV"},
		"of a chosen stage": {"ARG S=a\nFROM busybox AS a\nENV " + long + "FROM $S\n" + longer, "line 5: the variables of ENV"},
		"triggered":         {"FROM busybox AS a\nENV " + long + "ONBUILD " + longer + "FROM a\n", "line 4: the variables of ENV"},
		"chained":           {bomb.String(), "line 7: the variables of ARG come to more than 1 MiB"},
		"chained, frontend": {"# syntax=docker/dockerfile:1\n" + bomb.String(), "line 8: the variables of ARG come to more than 1 MiB"},
		"nested":            {nested, "nested deeper than 100 levels"},
		"stages":            {strings.Repeat("FROM busybox\n", 10_001), "line 10001: there are more than 10000 stages"},
	} {
		for _, buildkit := range []string{"1", "0"} {
			cmd := e.Command(t, "docker", "build", ".")
			cmd.Dir = project(t, dockerfile(c.text))
			cmd.Env = append(cmd.Env, "DOCKER_BUILDKIT="+buildkit)
			out, err := cmd.CombinedOutput()
			if err == nil || !strings.Contains(string(out), c.want) {
				t.Errorf("%s, DOCKER_BUILDKIT=%s: %v\n%s", name, buildkit, err, out)
			}
		}
	}
	// Each warning has the Dockerfile with it.
	warned := project(t, dockerfile(strings.Repeat("FROM scratch AS a\n", 4000)+"COPY Dockerfile /\n"))
	if r := e.Do(t, "cleat", "", "build", "--output", "type=cacheonly", warned); r.Code != 0 || !strings.Contains(r.Stderr, "more warnings than are told") {
		t.Errorf("exit %d: %.2000s", r.Code, r.Stderr)
	}
	if used := peakMemory(t, e.PID()) - before; used > 100<<20 {
		t.Errorf("the engine has taken %d MiB", used>>20)
	}
}
