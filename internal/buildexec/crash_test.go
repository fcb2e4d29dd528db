package buildexec_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/moby/buildkit/executor"
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/test/expect"
)

// asEngine makes the test's binary an engine on this directory, which runs a step until it is killed.
const asEngine = "CLEAT_BUILDEXEC_TEST_ENGINE"

func runEngine(dir string) {
	e, err := openEngine(dir)
	must(err)
	root := &source{list: []mount.Mount{{Type: "overlay", Source: "overlay", Options: []string{
		"workdir=" + dir + "/disk/w0", "upperdir=" + dir + "/disk/u0", "lowerdir=" + dir + "/disk/image",
	}}}}
	naps := strings.Split(os.Getenv(asEngine+"_NAPS"), ",")
	_, err = e.steps.Run(context.Background(), "", executor.Mount{Src: root}, nil, executor.ProcessInfo{
		Meta:   executor.Meta{Args: []string{"sh", "-c", "trap '' TERM; echo up; setsid sleep " + naps[0] + " & sleep " + naps[1]}, Env: []string{"PATH=/bin"}, Cwd: "/", CgroupParent: os.Getenv(asEngine + "_PARENT")},
		Stdout: os.Stdout, Stderr: os.Stderr,
	}, nil)
	fmt.Println(err)
	os.Exit(1)
}

func TestKilledEngine(t *testing.T) {
	for name, parent := range map[string]string{"own group": "", "another's group": "other"} {
		t.Run(name, func(t *testing.T) { killedEngine(t, parent) })
	}
}

func killedEngine(t *testing.T, parent string) {
	l := newLab(t)
	l.check(l.close())
	if parent != "" {
		parent = l.parent + "-other"
	}
	for _, d := range []string{"/disk/u0", "/disk/w0"} {
		l.check(os.Mkdir(l.dir+d, 0o755))
	}
	one, two := nap(), nap()
	runs := func(t string) bool { return commandRuns("sleep\x00" + t + "\x00") }
	cmd := exec.Command("/proc/self/exe")
	var out expect.Output
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.Env = append(os.Environ(), asEngine+"="+l.dir, asEngine+"_PARENT="+parent, asEngine+"_NAPS="+one+","+two)
	l.check(cmd.Start())
	expect.Eventually(t, "the step", func() bool {
		if out.String() != "" && !strings.HasPrefix(out.String(), "up") {
			t.Fatal(out.String())
		}
		return runs(one) && runs(two)
	})
	l.check(cmd.Process.Signal(unix.SIGKILL))
	_ = cmd.Wait()
	if unified() {
		// Before any other engine comes.
		expect.Eventually(t, "the end of the step", func() bool { return !runs(one) && !runs(two) })
	}
	next, err := openEngine(l.dir)
	l.check(err)
	l.engine = next
	expect.Eventually(t, "the end of the step", func() bool { return !runs(one) && !runs(two) })
	for _, pattern := range []string{"/sys/fs/cgroup%s/build/*/tasks", "/sys/fs/cgroup/*%s/build/*/tasks", "/sys/fs/cgroup/*%s/build/*/cgroup.procs", "/sys/fs/cgroup%s-other", "/sys/fs/cgroup/*%s-other"} {
		if left, _ := filepath.Glob(fmt.Sprintf(pattern, l.parent)); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
	}
	l.sh("true")
}

func unified() bool {
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	return strings.Contains(string(mounts), " - cgroup2 ")
}
