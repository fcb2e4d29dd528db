package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cleatlabs/cleat/test/harness"
)

// TestEveryFlagOfNetworkConnect: what a flag asks for is what the container gets, whether it runs or is started later.
func TestEveryFlagOfNetworkConnect(t *testing.T) {
	t.Parallel()
	e := engine(t, "busybox")
	const opts = "com.docker.network.endpoint."
	four, six := harness.Subnet(t)
	flags := []string{
		"network", "connect", "--alias", "storefront", "--alias", "till", "--ip", four + "77", "--ip6", six + "77", "--link-local-ip", "169.254.8.8",
		"--driver-opt", opts + "ifname=wan7", "--driver-opt", opts + "sysctls=net.ipv4.conf.IFNAME.log_martians=1", "--gw-priority", "10",
	}
	each(t, func(t *testing.T, program string) {
		net, n := made(t, e, program, "-net", "--ipv6", "--subnet", four+"0/24", "--subnet", six+"/64"), name(t)
		db, asks := n+"-db", n+"-asks"
		server(t, e, program, db, "--network", net)
		remove(t, e, asks)
		e.OK(t, program, "run", "-d", "--name", asks, "--network", net, "busybox", "sleep", "600")
		for _, start := range []string{"run", "create"} {
			c := n + "-" + start
			remove(t, e, c)
			how := map[string][]string{"run": {"run", "-d"}, "create": {"create"}}[start]
			e.OK(t, program, append(append([]string{}, how...), "--name", c, "busybox", "sleep", "600")...)
			e.OK(t, program, append(append([]string{}, flags...), "--link", db+":database", net, c)...)
			if start == "create" {
				e.OK(t, program, "start", c)
			}
			got := e.OK(t, program, "exec", c, "sh", "-c", `ip -4 -o addr show wan7 | awk '{print $4}' | sort; ip -6 -o addr show wan7 scope global | awk '{print $4}'
				cat /proc/sys/net/ipv4/conf/wan7/log_martians; ip route | grep ^default | cut -d' ' -f3,5`)
			if got != four+"77/24\n169.254.8.8/16\n"+six+"77/64\n1\n"+four+"1 wan7" {
				t.Errorf("%s, inside:\n%s", start, got)
			}
			for _, alias := range []string{"storefront", "till"} {
				if got := e.OK(t, program, "exec", asks, "nslookup", "-type=a", alias, "127.0.0.11"); !strings.Contains(got, four+"77") {
					t.Errorf("%s, by the alias %s: %s", start, alias, got)
				}
			}
			reaches(t, e, c, "database", "page of "+db)
			shown := e.OK(t, program, "inspect", "-f", fmt.Sprintf(`{{with index .NetworkSettings.Networks %q}}{{.IPAMConfig.IPv4Address}} {{.IPAMConfig.LinkLocalIPs}} {{.Links}} {{.GwPriority}}{{end}}`, net), c)
			if want := four + "77 [169.254.8.8] [" + db + ":database] 10"; shown != want {
				t.Errorf("%s, inspect: %s, want %s", start, shown, want)
			}
			if got := e.OK(t, program, "network", "inspect", "-v", "-f", "{{range .Containers}}{{.Name}}={{.IPv4Address}} {{end}}", net); !strings.Contains(got+" ", c+"="+four+"77/24 ") {
				t.Errorf("network inspect: %s", got)
			}
			e.OK(t, program, "network", "disconnect", "-f", net, c)
			harness.Eventually(t, func() (bool, string) {
				got := e.OK(t, program, "exec", c, "ls", "/sys/class/net")
				return !strings.Contains(got, "wan7"), got
			})
			e.OK(t, program, "rm", "-f", c)
		}
		// A link to one that is not there yet is good when it comes.
		early, later := n+"-early", n+"-later"
		remove(t, e, early)
		e.OK(t, program, "run", "-d", "--name", early, "busybox", "sleep", "600")
		e.OK(t, program, "network", "connect", "--link", later+":shop", net, early)
		server(t, e, program, later, "--network", net)
		reaches(t, e, early, "shop", "page of "+later)
		for args, want := range map[string]string{
			"--ip 10.193.9.1": "10.193.9.1", "--ip " + address(t, e, db, net): "Address already in use", "--ip6 fd00:1::1": "fd00:1::1",
			"--driver-opt " + opts + "nosuch=1": "nosuch", "--link-local-ip nonsense": "nonsense",
		} {
			c := n + "-refused"
			remove(t, e, c)
			e.OK(t, program, "run", "-d", "--name", c, "busybox", "sleep", "600")
			r := e.Do(t, program, "", append(append([]string{"network", "connect"}, strings.Fields(args)...), net, c)...)
			if r.Code == 0 || !strings.Contains(r.Stderr, want) {
				t.Errorf("%s is to be refused by %q: %s", args, want, r)
			}
			if got := e.OK(t, program, "inspect", "-f", "{{len .NetworkSettings.Networks}}", c); got != "1" {
				t.Errorf("%s: refused, and on %s networks", args, got)
			}
			e.OK(t, program, "rm", "-f", c)
		}
	})
}

// TestDisconnectedFromAllNetworks: who was disconnected from each of its networks is on none after a restart, and can be
// connected again.
func TestDisconnectedFromAllNetworks(t *testing.T) {
	t.Parallel()
	e := engine(t, "busybox")
	each(t, func(t *testing.T, program string) {
		own := made(t, e, program, "-net")
		for _, network := range []string{"bridge", own} {
			c := name(t) + "-on-" + network
			remove(t, e, c)
			e.OK(t, program, "run", "-d", "--name", c, "--hostname", "alone.example", "-p", "127.0.0.1::80", "--network", network, "busybox", "sleep", "600")
			e.OK(t, program, "network", "disconnect", network, c)
			e.OK(t, program, "restart", "-t", "0", c)
			got := e.OK(t, program, "exec", c, "sh", "-c", "ls /sys/class/net; grep -c alone /etc/hosts || true")
			if got != "lo\n0" {
				t.Errorf("%s, inside: %s", network, got)
			}
			if got := e.OK(t, program, "inspect", "-f", "{{len .NetworkSettings.Networks}} {{.NetworkSettings.Ports}}", c); got != "0 map[80/tcp:[]]" {
				t.Errorf("%s, inspect: %s", network, got)
			}
			if got := e.OK(t, program, "network", "inspect", "-f", "{{range .Containers}}{{.Name}} {{end}}", network); strings.Contains(got, c) {
				t.Errorf("network inspect %s: %s", network, got)
			}
			e.OK(t, program, "network", "connect", network, c)
			if got := e.OK(t, program, "exec", c, "sh", "-c", "ls /sys/class/net; grep -c 'alone.example alone$' /etc/hosts"); got != "eth0\nlo\n1" {
				t.Errorf("%s, connected again: %s", network, got)
			}
			e.OK(t, program, "rm", "-f", c)
		}
	})
}

// TestNetworksThatExclude: host and none are no networks beside others; programs match on dockerd's words and statuses.
func TestNetworksThatExclude(t *testing.T) {
	t.Parallel()
	e := engine(t, "busybox")
	n, p := name(t), plainly(t, e)
	net := made(t, e, "docker", "-net")
	for mode, want := range map[string]map[string]string{
		"bridge": {"host": "cannot connect container to host network", "none": "private (none) mode"},
		"none":   {net: "private (none) mode"},
		"host":   {net: "sharing network namespace"},
	} {
		c := n + "-" + mode
		remove(t, e, c)
		e.OK(t, "docker", "run", "-d", "--name", c, "--network", mode, "busybox", "sleep", "600")
		for to, say := range want {
			p.want(400, "POST", "/v1.44/networks/"+to+"/connect", `{"Container":"`+c+`"}`, say)
		}
	}
	p.want(400, "POST", "/v1.44/networks/host/disconnect", `{"Container":"`+n+`-host"}`, "cannot disconnect container from host network")
	remove(t, e, n+"-mac")
	for _, mode := range []string{"host", "none", "container:" + n + "-bridge"} {
		p.want(400, "POST", "/v1.44/containers/create?name="+n+"-mac", `{"Image":"busybox","HostConfig":{"NetworkMode":"`+mode+
			`"},"NetworkingConfig":{"EndpointsConfig":{"`+mode+`":{"MacAddress":"02:00:00:00:00:05"}}}}`, "conflicting options: mac-address and the network mode")
	}
}

// TestNetworkListsAndRemovals: filters of ls and prune, and what rm makes of several names.
func TestNetworkListsAndRemovals(t *testing.T) {
	t.Parallel()
	e := engine(t, "busybox")
	each(t, func(t *testing.T, program string) {
		mark := "suite=" + name(t)
		a, b := made(t, e, program, "-a", "--label", mark), made(t, e, program, "-b", "--label", mark, "--internal")
		server(t, e, program, name(t), "--network", a)
		id := e.OK(t, program, "network", "inspect", "-f", "{{.Id}}", b)
		for args, want := range map[string]string{
			"":                                   a + "\n" + b,
			"--filter name=" + b:                 b,
			"--filter id=" + id[:12]:             b,
			"--filter driver=bridge":             a + "\n" + b,
			"--filter driver=macvlan":            "",
			"--filter scope=local":               a + "\n" + b,
			"--filter scope=swarm":               "",
			"--filter type=custom":               a + "\n" + b,
			"--filter type=builtin":              "",
			"--filter dangling=true":             b,
			"--filter dangling=false":            a,
			"--filter label=suite=nobody":        "",
			"--filter name=" + a + " --no-trunc": a,
		} {
			got := e.OK(t, program, append([]string{"network", "ls", "--filter", "label=" + mark, "--format", "{{.Name}}"}, strings.Fields(args)...)...)
			if got != want {
				t.Errorf("ls %s: %q, want %q", args, got, want)
			}
		}
		if got := e.OK(t, program, "network", "ls", "-q", "--no-trunc", "--filter", "name="+b); got != id {
			t.Errorf("ls -q --no-trunc: %q", got)
		}
		if r := e.Do(t, program, "", "network", "ls", "--filter", "colour=red"); r.Code != 1 || !strings.Contains(r.Stderr, "invalid filter 'colour'") {
			t.Errorf("%s", r)
		}
		for filter, deleted := range map[string]bool{"until=24h": false, "label!=" + mark: false} {
			r := e.Do(t, program, "", "network", "prune", "-f", "--filter", "label="+mark, "--filter", filter)
			if r.Code != 0 || strings.Contains(r.Stdout, b) != deleted {
				t.Errorf("prune %s: %s", filter, r)
			}
		}
		if r := e.Do(t, program, "", "network", "prune", "-f", "--filter", "label="+mark); r.Line() != "Deleted Networks:\n"+b {
			t.Errorf("prune: %s", r)
		}
		c := made(t, e, program, "-c")
		r := e.Do(t, program, "", "network", "rm", a, c, "nosuch-"+program)
		if r.Code != 1 || r.Line() != c || !strings.Contains(r.Stderr, "has active endpoints") || !strings.Contains(r.Stderr, "network nosuch-"+program+" not found") {
			t.Errorf("rm of one in use, one unused and none: %s", r)
		}
		if r := e.Do(t, program, "", "network", "rm", "-f", "nosuch-"+program); r.Code != 0 {
			t.Errorf("rm -f of none: %s", r)
		}
	})
}
