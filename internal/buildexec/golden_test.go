package buildexec_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/moby/buildkit/executor"
	"github.com/moby/buildkit/solver/pb"

	"github.com/cleatlabs/cleat/internal/rootpath"
	"github.com/cleatlabs/cleat/internal/runtime"
	"github.com/cleatlabs/cleat/test/expect"
)

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
		expect.Golden(t, "testdata/"+name+".golden", portable(got, l.dir))
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
