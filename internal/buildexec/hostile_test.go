package buildexec_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moby/buildkit/executor"
	"github.com/moby/buildkit/solver/pb"
)

// outside makes a directory of the host's that no step may reach, and tells at the end whether one has.
func (l *lab) outside() string {
	l.t.Helper()
	dir := filepath.Join(l.dir, "disk/outside")
	l.check(os.MkdirAll(dir+"/etc", 0o755))
	l.check(os.WriteFile(dir+"/secret", []byte("the host's"), 0o644))
	l.t.Cleanup(func() {
		if left, _ := os.ReadDir(dir); len(left) != 2 {
			l.t.Errorf("reached outside of the root: %v", left)
		}
		if left, _ := os.ReadDir(dir + "/etc"); len(left) != 0 {
			l.t.Errorf("reached outside of the root: %v", left)
		}
	})
	return dir
}

// place puts a link at a path of the image in place of what is there.
func (l *lab) place(target, path string) {
	l.t.Helper()
	l.check(os.RemoveAll(l.image + path))
	l.check(os.MkdirAll(filepath.Dir(l.image+path), 0o755))
	l.check(os.Symlink(target, l.image+path))
}

func TestHostileImages(t *testing.T) {
	up := strings.Repeat("../", 20)
	for name, tc := range map[string]struct {
		prepare func(l *lab, outside string)
		script  string
		want    string // output, or
		fails   string // part of the error
	}{
		"/proc is a link":                {func(l *lab, o string) { l.place(o, "/proc") }, "true", "", "symbolic link"},
		"/sys is a link":                 {func(l *lab, o string) { l.place(up+o, "/sys") }, "true", "", "symbolic link"},
		"/dev is a link":                 {func(l *lab, o string) { l.place(o, "/dev") }, "true", "", "symbolic link"},
		"/etc is a link out":             {func(l *lab, o string) { l.place(o+"/etc", "/etc") }, "cat /etc/resolv.conf | head -1; ls -d /etc/", "nameserver 192.0.2.53\n/etc/\n", ""},
		"/etc is a relative link out":    {func(l *lab, o string) { l.place(up+o[1:]+"/etc", "/etc") }, "head -1 /etc/resolv.conf", "nameserver 192.0.2.53\n", ""},
		"resolv.conf leads out":          {func(l *lab, o string) { l.place(o+"/secret", "/etc/resolv.conf") }, "head -1 /etc/resolv.conf", "nameserver 192.0.2.53\n", ""},
		"resolv.conf leads to a magic":   {func(l *lab, o string) { l.place("/proc/self/root/secret", "/etc/resolv.conf") }, "true", "", "/etc/resolv.conf"},
		"resolv.conf leads nowhere":      {func(l *lab, o string) { l.place("../run/systemd/resolve/stub-resolv.conf", "/etc/resolv.conf") }, "head -1 /etc/resolv.conf", "nameserver 192.0.2.53\n", ""},
		"resolv.conf leads to itself":    {func(l *lab, o string) { l.place("resolv.conf", "/etc/resolv.conf") }, "true", "", "too many levels"},
		"resolv.conf is a directory":     {func(l *lab, o string) { l.check(os.MkdirAll(l.image+"/etc/resolv.conf/x", 0o755)) }, "true", "", "not a directory"},
		"hosts is a pipe":                {func(l *lab, o string) { l.check(mkfifo(l.image + "/etc/hosts")) }, "head -1 /etc/hosts | cut -c1-9", "127.0.0.1\n", ""},
		"passwd leads out":               {func(l *lab, o string) { l.place(o+"/secret", "/etc/passwd") }, "id -u", "0\n", ""},
		"passwd is a pipe":               {func(l *lab, o string) { l.check(mkfifo(l.image + "/etc/passwd")) }, "true", "", "/etc/passwd"},
		"the working directory is a way": {func(l *lab, o string) { l.place(o, "/work") }, "pwd", "/outside/new\n", ""},
		"a mount's target leads out":     {func(l *lab, o string) { l.place(o, "/target") }, "cat /target/f", "mounted\n", ""},
		"a mount's target is below one":  {func(l *lab, o string) { l.place(o+"/etc", "/a"); l.place("/a", "/target") }, "cat /target/f", "mounted\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			out := l.outside()
			tc.prepare(l, out)
			j := l.job(tc.script)
			if strings.HasPrefix(name, "the working directory") {
				j.info.Meta.Cwd, j.info.Meta.Args[2] = "/work/new", "pwd"
			}
			if strings.HasPrefix(name, "a mount") {
				dir := filepath.Join(l.dir, "disk/data")
				l.check(os.Mkdir(dir, 0o755))
				l.check(os.WriteFile(dir+"/f", []byte("mounted\n"), 0o644))
				j.mounts = []executor.Mount{l.bind(dir, "/target", false)}
			}
			err := l.run(j)
			switch {
			case tc.fails != "":
				if err == nil || !strings.Contains(err.Error(), tc.fails) {
					t.Errorf("%v, want %q", err, tc.fails)
				}
			case err != nil || j.stdout.String() != tc.want && !strings.HasSuffix(j.stdout.String(), tc.want):
				t.Errorf("%v %q %q, want %q", err, j.stdout.String(), j.stderr.String(), tc.want)
			}
		})
	}
}

// TestNoWayOut looks for ways from a step to what is not its own.
func TestNoWayOut(t *testing.T) {
	l := newLab(t)
	l.outside()
	got := l.sh(`for p in /proc/1/root/` + l.dir + ` ` + l.dir + ` /proc/self/fd/3 /proc/1/cwd/../` + l.dir + `; do ls -d $p 2>/dev/null && echo reached $p; done
		mount | grep -c ' /proc/' ; cat /proc/self/mountinfo | grep -c ' / /.* - ext4'; ls /dev | tr '\n' ' '; mknod /tmp/d b 8 0 && cat /tmp/d 2>/dev/null; chroot /proc/1/root ls ` + l.dir + ` 2>/dev/null; echo`)
	if strings.Contains(got, "reached") || !strings.Contains(got, "core fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero") {
		t.Errorf("%q", got)
	}
}

func TestStubs(t *testing.T) {
	t.Run("all", func(t *testing.T) { stubsAreRemoved(t, true) })
	t.Run("the last", func(t *testing.T) { stubsAreRemoved(t, false) })
}

func stubsAreRemoved(t *testing.T, recursive bool) {
	l := newLab(t)
	l.place("../run/resolve/stub.conf", "/etc/resolv.conf")
	old := stamp(t, l.image, "/etc", "/", "/root")
	dir := filepath.Join(l.dir, "disk/data")
	l.check(os.Mkdir(dir, 0o755))
	file := filepath.Join(l.dir, "disk/secret")
	l.check(os.WriteFile(file, []byte("s"), 0o600))
	j := l.job("touch /root/mine; echo x > /kept/inside; true")
	j.info.Meta.RemoveMountStubsRecursive = recursive
	j.mounts = []executor.Mount{
		l.bind(dir, "/a/b/c", false), l.bind(dir, "/a/b/c/d/e", false), l.bind(file, "/run/secrets/key", true), l.bind(dir, "/root/there", true), l.bind(file, "/dev/fromhost", true),
	}
	l.must(j)
	// What a step puts beside its mounts stays.
	want := []string{"/etc", "/root", "/root/mine"}
	if !recursive {
		want = append(want, "/a", "/a/b", "/run", "/run/resolve", "/run/secrets")
	}
	have := tree(t, j.upper)
	for _, w := range want {
		if !have[w] {
			t.Errorf("recursive %v: %s is gone", recursive, w)
		}
		delete(have, w)
	}
	// The kernel's own filesystems have places in every root.
	for _, own := range []string{"/proc", "/sys", "/dev"} {
		delete(have, own)
	}
	if recursive {
		delete(have, "/run")
	}
	for path := range have {
		t.Errorf("recursive %v: %s is left", recursive, path)
	}
	now := stamp(t, j.upper, "/etc")
	if now["/etc"] != old["/etc"] {
		t.Errorf("the times of /etc have changed: %s, %s", old["/etc"], now["/etc"])
	}
}

func tree(t *testing.T, dir string) map[string]bool {
	t.Helper()
	all := map[string]bool{}
	err := filepath.WalkDir(dir, func(p string, _ os.DirEntry, err error) error {
		if rel := strings.TrimPrefix(p, dir); rel != "" {
			all[rel] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func stamp(t *testing.T, dir string, paths ...string) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, p := range paths {
		st, err := os.Stat(dir + p)
		if err != nil {
			t.Fatal(err)
		}
		all[p] = st.ModTime().String()
	}
	return all
}

// A stub that a step has filled is its result.
func TestFilledStub(t *testing.T) {
	l := newLab(t)
	dir := filepath.Join(l.dir, "disk/data")
	l.check(os.Mkdir(dir, 0o755))
	j := l.job("until umount /mnt; do sleep 0.01; done; until umount /gone; do sleep 0.01; done 2>/dev/null; echo kept > /mnt/inside; rmdir /gone; ln -s x /gone")
	j.info.Meta.SecurityMode = pb.SecurityMode_INSECURE
	j.mounts = []executor.Mount{l.bind(dir, "/gone", false), l.bind(dir, "/mnt", false)}
	l.must(j)
	if b, err := os.ReadFile(j.upper + "/mnt/inside"); err != nil || string(b) != "kept\n" {
		t.Errorf("%v", err)
	}
	if link, err := os.Readlink(j.upper + "/gone"); err != nil || link != "x" {
		t.Errorf("%v", err)
	}
}
