package command

import (
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/types"

	"github.com/cleatlabs/cleat/client/compose/operate"
)

func TestFlagsThatDoNotGoTogether(t *testing.T) {
	for want, m := range map[string]making{
		"":                                   {force: true, build: true},
		"--force-recreate and --no-recreate": {force: true, noRecreate: true},
		"--build and --no-build":             {build: true, noBuild: true},
		"--always-recreate-deps and --no-recreate are inco": {always: true, noRecreate: true},
	} {
		if err := m.check(); (err != nil) != (want != "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", m, err, want)
		}
	}
	for want, u := range map[string]up{
		"":                                    {wait: true},
		"--abort-on-container-exit":           {detach: true, abort: true},
		"cannot be combined with --attach or": {wait: true, attach: []string{"a"}},
		"--attach and --attach-dependencies":  {attach: []string{"a"}, attachDependencies: true},
		"--abort-on-container-failure and":    {abort: true, abortFailure: true},
		"--detach cannot be combined":         {detach: true, exitCodeFrom: "a"}, // which implies the abort
	} {
		if err := u.check(); (err != nil) != (want != "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", u, err, want)
		}
	}
	// Whose exit code is wanted says nothing of what ends all, where a flag does.
	for u, abort := range map[*up]bool{{exitCodeFrom: "a"}: true, {exitCodeFrom: "a", abortFailure: true}: false} {
		if err := u.check(); err != nil || u.abort != abort {
			t.Errorf("%+v: %v", u, err)
		}
	}
}

func TestWhatIsMadeAnew(t *testing.T) {
	for _, c := range []struct {
		m               making
		asked, depended operate.Recreate
	}{
		{making{}, operate.WhenChanged, operate.WhenChanged},
		{making{force: true}, operate.Always, operate.WhenChanged},
		{making{renew: true}, operate.Always, operate.WhenChanged},
		{making{noRecreate: true}, operate.Never, operate.Never},
		{making{always: true}, operate.WhenChanged, operate.Always},
	} {
		if o := c.m.options([]string{"a"}, nil); o.Recreate != c.asked || o.Dependencies != c.depended {
			t.Errorf("%+v: %v and %v, want %v and %v", c.m, o.Recreate, o.Dependencies, c.asked, c.depended)
		}
	}
}

func TestScaleFlags(t *testing.T) {
	for text, want := range map[string]struct {
		n   int
		bad string
	}{
		"web=3": {3, ""}, "web=0": {0, ""}, "web": {0, "Should be SERVICE=NUM"}, "web=-1": {0, "Should be SERVICE=NUM"}, "web=many": {0, "Should be SERVICE=NUM"},
		"=1": {0, "no such service: "}, "db=1": {0, "no such service: db: the project has old, web"}, "web=1=2": {0, "Should be"}, "web=99999999999999999999": {0, "Should be"},
	} {
		p := &types.Project{Services: types.Services{"web": {Name: "web"}}, DisabledServices: types.Services{"old": {Name: "old"}}}
		err := applyScale(p, []string{text})
		switch {
		case want.bad != "" && (err == nil || !strings.Contains(err.Error(), want.bad)):
			t.Errorf("%s: %v, want %q", text, err, want.bad)
		case want.bad == "" && (err != nil || *p.Services["web"].Scale != want.n):
			t.Errorf("%s: %v, %v", text, err, p.Services["web"].Scale)
		}
	}
}

func FuzzScale(f *testing.F) {
	f.Add("web=3")
	f.Fuzz(func(t *testing.T, text string) {
		p := &types.Project{Services: types.Services{"web": {Name: "web"}}}
		if err := applyScale(p, []string{text}); err == nil && *p.Services["web"].Scale < 0 {
			t.Errorf("%q scales to %d", text, *p.Services["web"].Scale)
		}
	})
}
