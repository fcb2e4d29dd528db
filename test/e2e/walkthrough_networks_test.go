package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"

	"github.com/cleatlabs/cleat/test/harness"
)

// webApp answers every request with how many visits its database has counted.
const webApp = `import socket, subprocess
s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); s.bind(("", 80)); s.listen(16)
sql = "create table if not exists visits (at timestamptz default now()); insert into visits default values; select count(*) from visits"
while True:
    c, _ = s.accept()
    c.recv(65536)
    r = subprocess.run(["psql", "-h", "db", "-U", "postgres", "-qtAc", sql], capture_output=True, text=True)
    text = r.stdout if r.returncode == 0 else "no database: " + r.stderr
    c.sendall(("HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(text), text)).encode())
    c.close()`

// TestWebAppAndPostgresByName is the network of every article: a web application that
// finds its database by name, on a network that somebody called yeah-net.
func TestWebAppAndPostgresByName(t *testing.T) {
	e := engine(t, "python", "postgres")
	each(t, func(t *testing.T, program string) {
		remove(t, e, "api", "db")
		e.OK(t, program, "network", "create", "yeah-net")
		t.Cleanup(func() {
			e.OK(t, program, "rm", "-f", "-v", "api", "db")
			e.OK(t, program, "network", "rm", "yeah-net")
		})
		e.OK(t, program, "run", "-d", "--name", "api", "--network", "yeah-net", "-p", "127.0.0.1:0:80", "-e", "PGPASSWORD=secret", "python", "python3", "-c", webApp)
		url := "http://" + e.OK(t, program, "port", "api", "80/tcp") + "/"
		visits := func(when, want string) {
			t.Helper()
			harness.Eventually(t, func() (bool, string) {
				got, err := bodyWithin(harness.Patience, url) // one that is given up is counted nevertheless
				if strings.HasPrefix(got, "no database") || err != nil {
					return false, fmt.Sprintf("%s: %q %v", when, got, err)
				}
				if strings.TrimSpace(got) != want {
					t.Fatalf("%s: %q, want %s", when, got, want)
				}
				return true, ""
			})
		}
		harness.Eventually(t, func() (bool, string) {
			got, err := body(url)
			return strings.Contains(got, "could not translate host name"), fmt.Sprintf("without a database: %q %v", got, err)
		})
		e.OK(t, program, "run", "-d", "--name", "db", "--network", "yeah-net", "-e", "POSTGRES_PASSWORD=secret", "postgres")
		visits("first", "1")
		visits("second", "2")
		// The database goes and comes back under its name.
		e.OK(t, program, "restart", "db")
		visits("after the database was restarted", "3")
		e.OK(t, program, "rm", "-f", "-v", "db")
		e.OK(t, program, "run", "-d", "--name", "db", "--network", "yeah-net", "-e", "POSTGRES_PASSWORD=secret", "postgres")
		visits("of another database with the name", "1")
	})
}

// TestNginxOnTheHostsNetwork: run -itd --network host nginx.
func TestNginxOnTheHostsNetwork(t *testing.T) {
	e := engine(t, "nginx")
	each(t, func(t *testing.T, program string) {
		n := name(t)
		remove(t, e, n)
		addr := "127.0.0.1:" + freePort(t)
		conf := filepath.Join(t.TempDir(), "nginx.conf")
		if err := os.WriteFile(conf, []byte("events {} http { server { listen "+addr+"; location / { return 200 \"on the host\\n\"; } } }"), 0o644); err != nil {
			t.Fatal(err)
		}
		e.OK(t, program, "run", "-itd", "--name", n, "--network", "host", "-v", conf+":/etc/nginx/nginx.conf:ro", "nginx")
		harness.Eventually(t, func() (bool, string) {
			got, err := body("http://" + addr + "/")
			return got == "on the host\n", fmt.Sprintf("%q %v", got, err)
		})
		if got := e.OK(t, program, "inspect", "-f", "{{.HostConfig.NetworkMode}} {{.Config.Tty}} {{len .NetworkSettings.Networks}} {{.NetworkSettings.Networks.host.IPAddress}}", n); !strings.HasPrefix(got, "host true 1") {
			t.Errorf("inspect: %s", got)
		}
	})
}

// TestEveryKeyOfTheNetworkFlag: name=, alias=, ip=, ip6=, mac-address=, driver-opt= and
// gw-priority= act, with both clients and from the Go client.
func TestEveryKeyOfTheNetworkFlag(t *testing.T) {
	e := engine(t, "busybox")
	const opts = "com.docker.network.endpoint."
	four, six := harness.Subnet(t)
	check := func(t *testing.T, n, net string) {
		t.Helper()
		got := e.OK(t, "cleat", "exec", n, "sh", "-c", `cat /sys/class/net/wan7/address; ip -4 -o addr show wan7 | awk '{print $4}'; ip -6 -o addr show wan7 scope global | awk '{print $4}'
			cat /proc/sys/net/ipv4/conf/wan7/log_martians; ip route | grep ^default | cut -d' ' -f3,5; ls /sys/class/net | tr '\n' ' '`)
		want := "02:00:00:00:ab:07\n" + four + "77/24\n" + six + "77/64\n1\n" + four + "1 wan7\neth0 lo wan7 "
		if strings.TrimSpace(got) != strings.TrimSpace(want) {
			t.Errorf("inside:\n%s\nwant\n%s", got, want)
		}
		other := n + "-other"
		remove(t, e, other)
		if got := e.OK(t, "cleat", "run", "--rm", "--name", other, "--network", net, "busybox", "nslookup", "-type=a", "storefront", "127.0.0.11"); !strings.Contains(got, four+"77") {
			t.Errorf("by its alias: %s", got)
		}
	}
	create := func(t *testing.T) string {
		return made(t, e, "docker", "-net", "--ipv6", "--subnet", four+"0/24", "--subnet", six+"/64")
	}
	each(t, func(t *testing.T, program string) {
		net, n := create(t), name(t)
		first := made(t, e, program, "-first")
		remove(t, e, n)
		e.OK(t, program, "run", "-d", "--name", n, "--network", first, "--network",
			"name="+net+",alias=storefront,ip="+four+"77,ip6="+six+"77,mac-address=02:00:00:00:ab:07,driver-opt="+opts+"ifname=wan7,driver-opt="+opts+"sysctls=net.ipv4.conf.IFNAME.log_martians=1,gw-priority=10",
			"busybox", "sleep", "600")
		check(t, n, net)
	})
	t.Run("go client", func(t *testing.T) {
		net, n := create(t), name(t)
		remove(t, e, n)
		c := e.Client(t)
		mac := network.HardwareAddr{2, 0, 0, 0, 0xab, 7}
		_, err := c.ContainerCreate(context.Background(), client.ContainerCreateOptions{
			Name: n, Config: &container.Config{Image: "busybox", Cmd: []string{"sleep", "600"}}, HostConfig: &container.HostConfig{NetworkMode: "bridge"},
			NetworkingConfig: &network.NetworkingConfig{EndpointsConfig: map[string]*network.EndpointSettings{
				"bridge": {}, net: {
					IPAMConfig: &network.EndpointIPAMConfig{IPv4Address: netip.MustParseAddr(four + "77"), IPv6Address: netip.MustParseAddr(six + "77")}, MacAddress: mac, GwPriority: 10,
					Aliases: []string{"storefront"}, DriverOpts: map[string]string{opts + "ifname": "wan7", opts + "sysctls": "net.ipv4.conf.IFNAME.log_martians=1"},
				},
			}},
		})
		if err != nil {
			t.Fatal(err)
		}
		e.OK(t, "cleat", "start", n)
		check(t, n, net)
	})
}

// TestNetworkOptions: what one network's options do to its containers.
func TestNetworkOptions(t *testing.T) {
	e := engine(t, "busybox")
	each(t, func(t *testing.T, program string) {
		net := made(t, e, program, "-net", "-o", "com.docker.network.driver.mtu=1380", "-o", "com.docker.network.container_iface_prefix=wan")
		got := e.OK(t, program, "run", "--rm", "--network", net, "--link-local-ip", "169.254.9.9", "busybox", "sh", "-c",
			"cat /sys/class/net/wan0/mtu; ip -o addr show wan0 | grep -c 169.254.9.9/16; ls /sys/class/net | tr '\\n' ' '")
		if strings.TrimSpace(got) != "1380\n1\nlo wan0" {
			t.Errorf("inside: %q", got)
		}
		n := name(t)
		remove(t, e, n)
		e.OK(t, program, "create", "--name", n, "--network", net, "--link-local-ip", "169.254.9.9", "busybox", "true")
		if got := e.OK(t, program, "inspect", "-f", "{{(index .NetworkSettings.Networks \""+net+"\").IPAMConfig.LinkLocalIPs}}", n); got != "[169.254.9.9]" {
			t.Errorf("inspect: %s", got)
		}
	})
}

// TestConfigOnlyNetworks: a configuration that networks are made from.
func TestConfigOnlyNetworks(t *testing.T) {
	e := engine(t, "busybox")
	four, _ := harness.Subnet(t)
	others, _ := harness.Subnet(t)
	each(t, func(t *testing.T, program string) {
		conf := made(t, e, program, "-conf", "--config-only", "--subnet", four+"0/24", "--gateway", four+"254", "-o", "com.docker.network.driver.mtu=1370", "--label", "kind=shop", "--label", "of="+name(t))
		net := made(t, e, program, "-net", "--config-from", conf)
		got := e.OK(t, program, "run", "--rm", "--network", net, "busybox", "sh", "-c", "ip -4 -o addr show eth0 | awk '{print $4}'; ip route | grep ^default | cut -d' ' -f3; cat /sys/class/net/eth0/mtu")
		if got != four+"1/24\n"+four+"254\n1370" {
			t.Errorf("inside: %q", got)
		}
		if got := e.OK(t, program, "network", "inspect", "-f", "{{.ConfigFrom.Network}} {{.ConfigOnly}} {{.Labels.kind}}", net); got != conf+" false shop" {
			t.Errorf("inspect: %s", got)
		}
		for what, r := range map[string]harness.Result{
			"is a configuration network": e.Do(t, program, "", "run", "--rm", "--network", conf, "busybox", "true"),
			"is in use":                  e.Do(t, program, "", "network", "rm", conf),
			"not supported":              e.Do(t, program, "", "network", "create", "--config-from", conf, "--subnet", others+"0/24", net+"-2"),
		} {
			if r.Code == 0 || !strings.Contains(r.Stderr, what) {
				t.Errorf("want %q: %s", what, r)
			}
		}
		// It is no network of any driver, and prune leaves it.
		for _, gone := range []string{"Deleted Networks:\n" + net, ""} {
			if got := strings.TrimSpace(e.OK(t, program, "network", "prune", "-f", "--filter", "label=of="+name(t))); got != gone {
				t.Errorf("prune: %q, want %q", got, gone)
			}
		}
		if got := e.OK(t, program, "network", "inspect", "-f", "{{.ConfigOnly}} {{.Driver}} {{.Scope}}", conf); got != "true null local" {
			t.Errorf("inspect: %s", got)
		}
	})
}
