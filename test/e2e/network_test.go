package e2e

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/test/harness"
)

// body fetches a page; every attempt is a new connection.
func body(url string) (string, error) { return bodyWithin(10*time.Second, url) }

func bodyWithin(d time.Duration, url string) (string, error) {
	c := http.Client{Timeout: d, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := c.Get(url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

const web = `mkdir /www; echo page of $(hostname) >/www/index.html; exec httpd -f -p 80 -h /www`

// get is a shell command that fetches a page. Debian's static busybox cannot use
// its wget: glibc resolves names, even numeric ones, by libraries that are not there.
func get(host, port string) string { return getWithin(15, host, port) }

// getWithin gives up after so many seconds: what no packet gets through to is not waited for as what may be slow is.
func getWithin(seconds int, host, port string) string {
	return `printf 'GET / HTTP/1.0\r\n\r\n' | nc -w ` + fmt.Sprint(seconds) + " " + host + " " + port + ` | sed '1,/^.\?$/d'`
}

func TestPublishedPortsFromEverywhere(t *testing.T) {
	e := engine(t, "busybox")
	own6 := fmt.Sprintf("fd00:c1ea:e2e::%x", os.Getpid()&0xffff) // an address of this host, and the container has none
	if out, err := exec.Command("ip", "addr", "add", own6+"/128", "dev", "lo").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Cleanup(func() { _ = exec.Command("ip", "addr", "del", own6+"/128", "dev", "lo").Run() })
	each(t, func(t *testing.T, program string) {
		n := name(t)
		remove(t, e, n)
		e.OK(t, program, "run", "-d", "--name", n, "-h", "web", "-p", "80", "busybox", "sh", "-c", web)
		port := e.OK(t, program, "inspect", "-f", `{{(index (index .NetworkSettings.Ports "80/tcp") 0).HostPort}}`, n)
		gateway, _, _ := strings.Cut(e.Subnet, "/")
		if got, want := e.OK(t, program, "ps", "--filter", "name="+n, "--format", "{{.Ports}}"), "0.0.0.0:"+port+"->80/tcp, [::]:"+port+"->80/tcp"; got != want {
			t.Errorf("ps: %q, want %q", got, want)
		}
		for _, host := range []string{"127.0.0.1", "[::1]", gateway, "[" + own6 + "]"} {
			harness.Eventually(t, func() (bool, string) {
				got, err := body("http://" + host + ":" + port + "/")
				return got == "page of web\n", fmt.Sprintf("%s: %q %v", host, got, err)
			})
		}
		// hairpin: the container reaches its own published port by the host's address
		if got := e.OK(t, program, "exec", n, "sh", "-c", get(gateway, port)); got != "page of web" {
			t.Errorf("hairpin: %q", got)
		}
	})
}

// A container that is published on an address of the host goes on by its policy while the host does not have it, and is
// reached when it comes back.
func TestRestartsWithoutTheAddressItIsPublishedOn(t *testing.T) {
	e := engine(t, "busybox")
	four, _ := harness.Subnet(t)
	own := four + "9"
	address := func(verb string) {
		t.Helper()
		if out, err := exec.Command("ip", "addr", verb, own+"/32", "dev", "lo").CombinedOutput(); err != nil {
			t.Fatalf("ip addr %s: %v: %s", verb, err, out)
		}
	}
	address("add")
	t.Cleanup(func() { _ = exec.Command("ip", "addr", "del", own+"/32", "dev", "lo").Run() })
	n := name(t)
	remove(t, e, n)
	e.OK(t, "docker", "run", "-d", "--name", n, "-h", "web", "--restart", "always", "-p", own+"::80", "busybox", "sh", "-c", "rm -rf /www; "+web)
	before, err := strconv.Atoi(e.OK(t, "docker", "inspect", "-f", "{{.State.Pid}}", n))
	if err != nil {
		t.Fatal(err)
	}
	address("del")
	if err := unix.Kill(before, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	harness.Eventually(t, func() (bool, string) {
		got := e.OK(t, "docker", "inspect", "-f", "{{.State.Status}} {{.RestartCount}} {{.State.Error}}", n)
		return got == "running 1", got
	})
	if got := e.OK(t, "docker", "info", "-f", "{{.Warnings}}"); !strings.Contains(got, "container "+n+" publishes ports on "+own+", which no interface of this host has") {
		t.Errorf("warnings: %s", got)
	}
	address("add")
	port := e.OK(t, "docker", "inspect", "-f", `{{(index (index .NetworkSettings.Ports "80/tcp") 0).HostPort}}`, n)
	harness.Eventually(t, func() (bool, string) {
		got, err := body("http://" + own + ":" + port + "/")
		return got == "page of web\n", fmt.Sprintf("%q %v", got, err)
	})
}

// TestPublishedPortFromOutside plays a host of the outside in a namespace of its
// own, and checks that the container sees that host's address.
func TestPublishedPortFromOutside(t *testing.T) {
	e := engine(t, "busybox")
	n := name(t)
	remove(t, e, n)
	e.OK(t, "docker", "run", "-d", "--name", n, "-p", "80", "busybox", "sh", "-c",
		`mkdir -p /www/cgi-bin; printf '#!/bin/sh\necho; echo $REMOTE_ADDR\n' >/www/cgi-bin/who; chmod +x /www/cgi-bin/who; exec httpd -f -p 80 -h /www`)
	port := e.OK(t, "docker", "inspect", "-f", `{{(index (index .NetworkSettings.Ports "80/tcp") 0).HostPort}}`, n)
	ns := fmt.Sprintf("cto%d", e.PID())
	sh := func(script string) string {
		t.Helper()
		out, err := exec.Command("sh", "-ec", script).CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", script, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	sh(fmt.Sprintf(`ip netns add %[1]s; ip link add %[1]sv type veth peer name eth0 netns %[1]s
		ip addr add 198.51.100.1/24 dev %[1]sv; ip link set %[1]sv up
		ip -n %[1]s addr add 198.51.100.2/24 dev eth0; ip -n %[1]s link set eth0 up; ip -n %[1]s link set lo up
		ip -n %[1]s route add default via 198.51.100.1`, ns))
	t.Cleanup(func() { sh("ip link del " + ns + "v; ip netns del " + ns) })
	harness.Eventually(t, func() (bool, string) {
		out, err := exec.Command("ip", "netns", "exec", ns, "curl", "-s", "-m", "5", "http://198.51.100.1:"+port+"/cgi-bin/who").CombinedOutput()
		return strings.Trim(string(out), "[:f]\n") == "198.51.100.2", fmt.Sprintf("%q %v", out, err)
	})
	// what is not published is not reachable from outside, though routed
	ip := e.OK(t, "docker", "inspect", "-f", "{{.NetworkSettings.IPAddress}}", n)
	if out, err := exec.Command("ip", "netns", "exec", ns, "curl", "-s", "-m", "2", "http://"+ip+":80/").CombinedOutput(); err == nil {
		t.Errorf("the container's own address answers an outside host: %s", out)
	}
}

func TestUDPAndRanges(t *testing.T) {
	e := engine(t, "python")
	each(t, func(t *testing.T, program string) {
		n := name(t)
		remove(t, e, n)
		e.OK(t, program, "run", "-d", "--name", n, "-p", "127.0.0.1:19000-19002:19000-19002/udp", "python", "python3", "-c",
			"import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\ns.bind(('', 19001))\nwhile True:\n  b, a = s.recvfrom(99)\n  s.sendto(b, a)")
		c, err := net.Dial("udp", "127.0.0.1:19001")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		harness.Eventually(t, func() (bool, string) {
			if _, err := c.Write([]byte("ping")); err != nil {
				return false, err.Error()
			}
			c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
			buf := make([]byte, 16)
			k, err := c.Read(buf)
			return string(buf[:k]) == "ping", fmt.Sprint(err)
		})
		got := e.OK(t, program, "ps", "--filter", "name="+n, "--format", "{{.Ports}}")
		if got != "127.0.0.1:19000-19002->19000-19002/udp" {
			t.Errorf("ps: %q", got)
		}
	})
}

func TestPortInUseNamesTheHolder(t *testing.T) {
	e := engine(t, "busybox")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	mark := "of=" + name(t)
	each(t, func(t *testing.T, program string) {
		n := name(t)
		remove(t, e, n)
		taken := freePort(t)
		e.OK(t, program, "run", "-d", "--name", n, "-p", taken+":80", "busybox", "sleep", "600")
		r := e.Do(t, program, "", "run", "--rm", "--label", mark, "-p", taken+":80", "busybox", "true")
		if r.Code != 125 || !strings.Contains(r.Stderr, "port is already allocated") || !strings.Contains(r.Stderr, n) {
			t.Errorf("a container's port: %s", r)
		}
		_, port, _ := net.SplitHostPort(l.Addr().String())
		r = e.Do(t, program, "", "run", "--rm", "--label", mark, "-p", "127.0.0.1:"+port+":80", "busybox", "true")
		if r.Code != 125 || !strings.Contains(r.Stderr, port) || !strings.Contains(r.Stderr, "e2e.test") {
			t.Errorf("a process's port: %s", r)
		}
	})
	harness.Eventually(t, func() (bool, string) {
		left := e.OK(t, "cleat", "ps", "-aq", "--filter", "label="+mark)
		return left == "", "what was refused is still there: " + left
	})
}

func TestContainersReachEachOtherAndTheHostsWorld(t *testing.T) {
	e := engine(t, "busybox")
	n := name(t)
	remove(t, e, n)
	e.OK(t, "docker", "run", "-d", "--name", n, "-h", "web", "busybox", "sh", "-c", web)
	ip := e.OK(t, "docker", "inspect", "-f", "{{.NetworkSettings.IPAddress}}", n)
	harness.Eventually(t, func() (bool, string) {
		r := e.Docker(t, "run", "--rm", "busybox", "sh", "-c", get(ip, "80"))
		return r.Line() == "page of web", r.String()
	})
	// the host's loopback services are not reachable from containers
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	gateway, _, _ := strings.Cut(e.Subnet, "/")
	_, port, _ := net.SplitHostPort(l.Addr().String())
	if r := e.Docker(t, "run", "--rm", "--cap-add", "NET_ADMIN", "busybox", "sh", "-c",
		"ip route add 127.0.0.5/32 via "+gateway+" 2>/dev/null; nc -w 2 "+gateway+" "+port+" </dev/null && echo reached"); strings.Contains(r.Stdout, "reached") {
		t.Errorf("a loopback service of the host answers: %s", r)
	}
}

// A network manager that sets the bridge down, or takes its address, takes no container off the network.
func TestBridgeThatIsSetDown(t *testing.T) {
	e := harness.Start(t, harness.Options{})
	e.Load(t, "busybox")
	e.OK(t, "cleat", "run", "-d", "--name", "site", "-h", "web", "-p", "80", "busybox", "sh", "-c", web)
	_, port, _ := strings.Cut(e.OK(t, "cleat", "port", "site", "80"), ":")
	port, _, _ = strings.Cut(port, "\n")
	for _, change := range []string{"link set " + e.Bridge + " down", "addr flush dev " + e.Bridge} {
		if out, err := exec.Command("ip", strings.Fields(change)...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v: %s", change, err, out)
		}
		harness.Eventually(t, func() (bool, string) {
			got, err := bodyWithin(time.Second, "http://127.0.0.1:"+port+"/")
			return got == "page of web\n", fmt.Sprintf("after ip %s: %q, %v", change, got, err)
		})
	}
}

func TestHostNetwork(t *testing.T) {
	e := engine(t, "busybox")
	each(t, func(t *testing.T, program string) {
		if got := e.OK(t, program, "run", "--rm", "--network", "host", "busybox", "ls", "-d", "/sys/class/net/"+e.Bridge); !strings.Contains(got, e.Bridge) {
			t.Errorf("the host's links: %q", got)
		}
	})
}

func TestNetworkLsAndInspect(t *testing.T) {
	e := engine(t, "busybox")
	each(t, func(t *testing.T, program string) {
		if got := e.OK(t, program, "network", "ls", "--format", "{{.Name}} {{.Driver}} {{.Scope}}"); got != "bridge bridge local\nhost host local\nnone null local" {
			t.Errorf("%q", got)
		}
		n := name(t)
		remove(t, e, n)
		id := e.OK(t, program, "run", "-d", "--name", n, "busybox", "sleep", "600")
		ip := e.OK(t, program, "inspect", "-f", "{{.NetworkSettings.Networks.bridge.IPAddress}}", n)
		if got := e.OK(t, program, "network", "inspect", "-f", `{{(index .Containers "`+id+`").Name}} {{(index .Containers "`+id+`").IPv4Address}}`, "bridge"); got != n+" "+ip+"/24" {
			t.Errorf("%q", got)
		}
	})
}
