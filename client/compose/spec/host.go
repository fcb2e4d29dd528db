package spec

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/blkiodev"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
)

// hostConfig is what the host gives the container.
func (r *Replica) hostConfig() (*container.HostConfig, error) {
	s := r.Service
	dns, err := addresses("dns", s.DNS)
	if err != nil {
		return nil, err
	}
	restart, err := restartPolicy(s)
	if err != nil {
		return nil, err
	}
	h := &container.HostConfig{
		AutoRemove: r.AutoRemove, Annotations: s.Annotations, CapAdd: s.CapAdd, CapDrop: s.CapDrop, Init: s.Init,
		CgroupnsMode: container.CgroupnsMode(s.Cgroup), ReadonlyRootfs: s.ReadOnly, RestartPolicy: restart, ShmSize: int64(s.ShmSize),
		Sysctls: s.Sysctls, Resources: resources(s), VolumeDriver: s.VolumeDriver, DNS: dns, DNSSearch: s.DNSSearch, DNSOptions: s.DNSOpts,
		ExtraHosts: s.ExtraHosts.AsList(":"), StorageOpt: s.StorageOpt,
		UsernsMode: container.UsernsMode(s.UserNSMode), UTSMode: container.UTSMode(s.Uts), Privileged: s.Privileged,
		IpcMode: container.IpcMode(s.Ipc), PidMode: container.PidMode(s.Pid), VolumesFrom: s.VolumesFrom,
		Tmpfs: tmpfs(s.Tmpfs), Runtime: s.Runtime, LogConfig: logging(s), GroupAdd: s.GroupAdd, OomScoreAdj: int(s.OomScoreAdj),
	}
	if s.NetworkMode == "bridge" || s.NetworkMode == "default" {
		h.Links = r.links() // elsewhere they are the endpoints'
	}
	if err := r.security(h); err != nil {
		return nil, err
	}
	if r.OneOff {
		h.RestartPolicy = container.RestartPolicy{}
	}
	return h, nil
}

// ServiceOf is the service that an entry of links or volumes_from names, "" for one that
// names a container.
func ServiceOf(entry string) string {
	if strings.HasPrefix(entry, types.ContainerPrefix) {
		return ""
	}
	service, _, _ := strings.Cut(entry, ":")
	return service
}

// restartPolicy is what deploy.restart_policy comes to, or else the attribute restart.
func restartPolicy(s types.ServiceConfig) (container.RestartPolicy, error) {
	if s.Deploy != nil && s.Deploy.RestartPolicy != nil {
		return deployedRestart(s.Deploy.RestartPolicy)
	}
	name, count, _ := strings.Cut(s.Restart, ":")
	p := container.RestartPolicy{Name: container.RestartPolicyMode(name)}
	if count != "" {
		n, err := strconv.Atoi(count)
		if err != nil {
			return p, fmt.Errorf("restart: %q: the number of attempts must be a whole number", s.Restart)
		}
		p.MaximumRetryCount = n
	}
	return p, nil
}

func deployedRestart(r *types.RestartPolicy) (container.RestartPolicy, error) {
	p := container.RestartPolicy{}
	switch r.Condition {
	case "none", "no":
		p.Name = container.RestartPolicyDisabled
	case "on-failure":
		p.Name = container.RestartPolicyOnFailure
	case "unless-stopped":
		p.Name = container.RestartPolicyUnlessStopped
	case "", "any", "always":
		p.Name = container.RestartPolicyAlways
	default:
		return p, fmt.Errorf("deploy.restart_policy: unknown condition %q", r.Condition)
	}
	if r.MaxAttempts != nil && p.Name == container.RestartPolicyOnFailure {
		p.MaximumRetryCount = int(*r.MaxAttempts)
	}
	return p, nil
}

func logging(s types.ServiceConfig) container.LogConfig {
	if s.Logging == nil {
		return container.LogConfig{}
	}
	return container.LogConfig{Type: s.Logging.Driver, Config: s.Logging.Options}
}

func tmpfs(list []string) map[string]string {
	if len(list) == 0 {
		return nil
	}
	m := make(map[string]string, len(list))
	for _, entry := range list {
		path, options, _ := strings.Cut(entry, ":")
		m[path] = options
	}
	return m
}

func addresses(attribute string, list []string) ([]netip.Addr, error) {
	var found []netip.Addr
	for _, text := range list {
		a, err := netip.ParseAddr(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %q is no address", attribute, text)
		}
		found = append(found, a)
	}
	return found, nil
}

// resources are the limits of the service itself, over which those of deploy win.
func resources(s types.ServiceConfig) container.Resources {
	r := container.Resources{
		CgroupParent: s.CgroupParent, Memory: int64(s.MemLimit), MemorySwap: int64(s.MemSwapLimit), MemoryReservation: int64(s.MemReservation),
		CPUShares: s.CPUShares, CPUPeriod: s.CPUPeriod, CPUQuota: s.CPUQuota, CPURealtimePeriod: s.CPURTPeriod, CPURealtimeRuntime: s.CPURTRuntime,
		CpusetCpus: s.CPUSet, NanoCPUs: int64(float64(s.CPUS) * 1e9), DeviceCgroupRules: s.DeviceCgroupRules,
	}
	if s.MemSwappiness != 0 {
		n := int64(s.MemSwappiness)
		r.MemorySwappiness = &n
	}
	if s.PidsLimit != 0 {
		r.PidsLimit = &s.PidsLimit
	}
	if s.OomKillDisable {
		r.OomKillDisable = &s.OomKillDisable
	}
	for _, name := range slices.Sorted(maps.Keys(s.Ulimits)) {
		u := s.Ulimits[name]
		soft, hard := u.Soft, u.Hard
		if u.Single != 0 {
			soft, hard = u.Single, u.Single
		}
		r.Ulimits = append(r.Ulimits, &units.Ulimit{Name: name, Soft: int64(soft), Hard: int64(hard)})
	}
	for _, d := range s.Devices {
		if d.Source == d.Target && strings.Contains(d.Source, "=") {
			r.DeviceRequests = append(r.DeviceRequests, container.DeviceRequest{Driver: "cdi", DeviceIDs: []string{d.Source}})
			continue
		}
		r.Devices = append(r.Devices, container.DeviceMapping{PathOnHost: d.Source, PathInContainer: d.Target, CgroupPermissions: d.Permissions})
	}
	for _, g := range s.Gpus {
		r.DeviceRequests = append(r.DeviceRequests, deviceRequest(g, "gpu"))
	}
	blkio(&r, s.BlkioConfig)
	deploy(&r, s.Deploy)
	return r
}

func blkio(r *container.Resources, b *types.BlkioConfig) {
	if b == nil {
		return
	}
	r.BlkioWeight = b.Weight
	for _, d := range b.WeightDevice {
		r.BlkioWeightDevice = append(r.BlkioWeightDevice, &blkiodev.WeightDevice{Path: d.Path, Weight: d.Weight})
	}
	throttle := func(list []types.ThrottleDevice) (out []*blkiodev.ThrottleDevice) {
		for _, d := range list {
			out = append(out, &blkiodev.ThrottleDevice{Path: d.Path, Rate: uint64(d.Rate)})
		}
		return out
	}
	r.BlkioDeviceReadBps, r.BlkioDeviceWriteBps = throttle(b.DeviceReadBps), throttle(b.DeviceWriteBps)
	r.BlkioDeviceReadIOps, r.BlkioDeviceWriteIOps = throttle(b.DeviceReadIOps), throttle(b.DeviceWriteIOps)
}

// deploy applies the limits and reservations of deploy.resources.
func deploy(r *container.Resources, d *types.DeployConfig) {
	if d == nil {
		return
	}
	if l := d.Resources.Limits; l != nil {
		if l.MemoryBytes != 0 {
			r.Memory = int64(l.MemoryBytes)
		}
		if l.NanoCPUs != 0 {
			r.NanoCPUs = int64(float64(l.NanoCPUs.Value()) * 1e9)
		}
		if l.Pids > 0 {
			r.PidsLimit = &l.Pids
		}
	}
	if v := d.Resources.Reservations; v != nil {
		if v.MemoryBytes != 0 {
			r.MemoryReservation = int64(v.MemoryBytes)
		}
		for _, dev := range v.Devices {
			r.DeviceRequests = append(r.DeviceRequests, deviceRequest(dev, ""))
		}
	}
}

func deviceRequest(d types.DeviceRequest, capability string) container.DeviceRequest {
	capabilities := d.Capabilities
	if capability != "" && !slices.Contains(capabilities, capability) {
		capabilities = append(slices.Clone(capabilities), capability)
	}
	return container.DeviceRequest{
		Driver: d.Driver, Count: int(d.Count), DeviceIDs: d.IDs, Capabilities: [][]string{capabilities}, Options: d.Options,
	}
}

// ports are what is exposed and what is published.
func ports(s types.ServiceConfig) (network.PortSet, network.PortMap, error) {
	exposed, bindings := network.PortSet{}, network.PortMap{}
	for _, text := range s.Expose {
		first, last, protocol, err := portRange(text)
		if err != nil {
			return nil, nil, fmt.Errorf("expose: %w", err)
		}
		for n := first; ; n++ {
			p, err := network.ParsePort(strconv.Itoa(int(n)) + "/" + protocol)
			if err != nil {
				return nil, nil, fmt.Errorf("expose: %w", err)
			}
			exposed[p] = struct{}{}
			if n == last {
				break
			}
		}
	}
	for _, c := range s.Ports {
		p, err := network.ParsePort(strconv.Itoa(int(c.Target)) + "/" + c.Protocol)
		if err != nil {
			return nil, nil, fmt.Errorf("ports: %w", err)
		}
		b := network.PortBinding{HostPort: c.Published}
		if c.HostIP != "" {
			if b.HostIP, err = netip.ParseAddr(strings.Trim(c.HostIP, "[]")); err != nil {
				return nil, nil, fmt.Errorf("ports: host_ip %q is no address", c.HostIP)
			}
		}
		exposed[p] = struct{}{}
		bindings[p] = append(bindings[p], b)
	}
	return exposed, bindings, nil
}

// portRange reads "80", "80/udp" and "80-90".
func portRange(text string) (first, last uint16, protocol string, err error) {
	numbers, protocol, ok := strings.Cut(text, "/")
	if !ok {
		protocol = "tcp"
	}
	from, to, ok := strings.Cut(numbers, "-")
	if !ok {
		to = from
	}
	a, errA := strconv.ParseUint(from, 10, 16)
	b, errB := strconv.ParseUint(to, 10, 16)
	if errA != nil || errB != nil || a == 0 || b < a {
		return 0, 0, "", fmt.Errorf("invalid port %q", text)
	}
	return uint16(a), uint16(b), protocol, nil
}
