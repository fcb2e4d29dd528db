package engine

import (
	"bufio"
	"cmp"
	"context"
	"net/netip"
	"os"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/api/types/system"
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/apparmor"
	"github.com/cleatlabs/cleat/internal/cdi"
	"github.com/cleatlabs/cleat/internal/cgroup"
	"github.com/cleatlabs/cleat/internal/container"
	"github.com/cleatlabs/cleat/internal/image"
	"github.com/cleatlabs/cleat/internal/kernel"
	"github.com/cleatlabs/cleat/internal/logs"
	"github.com/cleatlabs/cleat/internal/network"
	"github.com/cleatlabs/cleat/internal/volume"
)

// System describes the engine and its host.
type System struct {
	volumes    *volume.Service
	containers *container.Store
	images     *image.Service
	networks   *network.Service
	cgroups    *cgroup.Hierarchy
	features   kernel.Features
	profiles   *apparmor.Profiles
	settings   Settings
	adjustable *adjustable
}

// Version describes what answers.
func (s *System) Version(context.Context) (system.VersionResponse, error) {
	v := system.VersionResponse{
		Platform: system.PlatformInfo{Name: "Cleat"}, Version: s.settings.Version,
		APIVersion: s.settings.APIVersion, MinAPIVersion: s.settings.MinAPI, Os: goruntime.GOOS, Arch: goruntime.GOARCH,
		GitCommit: s.settings.GitCommit, GoVersion: goruntime.Version(), KernelVersion: s.features.Release,
		BuildTime: s.settings.BuildTime,
	}
	v.Components = []system.ComponentVersion{{
		Name: "Engine", Version: v.Version,
		Details: map[string]string{
			"ApiVersion": v.APIVersion, "Arch": v.Arch, "BuildTime": v.BuildTime, "Experimental": "false", "GitCommit": v.GitCommit,
			"GoVersion": v.GoVersion, "KernelVersion": v.KernelVersion, "MinAPIVersion": v.MinAPIVersion, "Os": v.Os,
			"Product": "Cleat",
		},
	}}
	if s.settings.Build != "" {
		v.Components = append(v.Components, system.ComponentVersion{Name: "cleatd", Version: s.settings.Build})
	}
	return v, nil
}

// Info describes the engine's state, settings and host.
func (s *System) Info(ctx context.Context) (*system.Info, error) {
	now := s.adjustable.Load()
	i := &system.Info{
		ID: s.engineID(), Driver: storageDriver, DriverStatus: [][2]string{{"driver-type", "io.containerd.snapshotter.v1"}},
		Plugins: system.PluginsInfo{
			Volume: append([]string{localDriver}, s.volumes.Plugins()...), Network: []string{"bridge", "host", "ipvlan", "macvlan", "null"}, Log: logs.Drivers(),
		},
		IPv4Forwarding: readLine("/proc/sys/net/ipv4/ip_forward") == "1", Debug: now.Debug,
		NGoroutines: goruntime.NumGoroutine(), NFd: openFiles(), SystemTime: time.Now().Format(time.RFC3339Nano),
		LoggingDriver: cmp.Or(s.settings.Containers.LogDriver, defaultLogDriver), CgroupDriver: s.cgroups.Driver(), CgroupVersion: strconv.Itoa(s.cgroups.Version()),
		KernelVersion: s.features.Release, OSType: goruntime.GOOS, Architecture: machine(), NCPU: goruntime.NumCPU(),
		MemTotal: memTotal(), DockerRootDir: s.settings.DataRoot, ServerVersion: s.settings.Version,
		IndexServerAddress: "https://index.docker.io/v1/", RegistryConfig: s.registryConfig(),
		Labels: orEmpty(now.Labels), DefaultRuntime: runtimeName,
		Runtimes: map[string]system.RuntimeWithStatus{runtimeName: {}}, LiveRestoreEnabled: true,
		Swarm:           swarm.Info{LocalNodeState: swarm.LocalNodeStateInactive, RemoteManagers: []swarm.Peer{}},
		Isolation:       "",
		InitBinary:      "built in",
		CDISpecDirs:     orEmpty(s.settings.CDIDirs),
		HTTPProxy:       os.Getenv("HTTP_PROXY"),
		HTTPSProxy:      os.Getenv("HTTPS_PROXY"),
		NoProxy:         os.Getenv("NO_PROXY"),
		FirewallBackend: &system.FirewallInfo{Driver: "nftables"},
		SecurityOptions: []string{},
	}
	if s.profiles.Confines() {
		i.SecurityOptions = append(i.SecurityOptions, "name=apparmor")
	}
	if s.features.Seccomp {
		i.SecurityOptions = append(i.SecurityOptions, "name=seccomp,profile="+s.seccompProfile())
	}
	if s.cgroups.Version() == 2 {
		i.SecurityOptions = append(i.SecurityOptions, "name=cgroupns")
	}
	for _, name := range cdi.Names(s.settings.CDIDirs) {
		i.DiscoveredDevices = append(i.DiscoveredDevices, system.DeviceInfo{Source: cdiDriver, ID: name})
	}
	i.Name = s.Hostname()
	i.OperatingSystem, i.OSVersion = osRelease()
	s.countContainers(i)
	s.limits(i)
	if list, err := s.images.List(ctx, image.ListRequest{}, nil); err == nil {
		i.Images = len(list)
	}
	i.Warnings = slices.Concat(now.Warnings, s.features.Warnings, s.networks.Warnings(), s.volumes.Warnings(), s.containers.Warnings())
	if w := s.profiles.Warning(); w != "" {
		i.Warnings = append(i.Warnings, w)
	}
	if err := s.images.Failed(); err != nil {
		i.Warnings = append(i.Warnings, err.Error())
	}
	i.Warnings = marked(i.Warnings)
	return i, nil
}

// marked is the warnings as dockerd writes them, so that who looks for the word in what clients print finds them.
func marked(warnings []string) []string {
	out := []string{}
	for _, w := range warnings {
		out = append(out, "WARNING: "+w)
	}
	return out
}

// seccompProfile names the profile of containers that choose none.
func (s *System) seccompProfile() string {
	switch d := s.settings.Containers; {
	case d.Unconfined:
		return "unconfined"
	case d.Seccomp != nil:
		return "custom"
	}
	return "builtin"
}

// ID is the engine's, as info and events show it.
func (s *System) ID() string { return s.engineID() }

// Hostname is the host's name, "" if it cannot be told.
func (s *System) Hostname() string {
	name, _ := os.Hostname()
	return name
}

// engineID is made at the first start and stays with the data root.
func (s *System) engineID() string { return readLine(filepath.Join(s.settings.DataRoot, "engine-id")) }

func (s *System) countContainers(i *system.Info) {
	n := s.ContainerCounts()
	i.ContainersRunning, i.ContainersPaused, i.ContainersStopped = n.Running, n.Paused, n.Stopped
	i.Containers = n.Running + n.Paused + n.Stopped
}

// ContainerCounts are how many containers are in which state.
type ContainerCounts struct{ Running, Paused, Stopped int }

// ContainerCounts looks at the containers' states as they are known.
func (s *System) ContainerCounts() (n ContainerCounts) {
	for _, c := range s.containers.All() {
		switch c.Load().State.Status {
		case api.StateRunning, api.StateRestarting:
			n.Running++
		case api.StatePaused:
			n.Paused++
		default:
			n.Stopped++
		}
	}
	return n
}

// limits says which resource limits the kernel offers.
func (s *System) limits(i *system.Info) {
	can := s.cgroups.Support()
	i.MemoryLimit, i.SwapLimit, i.OomKillDisable = can.Memory, can.Swap, can.OOMKillDisable
	i.CPUShares, i.CPUCfsPeriod, i.CPUCfsQuota = can.CPUShares, can.CPUQuota, can.CPUQuota
	i.CPUSet, i.PidsLimit = can.Cpuset, can.Pids
}

func (s *System) registryConfig() *registry.ServiceConfig {
	now := s.adjustable.Load()
	c := &registry.ServiceConfig{
		InsecureRegistryCIDRs: []netip.Prefix{netip.MustParsePrefix("::1/128"), netip.MustParsePrefix("127.0.0.0/8")},
		IndexConfigs: map[string]*registry.IndexInfo{
			"docker.io": {Name: "docker.io", Mirrors: orEmpty(now.Mirrors), Secure: true, Official: true},
		},
		Mirrors: orEmpty(now.Mirrors),
	}
	for _, r := range now.InsecureRegistries {
		if p, err := netip.ParsePrefix(r); err == nil {
			c.InsecureRegistryCIDRs = append(c.InsecureRegistryCIDRs, p)
		} else {
			c.IndexConfigs[r] = &registry.IndexInfo{Name: r, Mirrors: []string{}}
		}
	}
	return c
}

func orEmpty(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}

func openFiles() int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0
	}
	return len(entries)
}

// machine is the kernel's word for the architecture, as "x86_64".
func machine() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return goruntime.GOARCH
	}
	return unix.ByteSliceToString(u.Machine[:])
}

func memTotal() int64 {
	var i unix.Sysinfo_t
	if unix.Sysinfo(&i) != nil {
		return 0
	}
	return int64(uint64(i.Totalram) * uint64(i.Unit))
}

// osRelease reads the distribution's name and version.
func osRelease() (name, version string) {
	name = "Linux"
	f, err := os.Open("/etc/os-release")
	if err != nil {
		return name, ""
	}
	defer f.Close()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		key, value, _ := strings.Cut(sc.Text(), "=")
		value = strings.Trim(value, `"'`)
		switch key {
		case "PRETTY_NAME":
			name = value
		case "VERSION_ID":
			version = value
		}
	}
	return name, version
}
