package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moby/moby/client"

	"github.com/cleatlabs/cleat/test/harness"
)

const described = `cdiVersion: "0.7.0"
kind: "vendor.example/thing"
containerEdits:
  env: ["THINGS=yes"]
devices:
- name: zero
  containerEdits:
    env: ["THING=zero", "PATH_OF_THING=/dev/thing"]
    deviceNodes:
    - {path: /dev/thing, hostPath: /dev/zero, permissions: rw}
    mounts:
    - {hostPath: DIR/lib, containerPath: /usr/lib/thing, options: [ro, nosuid, nodev, bind]}
    - {hostPath: DIR/lib/file, containerPath: /etc/thing.conf, options: [ro, bind]}
    additionalGids: [4711]
- name: hooked
  containerEdits:
    hooks: [{hookName: createContainer, path: /usr/bin/vendor-hook, args: [vendor-hook, x]}]
- name: absent
  containerEdits:
    deviceNodes: [{path: /dev/no-such-thing}]
`

const describedGPU = `{"cdiVersion":"0.6.0","kind":"nvidia.com/gpu","devices":[
 {"name":"0","containerEdits":{"env":["GPU=0"],"deviceNodes":[{"path":"/dev/nvidia0","hostPath":"/dev/null"}]}},
 {"name":"1","containerEdits":{"env":["GPU_1=1"],"deviceNodes":[{"path":"/dev/nvidia1","hostPath":"/dev/null"}]}},
 {"name":"all","containerEdits":{"env":["GPU=all"],"deviceNodes":[{"path":"/dev/nvidia0","hostPath":"/dev/null"},{"path":"/dev/nvidia1","hostPath":"/dev/null"}]}}]}`

// TestVendorsDevices: devices that their vendors describe (CDI), by --device and --gpus.
func TestVendorsDevices(t *testing.T) {
	dir := t.TempDir()
	e := harness.Start(t, harness.Options{Args: []string{"--cdi-spec-dir", dir + "/etc", "--cdi-spec-dir", dir + "/run"}})
	e.Load(t, "busybox")
	write := func(name, content string) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(strings.ReplaceAll(content, "DIR", dir)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	each(t, func(t *testing.T, program string) {
		r := e.Do(t, program, "", "run", "--rm", "--gpus", "all", "busybox", "true")
		if r.Code != 125 || !strings.Contains(r.Stderr, `could not select device driver "" with capabilities: [[gpu]]`) || !strings.Contains(r.Stderr, "nvidia-ctk cdi generate") {
			t.Errorf("no GPU is described: %s", r)
		}
	})
	write("lib/file", "configured")
	write("etc/thing.yaml", described)
	write("run/gpus.json", describedGPU)
	each(t, func(t *testing.T, program string) {
		n := name(t)
		remove(t, e, n)
		// Installed while the engine runs; for a container that is made anew, started again, and not root's.
		e.OK(t, program, "create", "--name", n, "-u", "1000:1000", "--device", "vendor.example/thing=zero", "-e", "THING=mine", "busybox", "sh", "-c",
			"echo $THINGS $THING $PATH_OF_THING; head -c 3 /dev/thing | tr '\\0' 0; echo; stat -c '%F %t:%T' /dev/thing; cat /usr/lib/thing/file /etc/thing.conf; echo; touch /usr/lib/thing/x 2>&1 | grep -o Read-only; id -G; mknod /tmp/zero2 c 1 5 2>&1 | grep -o permitted")
		want := "yes zero /dev/thing\n000\ncharacter special file 1:5\nconfiguredconfigured\nRead-only\n1000 4711\npermitted"
		for range 2 {
			if got := e.OK(t, program, "start", "-a", n); got != want {
				t.Errorf("%q, want %q", got, want)
			}
		}
		if got := e.OK(t, program, "inspect", "-f", "{{range .HostConfig.DeviceRequests}}{{.Driver}} {{.DeviceIDs}}{{end}}", n); got != "cdi [vendor.example/thing=zero]" {
			t.Errorf("%q", got)
		}
		for flags, want := range map[string]string{
			"--gpus all":                           "all /dev/nvidia0 /dev/nvidia1",
			"--gpus 1":                             "0 /dev/nvidia0",
			`--gpus "device=1",capabilities=gpu`:   "/dev/nvidia1",
			"--device nvidia.com/gpu=0":            "0 /dev/nvidia0",
			"--privileged --gpus device=0":         "0 /dev/nvidia0",
			"--gpus all --device /dev/null:/dev/x": "all /dev/nvidia0 /dev/nvidia1",
		} {
			if got := e.OK(t, program, append(append([]string{"run", "--rm"}, strings.Fields(flags)...), "busybox", "sh", "-c", "echo $GPU /dev/nvidia?")...); got != want {
				t.Errorf("%s: %q, want %q", flags, got, want)
			}
		}
		for flags, want := range map[string]string{
			"--device vendor.example/thing=nosuch": "unresolvable CDI devices vendor.example/thing=nosuch",
			"--device vendor.example/thing=hooked": "has hooks (/usr/bin/vendor-hook), and this engine runs no programs of the host",
			"--device vendor.example/thing=absent": "/dev/no-such-thing",
			"--gpus 3":                             "unresolvable CDI devices nvidia.com/gpu=2",
			"--gpus driver=amd":                    `could not select device driver "amd" with capabilities: [[`,
			"--gpus all,options=a=b":               "options of device requests are not supported",
		} {
			if r := e.Do(t, program, "", append(append([]string{"run", "--rm"}, strings.Fields(flags)...), "busybox", "true")...); r.Code != 125 && r.Code != 127 || !strings.Contains(r.Stderr, want) {
				t.Errorf("%s", r) // 127: "no such file" is a missing command to the clients
			}
		}
	})
	write("etc/broken.yaml", "kind: [")
	if r := e.Docker(t, "run", "--rm", "--device", "broken.example/some=y", "busybox", "true"); !strings.Contains(r.Stderr, "broken.yaml") {
		t.Errorf("%s", r)
	}
	info, err := e.Client(t).Info(t.Context(), client.InfoOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, d := range info.Info.DiscoveredDevices {
		ids = append(ids, d.Source+" "+d.ID)
	}
	if got := strings.Join(ids, ","); got != "cdi nvidia.com/gpu=0,cdi nvidia.com/gpu=1,cdi nvidia.com/gpu=all,cdi vendor.example/thing=absent,cdi vendor.example/thing=hooked,cdi vendor.example/thing=zero" {
		t.Errorf("info: %s", got)
	}
	if got := strings.Join(info.Info.CDISpecDirs, ","); got != dir+"/etc,"+dir+"/run" {
		t.Errorf("info: %s", got)
	}
}
