package network_test

import (
	"cmp"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	api "github.com/moby/moby/api/types/network"

	"github.com/cleatlabs/cleat/internal/network"
)

const hostsHead = "127.0.0.1\tlocalhost\n" +
	"::1\tlocalhost ip6-localhost ip6-loopback\n" +
	"fe00::\tip6-localnet\n" +
	"ff00::\tip6-mcastprefix\n" +
	"ff02::1\tip6-allnodes\n" +
	"ff02::2\tip6-allrouters\n"

func TestFilesInEtc(t *testing.T) {
	h := newHost(t)
	cfg := h.config()
	dir := t.TempDir()
	cfg.ResolvConf = filepath.Join(dir, "host-resolv.conf")
	cfg.HostsFile = filepath.Join(dir, "host-hosts")
	must(t, os.WriteFile(cfg.HostsFile, []byte("127.0.0.1 localhost\n10.1.1.1 printer"), 0o644))
	s := h.open(cfg)
	const usual = "# a comment\nnameserver 127.0.0.53\nnameserver 192.0.2.53 # behind\nnameserver ::1\nsearch example.com lan\noptions edns0 trust-ad\n"
	for _, c := range []struct {
		name          string
		host          string
		req           network.Request
		hosts, resolv string
		hostname      string // if not web
		wantError     string
	}{
		{name: "bridge", host: usual, req: network.Request{Hostname: "web"},
			hosts: hostsHead + "IP\tweb\n", resolv: "nameserver 192.0.2.53\nsearch example.com lan\noptions edns0 trust-ad\n"},
		{name: "servers by IPv6 and by a link", host: "nameserver fe80::1%eth0\nnameserver 2001:db8::53\nnameserver 192.0.2.53\n", req: network.Request{Hostname: "web"},
			hosts: hostsHead + "IP\tweb\n", resolv: "nameserver 192.0.2.53\n"},
		{name: "only loopback servers", host: "nameserver 127.0.0.1\n", req: network.Request{Hostname: "web", Domainname: "example.org"},
			hosts: hostsHead + "IP\tweb.example.org web\n", resolv: "nameserver 8.8.8.8\nnameserver 8.8.4.4\n"},
		{name: "a full name", host: "", req: network.Request{Hostname: "web.example.org"}, hosts: hostsHead + "IP\tweb.example.org web\n", resolv: "nameserver 8.8.8.8\nnameserver 8.8.4.4\n", hostname: "web.example.org\n"},
		{name: "asked for", host: usual, req: network.Request{Hostname: "web", DNS: []string{"127.0.0.1", "2001:db8::1"}, DNSSearch: []string{"."}, DNSOptions: []string{"ndots:2"},
			ExtraHosts: []string{"db:10.0.0.5", "host.docker.internal:host-gateway", "six=[2001:db8::5]", "plain6:2001:db8::6"}},
			hosts:  hostsHead + "10.0.0.5\tdb\n172.29.0.1\thost.docker.internal\n2001:db8::5\tsix\n2001:db8::6\tplain6\nIP\tweb\n",
			resolv: "nameserver 127.0.0.1\nnameserver 2001:db8::1\noptions ndots:2\n"},
		{name: "none", host: usual, req: network.Request{Mode: "none", Hostname: "web"},
			hosts: hostsHead, resolv: "nameserver 192.0.2.53\nsearch example.com lan\noptions edns0 trust-ad\n"},
		{name: "host", host: usual, req: network.Request{Mode: "host", Hostname: "web", ExtraHosts: []string{"db:10.0.0.5"}},
			hosts: "127.0.0.1 localhost\n10.1.1.1 printer\n10.0.0.5\tdb\n", resolv: usual},
		{name: "host with a search domain", host: usual, req: network.Request{Mode: "host", Hostname: "web", DNSSearch: []string{"a.b"}},
			hosts: "127.0.0.1 localhost\n10.1.1.1 printer\n", resolv: "nameserver 127.0.0.53\nnameserver 192.0.2.53\nnameserver ::1\nsearch a.b\noptions edns0 trust-ad\n"},
		{name: "bad DNS", host: usual, req: network.Request{DNS: []string{"dns.example"}}, wantError: `"dns.example"`},
		{name: "bad extra host", host: usual, req: network.Request{ExtraHosts: []string{"db"}}, wantError: `"db"`},
		{name: "bad extra address", host: usual, req: network.Request{ExtraHosts: []string{"db:nowhere"}}, wantError: `"nowhere"`},
		{name: "bad extra name", host: usual, req: network.Request{ExtraHosts: []string{"a\nb:10.0.0.1"}}, wantError: "blanks"},
	} {
		t.Run(c.name, func(t *testing.T) {
			must(t, os.WriteFile(cfg.ResolvConf, []byte(c.host), 0o644))
			c.req.ContainerID = strings.Repeat("f", 64)
			c.req.FilesDir = t.TempDir()
			// A longer one of an earlier start.
			must(t, os.WriteFile(filepath.Join(c.req.FilesDir, "hosts"), []byte(strings.Repeat("old\n", 500)), 0o644))
			b, err := h.request(s, c.req)
			if c.wantError != "" {
				wantError(t, err, errInvalid, c.wantError)
				return
			}
			must(t, err)
			defer h.detach(s, b)
			read := func(name string) string {
				data, err := os.ReadFile(filepath.Join(c.req.FilesDir, name))
				must(t, err)
				return string(data)
			}
			h.expect("hosts", read("hosts"), strings.ReplaceAll(c.hosts, "IP\t", b.IP.String()+"\t"))
			h.expect("resolv.conf", read("resolv.conf"), c.resolv)
			h.expect("hostname", read("hostname"), cmp.Or(c.hostname, "web\n"))
			if (c.req.Mode == "") != (b.ns >= 0) {
				t.Errorf("namespace %d in mode %q", b.ns, c.req.Mode)
			}
		})
	}
}

func TestNamespaceSettings(t *testing.T) {
	h := newHost(t)
	cfg := h.config()
	cfg.MTU = 1400
	s := h.open(cfg)
	mac := api.HardwareAddr{0x02, 0x11, 0x22, 0x33, 0x44, 0x55}
	b, err := h.request(s, network.Request{ContainerID: "x", Endpoints: []network.EndpointRequest{{Network: "bridge", MAC: mac}}})
	must(t, err)
	for path, want := range map[string]string{
		"/proc/sys/net/ipv4/ip_unprivileged_port_start": "0",
		"/proc/sys/net/ipv4/ping_group_range":           "0\t2147483647",
		"/proc/sys/net/ipv6/conf/eth0/disable_ipv6":     "1",
		"/proc/sys/net/ipv6/conf/lo/disable_ipv6":       "0",
	} {
		h.in(b.ns, func() error {
			got, err := os.ReadFile(path)
			h.expect(path, strings.TrimSpace(string(got)), want)
			return err
		})
	}
	h.in(b.ns, func() error {
		for path, want := range map[string]string{"eth0": "02:11:22:33:44:55"} {
			out, err := runOutput("ip", "link", "show", path)
			if err != nil {
				return err
			}
			if !strings.Contains(out, want) || !strings.Contains(out, "mtu 1400") {
				t.Errorf("eth0: %s", out)
			}
		}
		return nil
	})
}

func TestListAndInspect(t *testing.T) {
	h := newHost(t)
	cfg := h.config()
	s := h.open(cfg)
	ctx := context.Background()
	names := func(filters map[string][]string) string {
		ns, err := s.List(ctx, filters)
		must(t, err)
		var out []string
		for _, n := range ns {
			out = append(out, n.Name+"/"+n.Driver+"/"+n.Scope)
			if n.Labels == nil || n.Options == nil || len(n.ID) != 64 || n.Created.IsZero() {
				t.Errorf("incomplete: %+v", n)
			}
		}
		return strings.Join(out, " ")
	}
	h.expect("all", names(nil), "bridge/bridge/local host/host/local none/null/local")
	h.expect("by name", names(map[string][]string{"name": {"rid"}}), "bridge/bridge/local")
	h.expect("by two names", names(map[string][]string{"name": {"host", "none"}}), "host/host/local none/null/local")
	h.expect("by driver", names(map[string][]string{"driver": {"null"}}), "none/null/local")
	h.expect("builtin", names(map[string][]string{"type": {"builtin"}, "scope": {"local"}}), names(nil))
	h.expect("custom", names(map[string][]string{"type": {"custom"}}), "")
	h.expect("dangling", names(map[string][]string{"dangling": {"true"}}), "")
	h.expect("by label", names(map[string][]string{"label": {"a=b"}}), "")
	for _, bad := range []map[string][]string{{"x": {"y"}}, {"type": {"y"}}, {"scope": {"y"}}, {"dangling": {"y"}}, {"x": nil}} {
		_, err := s.List(ctx, bad)
		wantError(t, err, errInvalid, "invalid filter")
	}

	a := h.attach(s, "8080:80/tcp")
	in, err := s.Inspect(ctx, "bridge")
	must(t, err)
	got := in.Containers[a.ContainerID]
	h.expect("endpoint", got.Name+" "+got.IPv4Address.String()+" "+got.MacAddress.String()+" "+got.EndpointID, a.Name+" 172.29.0.2/16 02:42:ac:1d:00:02 "+a.EndpointID)
	h.expect("subnet", in.IPAM.Config[0].Subnet.String()+" "+in.IPAM.Config[0].Gateway.String(), "172.29.0.0/16 172.29.0.1")
	h.expect("bridge option", in.Options["com.docker.network.bridge.name"], cfg.Bridge)
	id, name, err := s.Resolve(in.ID[:12])
	must(t, err)
	h.expect("by prefix", name+" "+id, "bridge "+in.ID)
	_, err = s.Inspect(ctx, "nope")
	wantError(t, err, errNotFound, "network nope not found")
	h.detach(s, a)
	if in, _ = s.Inspect(ctx, in.ID); len(in.Containers) != 0 || in.Containers == nil {
		t.Errorf("containers %v, want an empty map", in.Containers)
	}
	must(t, s.Close())
	again := h.open(cfg)
	if id2, _, _ := again.Resolve("bridge"); id2 != in.ID {
		t.Errorf("the network's id changed from %s to %s", in.ID, id2)
	}
}

func TestAddressesRunOut(t *testing.T) {
	h := newHost(t)
	cfg := h.config()
	cfg.BIP = mustPrefix("172.29.0.1/29")
	s := h.open(cfg)
	var boxes []*box
	for range 5 {
		boxes = append(boxes, h.attach(s))
	}
	_, err := h.tryAttach(s)
	wantError(t, err, errExhausted, "172.29.0.0/29", "--bip")
	h.detach(s, boxes[2])
	h.expect("the freed address", h.attach(s).IP.String(), "172.29.0.4")
}

// An address that ends as another one does is taken out of a container's hosts file alone.
func TestDisconnectLeavesOthersInHosts(t *testing.T) {
	h := newHost(t)
	s := h.open(h.config())
	h.create(s, api.CreateRequest{Name: "stays", IPAM: subnets("110.77.0.0/24")})
	h.create(s, api.CreateRequest{Name: "stays-too", IPAM: subnets("10.78.0.0/24")})
	h.create(s, api.CreateRequest{Name: "goes", IPAM: subnets("10.77.0.0/24")})
	req := on("many", "stays", "stays-too", "goes")
	req.FilesDir = t.TempDir()
	b := h.join(s, req)
	_, err := s.Disconnect(context.Background(), req, b.Endpoints[2].NetworkID, b.ns, func(*network.Sandbox) error { return nil })
	must(t, err)
	text, err := os.ReadFile(filepath.Join(req.FilesDir, "hosts"))
	must(t, err)
	if !strings.HasSuffix(string(text), "ip6-allrouters\n110.77.0.2\tmany\n10.78.0.2\tmany\n") {
		t.Errorf("hosts:\n%s", text)
	}
}
