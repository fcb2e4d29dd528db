package e2e

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/cleatlabs/cleat/test/harness"
)

// TestAppArmor: where the kernel has AppArmor a container enters the profile it is to have, and so do its execs; where
// it has none, asking for a profile is refused, and nothing claims that there is one.
func TestAppArmor(t *testing.T) {
	e := engine(t, "busybox")
	if _, err := os.Stat("/sys/kernel/security/apparmor/profiles"); err != nil {
		withoutAppArmor(t, e)
		return
	}
	profiles, err := os.ReadFile("/sys/kernel/security/apparmor/profiles")
	if err != nil {
		t.Fatal(err)
	}
	usual := "unconfined"
	if strings.Contains(string(profiles), "cleat-default (") {
		usual = "cleat-default (enforce)"
	}
	if info := e.OK(t, "docker", "info", "-f", "{{.SecurityOptions}} {{.Warnings}}"); strings.Contains(info, "name=apparmor") == (usual == "unconfined") {
		t.Errorf("containers are %s, info says %s", usual, info)
	}
	const own = "cleat-test-own"
	loadProfile(t, own, "profile "+own+" flags=(attach_disconnected) {\n  file,\n  capability,\n  network,\n  signal,\n  deny /etc/hostname r,\n}\n")
	dir := project(t, files{"Dockerfile": "FROM busybox\nRUN cat /proc/self/attr/current > /label\n"})
	e.OK(t, "cleat", "build", "-q", "-t", own, dir)
	if got := e.OK(t, "cleat", "run", "--rm", own, "cat", "/label"); got != usual {
		t.Errorf("a build step is %s, want %s", got, usual)
	}
	each(t, func(t *testing.T, program string) {
		label := func(args ...string) string {
			return e.OK(t, program, append(append([]string{"run", "--rm"}, args...), "busybox", "cat", "/proc/1/attr/current")...)
		}
		for _, c := range []struct {
			args []string
			want string
		}{
			{nil, usual},
			{[]string{"--init"}, usual},
			{[]string{"--init", "--user", "1000", "--security-opt", "no-new-privileges"}, usual},
			{[]string{"--privileged"}, "unconfined"},
			{[]string{"--security-opt", "apparmor=unconfined"}, "unconfined"},
			{[]string{"--security-opt", "apparmor=" + own}, own + " (enforce)"},
			{[]string{"--privileged", "--security-opt", "apparmor=" + own}, own + " (enforce)"},
		} {
			if got := label(c.args...); got != c.want {
				t.Errorf("%v: %s, want %s", c.args, got, c.want)
			}
		}
		n := name(t)
		remove(t, e, n)
		e.OK(t, program, "run", "-d", "--init", "--name", n, "--security-opt", "apparmor="+own, "busybox", "sleep", "1000")
		if got := e.OK(t, program, "inspect", "-f", "{{.AppArmorProfile}}", n); got != own {
			t.Errorf("inspect says %q", got)
		}
		if got := e.OK(t, program, "exec", n, "cat", "/proc/self/attr/current", "/proc/1/attr/current"); got != own+" (enforce)\n"+own+" (enforce)" {
			t.Errorf("an exec is %q", got)
		}
		if r := e.Do(t, program, "", "exec", "--privileged", n, "cat", "/etc/hostname"); r.Code == 0 || !strings.Contains(r.Stderr, "Permission denied") {
			t.Errorf("the profile does not hold for a privileged exec: %s", r)
		}
		r := e.Do(t, program, "", "run", "--rm", "--security-opt", "apparmor=no-such-profile", "busybox", "true")
		if r.Code != 125 || !strings.Contains(r.Stderr, "apparmor failed to apply profile no-such-profile") || !strings.Contains(r.Stderr, "apparmor_parser -r") {
			t.Errorf("%s", r)
		}
	})
}

func withoutAppArmor(t *testing.T, e *harness.Engine) {
	if info := e.OK(t, "docker", "info", "-f", "{{.SecurityOptions}} {{.Warnings}}"); strings.Contains(strings.ToLower(info), "apparmor") {
		t.Errorf("info claims %s", info)
	}
	each(t, func(t *testing.T, program string) {
		n := name(t)
		remove(t, e, n)
		r := e.Do(t, program, "", "run", "--name", n, "--security-opt", "apparmor=cleat-default", "busybox", "true")
		if r.Code != 125 || !strings.Contains(r.Stderr, "AppArmor is not enabled on this host") {
			t.Errorf("%s", r)
		}
		e.OK(t, program, "run", "--name", n, "--security-opt", "apparmor=unconfined", "busybox", "true")
		if got := e.OK(t, program, "inspect", "-f", "{{.AppArmorProfile}}", n); got != "" {
			t.Errorf("inspect claims profile %q", got)
		}
	})
}

// loadProfile has the kernel hold a profile while the test runs.
func loadProfile(t *testing.T, name, text string) {
	t.Helper()
	parser := func(arg string) {
		t.Helper()
		cmd := exec.Command("apparmor_parser", arg)
		cmd.Stdin = strings.NewReader("abi <abi/3.0>,\n" + text)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v: %v\n%s", cmd.Args, err, out)
		}
	}
	parser("-r")
	t.Cleanup(func() { parser("-R") })
}
