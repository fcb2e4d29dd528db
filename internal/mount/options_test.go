package mount_test

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/mount"
)

func TestParseOptions(t *testing.T) {
	for list, want := range map[string]mount.Options{
		"":                                  {},
		"defaults":                          {},
		"bind":                              {Flags: unix.MS_BIND},
		"rbind,ro":                          {Flags: unix.MS_BIND | unix.MS_REC | unix.MS_RDONLY},
		"ro,nosuid,rw,suid":                 {},
		"addr=10.0.0.1,rw,nfsvers=4,soft":   {Data: "addr=10.0.0.1,nfsvers=4,soft"},
		"noexec,nodev,size=100m,uid=1000":   {Flags: unix.MS_NOEXEC | unix.MS_NODEV, Data: "size=100m,uid=1000"},
		"bind,rslave":                       {Flags: unix.MS_BIND, Propagation: unix.MS_SLAVE | unix.MS_REC},
		"username=u,password=a,,b,,,,c,ro":  {Flags: unix.MS_RDONLY, Data: "username=u,password=a,,b,,,,c"},
		"pass=a,,,ro":                       {Flags: unix.MS_RDONLY, Data: "pass=a,,"},
		"addr=10.0.0.1,,ro":                 {Flags: unix.MS_RDONLY, Data: "addr=10.0.0.1"},
		"username=u,password=p,vers=3.0,ro": {Flags: unix.MS_RDONLY, Data: "username=u,password=p,vers=3.0"},
	} {
		if got, err := mount.ParseOptions(list); err != nil || got != want {
			t.Errorf("%q: %+v, %v", list, got, err)
		}
	}
	for _, list := range []string{"remount", "bind,remount", "a\x00b"} {
		if got, err := mount.ParseOptions(list); err == nil {
			t.Errorf("%q: %+v", list, got)
		}
	}
}

func TestHidePasswords(t *testing.T) {
	for list, want := range map[string]string{
		"":                                   "",
		"username=u,password=p,vers=3.0":     "username=u,password=********,vers=3.0",
		"pass=a,,b,ro,PASSWORD2=c,passwords": "pass=********,ro,PASSWORD2=********,passwords",
	} {
		if got := mount.HidePasswords(list); got != want {
			t.Errorf("%q: %q, wanted %q", list, got, want)
		}
	}
}

func FuzzParseOptions(f *testing.F) {
	for _, s := range []string{"", "ro,rw", "bind,ro,addr=1", ",,,", "=,a=b=c", "rshared"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		o, err := mount.ParseOptions(s)
		if err == nil && o.Flags&unix.MS_REMOUNT != 0 {
			t.Errorf("%q remounts", s)
		}
	})
}
