package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"reflect"
	"strings"

	"github.com/docker/cli/opts"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
)

// request is what is sent to create a container.
type request struct {
	config     *container.Config
	host       *container.HostConfig
	networking *network.NetworkingConfig
}

// request turns the flags and IMAGE [COMMAND] [ARG...] into a request.
func (f *containerFlags) request(args []string) (*request, error) {
	if err := f.refuse(); err != nil {
		return nil, err
	}
	if f.swappiness != -1 && (f.swappiness < 0 || f.swappiness > 100) {
		return nil, fmt.Errorf("invalid value: %d. Valid memory swappiness range is 0-100", f.swappiness)
	}
	binds, anonymous, err := parseVolumes(f.volumes)
	if err != nil {
		return nil, err
	}
	exposed, bindings, err := parsePublished(f.publish)
	if err != nil {
		return nil, err
	}
	if err := exposePorts(exposed, f.expose); err != nil {
		return nil, err
	}
	config, err := f.config(args)
	if err != nil {
		return nil, err
	}
	config.ExposedPorts, config.Volumes = exposed, anonymous
	host, err := f.hostConfig()
	if err != nil {
		return nil, err
	}
	host.Binds, host.PortBindings = binds, bindings
	endpoints, err := f.endpoints()
	if err != nil {
		return nil, err
	}
	return &request{config: config, host: host, networking: &network.NetworkingConfig{EndpointsConfig: endpoints}}, nil
}

func (f *containerFlags) attached(stream string) bool {
	for _, s := range f.attach {
		if s == stream {
			return true
		}
	}
	return len(f.attach) == 0 && stream != "stdin"
}

func (f *containerFlags) config(args []string) (*container.Config, error) {
	env, err := opts.ReadKVEnvStrings(f.envFile, f.env)
	if err != nil {
		return nil, fmt.Errorf("--env-file: %w", err)
	}
	labels, err := opts.ReadKVStrings(f.labelFile, f.labels)
	if err != nil {
		return nil, fmt.Errorf("--label-file: %w", err)
	}
	health, err := f.healthConfig()
	if err != nil {
		return nil, err
	}
	c := &container.Config{
		Image: args[0], Hostname: f.hostname, Domainname: f.domainname, User: f.user, WorkingDir: f.workdir,
		Tty: f.tty, OpenStdin: f.interactive,
		AttachStdin: f.attached("stdin") || f.interactive, AttachStdout: f.attached("stdout"), AttachStderr: f.attached("stderr"),
		Env: env, Labels: opts.ConvertKVStringsToMap(labels), StopSignal: f.stopSignal, Healthcheck: health,
	}
	if len(args) > 1 {
		c.Cmd = args[1:]
	}
	switch {
	case f.entrypoint != "":
		c.Entrypoint = []string{f.entrypoint}
	case f.fs.Changed("entrypoint"):
		c.Entrypoint = []string{""} // forget the image's
	}
	if f.fs.Changed("stop-timeout") {
		c.StopTimeout = &f.stopTimeout
	}
	// Input that is attached ends when the client that types it goes away.
	c.StdinOnce = c.OpenStdin && c.AttachStdin
	return c, nil
}

func (f *containerFlags) hostConfig() (*container.HostConfig, error) {
	restart, err := opts.ParseRestartPolicy(f.restart)
	if err != nil {
		return nil, err
	}
	if f.rm && !restart.IsNone() {
		return nil, errors.New("conflicting options: cannot specify both --restart and --rm")
	}
	if f.logDriver == "none" && len(f.logOpts) > 0 {
		return nil, fmt.Errorf("invalid logging opts for driver %s", f.logDriver)
	}
	security, masked, readonly, err := parseSecurityOpts(f.securityOpt)
	if err != nil {
		return nil, err
	}
	storage := map[string]string{}
	for _, o := range f.storageOpts {
		k, v, ok := strings.Cut(o, "=")
		if !ok {
			return nil, fmt.Errorf("invalid storage option: %q: give it as NAME=VALUE", o)
		}
		storage[k] = v
	}
	h := &container.HostConfig{
		ContainerIDFile: f.cidFile, OomScoreAdj: f.oomScoreAdj, AutoRemove: f.rm, Privileged: f.privileged,
		Links: f.links, PublishAllPorts: f.publishAll,
		DNS: addresses(f.dns), DNSSearch: orEmpty(f.dnsSearch), DNSOptions: orEmpty(f.dnsOptions), ExtraHosts: f.extraHosts,
		VolumesFrom: f.volumesFrom, VolumeDriver: f.volumeDriver, NetworkMode: container.NetworkMode(f.network.NetworkMode()),
		IpcMode: container.IpcMode(f.ipc), PidMode: container.PidMode(f.pid), UTSMode: container.UTSMode(f.uts),
		UsernsMode: container.UsernsMode(f.userns), CgroupnsMode: container.CgroupnsMode(f.cgroupns),
		CapAdd: f.capAdd, CapDrop: f.capDrop, GroupAdd: f.groupAdd, RestartPolicy: restart,
		SecurityOpt: security, MaskedPaths: masked, ReadonlyPaths: readonly,
		StorageOpt: storage, ReadonlyRootfs: f.readOnly, Isolation: container.Isolation(f.isolation), Runtime: f.runtime,
		LogConfig: container.LogConfig{Type: f.logDriver, Config: opts.ConvertKVStringsToMap(f.logOpts)},
		ShmSize:   f.shmSize.Value(), Tmpfs: parseTmpfs(f.tmpfs), Sysctls: f.sysctls.GetAll(), Mounts: f.mounts.Value(),
		Annotations: f.allAnnotations(), Umask: f.umask.Value(),
	}
	switch {
	case !h.PidMode.Valid():
		return nil, errors.New("--pid: invalid PID mode")
	case !h.UTSMode.Valid():
		return nil, errors.New("--uts: invalid UTS mode")
	case !h.UsernsMode.Valid():
		return nil, errors.New("--userns: invalid USER mode")
	case !h.CgroupnsMode.Valid():
		return nil, errors.New("--cgroupns: invalid CGROUP mode")
	}
	if f.fs.Changed("init") {
		h.Init = &f.init
	}
	h.Resources, err = f.resources()
	return h, err
}

func (f *containerFlags) resources() (container.Resources, error) {
	r := container.Resources{
		CgroupParent: f.cgroupParent, Memory: f.memory.Value(), MemoryReservation: f.memoryReservation.Value(), MemorySwap: f.memorySwap.Value(),
		MemorySwappiness: &f.swappiness, OomKillDisable: &f.oomKillDisable, NanoCPUs: f.cpus.Value(), CPUShares: f.cpuShares,
		CPUPeriod: f.cpuPeriod, CPUQuota: f.cpuQuota, CPURealtimePeriod: f.cpuRTPeriod, CPURealtimeRuntime: f.cpuRTRuntime,
		CpusetCpus: f.cpusetCPUs, CpusetMems: f.cpusetMems, PidsLimit: &f.pidLimit, BlkioWeight: f.blkioWeight,
		BlkioWeightDevice: f.weightDevices.GetList(), BlkioDeviceReadBps: f.deviceReadBps.GetList(), BlkioDeviceWriteBps: f.deviceWriteBps.GetList(),
		BlkioDeviceReadIOps: f.deviceReadIOps.GetList(), BlkioDeviceWriteIOps: f.deviceWriteIOps.GetList(),
		Ulimits: f.ulimits.GetList(), DeviceCgroupRules: f.deviceRules, Devices: []container.DeviceMapping{},
	}
	var cdi []string
	for _, d := range f.devices {
		if isCDIDevice(d) {
			cdi = append(cdi, d)
			continue
		}
		m, err := parseDevice(d)
		if err != nil {
			return r, err
		}
		r.Devices = append(r.Devices, m)
	}
	r.DeviceRequests = f.gpus.Value()
	if len(cdi) > 0 {
		r.DeviceRequests = append(r.DeviceRequests, container.DeviceRequest{Driver: "cdi", DeviceIDs: cdi})
	}
	return r, nil
}

// parseSecurityOpts reads the profile that seccomp=FILE names, whose content is
// sent, and takes out systempaths=unconfined, which is not an option to the engine
// but empty lists of masked and read-only paths.
func parseSecurityOpts(in []string) (out, masked, readonly []string, err error) {
	for _, opt := range in {
		if opt == "systempaths=unconfined" {
			masked, readonly = []string{}, []string{}
			continue
		}
		k, v, ok := strings.Cut(opt, "=")
		if !ok && k != "no-new-privileges" {
			k, v, ok = strings.Cut(opt, ":")
		}
		if (!ok || v == "") && k != "no-new-privileges" {
			return nil, nil, nil, fmt.Errorf("invalid --security-opt: %q", opt)
		}
		if k == "seccomp" && v != "unconfined" && v != "builtin" {
			profile, err := os.ReadFile(v)
			if err != nil {
				return nil, nil, nil, fmt.Errorf("opening seccomp profile (%s) failed: %w", v, err)
			}
			var compact bytes.Buffer
			if err := json.Compact(&compact, profile); err != nil {
				return nil, nil, nil, fmt.Errorf("compacting json for seccomp profile (%s) failed: %w", v, err)
			}
			opt = "seccomp=" + compact.String()
		}
		out = append(out, opt)
	}
	return out, masked, readonly, nil
}

// endpoints are the container's attachments. The flags --ip, --network-alias, --link
// and so on are those of the first network.
func (f *containerFlags) endpoints() (map[string]*network.EndpointSettings, error) {
	if f.macAddress != "" {
		if _, err := net.ParseMAC(strings.TrimSpace(f.macAddress)); err != nil {
			return nil, fmt.Errorf("%s is not a valid mac address", f.macAddress)
		}
	}
	attachments := f.network.Value()
	if len(attachments) == 0 {
		attachments = []opts.NetworkAttachmentOpts{{Target: "default"}}
	}
	out := map[string]*network.EndpointSettings{}
	var userDefined, other bool
	for i, n := range attachments {
		if container.NetworkMode(n.Target).IsUserDefined() {
			userDefined = true
		} else {
			other = true
		}
		if i == 0 {
			if err := f.applyTo(&n); err != nil {
				return nil, err
			}
		}
		ep, err := endpointSettings(n)
		if err != nil {
			return nil, err
		}
		if _, ok := out[n.Target]; ok {
			return nil, fmt.Errorf("network %q is specified multiple times", n.Target)
		}
		if len(f.network.Value()) == 1 && reflect.ValueOf(*ep).IsZero() {
			continue // nothing to say about it: NetworkMode says it all
		}
		out[n.Target] = ep
	}
	if userDefined && other {
		return nil, errors.New("conflicting options: cannot attach both user-defined and non-user-defined network-modes")
	}
	return out, nil
}

func (f *containerFlags) applyTo(n *opts.NetworkAttachmentOpts) error {
	conflict := func(flag, what string) error {
		return fmt.Errorf("conflicting options: cannot specify both --%s and per-network %s", flag, what)
	}
	switch {
	case len(n.Aliases) > 0 && len(f.aliases) > 0:
		return conflict("network-alias", "alias")
	case len(n.Links) > 0 && len(f.links) > 0:
		return conflict("link", "links")
	case n.IPv4Address.IsValid() && f.ip != nil:
		return conflict("ip", "IPv4 address")
	case n.IPv6Address.IsValid() && f.ip6 != nil:
		return conflict("ip6", "IPv6 address")
	case n.MacAddress != "" && f.macAddress != "":
		return conflict("mac-address", "MAC address")
	case len(n.LinkLocalIPs) > 0 && len(f.linkLocal) > 0:
		return conflict("link-local-ip", "link-local IP addresses")
	}
	n.Aliases = append(n.Aliases, f.aliases...)
	if container.NetworkMode(n.Target).IsUserDefined() {
		n.Links = append(n.Links, f.links...) // an alias there; a legacy link on the default bridge
	}
	if a, ok := netip.AddrFromSlice(f.ip.To4()); ok {
		n.IPv4Address = a
	}
	if a, ok := netip.AddrFromSlice(f.ip6.To16()); ok {
		n.IPv6Address = a
	}
	if f.macAddress != "" {
		n.MacAddress = f.macAddress
	}
	n.LinkLocalIPs = append(n.LinkLocalIPs, addresses(f.linkLocal)...)
	return nil
}

func endpointSettings(n opts.NetworkAttachmentOpts) (*network.EndpointSettings, error) {
	if strings.TrimSpace(n.Target) == "" {
		return nil, errors.New("no name set for network")
	}
	if !container.NetworkMode(n.Target).IsUserDefined() {
		if len(n.Aliases) > 0 {
			return nil, errors.New("network-scoped aliases are only supported for user-defined networks")
		}
		if len(n.Links) > 0 {
			return nil, errors.New("links are only supported for user-defined networks")
		}
	}
	ep := &network.EndpointSettings{GwPriority: n.GwPriority}
	if len(n.Aliases) > 0 {
		ep.Aliases = n.Aliases
	}
	if len(n.DriverOpts) > 0 {
		ep.DriverOpts = n.DriverOpts
	}
	if len(n.Links) > 0 {
		ep.Links = n.Links
	}
	if n.IPv4Address.IsValid() || n.IPv6Address.IsValid() || len(n.LinkLocalIPs) > 0 {
		ep.IPAMConfig = &network.EndpointIPAMConfig{IPv4Address: n.IPv4Address, IPv6Address: n.IPv6Address, LinkLocalIPs: n.LinkLocalIPs}
	}
	if n.MacAddress != "" {
		mac, err := net.ParseMAC(strings.TrimSpace(n.MacAddress))
		if err != nil {
			return nil, fmt.Errorf("%s is not a valid mac address", n.MacAddress)
		}
		ep.MacAddress = network.HardwareAddr(mac)
	}
	return ep, nil
}

// addresses parses what the flags have validated.
func addresses(in []string) []netip.Addr {
	var out []netip.Addr
	for _, s := range in {
		if a, err := netip.ParseAddr(s); err == nil {
			out = append(out, a)
		}
	}
	return out
}

func orEmpty(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}
