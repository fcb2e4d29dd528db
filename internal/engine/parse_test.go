package engine

import (
	"path"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"

	"github.com/cleatlabs/cleat/internal/container"
	"github.com/cleatlabs/cleat/internal/kernel"
)

func TestParseBind(t *testing.T) {
	for _, c := range []struct {
		raw  string
		want container.Mount
		bad  string
	}{
		{"/a:/b", container.Mount{Type: mount.TypeBind, Source: "/a", Destination: "/b", CreateSource: true}, ""},
		{"/a/:/b/:ro", container.Mount{Type: mount.TypeBind, Source: "/a", Destination: "/b", Mode: "ro", ReadOnly: true, CreateSource: true}, ""},
		{"/a:/b:rslave,z,cached", container.Mount{Type: mount.TypeBind, Source: "/a", Destination: "/b", Mode: "rslave,z,cached", CreateSource: true, Propagation: "rslave"}, ""},
		{"vol:/b", container.Mount{Type: mount.TypeVolume, Name: "vol", Destination: "/b", Driver: "local", Mode: "z", CopyUp: true}, ""},
		{"/a:/b:idmap", container.Mount{Type: mount.TypeBind, Source: "/a", Destination: "/b", Mode: "idmap", CreateSource: true, IDMap: &container.IDMap{Owner: true}}, ""},
		{"/a:/b:ro,idmap=1000.100", container.Mount{Type: mount.TypeBind, Source: "/a", Destination: "/b", Mode: "ro,idmap=1000.100", ReadOnly: true, CreateSource: true, IDMap: &container.IDMap{UID: 1000, GID: 100}}, ""},
		{"/a:/b:idmap=1", container.Mount{}, "invalid mode: idmap=1"},
		{"/a:/b:idmap=1.-1", container.Mount{}, "invalid mode"},
		{"/a:/b:idmap=4294967295.1", container.Mount{}, "invalid mode"},
		{"/a:/b:idmap1.1", container.Mount{}, "invalid mode"},
		{"/a:/b:idmap,idmap=1.1", container.Mount{}, "invalid mode"},
		{"vol:/b:idmap", container.Mount{}, "invalid mode: idmap"},
		{"vol:/b:ro,nocopy", container.Mount{Type: mount.TypeVolume, Name: "vol", Destination: "/b", Driver: "local", Mode: "ro,nocopy", ReadOnly: true}, ""},
		{"/b", container.Mount{Type: mount.TypeVolume, Destination: "/b", Driver: "local", Mode: "z", CopyUp: true, Anonymous: true}, ""},
		{"/a:/", container.Mount{}, "destination can't be '/'"},
		{"/a:b", container.Mount{}, "mount path must be absolute"},
		{"/a:ro", container.Mount{}, "invalid volume specification"},
		{"/a:/b:no", container.Mount{}, "invalid mode: no"},
		{"/a:/b:ro,rw", container.Mount{}, "invalid mode: ro,rw"},
		{"/a:/b:nocopy", container.Mount{}, "invalid mode"},
		{"vol:/b:shared", container.Mount{}, "invalid mode"},
		{"./x:/b", container.Mount{}, "use absolute path"},
		{"v:/b", container.Mount{}, "volume name is too short"},
		{":/b", container.Mount{}, "invalid volume specification"},
		{"/a:/b:ro:x", container.Mount{}, "invalid volume specification"},
		{"", container.Mount{}, "invalid volume specification"},
	} {
		got, err := parseBind(c.raw, "")
		if c.bad != "" {
			if err == nil || !strings.Contains(err.Error(), c.bad) {
				t.Errorf("%q: %v, want %q", c.raw, err, c.bad)
			}
			continue
		}
		if err != nil || got.Type != c.want.Type || got.Source != c.want.Source || got.Name != c.want.Name || got.Destination != c.want.Destination ||
			got.Mode != c.want.Mode || got.ReadOnly != c.want.ReadOnly || got.Propagation != c.want.Propagation || got.CopyUp != c.want.CopyUp ||
			got.Anonymous != c.want.Anonymous || got.CreateSource != c.want.CreateSource || got.Driver != c.want.Driver || !reflect.DeepEqual(got.IDMap, c.want.IDMap) {
			t.Errorf("%q:\n%+v, %v\nwant\n%+v", c.raw, got, err, c.want)
		}
	}
}

func FuzzParseBind(f *testing.F) {
	for _, s := range []string{"/a:/b:ro", "v:/b", "/x", "::", "a:b:c:d", "/a:/../..", "/a:/b:ro,ro"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		m, err := parseBind(raw, "")
		if err != nil {
			return
		}
		if !path.IsAbs(m.Destination) || path.Clean(m.Destination) != m.Destination || m.Destination == "/" {
			t.Errorf("%q: destination %q", raw, m.Destination)
		}
		if m.Type == mount.TypeBind && !path.IsAbs(m.Source) {
			t.Errorf("%q: source %q", raw, m.Source)
		}
		if m.Type == mount.TypeVolume && m.Name != "" && !validVolumeName.MatchString(m.Name) {
			t.Errorf("%q: volume %q", raw, m.Name)
		}
	})
}

func TestMountOptionsOfRequests(t *testing.T) {
	for _, c := range []struct {
		m   mount.Mount
		bad string
	}{
		{mount.Mount{Type: mount.TypeBind, Source: "/", Target: "/a"}, ""},
		{mount.Mount{Type: mount.TypeBind, Source: "/"}, "field Target must not be empty"},
		{mount.Mount{Type: mount.TypeBind, Target: "/a"}, "field Source must not be empty"},
		{mount.Mount{Type: mount.TypeBind, Source: "x", Target: "/a"}, "mount path must be absolute"},
		{mount.Mount{Type: mount.TypeBind, Source: "/", Target: "/a", VolumeOptions: &mount.VolumeOptions{}}, "field VolumeOptions must not be specified"},
		{mount.Mount{Type: mount.TypeBind, Source: "/nosuch/x", Target: "/a", BindOptions: &mount.BindOptions{CreateMountpoint: true}}, ""},
		{mount.Mount{Type: mount.TypeVolume, Source: "v", Target: "/a"}, "volume name is too short"},
		{mount.Mount{Type: mount.TypeVolume, Source: "/", Target: "/a"}, "say type=bind"},
		{mount.Mount{Type: mount.TypeVolume, Target: "/a", ReadOnly: true}, "must not set ReadOnly mode when using anonymous volumes"},
		{mount.Mount{Type: mount.TypeVolume, Source: "vol", Target: "/a", VolumeOptions: &mount.VolumeOptions{Subpath: "../x"}}, "subpath must be a relative path"},
		{mount.Mount{Type: mount.TypeVolume, Source: "vol", Target: "/a", VolumeOptions: &mount.VolumeOptions{Subpath: "x/y"}}, ""},
		{mount.Mount{Type: mount.TypeTmpfs, Source: "x", Target: "/a"}, "field Source must not be specified"},
		{mount.Mount{Type: mount.TypeTmpfs, Target: "/a", TmpfsOptions: &mount.TmpfsOptions{SizeBytes: 1 << 20, Mode: 0o1777}}, ""},
		{mount.Mount{Type: mount.TypeTmpfs, Target: "/a", TmpfsOptions: &mount.TmpfsOptions{Options: [][]string{{"nosuch"}}}}, `unknown option "nosuch"`},
		{mount.Mount{Type: mount.TypeImage, Source: "x", Target: "/a"}, ""},
		{mount.Mount{Type: mount.TypeImage, Source: "x", Target: "/a", ImageOptions: &mount.ImageOptions{Subpath: "a/../../b"}}, "subpath must be a relative path within the image"},
		{mount.Mount{Type: mount.TypeImage, Target: "/a"}, "field Source must not be empty"},
		{mount.Mount{Type: "odd", Target: "/a"}, "mount type unknown"},
	} {
		_, _, err := parseMount(&c.m)
		if (c.bad == "") != (err == nil) || (err != nil && !strings.Contains(err.Error(), c.bad)) {
			t.Errorf("%+v: %v, want %q", c.m, err, c.bad)
		}
	}
}

func TestTmpfsIsNoexecUnlessAskedOtherwise(t *testing.T) {
	m, err := parseTmpfs("/t/", "exec,size=1m")
	if err != nil || m.Destination != "/t" || !slices.Equal(m.Options, []string{"noexec", "nosuid", "nodev", "exec", "size=1m"}) {
		t.Errorf("%+v, %v", m, err)
	}
	if _, err := parseTmpfs("/t", "bogus"); err == nil {
		t.Error("an unknown option passed")
	}
}

func TestTmpfsIsAsItsLastWordSays(t *testing.T) {
	for raw, readOnly := range map[string]bool{"ro": true, "ro,rw": false, "rw,ro": true, "size=1m": false, "": false} {
		m, err := parseTmpfs("/t", raw)
		if err != nil || m.ReadOnly != readOnly {
			t.Errorf("%q: %+v, %v", raw, m, err)
		}
	}
	m, err := parseTmpfs("/t", "defaults,shared,rslave,mpol=default")
	if err != nil || m.Propagation != mount.PropagationRSlave || !slices.Equal(m.Options, []string{"noexec", "nosuid", "nodev", "defaults", "mpol=default"}) {
		t.Errorf("%+v, %v", m, err)
	}
}

// Images have volumes without the slash that they begin with.
func TestRelativeVolumes(t *testing.T) {
	for dst, want := range map[string]string{"data": "/data", "./a/../b/": "/b", "/c": "/c", "x:/y": "/x:/y", "../d": "/d", "/": "", "": "", ".": "", "a/..": ""} {
		p, err := planMounts(&api.Config{Volumes: map[string]struct{}{dst: {}}}, &api.HostConfig{}, nil)
		switch {
		case want == "" && (err == nil || !strings.Contains(err.Error(), "destination can't be '/'")):
			t.Errorf("%q: %v", dst, err)
		case want != "" && (err != nil || len(p.mounts) != 1 || p.mounts[0].Destination != want):
			t.Errorf("%q: %+v, %v", dst, p, err)
		}
	}
}

func TestParseSignal(t *testing.T) {
	for s, want := range map[string]int{"KILL": 9, "SIGKILL": 9, "sigterm": 15, "9": 9, "RTMIN+1": 35, "64": 64} {
		if got, err := parseSignal(s); err != nil || int(got) != want {
			t.Errorf("%s: %d, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "0", "65", "-1", "SIGNONE", "99999999999999999999"} {
		if got, err := parseSignal(s); err == nil {
			t.Errorf("%q is taken for %d", s, got)
		}
	}
}

func FuzzParseCPUSet(f *testing.F) {
	for _, s := range []string{"0", "0-3", "1,3-5", "", "3-1", "0-99999", ",", "-"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		set, err := parseCPUSet(s)
		if err == nil && len(set) > 8192 {
			t.Errorf("%q has %d members", s, len(set))
		}
	})
}

func FuzzDeviceCgroupRules(f *testing.F) {
	for _, s := range []string{"c 1:3 rwm", "a *:* r", "b 8:* w", "c 1 r", "x 1:1 r", "c -1:1 r"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		rules, err := deviceCgroupRules([]string{s})
		if err == nil && (len(rules) != 1 || rules[0].Major < -1 || rules[0].Minor < -1 || strings.Trim(rules[0].Access, "rwm") != "") {
			t.Errorf("%q: %+v", s, rules)
		}
	})
}

func TestSecurityOpts(t *testing.T) {
	for opt, want := range map[string]securityOpts{
		"no-new-privileges":       {noNewPrivs: true},
		"no-new-privileges:true":  {noNewPrivs: true},
		"no-new-privileges=false": {},
		"seccomp=unconfined":      {unconfined: true},
		"seccomp:unconfined":      {unconfined: true},
		"seccomp=builtin":         {},
		"systempaths=unconfined":  {},
		"label=disable":           {},
		"apparmor=unconfined":     {appArmor: "unconfined"},
	} {
		got, err := parseSecurityOpts([]string{opt}, kernel.Features{})
		if err != nil || got.noNewPrivs != want.noNewPrivs || got.unconfined != want.unconfined || got.appArmor != want.appArmor {
			t.Errorf("%s: %+v, %v", opt, got, err)
		}
	}
	for _, opt := range []string{"nosuch", "nosuch=x", "no-new-privileges=maybe", "label=type:x", "apparmor=mine", "systempaths=x"} {
		if _, err := parseSecurityOpts([]string{opt}, kernel.Features{}); err == nil {
			t.Errorf("%s is accepted", opt)
		}
	}
}

func TestEnvironmentOverridesInDockersOrder(t *testing.T) {
	r := &container.Record{}
	r.Config = &api.Config{Hostname: "h", Tty: true, Env: []string{"PATH=/x", "EMPTY=", "TERM", "A=1", "A=2"}}
	got := environment(r, nil, "/home/me")
	if want := []string{"PATH=/x", "HOSTNAME=h", "EMPTY=", "A=2", "HOME=/home/me"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestRestartDecisionAndBackoff(t *testing.T) {
	for _, c := range []struct {
		policy  api.RestartPolicy
		code    int
		count   int
		before  time.Duration
		ran     time.Duration
		byHand  bool
		again   bool
		backoff time.Duration
	}{
		{api.RestartPolicy{Name: "no"}, 1, 0, 0, 0, false, false, 0},
		{api.RestartPolicy{Name: "always"}, 0, 0, 0, 0, false, true, 100 * time.Millisecond},
		{api.RestartPolicy{Name: "always"}, 0, 1, 100 * time.Millisecond, time.Second, false, true, 200 * time.Millisecond},
		{api.RestartPolicy{Name: "always"}, 0, 99, 40 * time.Second, time.Second, false, true, time.Minute},
		{api.RestartPolicy{Name: "always"}, 0, 99, time.Minute, 10 * time.Second, false, true, 100 * time.Millisecond},
		{api.RestartPolicy{Name: "always"}, 0, 0, 0, 0, true, false, 0},
		{api.RestartPolicy{Name: "on-failure"}, 0, 0, 0, 0, false, false, 0},
		{api.RestartPolicy{Name: "on-failure"}, 1, 500, 0, 0, false, true, 100 * time.Millisecond},
		{api.RestartPolicy{Name: "on-failure", MaximumRetryCount: 3}, 1, 2, 0, 0, false, true, 100 * time.Millisecond},
		{api.RestartPolicy{Name: "on-failure", MaximumRetryCount: 3}, 1, 3, 0, 0, false, false, 0},
	} {
		rec := &container.Record{}
		rec.HostConfig = &api.HostConfig{RestartPolicy: c.policy}
		rec.State.RestartCount = c.count
		again, backoff := restartAfter(rec, c.byHand, c.before, c.ran, c.code)
		if again != c.again || backoff != c.backoff {
			t.Errorf("%+v: %v after %s", c, again, backoff)
		}
	}
}

// How long a run took is not told by the host's clock, which may have been set, but where an earlier engine has begun it.
func TestHowLongARunTook(t *testing.T) {
	now := time.Now()
	if ran := (&run{begun: now.Add(-time.Hour)}).ran(now.Add(24*time.Hour), now); ran < time.Hour || ran > 2*time.Hour {
		t.Errorf("a run of an hour, the clock set back: %v", ran)
	}
	if ran := (&run{}).ran(now.Add(-time.Minute), now); ran != time.Minute {
		t.Errorf("a minute's run of an earlier engine's: %v", ran)
	}
	if ran := (&run{}).ran(now.Add(24*time.Hour), now); ran != 0 {
		t.Errorf("one with the clock set back: %v", ran)
	}
}

func TestStatusText(t *testing.T) {
	now := time.Unix(100000, 0)
	for _, c := range []struct {
		st   container.State
		want string
	}{
		{container.State{Status: api.StateCreated}, "Created"},
		{container.State{Status: api.StateRunning, StartedAt: now.Add(-5 * time.Minute)}, "Up 5 minutes"},
		{container.State{Status: api.StatePaused, StartedAt: now.Add(-time.Hour)}, "Up About an hour (Paused)"},
		{container.State{Status: api.StateExited, ExitCode: 3, FinishedAt: now.Add(-3 * time.Second)}, "Exited (3) 3 seconds ago"},
		{container.State{Status: api.StateRestarting, ExitCode: 1, FinishedAt: now.Add(-2 * time.Second)}, "Restarting (1) 2 seconds ago"},
		{container.State{Status: api.StateRemoving}, "Removal In Progress"},
	} {
		if got := statusText(&c.st, now); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}
