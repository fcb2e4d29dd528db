package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/test/harness"
)

// TestVolumePrune: anonymous ones only, unless all are asked for; those of
// containers and those with options stay.
func TestVolumePrune(t *testing.T) {
	e := harness.Start(t, harness.Options{}) // it prunes everything
	e.Load(t, "busybox")
	each(t, func(t *testing.T, program string) {
		n := name(t)
		remove(t, e, n)
		anonymous := e.OK(t, program, "volume", "create")
		e.OK(t, program, "volume", "create", "--label", "keep=yes", n+"-named")
		e.OK(t, program, "volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", n+"-option")
		e.OK(t, program, "create", "--name", n, "-v", n+"-used:/a", "-v", "/anonymous", "busybox")
		if got := e.OK(t, program, "volume", "prune", "-f"); got != "Deleted Volumes:\n"+anonymous+"\n\nTotal reclaimed space: 0B" {
			t.Errorf("prune: %q", got)
		}
		if r := e.Do(t, program, "n\n", "volume", "prune", "-a"); r.Code != 0 || !strings.Contains(r.Stdout, "not used by at least one container.\nAre you sure you want to continue? [y/N]") {
			t.Errorf("%s", r)
		}
		if got := e.OK(t, program, "volume", "prune", "-af", "--filter", "label!=keep"); got != "Total reclaimed space: 0B" {
			t.Errorf("a labelled volume was pruned: %q", got)
		}
		e.OK(t, program, "run", "--rm", "-v", n+"-named:/d", "busybox", "sh", "-c", "head -c 5000 /dev/zero >/d/f")
		if r := e.Do(t, program, "y\n", "volume", "prune", "-a"); !strings.Contains(r.Stdout, "Deleted Volumes:\n"+n+"-named\n\nTotal reclaimed space: 5kB") {
			t.Errorf("%s", r)
		}
		e.OK(t, program, "rm", "-v", n)
		if got := e.OK(t, program, "volume", "ls", "-q", "--filter", "dangling=true"); got != n+"-option\n"+n+"-used" {
			t.Errorf("left: %q", got)
		}
		e.OK(t, program, "volume", "rm", n+"-option", n+"-used")
		for args, text := range map[string]string{
			"volume prune -f --filter colour=red": "invalid filter 'colour'",
			"volume prune -af --filter all=1":     "conflicting options: cannot specify both --all and --filter all=1",
			"volume create --group g x" + n:       "This node is not a swarm manager",
			"volume create -o colour=red x" + n:   `create x` + n + `: invalid option: "colour"`,
			"volume create -o type=tmpfs x" + n:   `missing required option: "device"`,
		} {
			if r := e.Do(t, program, "", strings.Fields(args)...); r.Code == 0 || !strings.Contains(r.Stderr, text) {
				t.Errorf("%s", r)
			}
		}
	})
	e.OK(t, "cleat", "volume", "create", "plain")
	if r := e.Cleat(t, "volume", "update", "--availability", "drain", "plain"); r.Code != 1 || !strings.Contains(r.Stderr, "can only update cluster volumes") {
		t.Errorf("%s", r)
	}
}

// TestVolumeOptions: what a volume's options name is mounted while a container
// runs with it, over the end of an engine too, and never removed with the volume.
func TestVolumeOptions(t *testing.T) {
	e := harness.Start(t, harness.Options{})
	e.Load(t, "busybox")
	each(t, func(t *testing.T, program string) {
		n, dir := name(t), t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "precious"), []byte("data\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		e.OK(t, program, "volume", "create", "-o", "type=none", "-o", "o=bind", "-o", "device="+dir, n)
		point := e.OK(t, program, "volume", "inspect", "-f", "{{.Mountpoint}}", n)
		if got := e.OK(t, program, "volume", "inspect", "-f", "{{.Options.device}} {{.Options.o}}", n); got != dir+" bind" {
			t.Errorf("options %q", got)
		}
		e.OK(t, program, "run", "-d", "--name", n+"-1", "-v", n+":/d", "busybox", "sleep", "600")
		e.OK(t, program, "run", "-d", "--name", n+"-2", "-v", n+":/d", "busybox", "sleep", "600")
		remove(t, e, n+"-1", n+"-2")
		if got := e.OK(t, program, "exec", n+"-1", "cat", "/d/precious"); got != "data" {
			t.Errorf("%q", got)
		}
		e.OK(t, program, "rm", "-f", n+"-1")
		// The engine is killed while the volume is in use: the next one knows.
		e.Kill()
		e.Run(t)
		mounted := func() bool {
			table, err := os.ReadFile("/proc/self/mountinfo")
			if err != nil {
				t.Fatal(err)
			}
			return strings.Contains(string(table), " "+point+" ")
		}
		if !mounted() {
			t.Error("the next engine unmounted what is in use")
		}
		e.OK(t, program, "rm", "-f", n+"-2")
		harness.Eventually(t, func() (bool, string) { return !mounted(), "it stays mounted after the last use" })
		// An engine that dies between the mount and the start leaves it for the next to unmount.
		e.Stop(t)
		e.SetEnv("CLEAT_FAILPOINTS=volume.mount.after-mount")
		e.Run(t)
		e.SetEnv()
		e.Do(t, program, "", "run", "--name", n+"-3", "-v", n+":/d", "busybox", "true")
		remove(t, e, n+"-3")
		<-e.Exited()
		if !mounted() {
			t.Error("the failpoint is in the wrong place")
		}
		e.Run(t)
		harness.Eventually(t, func() (bool, string) { return !mounted(), "left mounted by a start that was cut short" })
		e.OK(t, program, "rm", n+"-3")
		e.OK(t, program, "volume", "rm", n)
		if _, err := os.Stat(filepath.Join(dir, "precious")); err != nil {
			t.Error("rm reached the host's directory:", err)
		}
	})
	// A tmpfs has its size, is empty again after the last use, and is filled from the image.
	e.OK(t, "docker", "volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=1m,uid=1000", "small")
	if got := e.OK(t, "docker", "run", "--rm", "-v", "small:/d", "busybox", "sh", "-c", "stat -c %u /d; df -k /d | tail -1 | tr -s ' ' | cut -d' ' -f2"); got != "1000\n1024" {
		t.Errorf("tmpfs: %q", got)
	}
	// One that cannot be mounted says why, and its container can be removed.
	e.OK(t, "docker", "volume", "create", "-o", "type=nfs", "-o", "device=:/export", "-o", "o=addr=127.0.0.1,nolock,password=hush", "remote")
	r := e.Docker(t, "run", "--name", "remote", "-v", "remote:/d", "busybox", "true")
	if r.Code != 125 || !strings.Contains(r.Stderr, "error while mounting volume '") || !strings.Contains(r.Stderr, "failed to mount local volume: mount :/export:") || !strings.Contains(r.Stderr, ", data: addr=127.0.0.1,nolock,password=********: ") || strings.Contains(r.Stderr, "hush") {
		t.Errorf("%s", r)
	}
	if !strings.Contains(readFile("/proc/filesystems"), "\tnfs\n") && !strings.Contains(r.Stderr, ": no such device: the kernel has no filesystem nfs, or has not loaded it: modprobe nfs") {
		t.Errorf("%s", r)
	}
	e.OK(t, "docker", "rm", "-v", "remote")
	e.OK(t, "docker", "volume", "rm", "remote", "small")
}

// TestSMBCredentials: a file of credentials, which mount.cifs reads and the kernel ignores.
func TestSMBCredentials(t *testing.T) {
	e := engine(t, "busybox")
	file := filepath.Join(t.TempDir(), "sailor")
	e.OK(t, "docker", "volume", "create", "-o", "type=cifs", "-o", "device=//localhost/files", "-o", "o=credentials="+file+",port=1,vers=3.0", "smb")
	asked := func() harness.Result { return e.Docker(t, "run", "--rm", "-v", "smb:/d", "busybox", "true") }
	if r := asked(); r.Code != 125 || !strings.Contains(r.Stderr, "its credentials: there is no file "+file) {
		t.Errorf("a file that is not there: %s", r)
	}
	if err := os.WriteFile(file, []byte("username=sailor\npassword=hu,sh\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	want := "mount //localhost/files:" + e.OK(t, "docker", "volume", "inspect", "-f", "{{.Mountpoint}}", "smb") +
		", data: username=sailor,password=********,port=1,vers=3.0,addr=127.0.0.1: "
	if r := asked(); r.Code != 125 || !strings.Contains(r.Stderr, want) || strings.Contains(r.Stderr, "hu") {
		t.Errorf("what the kernel is asked for: %s, wanted %q", r, want)
	}
	e.OK(t, "docker", "volume", "rm", "smb")
}

// TestReadOnlyBinds: read-only means what is mounted below, too, from API 1.44 on.
func TestReadOnlyBinds(t *testing.T) {
	e := engine(t, "busybox")
	dir := t.TempDir()
	below := filepath.Join(dir, "below")
	if err := os.Mkdir(below, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", below, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(below, 0); err != nil {
			t.Error(err)
		}
	})
	for _, c := range []struct {
		flags, version, top, sub string
	}{
		{"-v SRC:/m:ro", "1.44", "no", "no"},
		{"-v SRC:/m:ro", "1.43", "no", "yes"},
		{"-v SRC:/m:rw,rprivate,cached", "1.44", "yes", "yes"},
		{"--mount type=bind,src=SRC,dst=/m,readonly", "1.44", "no", "no"},
		{"--mount type=bind,src=SRC,dst=/m,readonly", "1.43", "no", "yes"},
		{"--mount type=bind,src=SRC,dst=/m,readonly,bind-recursive=writable", "1.44", "no", "yes"},
		{"--mount type=bind,src=SRC,dst=/m,readonly,bind-recursive=readonly,bind-propagation=rprivate", "1.44", "no", "no"},
		{"--mount type=bind,src=SRC,dst=/m,bind-recursive=disabled", "1.44", "yes", "absent"},
	} {
		each(t, func(t *testing.T, program string) {
			args := append([]string{"run", "--rm"}, strings.Fields(strings.ReplaceAll(c.flags, "SRC", dir))...)
			cmd := e.Command(t, program, append(args, "busybox", "sh", "-c",
				`touch /m/a 2>/dev/null && echo yes || echo no; grep -q " /m/below " /proc/mounts || { echo absent; exit; }; touch /m/below/a 2>/dev/null && echo yes || echo no`)...)
			cmd.Env = append(cmd.Env, "DOCKER_API_VERSION="+c.version)
			out, err := cmd.CombinedOutput()
			if want := fmt.Sprintf("%s\n%s\n", c.top, c.sub); err != nil || string(out) != want {
				t.Errorf("%s with API %s: %q, %v; want %q", c.flags, c.version, out, err, want)
			}
		})
	}
}
