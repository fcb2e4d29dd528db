package apparmor

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// policy is what a kernel shows, in files.
func policy(t *testing.T) (*Profiles, func(revision string, names ...string)) {
	p := &Profiles{dir: t.TempDir()}
	return p, func(revision string, names ...string) {
		t.Helper()
		list := ""
		for _, n := range names {
			list += n + " (enforce)\n"
		}
		for name, content := range map[string]string{"profiles": list, "revision": revision + "\n"} {
			if err := os.WriteFile(filepath.Join(p.dir, name), []byte(content), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestAContainerGetsTheProfileThatIsMeant(t *testing.T) {
	for _, c := range []struct {
		name       string
		held       []string
		asked      string
		privileged bool
		want       string
	}{
		{"the default, if it is there", []string{Default}, "", false, Default},
		{"none, if it is not", []string{"lsb_release", "other"}, "", false, Unconfined},
		{"none, if nothing was loaded", nil, "", false, Unconfined},
		{"none, if privileged", []string{Default}, "", true, Unconfined},
		{"one's own", []string{Default, "mine"}, "mine", false, "mine"},
		{"one's own, although privileged", []string{Default, "mine"}, "mine", true, "mine"},
		{"one that is not there: the kernel will say so", []string{Default}, "mine", false, "mine"},
		{"none, as asked", []string{Default}, Unconfined, false, Unconfined},
		{"Docker's name for the default", []string{Default}, "docker-default", false, Default},
		{"Docker's own", []string{Default, "docker-default"}, "docker-default", false, "docker-default"},
		{"Docker's, which is missing like ours", []string{"x"}, "docker-default", false, "docker-default"},
	} {
		p, set := policy(t)
		set("3", c.held...)
		if got, err := p.Choose(c.asked, c.privileged); got != c.want || err != nil {
			t.Errorf("%s: %q, %v", c.name, got, err)
		}
	}
}

func TestWhereAppArmorIsOffThereIsNothing(t *testing.T) {
	p := Open(false)
	got, err := p.Choose("", false)
	if got != "" || err != nil || p.Confines() || p.Warning() != "" {
		t.Error(got, err, p.Confines(), p.Warning())
	}
}

func TestPolicyIsReadAgainWhenItChanges(t *testing.T) {
	p, set := policy(t)
	set("1", "other")
	if p.Confines() || !strings.Contains(p.Warning(), "apparmor_parser -r") {
		t.Errorf("%v %q", p.Confines(), p.Warning())
	}
	set("1", Default) // no kernel does that: what is asked is whether the list is read again for nothing
	if p.Confines() {
		t.Error("the list is read although the policy's revision is the same")
	}
	set("2", Default)
	if !p.Confines() || p.Warning() != "" {
		t.Errorf("%v %q", p.Confines(), p.Warning())
	}
	set("3")
	if p.Confines() {
		t.Error("a profile that was removed is held")
	}
}

func TestAListThatCannotBeReadIsAnError(t *testing.T) {
	p := &Profiles{dir: t.TempDir()}
	if got, err := p.Choose("", false); err == nil {
		t.Errorf("a container would get %q", got)
	}
}

func TestNames(t *testing.T) {
	for _, bad := range []string{"a\nb", "a\x00", " a", "a ", strings.Repeat("x", maxName+1)} {
		if CheckName(bad) == nil {
			t.Errorf("%.20q is accepted", bad)
		}
	}
	for _, good := range []string{"mine", "/usr/bin/man", "a b", ":ns:profile", "parent//child"} {
		if err := CheckName(good); err != nil {
			t.Error(err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("cleat-default (enforce)\n/usr/bin/a b (complain)\nx//y (z) (unconfined)\n")
	f.Add("\n (enforce)\nx\n")
	f.Fuzz(func(t *testing.T, list string) {
		for name := range parse(list) {
			if name == "" || !strings.Contains(list, name+" (") || strings.Contains(name, "\n") {
				t.Errorf("%q", name)
			}
		}
	})
}
