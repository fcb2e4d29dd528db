package e2e

import (
	"bufio"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/cleatlabs/cleat/test/harness"
)

// TestEveryFlagOfNetworkCreate: what a flag asks for is what containers of the network get, or
// it is refused by its name.
func TestEveryFlagOfNetworkCreate(t *testing.T) {
	e := engine(t, "busybox")
	each(t, func(t *testing.T, program string) {
		const bridge = "com.docker.network.bridge."
		four, six := harness.Subnet(t)
		others, _ := harness.Subnet(t)
		link := "flags" + strings.TrimPrefix(e.Bridge, "ct")
		own := made(t, e, program, "-own", "--driver", "bridge", "--attachable", "--label", "kind=shop", "--ipv4", "--ipv6", "--scope", "local",
			"--ipam-driver", "default", "--subnet", four+"0/24", "--ip-range", four+"128/28", "--gateway", four+"9",
			"--aux-address", "printer="+four+"128", "--subnet", six+"/64", "--gateway", six+"9",
			"-o", bridge+"name="+link, "-o", bridge+"host_binding_ipv4=127.0.0.1", "-o", "com.docker.network.driver.mtu=1390")
		got := e.OK(t, program, "network", "inspect", "-f",
			`{{.Attachable}} {{.Internal}} {{.EnableIPv6}} {{.Scope}} {{.IPAM.Driver}} {{.Labels.kind}} {{json .IPAM.Config}}`, own)
		want := `true false true local default shop [{"Subnet":"` + four + `0/24","IPRange":"` + four + `128/28","Gateway":"` + four + `9","AuxiliaryAddresses":{"printer":"` + four + `128"}},` +
			`{"Subnet":"` + six + `/64","Gateway":"` + six + `9"}]`
		if got != want {
			t.Errorf("inspect:\n%s, want\n%s", got, want)
		}
		n := name(t)
		remove(t, e, n)
		e.OK(t, program, "run", "-d", "--name", n, "--network", own, "-p", "80", "busybox", "sleep", "600")
		got = e.OK(t, program, "exec", n, "sh", "-c", `ip -4 -o addr show eth0 | awk '{print $4}'; ip -6 -o addr show eth0 scope global | awk '{print $4}'
			ip route | grep ^default | cut -d' ' -f3; ip -6 route | grep ^default | cut -d' ' -f3; cat /sys/class/net/eth0/mtu`)
		if got != four+"129/24\n"+six+"1/64\n"+four+"9\n"+six+"9\n1390" {
			t.Errorf("inside:\n%s", got)
		}
		if got := e.OK(t, program, "port", n); !strings.HasPrefix(got, "80/tcp -> 127.0.0.1:") {
			t.Errorf("published: %q", got)
		}
		if _, err := net.InterfaceByName(link); err != nil {
			t.Error(err)
		}
		without4 := made(t, e, program, "-six", "--ipv4=false", "--ipv6")
		if got := e.OK(t, program, "run", "--rm", "--network", without4, "busybox", "sh", "-c", "ip -4 -o addr show eth0; ip -6 -o addr show eth0 scope global | wc -l"); got != "1" {
			t.Errorf("without IPv4: %q", got)
		}
		bare := made(t, e, program, "-bare", "--internal", "-o", bridge+"inhibit_ipv4=true")
		if got := e.OK(t, program, "run", "--rm", "--network", bare, "busybox", "sh", "-c", "ip route | grep -c ^default"+"; true"); got != "0" {
			t.Errorf("of an internal network: %q", got)
		}
		for args, want := range map[string]string{
			"--ingress": "ingress", "--scope swarm": "swarm", "--ipam-driver nosuch": `"nosuch"`, "--ipam-opt key=value": `"key"`, "-d overlay": "overlay",
			"-d nosuch": "nosuch", "--subnet " + others + "0/24 --gateway 10.1.1.1": "10.1.1.1", "--subnet " + others + "0/24 --ip-range 10.1.1.0/28": "10.1.1.0/28",
			"--subnet " + others + "0/24 --aux-address printer": "aux-address",
			"-o " + bridge + "nosuch=1":                         "nosuch", "--subnet " + four + "128/25": own, "--ipv4=false": "IPv4 or IPv6",
		} {
			r := e.Do(t, program, "", append(append([]string{"network", "create"}, strings.Fields(args)...), n+"-refused")...)
			if r.Code == 0 || !strings.Contains(r.Stderr, want) {
				t.Errorf("%s is to be refused by %q: %s", args, want, r)
				e.Cleat(t, "network", "rm", "-f", n+"-refused")
			}
		}
	})
}

// TestPublishAll: -P publishes what the image and --expose name, each on a port of its own.
func TestPublishAll(t *testing.T) {
	e := engine(t, "busybox")
	each(t, func(t *testing.T, program string) {
		n := name(t)
		server(t, e, program, n, "-P", "--expose", "80", "--expose", "90-91/udp", "--publish", "127.0.0.1::92")
		seen := map[string]bool{}
		for _, port := range []string{"80/tcp", "90/udp", "91/udp", "92/tcp"} {
			got := strings.Fields(e.OK(t, program, "port", n, port))[0]
			if at := strings.LastIndex(got, ":"); at < 0 || seen[got[at:]] {
				t.Errorf("%s is published at %q", port, got)
			} else {
				seen[got[at:]] = true
			}
			if port == "80/tcp" {
				harness.Eventually(t, func() (bool, string) {
					page, err := body("http://127.0.0.1" + got[strings.LastIndex(got, ":"):] + "/")
					return page == "page of "+n+"\n", fmt.Sprintf("%q %v", page, err)
				})
			}
		}
	})
}

// TestEditsLeaveOtherNetworksAlone: connections over one network live on while others come and
// go, and so do containers on this one.
func TestEditsLeaveOtherNetworksAlone(t *testing.T) {
	e := engine(t, "busybox", "python")
	n := userNetwork(t, e)
	remove(t, e, n+"-server", n+"-client", n+"-guest")
	e.OK(t, "cleat", "run", "-d", "--name", n+"-server", "--network", n, "-p", "127.0.0.1::7000", "python", "python3", "-c", `import _thread, socket
def echo(s):
    for line in s.makefile("r"): s.sendall(line.encode())
l = socket.socket(); l.bind(("", 7000)); l.listen()
while True: _thread.start_new_thread(echo, (l.accept()[0],))`)
	// The client inside says when an answer is late, and ends.
	e.OK(t, "cleat", "run", "-d", "--name", n+"-client", "--network", n, "python", "python3", "-uc", `import socket, time
while True:
    try: s = socket.create_connection(("`+n+`-server", 7000), 30); break
    except ConnectionRefusedError: time.sleep(0.05)
f = s.makefile("rw")
i = 0
while True:
    f.write(str(i) + "\n"); f.flush()
    if f.readline() != str(i) + "\n": raise SystemExit("lost after %d" % i)
    if i % 20 == 0: print(i)
    i += 1
    time.sleep(0.005)`)
	port := strings.Fields(e.OK(t, "cleat", "port", n+"-server", "7000"))[0]
	var conn net.Conn
	harness.Eventually(t, func() (bool, string) {
		c, err := net.Dial("tcp", port)
		if err != nil {
			return false, err.Error() + e.Cleat(t, "logs", n+"-server").String()
		}
		conn = c
		_ = c.SetDeadline(time.Now().Add(time.Minute))
		fmt.Fprintln(c, "first")
		line, err := bufio.NewReader(c).ReadString('\n')
		if line != "first\n" {
			c.Close()
		}
		return line == "first\n", fmt.Sprint(line, err)
	})
	defer conn.Close()
	answers := bufio.NewReader(conn)
	progress := func() string { return e.OK(t, "cleat", "logs", "--tail", "1", n+"-client") }
	harness.Eventually(t, func() (bool, string) { got := progress(); return got != "", got })
	step := func(args ...string) {
		t.Helper()
		e.OK(t, "cleat", args...)
		_ = conn.SetDeadline(time.Now().Add(time.Minute))
		what := strings.Join(args, " ")
		fmt.Fprintln(conn, what)
		if got, err := answers.ReadString('\n'); got != what+"\n" {
			t.Fatalf("after %s: %q %v", what, got, err)
		}
	}
	other := n + "-other"
	t.Cleanup(func() { e.Cleat(t, "network", "rm", "-f", other) })
	for _, options := range [][]string{{}, {"--internal"}, {"--ipv6", "-o", "com.docker.network.bridge.enable_icc=false"}} {
		step(append(append([]string{"network", "create"}, options...), other)...)
		step("run", "-d", "--name", n+"-guest", "--network", other, "-p", "80", "busybox", "sleep", "600")
		step("network", "connect", n, n+"-guest")
		step("network", "disconnect", other, n+"-guest")
		step("network", "connect", other, n+"-server")
		step("network", "disconnect", other, n+"-server")
		step("rm", "-f", n+"-guest")
		step("network", "rm", other)
		before := progress()
		harness.Eventually(t, func() (bool, string) { now := progress(); return now != before && !strings.Contains(now, "lost"), now })
	}
}
