package assemble

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func configFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "daemon.json")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestConfigurationFile(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		args []string
		bad  string // part of the error
		ok   func(*Config) bool
	}{
		"empty":        {text: " \n"},
		"empty object": {text: "{}"},
		"lists": {
			text: `{"registry-mirrors": ["http://a.example:1", "https://b.example"], "insecure-registries": ["10.0.0.0/8"], "dns": ["1.1.1.1"], "dns-opts": ["ndots:2"], "hosts": ["unix:///run/x.sock"], "labels": ["a=b"]}`,
			ok: func(c *Config) bool {
				return slices.Equal(c.Mirrors, []string{"http://a.example:1", "https://b.example"}) && slices.Equal(c.Insecure, []string{"10.0.0.0/8"}) &&
					slices.Equal(c.DNS, []string{"1.1.1.1"}) && slices.Equal(c.DNSOpts, []string{"ndots:2"}) && slices.Equal(c.Hosts, []string{"unix:///run/x.sock"}) &&
					slices.Equal(c.Labels, []string{"a=b"})
			},
		},
		"scalars": {
			text: `{"debug": true, "data-root": "/x/y", "mtu": 1400, "bip": "10.9.0.1/24", "shutdown-timeout": 3, "default-stop-timeout": 2, "max-concurrent-downloads": 7, "group": "g", "bridge": "br9"}`,
			ok: func(c *Config) bool {
				return c.Debug && c.DataRoot == "/x/y" && c.MTU == 1400 && c.BIP == "10.9.0.1/24" && c.ShutdownTimeout == 3 && c.StopTimeout == 2 && c.MaxDownloads == 7 && c.Group == "g" && c.Bridge == "br9"
			},
		},
		"container defaults": {
			text: `{"log-driver": "json-file", "log-opts": {"max-size": "5m", "max-file": "2"}, "init": true, "no-new-privileges": true, "default-shm-size": "1G", "default-ulimits": {"nofile": {"Name": "nofile", "Soft": 1000, "Hard": 2000}, "core": {"Hard": 0}}}`,
			ok: func(c *Config) bool {
				d := c.defaults
				return d.LogOpts["max-size"] == "5m" && d.LogOpts["max-file"] == "2" && d.Init && d.NoNewPrivileges && d.ShmSize == 1<<30 && len(d.Ulimits) == 2 &&
					d.Ulimits[0].Name == "core" && d.Ulimits[1].Soft == 1000 && d.Ulimits[1].Hard == 2000
			},
		},
		"networks": {
			text: `{"default-address-pools": [{"base": "10.20.0.0/16", "size": 24}], "default-network-opts": {"bridge": {"com.docker.network.driver.mtu": "1400"}}, "default-publish-address": "127.0.0.1"}`,
			ok: func(c *Config) bool {
				n := c.network()
				return len(n.AddressPools) == 1 && n.AddressPools[0].Size == 24 && n.NetworkOptions["bridge"]["com.docker.network.driver.mtu"] == "1400" && n.BindIP.String() == "127.0.0.1"
			},
		},
		"not set": {
			text: `{"userns-remap": "", "data-root": "", "exec-root": "", "cgroup-parent": "", "storage-driver": "", "default-runtime": "", "firewall-backend": "", "log-format": "", "log-driver": "", "swarm-default-advertise-addr": "", "bip": "", "pidfile": ""}`,
			ok: func(c *Config) bool {
				return c.DataRoot == "/var/lib/cleat" && c.LogFormat == "text" && c.CgroupParent == "/cleat" && len(c.Warnings) == 0
			},
		},
		"unknown, not set":         {text: `{"nonsuch": ""}`, bad: "don't match any configuration option: nonsuch"},
		"proxies":                  {text: `{"proxies": {"http-proxy": "http://p:1", "no-proxy": "x"}}`, ok: func(c *Config) bool { return c.HTTPProxy == "http://p:1" && c.NoProxy == "x" }},
		"needless":                 {text: `{"live-restore": true, "features": {"buildkit": true}, "exec-opts": ["native.cgroupdriver=cgroupfs"], "storage-driver": "overlay2"}`, ok: func(c *Config) bool { return len(c.Warnings) == 4 }},
		"byte order mark":          {text: "\xef\xbb\xbf{\"debug\": true}", ok: func(c *Config) bool { return c.Debug }},
		"a flag and a key":         {text: `{"debug": true, "dns": ["1.1.1.1"]}`, args: []string{"--dns", "8.8.8.8"}, bad: "specified both as a flag and in the configuration file: dns: (from flag: [8.8.8.8], from file: 1.1.1.1)"},
		"unknown keys":             {text: `{"debug": true, "no-such": 1, "registry-mirror": []}`, bad: "the following directives don't match any configuration option: registry-mirror, no-such"},
		"not of the file":          {text: `{"config-file": "/x"}`, bad: "don't match any configuration option: config-file"},
		"shorthands are not keys":  {text: `{"D": true}`, bad: "don't match any configuration option: D"},
		"refused key":              {text: `{"userns-remap": "default"}`, bad: `"userns-remap" in `},
		"refused plural":           {text: `{"runtimes": {"crun": {"path": "/usr/bin/crun"}}}`, bad: `"runtimes" in `},
		"refused value":            {text: `{"exec-opts": ["native.cgroupdriver=systemd"]}`, bad: "systemd in "},
		"unknown feature":          {text: `{"features": {"nonsuch": true}}`, bad: "buildkit, containerd-snapshotter and cdi are always on, and there is no other"},
		"bad value":                {text: `{"mtu": "big"}`, bad: `"mtu": "big" is not a whole number`},
		"bad truth value":          {text: `{"debug": "yes"}`, bad: `"debug": "yes" is neither true nor false`},
		"bad value, later checked": {text: `{"bip": "10.0.0.1"}`, bad: `"bip" in `},
		"a list in a list":         {text: `{"dns": [["1.1.1.1"]]}`, bad: `"dns": what is in it has to be texts, numbers, true or false, and there is a list`},
		"an object in a list":      {text: `{"dns": [{"a": "1.1.1.1"}]}`, bad: `"dns": what is in it has to be texts, numbers, true or false, and there is an object`},
		"an object for pools":      {text: `{"default-address-pools": {"base": "10.20.0.0/16", "size": 24}}`, bad: `"default-address-pools": it wants a list of objects, such as [{"base": "10.10.0.0/16", "size": 24}], not an object`},
		"a text among pools":       {text: `{"default-address-pools": ["10.20.0.0/16"]}`, bad: `"default-address-pools": it wants a list of objects, such as [{"base": "10.10.0.0/16", "size": 24}], and there is a text in it`},
		"a list for an object":     {text: `{"log-opts": ["max-size=5m"]}`, bad: `"log-opts": it wants an object, such as {"max-size": "10m"}, not a list`},
		"a text for an object":     {text: `{"default-ulimits": "nofile=5"}`, bad: `"default-ulimits": it wants an object, such as {"nofile": {"Name": "nofile", "Soft": 1024, "Hard": 4096}}, not a text`},
		"an object for a list":     {text: `{"labels": {"a": "b"}}`, bad: `"labels": it wants a list of texts, such as ["one", "two"], not an object`},
		"an object for a text":     {text: `{"data-root": {"a": "b"}}`, bad: `"data-root": it wants a text, not an object`},
		"a list for a text":        {text: `{"bip": ["10.1.0.1/24", "10.2.0.1/24"]}`, bad: `"bip": it wants a text, not a list`},
		"a truth value for a text": {text: `{"cgroup-parent": true}`, bad: `"cgroup-parent": it wants a text, not true or false`},
		"a list for a number":      {text: `{"mtu": [1400]}`, bad: `"mtu": it wants a number, not a list`},
		"a list for a truth value": {text: `{"debug": [true]}`, bad: `"debug": it wants true or false, not a list`},
		"an object in an object":   {text: `{"log-opts": {"max-size": {"a": 1}}}`, bad: `"log-opts.max-size": what is in it has to be texts`},
		"a number for builds":      {text: `{"builder": 5}`, bad: `"builder": it wants an object, not a number`},
		"a list within builds":     {text: `{"builder": {"gc": []}}`, bad: `"builder.gc": it wants an object, not a list`},
		"a text within builds":     {text: `{"builder": {"gc": {"enabled": "x"}}}`, bad: `"builder.gc.enabled": it wants true or false, not a text`},
		"a number with a fraction": {text: `{"builder": {"history": {"maxEntries": 1.5}}}`, bad: `"builder.history.maxEntries": it wants a whole number, not number 1.5`},
		"a number for proxies":     {text: `{"proxies": 5}`, bad: `"proxies": it wants an object, such as {"http-proxy": "http://proxy.example:3128"}, not a number`},
		"no proxies":               {text: `{"proxies": null}`, bad: `"proxies": it wants an object`},
		"a text for a driver":      {text: `{"default-network-opts": {"bridge": "x"}}`, bad: `"default-network-opts.bridge": it wants an object, such as {"com.docker.network.driver.mtu": "1400"}, not a text`},
		"a list for a needless":    {text: `{"live-restore": [true]}`, bad: `"live-restore": it wants true or false, not a list`},
		"a pool without a size":    {text: `{"default-address-pools": [{"base": "10.20.0.0/16"}]}`, bad: `a pool has a base, such as 10.10.0.0/16, and a size`},
		"a list of one":            {text: `{"dns": "1.1.1.1"}`, ok: func(c *Config) bool { return slices.Equal(c.DNS, []string{"1.1.1.1"}) }},
		"null":                     {text: `{"dns": null}`, bad: `"dns" is null`},
		"the same twice":           {text: "{\"debug\": true,\n\"debug\": false}", bad: `line 2: it is not valid JSON: "debug" is there twice`},
		"cut off":                  {text: "{\n\"debug\": true,\n", bad: "it is not valid JSON: unexpected EOF"},
		"a trailing comma":         {text: "{\n\"debug\": true,\n}", bad: "it is not valid JSON"},
		"more than an object":      {text: `{} {}`, bad: "something follows"},
		"a list":                   {text: `[]`, bad: "it must be an object"},
		"an unknown proxy":         {text: `{"proxies": {"default": {}}}`, bad: "proxies.default"},
		"an ulimit without limits": {text: `{"default-ulimits": {"nofile": {"Name": "nofile"}}}`, bad: "default-ulimits.nofile says no limit"},
		"tcp without certificates": {text: `{"hosts": ["tcp://0.0.0.0:2375"]}`, bad: "needs --tlsverify"},
	} {
		t.Run(name, func(t *testing.T) {
			path := configFile(t, c.text)
			got, err := parse(t, append([]string{"--config-file", path}, c.args...)...)
			if c.bad != "" {
				if err == nil || !strings.Contains(err.Error(), c.bad) || !strings.Contains(err.Error(), path) {
					t.Fatalf("%v; want %q", err, c.bad)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if c.ok != nil && !c.ok(got) {
				t.Errorf("%+v", got)
			}
		})
	}
}

// Every key that dockerd has is either taken or refused by its name, never unknown.
func TestEveryKeyOfDockerdIsKnown(t *testing.T) {
	for _, key := range strings.Fields(`allow-direct-routing authorization-plugins bip bip6 bridge bridge-accept-fwmark cdi-spec-dirs cgroup-parent containerd
		containerd-namespace containerd-plugin-namespace cpu-rt-period cpu-rt-runtime cri-containerd data-root debug default-address-pools
		default-cgroupns-mode default-gateway default-gateway-v6 default-init default-ipc-mode default-network-opts default-runtime default-shm-size
		default-stop-timeout default-ulimits dns dns-opts dns-search exec-opts exec-root experimental features firewall-backend fixed-cidr fixed-cidr-v6 group
		host-gateway-ip host-gateway-ips hosts http-proxy https-proxy icc init init-path insecure-registries ip ip-forward ip-forward-no-drop ip-masq
		ip6tables iptables ipv6 labels live-restore log-driver log-format log-level log-opts max-concurrent-downloads max-concurrent-uploads
		max-download-attempts metrics-addr mtu network-control-plane-mtu no-new-privileges no-proxy node-generic-resources nri-opts pidfile raw-logs
		registry-mirrors rootless runtimes seccomp-profile selinux-enabled shutdown-timeout storage-driver storage-opts swarm-default-advertise-addr tls
		tlscacert tlscert tlskey tlsverify userland-proxy userland-proxy-path userns-remap`) {
		_, err := parse(t, "--config-file", configFile(t, `{"`+key+`": "x"}`))
		if err != nil && strings.Contains(err.Error(), "don't match any configuration option") {
			t.Errorf("%s is unknown", key)
		}
	}
}

func FuzzConfigurationFile(f *testing.F) {
	for _, s := range []string{`{"debug":true}`, `{"dns":["1.1.1.1"],"log-opts":{"a":"b"}}`, `{"default-ulimits":{"nofile":{"Hard":1}}}`, `{"proxies":{}}`, `[`, ``} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		values, err := parseConfigFile(data)
		if err != nil && values != nil {
			t.Errorf("values with an error: %v", err)
		}
	})
}
