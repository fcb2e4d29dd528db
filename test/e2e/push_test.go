package e2e

import (
	"regexp"
	"strings"
	"testing"

	"github.com/cleatlabs/cleat/test/harness"
)

// committed makes an image of a container that has written text to /note.
func committed(t *testing.T, e *harness.Engine, program, image, text string) {
	t.Helper()
	made := name(t)
	remove(t, e, made)
	e.OK(t, program, "run", "--name", made, "busybox", "sh", "-c", "echo '"+text+"' >/note")
	e.OK(t, program, "commit", made, image)
	t.Cleanup(func() { e.Cleat(t, "rmi", "-f", image) })
}

var digestLine = regexp.MustCompile(`(?m)^v1: digest: (sha256:[0-9a-f]{64}) size: [0-9]+$`)

// pushedDigest is what a push says at its end.
func pushedDigest(t *testing.T, r harness.Result) string {
	t.Helper()
	m := digestLine.FindStringSubmatch(r.Stdout)
	if r.Code != 0 || m == nil {
		t.Fatalf("%s", r)
	}
	return m[1]
}

// TestPushPullElsewhere makes an image, pushes it and runs it on another engine.
func TestPushPullElsewhere(t *testing.T) {
	reg := harness.StartRegistry(t)
	here, there := engine(t, "busybox"), harness.Start(t, harness.Options{})
	each(t, func(t *testing.T, program string) {
		image := reg.Addr + "/mine/" + program + ":v1"
		committed(t, here, program, image, "made here")
		id := here.OK(t, program, "inspect", "-f", "{{.Id}}", image)
		if got := here.OK(t, program, "inspect", "-f", "{{.RepoDigests}}", image); got != "[]" {
			t.Errorf("before the push it has the digests %s", got)
		}
		r := here.Do(t, program, "", "push", image)
		digest := pushedDigest(t, r)
		if !strings.HasPrefix(r.Stdout, "The push refers to repository ["+reg.Addr+"/mine/"+program+"]\n") || strings.Count(r.Stdout, ": Preparing\n") != 2 || !strings.Contains(r.Stdout, ": Pushed\n") {
			t.Errorf("%s", r)
		}
		if again := here.Do(t, program, "", "push", image); pushedDigest(t, again) != digest || strings.Count(again.Stdout, ": Layer already exists\n") != 2 {
			t.Errorf("%s", again)
		}
		want := id + " [" + reg.Addr + "/mine/" + program + "@" + digest + "]"
		if got := here.OK(t, program, "inspect", "-f", "{{.Id}} {{.RepoDigests}}", image); got != want {
			t.Errorf("%q, want %q", got, want)
		}
		if got := here.OK(t, program, "inspect", "-f", "{{.Id}}", reg.Addr+"/mine/"+program+"@"+digest); got != id {
			t.Errorf("by its digest at the registry it is %q", got)
		}
		if r := here.Do(t, program, "", "pull", image); r.Code != 0 || !strings.Contains(r.Stdout, "Status: Image is up to date for "+image) {
			t.Errorf("%s", r)
		}
		if r := here.Do(t, program, "", "push", "-q", image); r.Stdout != image+"\n" {
			t.Errorf("%s", r)
		}
		if got := there.OK(t, program, "run", "--rm", image, "cat", "/note"); got != "made here" {
			t.Errorf("%q", got)
		}
		if got := there.OK(t, program, "inspect", "-f", "{{.RepoDigests}}", image); got != "["+reg.Addr+"/mine/"+program+"@"+digest+"]" {
			t.Errorf("elsewhere it is %s", got)
		}
		// What was pulled is pushed as it came, and taken from where the registry has it.
		there.OK(t, program, "tag", image, reg.Addr+"/other/"+program+":v1")
		r = there.Do(t, program, "", "push", "--disable-content-trust", reg.Addr+"/other/"+program+":v1")
		if got := pushedDigest(t, r); got != digest || strings.Count(r.Stdout, ": Mounted from ") != 2 {
			t.Errorf("%s", r)
		}
		there.OK(t, program, "rmi", "-f", image, reg.Addr+"/other/"+program+":v1")
	})
}

func TestPushOfAllTags(t *testing.T) {
	reg := harness.StartRegistry(t)
	e := engine(t, "busybox")
	each(t, func(t *testing.T, program string) {
		repo := reg.Addr + "/all/" + program
		for _, tag := range []string{"v1", "v2", "latest"} {
			e.OK(t, program, "tag", "busybox", repo+":"+tag)
			t.Cleanup(func() { e.Cleat(t, "rmi", repo+":"+tag) })
		}
		if r := e.Do(t, program, "", "push", repo); r.Code != 0 || !strings.HasPrefix(r.Stdout, "Using default tag: latest\n") || strings.Contains(r.Stdout, "v1: digest") {
			t.Errorf("%s", r)
		}
		r := e.Do(t, program, "", "push", "-a", repo)
		for _, tag := range []string{"v1", "v2", "latest"} {
			if r.Code != 0 || !strings.Contains(r.Stdout, "\n"+tag+": digest: sha256:") {
				t.Errorf("no %s: %s", tag, r)
			}
		}
		for what, c := range map[string]struct {
			args []string
			text string
		}{
			"tag and -a":        {[]string{"push", "-a", repo + ":v1"}, "tag can't be used with --all-tags/-a"},
			"unknown tag":       {[]string{"push", repo + ":v3"}, "tag does not exist: " + repo + ":v3"},
			"unknown name":      {[]string{"push", reg.Addr + "/no/such:v1"}, "An image does not exist locally with the tag: " + reg.Addr + "/no/such"},
			"unknown platform":  {[]string{"push", "--platform", "linux/s390x", repo + ":v1"}, "does not provide the specified platform (linux/s390x)"},
			"no registry there": {[]string{"push", "127.0.0.1:1/box"}, "An image does not exist locally with the tag: 127.0.0.1:1/box"},
		} {
			if r := e.Do(t, program, "", c.args...); r.Code != 1 || !strings.Contains(r.Stderr, c.text) {
				t.Errorf("%s: %s", what, r)
			}
		}
		e.OK(t, program, "tag", "busybox", "127.0.0.1:1/"+program)
		t.Cleanup(func() { e.Cleat(t, "rmi", "127.0.0.1:1/"+program) })
		if r := e.Do(t, program, "", "push", "127.0.0.1:1/"+program); r.Code != 1 || !strings.Contains(r.Stderr, "cannot reach the registry at 127.0.0.1:1: connection refused") {
			t.Errorf("%s", r)
		}
	})
}

// TestPushWithCredentials pushes to registries that let in only whom they know.
func TestPushWithCredentials(t *testing.T) {
	reg := harness.StartRegistry(t)
	e := harness.Start(t, harness.Options{Args: []string{"--debug"}})
	e.Load(t, "busybox")
	each(t, func(t *testing.T, program string) {
		for _, tc := range []struct {
			scheme  string
			refresh bool
			denied  string
		}{{"basic", false, "no basic auth credentials"}, {"bearer", false, "denied: requested access to the resource is denied"}, {"bearer", true, "denied: requested access to the resource is denied"}} {
			g := newGuard(t, tc.scheme, tc.refresh, reg.Addr)
			image := g.address() + "/private/" + program + ":v1"
			e.OK(t, program, "tag", "busybox", image)
			if r := e.Do(t, program, "", "push", image); r.Code != 1 || !strings.Contains(r.Stderr, tc.denied) {
				t.Errorf("%+v without credentials: %s", tc, r)
			}
			if r := e.Do(t, program, guardSecret+"\n", "login", "-u", guardUser, "--password-stdin", g.address()); r.Code != 0 {
				t.Errorf("%+v: %s", tc, r)
			}
			pushedDigest(t, e.Do(t, program, "", "push", image))
			e.OK(t, program, "logout", g.address())
			e.OK(t, program, "rmi", image)
		}
	})
	for _, secret := range []string{guardSecret, guardToken, guardIdentity} {
		if strings.Contains(e.Log(), secret) {
			t.Errorf("%q is in the engine's log", secret)
		}
	}
}
