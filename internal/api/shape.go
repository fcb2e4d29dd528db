package api

import (
	"encoding/json"
	"net/netip"
	"slices"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/storage"
)

// summariesFor gives a container list the shape of an API version.
func summariesFor(containers []*container.Summary, asked version) []*container.Summary {
	for _, c := range containers {
		c.Names = list(c.Names)
		c.Ports = list(c.Ports)
		c.Labels = object(c.Labels)
		c.Mounts = list(c.Mounts)
		if c.NetworkSettings == nil {
			c.NetworkSettings = &container.NetworkSettingsSummary{}
		}
		c.NetworkSettings.Networks = object(c.NetworkSettings.Networks)
		if asked.below(46) {
			c.HostConfig.Annotations = nil
		}
		if asked.below(48) {
			c.ImageManifestDescriptor = nil
		}
		switch {
		case asked.below(52):
			c.Health = nil
		case c.Health == nil:
			c.Health = &container.HealthSummary{Status: container.NoHealthcheck}
		}
	}
	return list(containers)
}

// inspectFor gives the answer of inspect the shape of an API version. Who has asked for none gets the newest with the
// addresses at the top of NetworkSettings, which dockerd has dropped: scripts with curl and programs on dockerode, which
// were written to no version, look for them there.
func inspectFor(in *container.InspectResponse, asked version, unasked bool) any {
	c := *in
	c.Args = list(c.Args)
	c.Mounts = list(c.Mounts)
	config := container.Config{}
	if c.Config != nil {
		config = *c.Config
	}
	config.Labels = object(config.Labels) // programs take its keys
	c.Config = &config
	settings := container.NetworkSettings{}
	if c.NetworkSettings != nil {
		settings = *c.NetworkSettings
	}
	settings.Ports = object(settings.Ports)
	settings.Networks = object(settings.Networks)
	if asked.below(45) {
		settings.Networks = withShortAliases(&c, settings.Networks)
	}
	c.NetworkSettings = &settings
	if asked.below(48) {
		c.ImageManifestDescriptor = nil
	}
	if unasked {
		return &inspectUnasked{InspectResponse: &c, NetworkSettings: newNetworkSettingsBelow152(&settings)}
	}
	if asked.from(52) {
		return &c
	}
	if c.GraphDriver == nil && c.Storage != nil && c.Storage.RootFS != nil && c.Storage.RootFS.Snapshot != nil {
		c.GraphDriver = &storage.DriverData{Name: c.Storage.RootFS.Snapshot.Name}
	}
	c.Storage = nil
	return &inspectBelow152{
		InspectResponse: &c,
		Config:          &configBelow152{Config: c.Config, OnBuild: c.Config.OnBuild},
		NetworkSettings: newNetworkSettingsBelow152(&settings),
	}
}

// shortID is the length of the ids that people see.
const shortID = 12

// withShortAliases adds the short id and the host name to the aliases on
// user-defined networks.
func withShortAliases(c *container.InspectResponse, networks map[string]*network.EndpointSettings) map[string]*network.EndpointSettings {
	out := make(map[string]*network.EndpointSettings, len(networks))
	for name, endpoint := range networks {
		if endpoint != nil && container.NetworkMode(name).IsUserDefined() {
			endpoint = endpoint.Copy()
			for _, alias := range []string{c.ID[:min(shortID, len(c.ID))], c.Config.Hostname} {
				if alias != "" && !slices.Contains(endpoint.Aliases, alias) {
					endpoint.Aliases = append(endpoint.Aliases, alias)
				}
			}
		}
		out[name] = endpoint
	}
	return out
}

// inspectBelow152 shadows the fields of the response that looked different.
type inspectBelow152 struct {
	*container.InspectResponse
	Config          *configBelow152
	NetworkSettings *networkSettingsBelow152
}

// inspectUnasked shadows what is read by those who know no versions.
type inspectUnasked struct {
	*container.InspectResponse
	NetworkSettings *networkSettingsBelow152
}

// configBelow152 always has OnBuild, null if there is none.
type configBelow152 struct {
	*container.Config
	OnBuild []string
}

// networkSettingsBelow152 repeats the default bridge's endpoint at its top.
type networkSettingsBelow152 struct {
	*container.NetworkSettings
	Bridge                 string
	HairpinMode            bool
	LinkLocalIPv6Address   string
	LinkLocalIPv6PrefixLen int
	SecondaryIPAddresses   json.RawMessage // always null
	SecondaryIPv6Addresses json.RawMessage // always null
	EndpointID             string
	Gateway                string
	GlobalIPv6Address      string
	GlobalIPv6PrefixLen    int
	IPAddress              string
	IPPrefixLen            int
	IPv6Gateway            string
	MacAddress             string
}

func newNetworkSettingsBelow152(in *container.NetworkSettings) *networkSettingsBelow152 {
	out := &networkSettingsBelow152{NetworkSettings: in}
	bridge := in.Networks[network.NetworkBridge]
	if bridge == nil {
		return out
	}
	out.EndpointID = bridge.EndpointID
	out.Gateway = addressText(bridge.Gateway)
	out.GlobalIPv6Address = addressText(bridge.GlobalIPv6Address)
	out.GlobalIPv6PrefixLen = bridge.GlobalIPv6PrefixLen
	out.IPAddress = addressText(bridge.IPAddress)
	out.IPPrefixLen = bridge.IPPrefixLen
	out.IPv6Gateway = addressText(bridge.IPv6Gateway)
	out.MacAddress = bridge.MacAddress.String()
	return out
}

// addressText is the text of an address, empty if there is none.
func addressText(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}
