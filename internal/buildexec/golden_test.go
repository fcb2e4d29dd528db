package buildexec_test

import (
	"flag"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/moby/buildkit/executor"
	"github.com/moby/buildkit/solver/pb"

	"github.com/cleatlabs/cleat/internal/rootpath"
	"github.com/cleatlabs/cleat/internal/runtime"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// TestLaunchProgram pins what a step is put into: by default, and without confinement.
func TestLaunchProgram(t *testing.T) {
	l := newLab(t)
	meta := executor.Meta{
		Args: []string{"/bin/sh", "-c", "make"}, Env: []string{"PATH=/usr/bin:/bin"}, Cwd: "/src",
		Ulimit: []*pb.Ulimit{{Name: "nofile", Soft: 1024, Hard: 2048}},
	}
	user := rootpath.User{UID: 1000, GID: 1000, Groups: []int{1000, 20}, Home: "/home/build", Name: "build"}
	mounts := []runtime.Mount{
		{Target: "/etc/resolv.conf", Type: "bind", Source: "/run/cleat/resolv.conf", IsFile: true, ReadOnly: true, NonRecursive: true, Options: []string{"nosuid", "noexec", "nodev"}},
		{Target: "/cache", Type: "bind", Source: "/cache"},
		{Target: "/tmp", Type: "tmpfs", Options: []string{"exec", "dev", "suid", "nosuid"}},
	}
	for name, mode := range map[string]pb.SecurityMode{"sandbox": pb.SecurityMode_SANDBOX, "insecure": pb.SecurityMode_INSECURE} {
		meta.SecurityMode = mode
		got, err := l.steps.Dump("0123456789abcdef", meta, user, mounts)
		l.check(err)
		got = portable(got, l.dir)
		golden := "testdata/" + name + ".golden"
		if *update {
			l.check(os.WriteFile(golden, []byte(got), 0o644))
		}
		want, err := os.ReadFile(golden)
		l.check(err)
		if got != string(want) {
			t.Errorf("the launch program of a step (%s) has changed (-update accepts it):\n%s", name, difference(string(want), got))
		}
	}
}

// portable leaves out of a program what depends on the machine: which capabilities and paths its kernel has.
func portable(text, dir string) string {
	text = strings.ReplaceAll(text, dir, "/run/cleat")
	var kept []string
	machine := regexp.MustCompile(`PR_CAPBSET_DROP|cgroup|tasks|mask|read-only /|capset|instructions`)
	slot := regexp.MustCompile(`%\d+|, \d+\)  # keeper$`)
	for line := range strings.Lines(text) {
		if !machine.MatchString(line) {
			kept = append(kept, slot.ReplaceAllString(line, "%n"))
		}
	}
	return strings.Join(kept, "")
}

func difference(want, got string) string {
	has := map[string]bool{}
	for line := range strings.Lines(want) {
		has[line] = true
	}
	var b strings.Builder
	for line := range strings.Lines(got) {
		if !has[line] {
			b.WriteString("+ " + line)
		}
		delete(has, line)
	}
	for line := range strings.Lines(want) {
		if has[line] {
			b.WriteString("- " + line)
		}
	}
	return b.String()
}
