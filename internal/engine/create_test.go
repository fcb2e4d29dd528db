package engine_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/blkiodev"
	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	apinetwork "github.com/moby/moby/api/types/network"

	"github.com/cleatlabs/cleat/internal/engine"
	"github.com/cleatlabs/cleat/internal/failure"
)

func TestCreateRefusesWithTheRightClassAndLeavesNothing(t *testing.T) {
	l := newLab(t)
	l.create(spec{name: "taken", cmd: []string{"true"}})
	before, _ := os.ReadDir(filepath.Join(l.dir, "containers"))
	volumes, _, err := l.Volumes.List(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		spec  spec
		class func(error) bool
		text  string
	}{
		{"name in use", spec{name: "taken"}, errdefs.IsConflict, `The container name "/taken" is already in use by container`},
		{"bad name", spec{name: "no good"}, errdefs.IsInvalidArgument, "only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"},
		{"short name", spec{name: "x"}, errdefs.IsInvalidArgument, "two characters at least"},
		{"missing image", spec{cfg: func(c *api.Config) { c.Image = "nosuch" }}, errdefs.IsNotFound, "No such image: nosuch:latest"},
		{"no command", spec{cfg: func(c *api.Config) { c.Entrypoint = []string{""}; c.Cmd = nil }}, errdefs.IsInvalidArgument, "no command specified: the image names none"},
		{"relative workdir", spec{cfg: func(c *api.Config) { c.WorkingDir = "x" }}, errdefs.IsInvalidArgument, "needs to be an absolute path"},
		{"more variables than a program can have", spec{cfg: func(c *api.Config) { c.Env = slices.Repeat([]string{"A=1"}, 1<<19) }}, errdefs.IsInvalidArgument, "take 7 MiB, more than the 6 MiB"},
		{"bad stop signal", spec{cfg: func(c *api.Config) { c.StopSignal = "SIGNONE" }}, errdefs.IsInvalidArgument, "invalid signal: SIGNONE"},
		{"unknown capability", spec{host: func(h *api.HostConfig) { h.CapAdd = []string{"NOSUCH"} }}, errdefs.IsInvalidArgument, "NOSUCH"},
		{"rm with policy", spec{host: func(h *api.HostConfig) { h.AutoRemove = true; h.RestartPolicy.Name = "always" }}, errdefs.IsInvalidArgument, "AutoRemove"},
		{"a host port that there is not", spec{host: func(h *api.HostConfig) {
			h.PortBindings = apinetwork.PortMap{apinetwork.MustParsePort("80/tcp"): {{HostPort: "8080"}, {HostPort: "99999"}}}
		}}, errdefs.IsInvalidArgument, `cannot publish port 80/tcp: invalid host port "99999"`},
		{"a published port that there is not", spec{host: func(h *api.HostConfig) {
			h.NetworkMode, h.PortBindings = "host", apinetwork.PortMap{apinetwork.MustParsePort("0/udp"): nil}
		}}, errdefs.IsInvalidArgument, "cannot publish port 0/udp"},
		{"a umask that is none", spec{host: func(h *api.HostConfig) { h.Umask = new(uint32(0o1000)) }}, errdefs.IsInvalidArgument, "invalid Umask 512"},
		{"tiny memory", spec{host: func(h *api.HostConfig) { h.Memory = 1 << 20 }}, errdefs.IsInvalidArgument, "6MB"},
		{"a null device with a weight", spec{name: "null", host: func(h *api.HostConfig) { h.BlkioWeightDevice = []*blkiodev.WeightDevice{nil} }}, errdefs.IsInvalidArgument, "null is no device"},
		{"a null device with a rate", spec{name: "null", host: func(h *api.HostConfig) { h.BlkioDeviceWriteIOps = []*blkiodev.ThrottleDevice{nil} }}, errdefs.IsInvalidArgument, "null is no device"},
		{"memory without end, and less than none of both", spec{host: func(h *api.HostConfig) { h.Memory, h.MemorySwap = 1<<30, -2 }}, errdefs.IsInvalidArgument, "invalid memory+swap limit -2"},
		{"less CPUs than the kernel can give", spec{host: func(h *api.HostConfig) { h.NanoCPUs = 9999 }}, errdefs.IsInvalidArgument, "Range of CPUs is from 0.01"},
		{"a negative limit", spec{host: func(h *api.HostConfig) { h.Ulimits = []*api.Ulimit{{Name: "nofile", Soft: -5, Hard: 10}} }}, errdefs.IsInvalidArgument, "invalid ulimit nofile: -5:10"},
		{"a name that no control group has", spec{host: func(h *api.HostConfig) { h.CgroupParent = strings.Repeat("p", 100_000) }}, errdefs.IsInvalidArgument, "3840 at most"},
		{"control groups in two lines", spec{host: func(h *api.HostConfig) { h.CgroupParent = "a\nb" }}, errdefs.IsInvalidArgument, "in one line"},
		{"a device with a zero byte", spec{host: func(h *api.HostConfig) {
			h.Devices = []api.DeviceMapping{{PathOnHost: "/dev/null", PathInContainer: "/dev/a\x00b"}}
		}}, errdefs.IsInvalidArgument, "zero byte"},
		{"a masked path with a zero byte", spec{host: func(h *api.HostConfig) { h.MaskedPaths = []string{"/proc/keys\x00"} }}, errdefs.IsInvalidArgument, "zero byte"},
		{"a probe with a zero byte", spec{cfg: func(c *api.Config) { c.Healthcheck = &api.HealthConfig{Test: []string{"CMD", "a\x00b"}} }}, errdefs.IsInvalidArgument, "zero byte"},
		{"a line for another host", spec{host: func(h *api.HostConfig) { h.ExtraHosts = []string{"a\n192.0.2.1 b:192.0.2.2"} }}, errdefs.IsInvalidArgument, "bad format for add-host"},
		{"two names in one", spec{cfg: func(c *api.Config) { c.Hostname = "a\tb" }}, errdefs.IsInvalidArgument, "invalid hostname"},
		{"memory that is not there", spec{host: func(h *api.HostConfig) { h.CpusetMems = "0,4095" }}, errdefs.IsInvalidArgument, "Requested memory nodes are not available - requested 0,4095, available: "},
		{"volumes from, not copied", spec{host: func(h *api.HostConfig) { h.VolumesFrom = []string{"nosuch:nocopy"} }}, errdefs.IsInvalidArgument, "invalid volumes-from"},
		{"volumes from, shared", spec{host: func(h *api.HostConfig) { h.VolumesFrom = []string{"nosuch:rshared"} }}, errdefs.IsInvalidArgument, "invalid volumes-from"},
		{"volumes from nowhere", spec{host: func(h *api.HostConfig) { h.VolumesFrom = []string{"nosuch"} }}, errdefs.IsInvalidArgument, "No such container: nosuch"},
		{"host name in the host's namespace", spec{cfg: func(c *api.Config) { c.Hostname = "mine" }, host: func(h *api.HostConfig) { h.UTSMode = "host" }},
			errdefs.IsInvalidArgument, "hostname and the UTS mode"},
		{"domain name in the host's namespace", spec{cfg: func(c *api.Config) { c.Domainname = "mine" }, host: func(h *api.HostConfig) { h.UTSMode = "host" }},
			errdefs.IsInvalidArgument, "domainname and the UTS mode"},
		{"links", spec{host: func(h *api.HostConfig) { h.NetworkMode, h.Links = "bridge", []string{"nobody:b"} }}, errdefs.IsInvalidArgument, "could not get container for nobody"},
		{"health check of unknown type", spec{cfg: func(c *api.Config) { c.Healthcheck = &api.HealthConfig{Test: []string{"true"}} }}, errdefs.IsInvalidArgument, "Unknown healthcheck type 'true'"},
		{"health check without a command", spec{cfg: func(c *api.Config) { c.Healthcheck = &api.HealthConfig{Test: []string{"CMD"}} }}, errdefs.IsInvalidArgument, "no command"},
		{"too short an interval", spec{cfg: func(c *api.Config) { c.Healthcheck = &api.HealthConfig{Interval: 999999} }}, errdefs.IsInvalidArgument, "Interval in Healthcheck cannot be less than 1ms"},
		{"negative retries", spec{cfg: func(c *api.Config) { c.Healthcheck = &api.HealthConfig{Retries: -1} }}, errdefs.IsInvalidArgument, "Retries in Healthcheck cannot be negative"},
		{"action on no health check", spec{host: func(h *api.HostConfig) { h.Annotations = map[string]string{"cleat.health-on-failure": "restart"} }},
			errdefs.IsInvalidArgument, "neither --health-cmd nor the image gives it a health check"},
		{"unknown action", spec{host: func(h *api.HostConfig) { h.Annotations = map[string]string{"cleat.health-on-failure": "reboot"} }},
			errdefs.IsInvalidArgument, "want none, restart, stop or kill"},
		{"a sysctl with a zero byte", spec{host: func(h *api.HostConfig) { h.Sysctls = map[string]string{"net.ipv4.ip_forward": "1\x00"} }}, errdefs.IsInvalidArgument, "holds a zero byte"},
		{"a bind with a zero byte", spec{host: func(h *api.HostConfig) { h.Binds = []string{"/tmp\x00x:/a"} }}, errdefs.IsInvalidArgument, "holds a zero byte"},
		{"a mount with a zero byte", spec{host: func(h *api.HostConfig) { h.Mounts = []mount.Mount{{Type: "bind", Source: "/tmp\x00", Target: "/a"}} }}, errdefs.IsInvalidArgument, "holds a zero byte"},
		{"a tmpfs with a zero byte", spec{host: func(h *api.HostConfig) { h.Tmpfs = map[string]string{"/a": "size=1m\x00"} }}, errdefs.IsInvalidArgument, "holds a zero byte"},
		{"a working directory with a zero byte", spec{cfg: func(c *api.Config) { c.WorkingDir = "/a\x00b" }}, errdefs.IsInvalidArgument, "holds a zero byte"},
		{"a line in a search domain", spec{host: func(h *api.HostConfig) { h.DNSSearch = []string{"a\nnameserver 192.0.2.1"} }}, errdefs.IsInvalidArgument, "holds a control character"},
		{"a line in a DNS option", spec{host: func(h *api.HostConfig) { h.DNSOptions = []string{"a\nnameserver 192.0.2.1"} }}, errdefs.IsInvalidArgument, "holds a control character"},
		{"a sysctl that leads elsewhere", spec{host: func(h *api.HostConfig) { h.Sysctls = map[string]string{"net.../kernel.panic": "1"} }}, errdefs.IsInvalidArgument, "kernel.panic"},
		{"host sysctl", spec{host: func(h *api.HostConfig) { h.Sysctls = map[string]string{"kernel.panic": "1"} }}, errdefs.IsInvalidArgument, "kernel.panic"},
		{"relative mount", spec{host: func(h *api.HostConfig) { h.Binds = []string{"/tmp:x"} }}, errdefs.IsInvalidArgument, "mount path must be absolute"},
		{"two mounts on one target", spec{host: func(h *api.HostConfig) { h.Binds = []string{"/tmp:/a", "/var:/a/"} }}, errdefs.IsInvalidArgument, "Duplicate mount point: /a"},
		{"missing source of Mounts", spec{host: func(h *api.HostConfig) {
			h.Mounts = []mount.Mount{{Type: mount.TypeBind, Source: "/nosuch/dir", Target: "/a"}}
		}}, errdefs.IsInvalidArgument, "bind source path does not exist: /nosuch/dir"},
		{"foreign volume driver, after an anonymous volume was made", spec{cfg: func(c *api.Config) { c.Volumes = map[string]struct{}{"/a": {}} }, host: func(h *api.HostConfig) {
			h.Mounts = []mount.Mount{{Type: mount.TypeVolume, Target: "/z", Source: "named", VolumeOptions: &mount.VolumeOptions{DriverConfig: &mount.Driver{Name: "nfs"}}}}
		}}, func(err error) bool { return failure.Class(err) == errdefs.ErrInvalidArgument }, "nfs"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.spec.cmd == nil && c.name != "no command" {
				c.spec.cmd = []string{"true"}
			}
			_, _, err := l.tryCreate(c.spec)
			if !c.class(err) || !strings.Contains(err.Error(), c.text) {
				t.Errorf("%v", err)
			}
		})
	}
	after, _ := os.ReadDir(filepath.Join(l.dir, "containers"))
	if len(after) != len(before) {
		t.Errorf("failed creates left %d directories", len(after)-len(before))
	}
	left, _, err := l.Volumes.List(t.Context(), nil)
	if err != nil || len(left) != len(volumes) {
		t.Errorf("failed creates left volumes: %v, %v", left, err)
	}
	for _, c := range []string{"no-good", "Anonymous"} { // the names are free again
		l.create(spec{name: c, cmd: []string{"true"}})
	}
}

func TestCommandLineFollowsDockersRules(t *testing.T) {
	l := newLab(t)
	for _, c := range []struct {
		name       string
		entrypoint []string
		cmd        []string
		path       string
		args       string
	}{
		{"image's command", nil, nil, "sh", ""},
		{"own command", nil, []string{"echo", "a b"}, "echo", "a b"},
		{"own entrypoint drops the image's command", []string{"echo"}, nil, "echo", ""},
		{"empty entrypoint keeps it", []string{}, nil, "sh", ""},
		{"both", []string{"echo", "1"}, []string{"2"}, "echo", "1|2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := l.inspect(l.create(spec{cmd: c.cmd, cfg: func(cfg *api.Config) { cfg.Entrypoint = c.entrypoint }}))
			if r.Path != c.path || strings.Join(r.Args, "|") != c.args {
				t.Errorf("%s %q", r.Path, r.Args)
			}
		})
	}
	r := l.inspect(l.create(spec{cmd: []string{"env"}, cfg: func(c *api.Config) {
		c.Env = []string{"FROM=request"}
		c.Labels = map[string]string{"of": "request", "x": "y"}
	}}))
	if got := strings.Join(r.Config.Env, " "); got != "FROM=request PATH=/bin" {
		t.Errorf("env %q", got)
	}
	if r.Config.Labels["of"] != "request" || r.Config.Labels["x"] != "y" {
		t.Errorf("labels %v", r.Config.Labels)
	}
}

func TestMounts(t *testing.T) {
	l := newLab(t)
	host := t.TempDir()
	if err := os.WriteFile(filepath.Join(host, "file"), []byte("host\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	missing := filepath.Join(host, "made", "by", "bind")
	got := l.output(spec{
		cmd: []string{"sh", "-c", "cat /b/file /data/seed; stat -c '%u %a' /data/seed; touch /ro/x 2>/dev/null || echo read-only; touch /t/x && echo tmpfs; pwd; ls -d /made"},
		cfg: func(c *api.Config) { c.Volumes = map[string]struct{}{"/data/": {}}; c.WorkingDir = "/new/dir" },
		host: func(h *api.HostConfig) {
			h.Binds = []string{host + ":/b", host + ":/ro:ro", missing + ":/made"}
			h.Tmpfs = map[string]string{"/t": "size=1m,mode=700"}
		},
	})
	want := "host\nfrom the image\n65534 640\nread-only\ntmpfs\n/new/dir\n/made\n"
	if got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if _, err := os.Stat(missing); err != nil {
		t.Errorf("a missing source of Binds must be made: %v", err)
	}
}

func TestVolumesOutliveTheirContainersAndAnonymousOnesGoWithThem(t *testing.T) {
	l := newLab(t)
	named := func(h *api.HostConfig) { h.Binds = []string{"keep:/data"} }
	anonymous := func(c *api.Config) { c.Volumes = map[string]struct{}{"/anon": {}} }
	l.output(spec{name: "writer", cmd: []string{"sh", "-c", "echo kept > /data/mine"}, host: named, cfg: anonymous})
	if err := l.Volumes.Remove(t.Context(), "keep", true); !errdefs.IsConflict(err) {
		t.Errorf("rm of a volume in use: %v", err)
	}
	if err := l.Remove(t.Context(), "writer", engine.RemoveOptions{Volumes: true}); err != nil {
		t.Fatal(err)
	}
	list, _, err := l.Volumes.List(t.Context(), nil)
	if err != nil || len(list) != 1 || list[0].Name != "keep" {
		t.Errorf("left: %v, %v", list, err)
	}
	if got := l.output(spec{cmd: []string{"cat", "/data/mine"}, host: named}); got != "kept\n" {
		t.Errorf("%q", got)
	}
}

// Inspect sent back to create must give an equal container: Watchtower and
// Terraform lean on it.
func TestInspectSentBackGivesAnEqualContainer(t *testing.T) {
	l := newLab(t)
	id := l.create(spec{cmd: []string{"echo", "x"}, cfg: func(c *api.Config) { c.Env = []string{"A=b"}; c.Labels = map[string]string{"a": "b"}; c.Hostname = "h" },
		host: func(h *api.HostConfig) {
			h.Binds = []string{"vol:/v:ro"}
			h.CapAdd, h.Memory, h.ShmSize = []string{"NET_ADMIN"}, 64<<20, 1<<20
			h.Tmpfs = map[string]string{"/t": ""}
		}})
	a := l.inspect(id)
	req := engine.CreateRequest{Config: a.Config, HostConfig: a.HostConfig}
	second, _, err := l.Create(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	b := l.inspect(second)
	for _, c := range []struct{ name, a, b string }{
		{"Config", dump(a.Config), dump(b.Config)}, {"HostConfig", dump(a.HostConfig), dump(b.HostConfig)},
		{"Path", a.Path, b.Path}, {"Mounts", dump(a.Mounts), dump(b.Mounts)},
	} {
		if c.a != c.b {
			t.Errorf("%s:\n%s\n%s", c.name, c.a, c.b)
		}
	}
}

func TestPortsThatCannotBePublishedAreWarnedOf(t *testing.T) {
	l := newLab(t)
	for _, mode := range []api.NetworkMode{"host", "none"} {
		_, warnings, err := l.tryCreate(spec{cmd: []string{"true"}, host: func(h *api.HostConfig) { h.NetworkMode, h.PublishAllPorts = mode, true }})
		if err != nil || !strings.Contains(strings.Join(warnings, "\n"), "Published ports are discarded") {
			t.Errorf("%s: %v, %v", mode, warnings, err)
		}
	}
}
