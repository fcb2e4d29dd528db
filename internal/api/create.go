package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"

	"github.com/cleatlabs/cleat/internal/engine"
	"github.com/cleatlabs/cleat/internal/failure"
)

func (h *Handler) containerCreate(ctx context.Context, w http.ResponseWriter, q *request) error {
	body, err := readBody(q.Request)
	if err != nil {
		return err
	}
	req, warnings, err := h.decodeCreate(body, q)
	if err != nil {
		return err
	}
	id, more, err := h.deps.Lifecycle.Create(context.WithoutCancel(ctx), *req)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusCreated, container.CreateResponse{
		ID:       id,
		Warnings: list(append(more, warnings...)),
	})
}

// decodeCreate reads a create request of any version and gives it the shape of
// the newest one.
func (h *Handler) decodeCreate(body []byte, q *request) (*engine.CreateRequest, []string, error) {
	var sent createBody
	if err := decodeJSON(body, &sent); err != nil {
		return nil, nil, err
	}
	decoded := sent.request()
	if decoded.Config == nil {
		return nil, nil, failure.Invalid("config cannot be empty in order to create a container")
	}
	req := &engine.CreateRequest{
		Name:             q.query.Get("name"),
		Config:           decoded.Config,
		HostConfig:       decoded.HostConfig,
		NetworkingConfig: decoded.NetworkingConfig,
	}
	if req.HostConfig == nil {
		req.HostConfig = &container.HostConfig{}
	}
	if req.NetworkingConfig == nil {
		req.NetworkingConfig = &network.NetworkingConfig{}
	}
	endpoints := object(req.NetworkingConfig.EndpointsConfig)
	req.NetworkingConfig.EndpointsConfig = endpoints
	for name, endpoint := range endpoints {
		if endpoint == nil {
			endpoints[name] = &network.EndpointSettings{}
		}
	}
	defaultNetwork(req.HostConfig, endpoints)

	var err error
	if req.Platform, err = q.platform(41); err != nil {
		return nil, nil, err
	}
	if err := dropNewer(req, q.version); err != nil {
		return nil, nil, err
	}
	if err := checkMounts(req.HostConfig.Mounts, q.version); err != nil {
		return nil, nil, err
	}
	req.ShallowReadOnly = q.version.below(44)
	h.oldDefaults(req.HostConfig, q.version)
	warnings, err := carryOver(body, req, q.version)
	return req, warnings, err
}

// defaultNetwork resolves the name by which clients leave the choice of the
// network to the engine.
func defaultNetwork(host *container.HostConfig, endpoints map[string]*network.EndpointSettings) {
	if host.NetworkMode != "" && !host.NetworkMode.IsDefault() {
		return
	}
	host.NetworkMode = network.NetworkBridge
	if endpoint, given := endpoints[network.NetworkDefault]; given {
		delete(endpoints, network.NetworkDefault)
		endpoints[network.NetworkBridge] = endpoint
	}
}

// dropNewer removes from a request the fields that its version does not have:
// a client that sends them talks to an engine that would not have known them.
// The few that a client relies on for safety are refused instead, as Docker
// does.
func dropNewer(req *engine.CreateRequest, asked version) error {
	host := req.HostConfig
	if asked.below(25) {
		host.AutoRemove = false
	}
	if asked.below(42) {
		host.ConsoleSize = [2]uint{}
	}
	if asked.below(43) {
		host.Annotations = nil
	}
	if asked.below(44) {
		if req.Config.Healthcheck != nil {
			req.Config.Healthcheck.StartInterval = 0
		}
		if names := slices.Sorted(maps.Keys(req.NetworkingConfig.EndpointsConfig)); len(names) > 1 {
			return failure.Invalid("Container cannot be created with multiple network endpoints: %s", strings.Join(names, ", "))
		}
	}
	if asked.below(48) {
		for _, endpoint := range req.NetworkingConfig.EndpointsConfig {
			endpoint.GwPriority = 0
		}
	}
	if asked.below(56) {
		host.Umask = nil
	}
	return nil
}

// checkMounts applies the rules that depend on the version to the mounts, which
// it changes in place.
func checkMounts(mounts []mount.Mount, asked version) error {
	for i := range mounts {
		m := &mounts[i]
		if asked.below(42) {
			// Options of another type were not refused then, and had no effect.
			if m.Type != mount.TypeVolume {
				m.VolumeOptions = nil
			}
			if m.Type != mount.TypeTmpfs {
				m.TmpfsOptions = nil
			}
		}
		if err := checkMountOptions(m); err != nil && asked.from(42) {
			return err
		}
		if err := checkMountVersion(m, asked); err != nil {
			return err
		}
	}
	return nil
}

func checkMountOptions(m *mount.Mount) error {
	for _, o := range []struct {
		name  string
		given bool
		of    mount.Type
	}{
		{"VolumeOptions", m.VolumeOptions != nil, mount.TypeVolume},
		{"BindOptions", m.BindOptions != nil, mount.TypeBind},
		{"TmpfsOptions", m.TmpfsOptions != nil, mount.TypeTmpfs},
	} {
		if o.given && m.Type != o.of {
			return failure.Invalid("%s must not be specified on mount type %q", o.name, m.Type)
		}
	}
	return nil
}

func checkMountVersion(m *mount.Mount, asked version) error {
	if bind := m.BindOptions; bind != nil {
		if asked.below(40) {
			bind.NonRecursive = false
		}
		if asked.below(42) {
			bind.CreateMountpoint = false
		}
		if asked.below(44) && bind.ReadOnlyForceRecursive {
			return failure.Invalid("BindOptions.ReadOnlyForceRecursive needs API v1.44 or newer")
		}
	}
	if m.Type == mount.TypeBind && m.ReadOnly && asked.below(44) {
		// Read-only was not recursive then.
		if m.BindOptions == nil {
			m.BindOptions = &mount.BindOptions{}
		}
		m.BindOptions.ReadOnlyNonRecursive = true
	}
	if m.VolumeOptions != nil && m.VolumeOptions.Subpath != "" && asked.below(45) {
		return failure.Invalid("VolumeOptions.Subpath needs API v1.45 or newer")
	}
	if m.TmpfsOptions != nil && asked.below(46) {
		m.TmpfsOptions.Options = nil
	}
	if m.Type == mount.TypeImage && asked.below(48) {
		return failure.Invalid("Mount type \"Image\" needs API v1.48 or newer")
	}
	return nil
}

// oldDefaults fills in what older clients leave out and mean differently.
func (h *Handler) oldDefaults(host *container.HostConfig, asked version) {
	if asked.below(40) && host.IpcMode.IsEmpty() {
		host.IpcMode = container.IPCModeShareable
	}
	if asked.below(41) && host.CgroupnsMode.IsEmpty() && h.deps.CgroupV1 {
		host.CgroupnsMode = container.CgroupnsModeHost
	}
	if host.PidsLimit != nil && *host.PidsLimit <= 0 {
		host.PidsLimit = nil // all of these say unlimited
	}
}

// carryOver moves what clients may still say in an old place to the new one.
func carryOver(body []byte, req *engine.CreateRequest, asked version) (warnings []string, err error) {
	note := func(warning string, e error) {
		if warning != "" {
			warnings = append(warnings, warning)
		}
		err = errors.Join(err, e)
	}
	note(volumeDriverWarning(req.HostConfig, asked), nil)
	note(kernelMemoryWarning(body))
	if asked.below(52) {
		var legacy struct{ MacAddress network.HardwareAddr }
		if err := decodeJSON(body, &legacy); err != nil {
			return nil, err
		}
		note(carryMACAddress(legacy.MacAddress, req, asked))
	}
	note(carrySysctls(req, asked))
	note(fillPortBindings(req.HostConfig, asked), nil)
	return warnings, err
}

// kernelMemoryWarning tells those who ask for a limit that requests had below 1.42 and
// that kernels have dropped.
func kernelMemoryWarning(body []byte) (string, error) {
	if !bytes.Contains(body, []byte(`"KernelMemory"`)) {
		return "", nil
	}
	var asked struct{ HostConfig struct{ KernelMemory int64 } }
	if err := decodeJSON(body, &asked); err != nil || asked.HostConfig.KernelMemory <= 0 {
		return "", err
	}
	return "The kernel memory limit (--kernel-memory) is discarded: kernels do not have it any more. Use --memory", nil
}

func volumeDriverWarning(host *container.HostConfig, asked version) string {
	if host.VolumeDriver == "" || asked.below(48) {
		return ""
	}
	for _, m := range host.Mounts {
		named := m.VolumeOptions != nil && m.VolumeOptions.DriverConfig != nil && m.VolumeOptions.DriverConfig.Name != ""
		if m.Type == mount.TypeVolume && !named {
			return "WARNING: the container-wide volume-driver configuration is ignored for volumes specified via 'mount'. Use '--mount type=volume,volume-driver=...' instead"
		}
	}
	return ""
}

// carryMACAddress applies the container-wide MAC address, which requests had
// below 1.52, to the endpoint of the main network.
func carryMACAddress(mac network.HardwareAddr, req *engine.CreateRequest, asked version) (string, error) {
	mode := req.HostConfig.NetworkMode
	if asked.below(44) {
		if len(mac) == 0 {
			for _, endpoint := range req.NetworkingConfig.EndpointsConfig {
				endpoint.MacAddress = nil // only the container-wide one was known
			}
			return "", nil
		}
		if !mode.IsBridge() && !mode.IsUserDefined() {
			return "", failure.Invalid("conflicting options: mac-address and the network mode")
		}
		endpoint, err := mainEndpoint(req, asked)
		if err == nil {
			endpoint.MacAddress = mac
		}
		return "", err
	}
	if len(mac) == 0 {
		return "", nil
	}
	if mode.IsBridge() || mode.IsUserDefined() {
		endpoint, err := mainEndpoint(req, asked)
		if err != nil {
			return "", failure.Invalid("unable to migrate container-wide MAC address to a specific network: %w", err)
		}
		if len(endpoint.MacAddress) != 0 && !slices.Equal(endpoint.MacAddress, mac) {
			return "", failure.Invalid("the container-wide MAC address must match the endpoint-specific MAC address for the main network, or be left empty")
		}
		endpoint.MacAddress = mac
	}
	return "The container-wide MacAddress field is now deprecated. It should be specified in EndpointsConfig instead.", nil
}

// endpointSysctls is the driver option that sets an interface's sysctls.
const endpointSysctls = "com.docker.network.endpoint.sysctls"

// carrySysctls moves the sysctls of eth0 to the endpoint of the main network,
// as requests below 1.48 expect. The interface has no name before it exists.
func carrySysctls(req *engine.CreateRequest, asked version) (string, error) {
	if !req.HostConfig.NetworkMode.IsPrivate() {
		return "", nil
	}
	var moved, settings []string
	for _, key := range slices.Sorted(maps.Keys(req.HostConfig.Sysctls)) {
		parts := strings.SplitN(key, ".", 5)
		if len(parts) != 5 || parts[0] != "net" || !strings.HasPrefix(parts[3], "eth") {
			continue
		}
		if asked.from(48) {
			return "", failure.Invalid("interface specific sysctl setting %q must be supplied using driver option '%s'", key, endpointSysctls)
		}
		if parts[3] != "eth0" {
			return "", failure.Invalid("unable to determine network endpoint for sysctl %s, use driver option '%s' to set per-interface sysctls", key, endpointSysctls)
		}
		moved = append(moved, key)
		settings = append(settings, fmt.Sprintf("net.%s.%s.IFNAME.%s=%s", parts[1], parts[2], parts[4], req.HostConfig.Sysctls[key]))
	}
	if len(moved) == 0 {
		return "", nil
	}
	endpoint, err := mainEndpoint(req, asked)
	if err != nil {
		return "", failure.Invalid("unable to find a network for sysctl %s: %w", moved[0], err)
	}
	endpoint.DriverOpts = object(endpoint.DriverOpts)
	if given := endpoint.DriverOpts[endpointSysctls]; given != "" {
		settings = append(settings, given) // the endpoint's own settings win
	}
	option := strings.Join(settings, ",")
	endpoint.DriverOpts[endpointSysctls] = option
	for _, key := range moved {
		delete(req.HostConfig.Sysctls, key)
	}
	return fmt.Sprintf("Migrated sysctl %q to DriverOpts{%q:%q}.", strings.Join(moved, ","), endpointSysctls, option), nil
}

// fillPortBindings makes an empty list of bindings one binding to a free port,
// which is what it always meant.
func fillPortBindings(host *container.HostConfig, asked version) string {
	var empty []string
	for port, bindings := range host.PortBindings {
		if len(bindings) == 0 {
			host.PortBindings[port] = []network.PortBinding{{}}
			empty = append(empty, port.String())
		}
	}
	if len(empty) == 0 || asked.below(52) {
		return ""
	}
	slices.Sort(empty)
	return fmt.Sprintf("Following container port(s) have an empty list of port-bindings: %s. Such bindings will be discarded in a future version.", strings.Join(empty, ", "))
}

// mainEndpoint finds, or makes, the endpoint settings of the container's main
// network.
func mainEndpoint(req *engine.CreateRequest, asked version) (*network.EndpointSettings, error) {
	endpoints := req.NetworkingConfig.EndpointsConfig
	name := req.HostConfig.NetworkMode.NetworkName()
	if len(endpoints) == 0 {
		endpoints[name] = &network.EndpointSettings{}
	}
	if asked.below(44) {
		for _, endpoint := range endpoints {
			return endpoint, nil // there is only one
		}
	}
	// The mode and the keys may name one network in different ways. To add a
	// second entry for it would lose one of them.
	endpoint, found := endpoints[name]
	if !found {
		return nil, failure.Invalid("HostConfig.NetworkMode must match the identity of a network in NetworkSettings.Networks")
	}
	return endpoint, nil
}
