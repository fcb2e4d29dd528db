package rootpath_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/rootpath"
)

const passwd = `root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin
# a comment

app:x:1000:1001::/home/app:/bin/sh
app:x:2000:2000:second entry:/second:/bin/sh
nohome:x:1002:1002:::
1000:x:0:0::/root:/bin/sh
99999999999:x:0:0::/root:/bin/sh
broken:x:abc:0::/root:/bin/sh
short
huge:x:4294967296:0::/:/bin/sh
negative:x:-1:0::/:/bin/sh
`

const group = `root:x:0:
wheel:x:10:root,app
app:x:1001:
docker:x:999:app
wheel:x:11:app
nums:x:12:1000
bad:x:xyz:app
nogid
`

func TestLookupUser(t *testing.T) {
	fd, dir, _ := root(t)
	write(t, dir+"/etc/passwd", passwd)
	write(t, dir+"/etc/group", group)
	for _, tc := range []struct {
		spec  string
		extra []string
		want  rootpath.User
	}{
		{"", nil, rootpath.User{UID: 0, GID: 0, Groups: []int{0, 10}, Home: "/root", Name: "root"}},
		{"root", nil, rootpath.User{UID: 0, GID: 0, Groups: []int{0, 10}, Home: "/root", Name: "root"}},
		{"app", nil, rootpath.User{UID: 1000, GID: 1001, Groups: []int{1001, 10, 999, 11}, Home: "/home/app", Name: "app"}},
		{"1000", nil, rootpath.User{UID: 1000, GID: 1001, Groups: []int{1001, 10, 999, 11}, Home: "/home/app", Name: "app"}},
		{"app:wheel", nil, rootpath.User{UID: 1000, GID: 10, Groups: []int{10}, Home: "/home/app", Name: "app"}},
		{"app:5", nil, rootpath.User{UID: 1000, GID: 5, Groups: []int{5}, Home: "/home/app", Name: "app"}},
		{":docker", nil, rootpath.User{UID: 0, GID: 999, Groups: []int{999}, Home: "/root", Name: "root"}},
		{"app:", nil, rootpath.User{UID: 1000, GID: 1001, Groups: []int{1001, 10, 999, 11}, Home: "/home/app", Name: "app"}},
		{"4242", nil, rootpath.User{UID: 4242, GID: 0, Groups: []int{0}, Home: "/"}},
		{"4242:4343", nil, rootpath.User{UID: 4242, GID: 4343, Groups: []int{4343}, Home: "/"}},
		{"1", nil, rootpath.User{UID: 1, GID: 1, Groups: []int{1}, Home: "/usr/sbin", Name: "daemon"}},
		{"nohome", nil, rootpath.User{UID: 1002, GID: 1002, Groups: []int{1002}, Home: "/", Name: "nohome"}},
		{"2147483647", nil, rootpath.User{UID: 2147483647, Groups: []int{0}, Home: "/"}},
		{"daemon", []string{"docker", "77", "docker", "1"}, rootpath.User{UID: 1, GID: 1, Groups: []int{1, 999, 77}, Home: "/usr/sbin", Name: "daemon"}},
	} {
		got, err := rootpath.LookupUser(fd, tc.spec, tc.extra)
		if err != nil {
			t.Errorf("%q: %v", tc.spec, err)
			continue
		}
		if !slices.Equal(got.Groups, tc.want.Groups) || fmt.Sprint(got) != fmt.Sprint(tc.want) {
			t.Errorf("%q + %v: %+v, want %+v", tc.spec, tc.extra, got, tc.want)
		}
	}
}

func TestLookupUserRefusals(t *testing.T) {
	fd, dir, _ := root(t)
	write(t, dir+"/etc/passwd", passwd)
	write(t, dir+"/etc/group", group)
	for _, tc := range []struct {
		spec  string
		extra []string
		text  string
	}{
		{"foo", nil, "unable to find user foo: no matching entries in passwd file"},
		{"app:bar", nil, "unable to find group bar: no matching entries in group file"},
		{"app", []string{"bar"}, "unable to find group bar: no matching entries in group file"},
		{"broken", nil, "unable to find user broken: no matching entries in passwd file"},
		{"short", nil, "unable to find user short: no matching entries in passwd file"},
		{"huge", nil, "unable to find user huge: no matching entries in passwd file"},
		{"negative", nil, "unable to find user negative: no matching entries in passwd file"},
		{"app:bad", nil, "unable to find group bad: no matching entries in group file"},
		{"app:nogid", nil, "unable to find group nogid: no matching entries in group file"},
		{"99999999999", nil, "unable to find user 99999999999: uids and gids must be in range 0-2147483647"},
		{"99999999999999999999999", nil, "unable to find user 99999999999999999999999: uids and gids must be in range 0-2147483647"},
		{"-1", nil, "unable to find user -1: uids and gids must be in range 0-2147483647"},
		{"2147483648", nil, "unable to find user 2147483648: uids and gids must be in range 0-2147483647"},
		{"app:4294967295", nil, "unable to find group 4294967295: uids and gids must be in range 0-2147483647"},
		{"app", []string{"-5"}, "unable to find group -5: uids and gids must be in range 0-2147483647"},
	} {
		got, err := rootpath.LookupUser(fd, tc.spec, tc.extra)
		if !errors.Is(err, errdefs.ErrInvalidArgument) || err.Error() != tc.text {
			t.Errorf("%q: %+v, %v", tc.spec, got, err)
		}
	}
}

func TestLookupUserWithoutFiles(t *testing.T) {
	fd, dir, _ := root(t)
	for spec, want := range map[string][2]int{"": {0, 0}, "0": {0, 0}, "1000": {1000, 0}, "1000:50": {1000, 50}, ":7": {0, 7}} {
		got, err := rootpath.LookupUser(fd, spec, nil)
		if err != nil || [2]int{got.UID, got.GID} != want || got.Home != "/" || got.Name != "" {
			t.Errorf("%q: %+v, %v", spec, got, err)
		}
	}
	for _, spec := range []string{"root", "0:root"} {
		if _, err := rootpath.LookupUser(fd, spec, nil); err == nil || !strings.HasPrefix(err.Error(), "unable to find ") {
			t.Errorf("%q: %v", spec, err)
		}
	}
	write(t, dir+"/etc", "not a directory")
	if _, err := rootpath.LookupUser(fd, "", nil); err != nil {
		t.Errorf("/etc is a file: %v", err)
	}
}

func TestLookupUserOfHostileFiles(t *testing.T) {
	t.Run("link to the host", func(t *testing.T) {
		fd, dir, outside := root(t)
		mkdir(t, dir+"/etc")
		link(t, "../../../../../../.."+outside+"/passwd", dir+"/etc/passwd")
		if _, err := rootpath.LookupUser(fd, "root", nil); err == nil {
			t.Error("found a user through a link out of the root")
		}
	})
	t.Run("circle of links", func(t *testing.T) {
		for _, name := range []string{"/etc/passwd", "/etc/group"} {
			fd, dir, _ := root(t)
			mkdir(t, dir+"/etc")
			link(t, "../.."+name, dir+name)
			_, err := rootpath.LookupUser(fd, "", nil)
			if !errors.Is(err, errdefs.ErrInvalidArgument) || !strings.Contains(err.Error(), name+": too many levels of symbolic links") {
				t.Errorf("%v", err)
			}
		}
	})
	t.Run("pipe", func(t *testing.T) {
		fd, dir, _ := root(t)
		mkdir(t, dir+"/etc")
		if err := unix.Mkfifo(dir+"/etc/passwd", 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := rootpath.LookupUser(fd, "", nil); !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("%v", err)
		}
	})
	t.Run("too large", func(t *testing.T) {
		fd, dir, _ := root(t)
		mkdir(t, dir+"/etc")
		write(t, dir+"/etc/group", "")
		if err := unix.Truncate(dir+"/etc/group", 1<<40); err != nil {
			t.Fatal(err)
		}
		if _, err := rootpath.LookupUser(fd, "", nil); !errors.Is(err, errdefs.ErrInvalidArgument) || !strings.Contains(err.Error(), "/etc/group") {
			t.Errorf("%v", err)
		}
	})
	t.Run("long line", func(t *testing.T) {
		fd, dir, _ := root(t)
		write(t, dir+"/etc/passwd", strings.Repeat("x", 2<<20)+"\nroot:x:0:0::/root:\n")
		if _, err := rootpath.LookupUser(fd, "root", nil); !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("%v", err)
		}
	})
	t.Run("too many groups", func(t *testing.T) {
		fd, dir, _ := root(t)
		write(t, dir+"/etc/passwd", "u:x:5:5::/:\n")
		var b strings.Builder
		for i := range 70000 {
			fmt.Fprintf(&b, "g%d:x:%d:u\n", i, i+10)
		}
		write(t, dir+"/etc/group", b.String())
		if _, err := rootpath.LookupUser(fd, "u", nil); !errors.Is(err, errdefs.ErrInvalidArgument) || !strings.Contains(err.Error(), "65536") {
			t.Errorf("%v", err)
		}
	})
}
