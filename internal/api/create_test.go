package api_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"

	"github.com/cleatlabs/cleat/internal/engine"
)

// created sends a create request of an API version and gives what the engine
// was asked for.
func created(t *testing.T, minor int, query, body string) (*engine.CreateRequest, reply) {
	t.Helper()
	var got *engine.CreateRequest
	d := serve(t, &fake{create: func(req engine.CreateRequest) (string, []string, error) {
		got = &req
		return strings.Repeat("ab", 32), nil, nil
	}})
	answer := d.call("POST", fmt.Sprintf("/v1.%d/containers/create%s", minor, query), body)
	if (answer.status == 201) != (got != nil) {
		t.Fatalf("answer %d %s, but the engine's part is %v", answer.status, answer.body, got)
	}
	return got, answer
}

// A field that a version does not have is not taken from its requests.
func TestCreateIgnoresNewerFields(t *testing.T) {
	for _, test := range []struct {
		name string
		from int
		body string
		seen func(*engine.CreateRequest) bool
	}{
		{"AutoRemove", 25, `{"Image":"x","HostConfig":{"AutoRemove":true}}`,
			func(r *engine.CreateRequest) bool { return r.HostConfig.AutoRemove }},
		{"BindOptions.NonRecursive", 40, `{"Image":"x","HostConfig":{"Mounts":[{"Type":"bind","Source":"/a","Target":"/b","BindOptions":{"NonRecursive":true}}]}}`,
			func(r *engine.CreateRequest) bool { return r.HostConfig.Mounts[0].BindOptions.NonRecursive }},
		{"BindOptions.CreateMountpoint", 42, `{"Image":"x","HostConfig":{"Mounts":[{"Type":"bind","Source":"/a","Target":"/b","BindOptions":{"CreateMountpoint":true}}]}}`,
			func(r *engine.CreateRequest) bool { return r.HostConfig.Mounts[0].BindOptions.CreateMountpoint }},
		{"ConsoleSize", 42, `{"Image":"x","HostConfig":{"ConsoleSize":[24,80]}}`,
			func(r *engine.CreateRequest) bool { return r.HostConfig.ConsoleSize == [2]uint{24, 80} }},
		{"Annotations", 43, `{"Image":"x","HostConfig":{"Annotations":{"a":"b"}}}`,
			func(r *engine.CreateRequest) bool { return r.HostConfig.Annotations["a"] == "b" }},
		{"StartInterval", 44, `{"Image":"x","Healthcheck":{"StartInterval":5000000000}}`,
			func(r *engine.CreateRequest) bool { return r.Config.Healthcheck.StartInterval == 5e9 }},
		{"endpoint MacAddress", 44, `{"Image":"x","NetworkingConfig":{"EndpointsConfig":{"bridge":{"MacAddress":"02:42:ac:11:00:09"}}}}`,
			func(r *engine.CreateRequest) bool {
				return len(r.NetworkingConfig.EndpointsConfig["bridge"].MacAddress) == 6
			}},
		{"TmpfsOptions.Options", 46, `{"Image":"x","HostConfig":{"Mounts":[{"Type":"tmpfs","Target":"/b","TmpfsOptions":{"Options":[["exec"]]}}]}}`,
			func(r *engine.CreateRequest) bool { return len(r.HostConfig.Mounts[0].TmpfsOptions.Options) == 1 }},
		{"GwPriority", 48, `{"Image":"x","NetworkingConfig":{"EndpointsConfig":{"bridge":{"GwPriority":5}}}}`,
			func(r *engine.CreateRequest) bool {
				return r.NetworkingConfig.EndpointsConfig["bridge"].GwPriority == 5
			}},
		{"Umask", 56, `{"Image":"x","HostConfig":{"Umask":18}}`,
			func(r *engine.CreateRequest) bool { return r.HostConfig.Umask != nil && *r.HostConfig.Umask == 18 }},
	} {
		for _, minor := range []int{24, test.from - 1, test.from, 56} {
			req, answer := created(t, minor, "", test.body)
			if req == nil {
				t.Errorf("%s in 1.%d: %d %s", test.name, minor, answer.status, answer.body)
				continue
			}
			if want := minor >= test.from; test.seen(req) != want {
				t.Errorf("%s in 1.%d: taken is %t, want %t", test.name, minor, !want, want)
			}
		}
	}
	for minor, want := range map[int]string{40: "", 41: "linux/arm64", 56: "linux/arm64"} {
		if req, _ := created(t, minor, "?platform=linux/aarch64", `{"Image":"x"}`); req.Platform != want {
			t.Errorf("platform in 1.%d is %q, want %q", minor, req.Platform, want)
		}
	}
}

// Some fields are refused where they could not be honoured.
func TestCreateRefusals(t *testing.T) {
	const two = `{"Image":"x","NetworkingConfig":{"EndpointsConfig":{"b":{},"a":{}}}}`
	for _, test := range []struct {
		minor  int
		query  string
		body   string
		status int
		text   string
	}{
		{43, "", two, 400, "Container cannot be created with multiple network endpoints: a, b"},
		{44, "", two, 201, ""},
		{43, "", `{"Image":"x","HostConfig":{"Mounts":[{"Type":"bind","BindOptions":{"ReadOnlyForceRecursive":true}}]}}`, 400, "BindOptions.ReadOnlyForceRecursive needs API v1.44 or newer"},
		{44, "", `{"Image":"x","HostConfig":{"Mounts":[{"Type":"bind","BindOptions":{"ReadOnlyForceRecursive":true}}]}}`, 201, ""},
		{44, "", `{"Image":"x","HostConfig":{"Mounts":[{"Type":"volume","VolumeOptions":{"Subpath":"a"}}]}}`, 400, "VolumeOptions.Subpath needs API v1.45 or newer"},
		{45, "", `{"Image":"x","HostConfig":{"Mounts":[{"Type":"volume","VolumeOptions":{"Subpath":"a"}}]}}`, 201, ""},
		{47, "", `{"Image":"x","HostConfig":{"Mounts":[{"Type":"image"}]}}`, 400, `Mount type "Image" needs API v1.48 or newer`},
		{48, "", `{"Image":"x","HostConfig":{"Mounts":[{"Type":"image"}]}}`, 201, ""},
		{42, "", `{"Image":"x","HostConfig":{"Mounts":[{"Type":"bind","VolumeOptions":{}}]}}`, 400, `VolumeOptions must not be specified on mount type "bind"`},
		{42, "", `{"Image":"x","HostConfig":{"Mounts":[{"Type":"volume","BindOptions":{}}]}}`, 400, `BindOptions must not be specified on mount type "volume"`},
		{42, "", `{"Image":"x","HostConfig":{"Mounts":[{"Type":"volume","TmpfsOptions":{}}]}}`, 400, `TmpfsOptions must not be specified on mount type "volume"`},
		{41, "", `{"Image":"x","HostConfig":{"Mounts":[{"Type":"bind","VolumeOptions":{}}]}}`, 201, ""},
		{56, "?platform=a/b/c/d/e", `{"Image":"x"}`, 400, `invalid platform "a/b/c/d/e"`},
		{56, "", `{"Image":"x","HostConfig":{"PortBindings":{"x/tcp":[]}}}`, 400, `invalid value of HostConfig.PortBindings: "x/tcp" is not valid: invalid port 'x'`},
		{56, "", `{"Image":"x","ExposedPorts":{"9001-9003":{},"80":{}}}`, 201, ""},
		{56, "", `{"Image":"x","ExposedPorts":null}`, 201, ""},
		{56, "", `{"Image":"x","ExposedPorts":{"x":{}}}`, 400, "invalid value of ExposedPorts: {\"x\":{}} is not valid: invalid port 'x': invalid syntax"},
		{56, "", `{"Image":"x","ExposedPorts":{"9003-9001":{}}}`, 400, "invalid value of ExposedPorts: {\"9003-9001\":{}} is not valid: invalid port range: 9003-9001"},
		{56, "", `{"Image":"x","ExposedPorts":{"1-65536":{}}}`, 400, "invalid value of ExposedPorts: {\"1-65536\":{}} is not valid: invalid end port '65536'"},
		{56, "", `{"Image":"x","HostConfig":{"Sysctls":{"net.ipv4.conf.eth0.log_martians":"1"}}}`, 400, "interface specific sysctl setting"},
		{47, "", `{"Image":"x","HostConfig":{"Sysctls":{"net.ipv4.conf.eth1.log_martians":"1"}}}`, 400, "unable to determine network endpoint for sysctl"},
	} {
		_, answer := created(t, test.minor, test.query, test.body)
		if answer.status != test.status || test.text != "" && !strings.HasPrefix(answer.message(), test.text) {
			t.Errorf("1.%d %s: %d %s, want %d %q", test.minor, test.body, answer.status, answer.body, test.status, test.text)
		}
		if strings.Contains(answer.message(), ": invalid argument") {
			t.Errorf("the class is in the text: %s", answer.message())
		}
	}
}

func TestCreateOldDefaults(t *testing.T) {
	for minor, want := range map[int]string{24: "shareable host", 39: "shareable host", 40: " host", 41: " ", 56: " "} {
		req, _ := created(t, minor, "", `{"Image":"x"}`)
		if got := fmt.Sprint(req.HostConfig.IpcMode, " ", req.HostConfig.CgroupnsMode); got != want {
			t.Errorf("1.%d: IPC and cgroup namespace %q, want %q", minor, got, want)
		}
	}
	req, _ := created(t, 24, "", `{"Image":"x","HostConfig":{"IpcMode":"private","CgroupnsMode":"private"}}`)
	if req.HostConfig.IpcMode != "private" || req.HostConfig.CgroupnsMode != "private" {
		t.Errorf("modes that were given: %s, %s", req.HostConfig.IpcMode, req.HostConfig.CgroupnsMode)
	}
	for _, limit := range []string{"0", "-1", "-5"} {
		if req, _ := created(t, 56, "", `{"Image":"x","HostConfig":{"PidsLimit":`+limit+`}}`); req.HostConfig.PidsLimit != nil {
			t.Errorf("PidsLimit %s is %d, want none", limit, *req.HostConfig.PidsLimit)
		}
	}
	if req, _ := created(t, 56, "", `{"Image":"x","HostConfig":{"PidsLimit":7}}`); req.HostConfig.PidsLimit == nil || *req.HostConfig.PidsLimit != 7 {
		t.Error("PidsLimit 7 was lost")
	}
	const readOnly = `{"Image":"x","HostConfig":{"Mounts":[{"Type":"bind","Source":"/a","Target":"/b","ReadOnly":true}]}}`
	if req, _ := created(t, 43, "", readOnly); !req.HostConfig.Mounts[0].BindOptions.ReadOnlyNonRecursive {
		t.Error("below 1.44 a read-only bind is not recursively read-only")
	}
	if req, _ := created(t, 44, "", readOnly); req.HostConfig.Mounts[0].BindOptions != nil {
		t.Error("from 1.44 a read-only bind is recursively read-only")
	}
}

func TestCreateDefaultNetwork(t *testing.T) {
	for _, body := range []string{
		`{"Image":"x","NetworkingConfig":{"EndpointsConfig":{"default":{"Aliases":["a"]}}}}`,
		`{"Image":"x","HostConfig":{"NetworkMode":"default"},"NetworkingConfig":{"EndpointsConfig":{"default":{"Aliases":["a"]}}}}`,
		`{"Image":"x","HostConfig":{"NetworkMode":"bridge"},"NetworkingConfig":{"EndpointsConfig":{"bridge":{"Aliases":["a"]}}}}`,
	} {
		req, _ := created(t, 56, "", body)
		endpoint := req.NetworkingConfig.EndpointsConfig["bridge"]
		if req.HostConfig.NetworkMode != "bridge" || len(req.NetworkingConfig.EndpointsConfig) != 1 || endpoint == nil || len(endpoint.Aliases) != 1 {
			t.Errorf("%s: mode %q, endpoints %v", body, req.HostConfig.NetworkMode, req.NetworkingConfig.EndpointsConfig)
		}
	}
	req, _ := created(t, 56, "?name=/web", `{"Image":"x","HostConfig":null,"NetworkingConfig":{"EndpointsConfig":{"bridge":null}}}`)
	if req.Name != "/web" || req.NetworkingConfig.EndpointsConfig["bridge"] == nil {
		t.Errorf("name %q, endpoint %v", req.Name, req.NetworkingConfig.EndpointsConfig["bridge"])
	}
}

func TestCreateMACAddress(t *testing.T) {
	const mac = "02:42:ac:11:00:09"
	const deprecated = "The container-wide MacAddress field is now deprecated"
	for _, test := range []struct {
		minor   int
		body    string
		mac     string
		warning string
		refused string
	}{
		{24, `{"Image":"x","MacAddress":"` + mac + `"}`, mac, "", ""},
		{43, `{"Image":"x","MacAddress":"` + mac + `","NetworkingConfig":{"EndpointsConfig":{"bridge":{}}}}`, mac, "", ""},
		{44, `{"Image":"x","MacAddress":"` + mac + `"}`, mac, deprecated, ""},
		{51, `{"Image":"x","MacAddress":"` + mac + `"}`, mac, deprecated, ""},
		{52, `{"Image":"x","MacAddress":"` + mac + `"}`, "", "", ""},
		{56, `{"Image":"x","MacAddress":"not one"}`, "", "", ""},
		{51, `{"Image":"x","MacAddress":"not one"}`, "", "", `invalid value of MacAddress: "not one" is no MAC address`},
		{43, `{"Image":"x","MacAddress":"` + mac + `","HostConfig":{"NetworkMode":"host"}}`, "", "", "conflicting options: mac-address and the network mode"},
		{44, `{"Image":"x","MacAddress":"` + mac + `","NetworkingConfig":{"EndpointsConfig":{"bridge":{"MacAddress":"02:42:ac:11:00:08"}}}}`, "", "", "the container-wide MAC address must match"},
		{44, `{"Image":"x","MacAddress":"` + mac + `","NetworkingConfig":{"EndpointsConfig":{"other":{}}}}`, "", "", "unable to migrate container-wide MAC address to a specific network"},
		{56, `{"Image":"x","NetworkingConfig":{"EndpointsConfig":{"bridge":{"MacAddress":"` + mac + `"}}}}`, mac, "", ""},
	} {
		req, answer := created(t, test.minor, "", test.body)
		if test.refused != "" {
			if answer.status != 400 || !strings.HasPrefix(answer.message(), test.refused) {
				t.Errorf("1.%d %s: %d %s, want 400 %q", test.minor, test.body, answer.status, answer.body, test.refused)
			}
			continue
		}
		got := ""
		if endpoint := req.NetworkingConfig.EndpointsConfig["bridge"]; endpoint != nil {
			got = endpoint.MacAddress.String()
		}
		if got != test.mac {
			t.Errorf("1.%d %s: the endpoint's address is %q, want %q", test.minor, test.body, got, test.mac)
		}
		if warned := strings.Contains(answer.body, deprecated); warned != (test.warning != "") {
			t.Errorf("1.%d %s: warnings in %s", test.minor, test.body, answer.body)
		}
	}
}

func TestCreateCarriesSysctls(t *testing.T) {
	req, answer := created(t, 47, "", `{"Image":"x","HostConfig":{"Sysctls":{"net.ipv4.conf.eth0.log_martians":"1","net.core.somaxconn":"9"}},
		"NetworkingConfig":{"EndpointsConfig":{"bridge":{"DriverOpts":{"com.docker.network.endpoint.sysctls":"net.x.y.IFNAME.z=2"}}}}}`)
	option := req.NetworkingConfig.EndpointsConfig["bridge"].DriverOpts["com.docker.network.endpoint.sysctls"]
	if option != "net.ipv4.conf.IFNAME.log_martians=1,net.x.y.IFNAME.z=2" || len(req.HostConfig.Sysctls) != 1 {
		t.Errorf("option %q, left %v", option, req.HostConfig.Sysctls)
	}
	if !strings.Contains(answer.body, "Migrated sysctl") {
		t.Errorf("no warning: %s", answer.body)
	}
}

func TestCreateFillsPortBindings(t *testing.T) {
	for minor, warned := range map[int]bool{24: false, 51: false, 52: true, 56: true} {
		req, answer := created(t, minor, "", `{"Image":"x","HostConfig":{"PortBindings":{"80/tcp":[],"81":null,"82/udp":[{"HostPort":"8000-8010"}]}}}`)
		for port, want := range map[string]string{"80/tcp": "", "81/tcp": "", "82/udp": "8000-8010"} {
			bindings := req.HostConfig.PortBindings[network.MustParsePort(port)]
			if len(bindings) != 1 || bindings[0].HostPort != want {
				t.Errorf("1.%d: bindings of %s are %v, want one to %q", minor, port, bindings, want)
			}
		}
		if got := strings.Contains(answer.body, "Following container port(s) have an empty list of port-bindings: 80/tcp, 81/tcp."); got != warned {
			t.Errorf("1.%d: warnings in %s", minor, answer.body)
		}
	}
}

func TestCreateVolumeDriverWarning(t *testing.T) {
	for minor, warned := range map[int]bool{47: false, 48: true} {
		_, answer := created(t, minor, "", `{"Image":"x","HostConfig":{"VolumeDriver":"d","Mounts":[{"Type":"volume","Target":"/a"}]}}`)
		if got := strings.Contains(answer.body, "volume-driver configuration is ignored"); got != warned {
			t.Errorf("1.%d: warnings in %s", minor, answer.body)
		}
	}
}

// What inspect gave can be sent back to create, in the oldest shape too.
func TestInspectGoesBackIntoCreate(t *testing.T) {
	for _, minor := range []int{24, 43, 51, 52, 56} {
		d := serve(t, populated())
		inspected := d.get(fmt.Sprintf("/v1.%d/containers/web/json", minor)).object(t)
		config, _ := inspected["Config"].(map[string]any)
		config["HostConfig"] = inspected["HostConfig"]
		settings, _ := inspected["NetworkSettings"].(map[string]any)
		networks, _ := settings["Networks"].(map[string]any)
		delete(networks, "backend") // one endpoint is the limit of the old ones
		config["NetworkingConfig"] = map[string]any{"EndpointsConfig": networks}
		req, answer := created(t, minor, "", mustJSON(t, config))
		if req == nil || req.Config.Hostname != "0123456789ab" || req.NetworkingConfig.EndpointsConfig["bridge"].IPAddress.String() != "172.17.0.2" {
			t.Errorf("1.%d: %d %s", minor, answer.status, answer.body)
		}
	}
}

func TestExecOptions(t *testing.T) {
	var got container.ExecCreateRequest
	var start engine.ExecStartOptions
	d := serve(t, &fake{
		execCreate: func(_ string, req container.ExecCreateRequest) (string, error) { got = req; return "id", nil },
		execStart: func(_ string, opts engine.ExecStartOptions) (*engine.ExecSession, error) {
			start = opts
			return nil, nil
		},
	})
	for minor, kept := range map[int]bool{41: false, 42: true} {
		d.call("POST", fmt.Sprintf("/v1.%d/containers/x/exec", minor), `{"Cmd":["a"],"ConsoleSize":[24,80]}`)
		if (got.ConsoleSize != nil) != kept {
			t.Errorf("1.%d: console size at create is %v", minor, got.ConsoleSize)
		}
		for _, tty := range []bool{true, false} {
			answer := d.call("POST", fmt.Sprintf("/v1.%d/exec/x/start", minor), fmt.Sprintf(`{"Detach":true,"Tty":%t,"ConsoleSize":[24,80]}`, tty))
			if (start.ConsoleSize != nil) != (kept && tty) || !start.Detach {
				t.Errorf("1.%d tty %t: options %+v", minor, tty, start)
			}
			if answer.status != 200 || answer.body != "" {
				t.Errorf("detached start: %d %q, want an empty 200", answer.status, answer.body)
			}
		}
	}
}
