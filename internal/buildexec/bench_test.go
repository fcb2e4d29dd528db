package buildexec_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/moby/buildkit/executor"
)

// BenchmarkRun measures a step that does nothing, with all that belongs to it: rootfs, control group, network, output,
// and taking it down. As a measure for it, where it is installed, stands runc with the same root filesystem and no
// network: what BuildKit's own executor runs.
func BenchmarkRun(b *testing.B) {
	for _, mode := range []string{"", "none"} {
		b.Run("step"+mode, func(b *testing.B) {
			l := newLab(b)
			jobs := make([]*job, b.N)
			for i := range jobs {
				jobs[i] = l.command("true")
				if mode == "none" {
					jobs[i].info.Meta.NetMode = 2
				}
			}
			b.ResetTimer()
			for _, j := range jobs {
				l.must(j)
			}
		})
	}
	b.Run("runc", benchmarkRunc)
}

func benchmarkRunc(b *testing.B) {
	runc, err := exec.LookPath("runc")
	if err != nil {
		b.Skip("runc is not installed")
	}
	l := newLab(b)
	out, err := exec.Command(runc, "spec", "--bundle", l.dir+"/disk").CombinedOutput()
	if err != nil {
		b.Fatal(string(out))
	}
	var spec map[string]any
	text, err := os.ReadFile(l.dir + "/disk/config.json")
	l.check(err)
	l.check(json.Unmarshal(text, &spec))
	spec["ociVersion"] = "1.0.2"
	process := spec["process"].(map[string]any)
	process["terminal"], process["args"], process["env"] = false, []string{"true"}, []string{"PATH=/bin"}
	spec["root"] = map[string]any{"path": "rootfs"}
	spec["linux"].(map[string]any)["cgroupsPath"] = l.parent + "-runc/x"
	text, err = json.Marshal(spec)
	l.check(err)
	b.Cleanup(func() {
		for _, pattern := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/*"} {
			dirs, _ := filepath.Glob(pattern + l.parent + "-runc")
			for _, d := range dirs {
				os.Remove(d)
			}
		}
	})
	roots := make([]executor.Mount, b.N)
	for i := range roots {
		roots[i], _ = l.root()
	}
	b.ResetTimer()
	for i := range roots {
		bundle := filepath.Join(l.dir, "disk", "b"+strconv.Itoa(i))
		rootfs := bundle + "/rootfs"
		l.check(os.MkdirAll(rootfs, 0o755))
		l.check(os.WriteFile(bundle+"/config.json", text, 0o644))
		s := roots[i].Src.(*source)
		s.released++
		l.check(mount.All(s.list, rootfs))
		out, err := exec.Command(runc, "--root", l.dir+"/disk/runc", "run", "--bundle", bundle, fmt.Sprint("step", i)).CombinedOutput()
		if err != nil {
			b.Fatal(string(out))
		}
		l.check(mount.Unmount(rootfs, 0))
	}
}
