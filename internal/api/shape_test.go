package api_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	imagetypes "github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/mount"
	networktypes "github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/storage"
	"github.com/moby/moby/api/types/system"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatlabs/cleat/internal/api"
	"github.com/cleatlabs/cleat/internal/engine"
	"github.com/cleatlabs/cleat/internal/image"
	"github.com/cleatlabs/cleat/test/expect"
)

// goldenVersions are the versions around which answers change, and the ends.
var goldenVersions = []string{"1.24", "1.40", "1.43", "1.44", "1.45", "1.46", "1.47", "1.48", "1.49", "1.50", "1.51", "1.52", "1.53", "1.56"}

func endpoint() *networktypes.EndpointSettings {
	return &networktypes.EndpointSettings{
		Aliases:     []string{"web"},
		NetworkID:   strings.Repeat("ee", 32),
		EndpointID:  strings.Repeat("dd", 32),
		Gateway:     netip.MustParseAddr("172.17.0.1"),
		IPAddress:   netip.MustParseAddr("172.17.0.2"),
		IPPrefixLen: 16,
		MacAddress:  networktypes.HardwareAddr{2, 0x42, 0xac, 0x11, 0, 2},
		DNSNames:    []string{"web", "0123456789ab"},
	}
}

var descriptor = &ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: "sha256:" + ocispecHex, Size: 7}

const ocispecHex = "7173b809ca12ec5dee4506cd86be934c4596dd234ee82c0662eac04a8c2c71dc"

func populated() *fake {
	f := &fake{}
	id := "0123456789ab" + strings.Repeat("c", 52)
	f.list = func(engine.ListOptions) ([]*container.Summary, error) {
		c := &container.Summary{
			ID: id, Names: []string{"/web"}, Image: "nginx", ImageID: "sha256:" + ocispecHex, ImageManifestDescriptor: descriptor,
			Command: "nginx -g 'daemon off;'", Created: 1700000000, State: container.StateRunning, Status: "Up 5 minutes",
			Ports:  []container.PortSummary{{IP: netip.MustParseAddr("0.0.0.0"), PrivatePort: 80, PublicPort: 8080, Type: "tcp"}, {PrivatePort: 443, Type: "tcp"}},
			Labels: map[string]string{"a": "<b>"},
			Health: &container.HealthSummary{Status: container.Healthy},
			NetworkSettings: &container.NetworkSettingsSummary{
				Networks: map[string]*networktypes.EndpointSettings{"bridge": endpoint()},
			},
		}
		c.HostConfig.NetworkMode = "bridge"
		c.HostConfig.Annotations = map[string]string{"k": "v"}
		return []*container.Summary{c, {ID: strings.Repeat("1", 64)}}, nil
	}
	f.inspect = func(string, bool) (*container.InspectResponse, error) {
		return &container.InspectResponse{
			ID: id, Created: "2026-01-02T03:04:05.000000006Z", Path: "nginx", Name: "/web", Driver: "overlayfs", Platform: "linux",
			State:      &container.State{Status: container.StateRunning, Running: true, Pid: 1},
			HostConfig: &container.HostConfig{NetworkMode: "bridge"},
			Config:     &container.Config{Hostname: "0123456789ab", Image: "nginx"},
			Storage:    &storage.Storage{RootFS: &storage.RootFSStorage{Snapshot: &storage.RootFSStorageSnapshot{Name: "overlayfs"}}},
			Mounts:     []container.MountPoint{{Type: mount.TypeVolume, Name: "v", Destination: "/data", RW: true}},
			NetworkSettings: &container.NetworkSettings{
				SandboxID: "5a",
				Ports:     networktypes.PortMap{networktypes.MustParsePort("80/tcp"): {{HostIP: netip.MustParseAddr("0.0.0.0"), HostPort: "8080"}}, networktypes.MustParsePort("443/tcp"): nil},
				Networks:  map[string]*networktypes.EndpointSettings{"bridge": endpoint(), "backend": endpoint()},
			},
			ImageManifestDescriptor: descriptor,
		}, nil
	}
	f.info = func() (*system.Info, error) {
		return &system.Info{
			ID: "ID", Containers: 2, CgroupVersion: "1", Containerd: &system.ContainerdInfo{Address: "in process"},
			Runtimes:        map[string]system.RuntimeWithStatus{"cleat": {Status: map[string]string{"k": "v"}}},
			RuncCommit:      system.Commit{ID: "r"},
			FirewallBackend: &system.FirewallInfo{Driver: "nftables"}, DiscoveredDevices: []system.DeviceInfo{{Source: "cdi", ID: "x"}},
			NRI: &system.NRIInfo{},
		}, nil
	}
	f.subscribe = func(time.Time, time.Time) ([]events.Message, <-chan events.Message, func()) {
		live := make(chan events.Message, 1)
		live <- events.Message{Type: events.NetworkEventType, Action: events.ActionConnect, Actor: events.Actor{ID: "n"}, Scope: "local", Time: 3, TimeNano: 3000000001}
		close(live)
		return []events.Message{
			{Type: events.ContainerEventType, Action: events.ActionDie, Actor: events.Actor{ID: id, Attributes: map[string]string{"image": "nginx", "name": "web", "exitCode": "0"}}, Scope: "local", Time: 1, TimeNano: 1000000001},
			{Type: events.ImageEventType, Action: events.ActionCreate, Actor: events.Actor{ID: "sha256:1"}, Scope: "local", Time: 2, TimeNano: 2000000001},
			{Type: events.ImageEventType, Action: events.ActionUnTag, Actor: events.Actor{ID: "sha256:2", Attributes: map[string]string{"name": "x:latest"}}, Scope: "local", Time: 2, TimeNano: 2000000001},
		}, live, func() {}
	}
	f.images.list = func(image.ListRequest) ([]imagetypes.Summary, error) {
		return []imagetypes.Summary{
			{ID: "sha256:" + ocispecHex, RepoTags: []string{"nginx:latest"}, RepoDigests: []string{"nginx@sha256:" + ocispecHex}, Containers: 2, Size: 1000, SharedSize: -1, Descriptor: descriptor, Created: 1700000000},
			{ID: "sha256:22", Containers: 0, Size: 10, SharedSize: -1},
		}, nil
	}
	f.images.inspect = func(string, string) (*imagetypes.InspectResponse, error) {
		return &imagetypes.InspectResponse{
			ID: "sha256:" + ocispecHex, RepoTags: []string{"nginx:latest"}, Architecture: "amd64", Os: "linux", Size: 1000,
			Config:     &dockerspec.DockerOCIImageConfig{ImageConfig: ocispec.ImageConfig{Cmd: []string{"nginx"}, Labels: map[string]string{"a": "b"}}},
			Descriptor: descriptor, RootFS: imagetypes.RootFS{Type: "layers", Layers: []string{"sha256:1"}},
			Identity:  &imagetypes.Identity{},
			Manifests: []imagetypes.ManifestSummary{{ID: "sha256:3"}},
		}, nil
	}
	f.networks.inspect = func(string) (networktypes.Inspect, error) {
		return networktypes.Inspect{
			Network: networktypes.Network{Name: "bridge", ID: strings.Repeat("ee", 32), Scope: "local", Driver: "bridge", EnableIPv4: true},
			Containers: map[string]networktypes.EndpointResource{id: {
				Name: "web", EndpointID: strings.Repeat("dd", 32), IPv4Address: netip.MustParsePrefix("172.17.0.2/16"),
			}},
			Status: &networktypes.Status{},
		}, nil
	}
	f.networks.list = func(map[string][]string) ([]networktypes.Summary, error) {
		return []networktypes.Summary{{Network: networktypes.Network{Name: "bridge", ID: strings.Repeat("ee", 32), Scope: "local", Driver: "bridge"}}}, nil
	}
	return f
}

// The answers of each version are held by golden files: run the test with
// -update, and read the difference, when a shape is meant to change.
func TestGoldenAnswers(t *testing.T) {
	d := serve(t, populated())
	for name, path := range map[string]string{
		"containers": "/containers/json", "container": "/containers/web/json", "info": "/info", "events": "/events",
		"images": "/images/json", "image": "/images/nginx/json", "network": "/networks/bridge", "networks": "/networks",
	} {
		var got bytes.Buffer
		last := ""
		for _, version := range goldenVersions {
			body := ""
			for line := range strings.SplitSeq(strings.TrimSpace(d.get("/v"+version+path).body), "\n") {
				var pretty bytes.Buffer
				if err := json.Indent(&pretty, []byte(line), "", "  "); err != nil {
					t.Fatalf("%s in %s: %v in %q", path, version, err, line)
				}
				body += pretty.String() + "\n"
			}
			if body == last {
				fmt.Fprintf(&got, "=== %s: as before\n", version)
				continue
			}
			fmt.Fprintf(&got, "=== %s\n%s", version, body)
			last = body
		}
		expect.Golden(t, "testdata/golden/"+name+".txt", got.String())
	}
}

// What changed in which version, stated one by one.
func TestShapesByVersion(t *testing.T) {
	d := serve(t, populated())
	for _, rule := range []struct {
		path, key string
		below     int    // the version from which the other holds
		before    string // "-" is absent
		after     string
	}{
		{"/containers/json", "0.HostConfig.Annotations.k", 46, "-", "v"},
		{"/containers/json", "0.ImageManifestDescriptor.size", 48, "-", "7"},
		{"/containers/json", "0.Health.Status", 52, "-", "healthy"},
		{"/containers/json", "1.Health.Status", 52, "-", "none"},
		{"/containers/web/json", "NetworkSettings.IPAddress", 52, "172.17.0.2", "-"},
		{"/containers/web/json", "NetworkSettings.Gateway", 52, "172.17.0.1", "-"},
		{"/containers/web/json", "NetworkSettings.MacAddress", 52, "02:42:ac:11:00:02", "-"},
		{"/containers/web/json", "NetworkSettings.IPPrefixLen", 52, "16", "-"},
		{"/containers/web/json", "NetworkSettings.Bridge", 52, "", "-"},
		{"/containers/web/json", "NetworkSettings.SecondaryIPAddresses", 52, "<nil>", "-"},
		{"/containers/web/json", "NetworkSettings.Networks.bridge.IPAddress", 0, "", "172.17.0.2"},
		{"/containers/web/json", "NetworkSettings.Networks.bridge.Aliases", 0, "", "[web]"},
		{"/containers/web/json", "NetworkSettings.Networks.backend.Aliases", 45, "[web 0123456789ab]", "[web]"},
		{"/containers/web/json", "NetworkSettings.Ports.443/tcp", 0, "", "<nil>"},
		{"/containers/web/json", "ImageManifestDescriptor.size", 48, "-", "7"},
		{"/containers/web/json", "GraphDriver.Name", 52, "overlayfs", "-"},
		{"/containers/web/json", "Storage.RootFS.Snapshot.Name", 52, "-", "overlayfs"},
		{"/containers/web/json", "Config.OnBuild", 52, "<nil>", "-"},
		{"/containers/web/json", "Config.Hostname", 0, "", "0123456789ab"},
		{"/images/json", "0.VirtualSize", 44, "1000", "-"},
		{"/images/json", "0.Containers", 51, "-1", "2"},
		{"/images/json", "0.Descriptor.size", 48, "-", "7"},
		{"/images/json", "0.RepoTags", 0, "", "[nginx:latest]"},
		{"/images/json", "1.RepoTags", 43, "[<none>:<none>]", "[]"},
		{"/images/json", "1.RepoDigests", 43, "[<none>@<none>]", "[]"},
		{"/images/json", "1.ParentId", 0, "", ""},
		{"/images/nginx/json", "VirtualSize", 44, "1000", "-"},
		{"/images/nginx/json", "Created", 44, "0001-01-01T00:00:00Z", "-"},
		{"/images/nginx/json", "Container", 45, "", "-"},
		{"/images/nginx/json", "ContainerConfig.Cmd", 45, "[nginx]", "-"},
		{"/images/nginx/json", "Descriptor.size", 48, "-", "7"},
		{"/images/nginx/json", "Config.Hostname", 50, "", "-"},
		{"/images/nginx/json", "Config.Tty", 50, "false", "-"},
		{"/images/nginx/json", "Config.WorkingDir", 52, "", "-"},
		{"/images/nginx/json", "Config.Env", 52, "<nil>", "-"},
		{"/images/nginx/json", "Config.Cmd", 0, "", "[nginx]"},
		{"/images/nginx/json", "Author", 52, "", "-"},
		{"/images/nginx/json", "Parent", 52, "", "-"},
		{"/images/nginx/json", "DockerVersion", 52, "", "-"},
		{"/images/nginx/json", "Manifests", 0, "", "-"},
		{"/images/nginx/json", "RepoDigests", 0, "", "[]"},
		{"/info", "Containerd.Address", 46, "-", "in process"},
		{"/info", "Runtimes.cleat.status.k", 44, "-", "v"},
		{"/info", "FirewallBackend.Driver", 49, "-", "nftables"},
		{"/info", "RuncCommit.Expected", 49, "r", "-"},
		{"/info", "RuncCommit.ID", 0, "", "r"},
		{"/info", "BridgeNfIptables", 50, "false", "-"},
		{"/info", "NRI", 53, "-", "map[]"},
		{"/info", "Containers", 0, "", "2"},
		{"/networks/bridge", "Status.IPAM", 52, "-", "map[]"},
		{"/networks/bridge", "Containers.0123456789ab" + strings.Repeat("c", 52) + ".IPv4Address", 0, "", "172.17.0.2/16"},
		{"/networks", "0.Containers", 52, "map[", "-"},
	} {
		for minor := 24; minor <= 56; minor++ {
			want := rule.after
			if minor < rule.below {
				want = rule.before
			}
			path := fmt.Sprintf("/v1.%d%s", minor, rule.path)
			got := pick(t, d.get(path).body, rule.key)
			if got != want && !(want == "map[" && strings.HasPrefix(got, want)) {
				t.Errorf("%s %s is %q, want %q", path, rule.key, got, want)
				break
			}
		}
	}
}

// pick follows a dotted path through a JSON text; "-" is absent.
func pick(t *testing.T, text, path string) string {
	t.Helper()
	var value any
	if err := json.Unmarshal([]byte(text), &value); err != nil {
		t.Fatalf("%v in %q", err, text)
	}
	for key := range strings.SplitSeq(path, ".") {
		switch v := value.(type) {
		case map[string]any:
			next, found := v[key]
			if !found {
				return "-"
			}
			value = next
		case []any:
			var i int
			if _, err := fmt.Sscan(key, &i); err != nil || i >= len(v) {
				return "-"
			}
			value = v[i]
		default:
			return "-"
		}
	}
	return fmt.Sprint(value)
}

// Programs that ask for the newest version are told one that has what they read.
func TestProgramsAreToldWhatTheyRead(t *testing.T) {
	d := serve(t, populated())
	for _, test := range []struct{ agent, newest, path, key, want string }{
		{"docker-compose/1.29.2 docker-py/5.0.3 Linux/6.1.0-26-amd64", "1.44", "/images/nginx/json", "ContainerConfig.Volumes", "<nil>"},
		{"docker-compose/2.40.0", api.MaxVersion, "/images/nginx/json", "ContainerConfig", "-"},
		{"docker-sdk-python/7.1.0", "1.51", "/containers/web/json", "NetworkSettings.IPAddress", "172.17.0.2"},
		{"ansible-community.docker/3.10.4", "1.51", "/containers/web/json", "NetworkSettings.IPAddress", "172.17.0.2"},
		{"Docker-Client/29.0.0 (linux)", api.MaxVersion, "/containers/web/json", "NetworkSettings.IPAddress", "-"},
	} {
		told := pick(t, d.call("GET", "/version", "", "User-Agent", test.agent).body, "ApiVersion")
		if told != test.newest {
			t.Errorf("%s is told %s, want %s", test.agent, told, test.newest)
		}
		if got := pick(t, d.get("/v"+told+test.path).body, test.key); got != test.want {
			t.Errorf("%s finds %s as %q, want %q", test.agent, test.key, got, test.want)
		}
	}
}

// Who asks for no version finds what the newest has, and where it was before.
func TestInspectWithoutVersion(t *testing.T) {
	body := serve(t, populated()).get("/containers/web/json").body
	for key, want := range map[string]string{
		"NetworkSettings.IPAddress": "172.17.0.2", "NetworkSettings.Networks.bridge.IPAddress": "172.17.0.2", "Storage.RootFS.Snapshot.Name": "overlayfs",
	} {
		if got := pick(t, body, key); got != want {
			t.Errorf("%s is %q, want %q", key, got, want)
		}
	}
}

func TestEventShapes(t *testing.T) {
	d := serve(t, populated())
	for minor := 24; minor <= 56; minor++ {
		body := d.get(fmt.Sprintf("/v1.%d/events", minor)).body
		records := strings.Split(strings.TrimSpace(body), "\n")
		if want := map[bool]int{true: 3, false: 4}[minor < 46]; len(records) != want {
			t.Errorf("1.%d: %d events, want %d (image create comes from 1.46)", minor, len(records), want)
		}
		id := "0123456789ab" + strings.Repeat("c", 52)
		for key, want := range map[string]string{"status": "die", "id": id, "from": "nginx", "Type": "container", "Action": "die", "scope": "local", "time": "1", "timeNano": "1.000000001e+09"} {
			if got := pick(t, records[0], key); got != want {
				t.Errorf("1.%d: %s is %q, want %q", minor, key, got, want)
			}
		}
		if last := records[len(records)-1]; pick(t, last, "status") != "-" || pick(t, last, "Type") != "network" {
			t.Errorf("1.%d: network event %s", minor, last)
		}
	}
}

// An answer of the oldest versions does not change what the engine handed over,
// which others may be reading.
func TestShapingLeavesTheOriginalAlone(t *testing.T) {
	f := populated()
	kept, _ := f.inspect("", false)
	before, _ := json.Marshal(kept)
	f.inspect = func(string, bool) (*container.InspectResponse, error) { return kept, nil }
	img, _ := f.images.inspect("", "")
	imgBefore, _ := json.Marshal(img)
	f.images.inspect = func(string, string) (*imagetypes.InspectResponse, error) { return img, nil }
	info, _ := f.info()
	infoBefore, _ := json.Marshal(info)
	f.info = func() (*system.Info, error) { return info, nil }
	d := serve(t, f)
	for _, path := range []string{"/v1.24/containers/x/json", "/v1.24/images/x/json", "/v1.24/info", "/containers/x/json"} {
		d.get(path)
	}
	after, _ := json.Marshal(kept)
	imgAfter, _ := json.Marshal(img)
	infoAfter, _ := json.Marshal(info)
	if !bytes.Equal(before, after) || !bytes.Equal(imgBefore, imgAfter) || !bytes.Equal(infoBefore, infoAfter) {
		t.Error("shaping an answer changed the engine's object")
	}
}
