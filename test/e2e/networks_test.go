package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cleatlabs/cleat/test/harness"
)

// made makes a network that is removed at the end of the test, after the containers
// that a later call of remove names.
func made(t *testing.T, e *harness.Engine, program, suffix string, args ...string) string {
	t.Helper()
	net := name(t) + suffix
	e.OK(t, program, append(append([]string{"network", "create"}, args...), net)...)
	t.Cleanup(func() { e.Cleat(t, "network", "rm", "-f", net) })
	return net
}

// server runs a container that answers on port 80 with its name.
func server(t *testing.T, e *harness.Engine, program, container string, args ...string) {
	t.Helper()
	remove(t, e, container)
	e.OK(t, program, append(append([]string{"run", "-d", "--name", container, "-h", container}, args...), "busybox", "sh", "-c", web)...)
}

// address is a container's address on a network.
func address(t *testing.T, e *harness.Engine, container, network string) string {
	t.Helper()
	return e.OK(t, "cleat", "inspect", "-f", fmt.Sprintf(`{{(index .NetworkSettings.Networks %q).IPAddress}}`, network), container)
}

// reaches waits until a container gets another's page, or says what it got.
func reaches(t *testing.T, e *harness.Engine, from, host, want string) {
	t.Helper()
	harness.Eventually(t, func() (bool, string) {
		r := e.Cleat(t, "exec", from, "sh", "-c", get(host, "80"))
		return r.Line() == want, fmt.Sprintf("%s to %s: %s", from, host, r)
	})
}

// TestFrontAndBackEnd is what users build first: a front end that is published, a back
// end that it alone reaches.
func TestFrontAndBackEnd(t *testing.T) {
	e := engine(t, "busybox")
	each(t, func(t *testing.T, program string) {
		front := made(t, e, program, "-front")
		back := made(t, e, program, "-back", "--internal")
		n := name(t)
		db, api, other := n+"-db", n+"-api", n+"-other"
		server(t, e, program, db, "--network", back)
		server(t, e, program, api, "--network", front, "-p", "80")
		server(t, e, program, other, "--network", front)
		dbIP := address(t, e, db, back)
		reaches(t, e, other, address(t, e, api, front), "page of "+api)
		if r := e.Cleat(t, "exec", api, "sh", "-c", getWithin(2, dbIP, "80")); r.Line() != "" {
			t.Errorf("the database answers over a network that it is not on: %s", r)
		}
		// Connected while both run.
		e.OK(t, program, "network", "connect", back, api)
		reaches(t, e, api, dbIP, "page of "+db)
		if r := e.Cleat(t, "exec", other, "sh", "-c", getWithin(2, dbIP, "80")); r.Line() != "" {
			t.Errorf("the database answers another: %s", r)
		}
		links := e.OK(t, program, "exec", api, "sh", "-c", "ls /sys/class/net | tr '\\n' ' '")
		if links != "eth0 eth1 lo" {
			t.Errorf("links %q", links)
		}
		if got := e.OK(t, program, "network", "inspect", "-f", "{{range .Containers}}{{.Name}} {{end}}", back); got != api+" "+db && got != db+" "+api {
			t.Errorf("on the back end: %q", got)
		}
		// The published port still leads over the front end.
		port := e.OK(t, program, "inspect", "-f", `{{(index (index .NetworkSettings.Ports "80/tcp") 0).HostPort}}`, api)
		if got, err := body("http://127.0.0.1:" + port + "/"); got != "page of "+api+"\n" {
			t.Errorf("published: %q %v", got, err)
		}
		// In use: it says by whom, and stays.
		r := e.Do(t, program, "", "network", "rm", back)
		if r.Code == 0 || !strings.Contains(r.Stderr, "has active endpoints") || !strings.Contains(r.Stderr, db) {
			t.Errorf("rm of a network in use: %s", r)
		}
		e.OK(t, program, "network", "disconnect", back, api)
		if r := e.Cleat(t, "exec", api, "sh", "-c", getWithin(2, dbIP, "80")); r.Line() != "" {
			t.Errorf("the database answers after disconnect: %s", r)
		}
		e.OK(t, program, "rm", "-f", db)
		e.OK(t, program, "network", "rm", back)
		if r := e.Do(t, program, "", "network", "inspect", back); r.Code != 1 || !strings.Contains(r.Stderr, "not found") {
			t.Errorf("inspect of a removed network: %s", r)
		}
	})
}

// TestNetworkThatIsGone: the container says at its start which network it misses.
func TestNetworkThatIsGone(t *testing.T) {
	e := engine(t, "busybox")
	each(t, func(t *testing.T, program string) {
		net, c := made(t, e, program, "-net"), name(t)
		remove(t, e, c)
		e.OK(t, program, "create", "--name", c, "--network", net, "busybox", "true")
		e.OK(t, program, "network", "rm", net)
		r := e.Do(t, program, "", "start", c)
		if r.Code == 0 || !strings.Contains(r.Stderr, "failed to set up container networking: network "+net+" not found") {
			t.Errorf("start: %s", r)
		}
		// Made anew under its name, it is used.
		e.OK(t, program, "network", "create", net)
		e.OK(t, program, "start", c)
		r = e.Do(t, program, "", "run", "--rm", "--network", c+"-no", "busybox", "true")
		if r.Code != 125 || !strings.Contains(r.Stderr, "network "+c+"-no not found") {
			t.Errorf("run on a network that never was: %s", r)
		}
	})
}

func TestSharedNetworkNamespace(t *testing.T) {
	e := engine(t, "busybox")
	each(t, func(t *testing.T, program string) {
		net, n := made(t, e, program, "-net"), name(t)
		server(t, e, program, n, "--network", net, "-p", "80")
		remove(t, e, n+"-2")
		reaches(t, e, n, "127.0.0.1", "page of "+n) // once it listens
		r := e.Do(t, program, "", "run", "--name", n+"-2", "--network", "container:"+n, "busybox", "sh", "-c", "hostname; "+get("127.0.0.1", "80")+"; grep -c "+n+" /etc/hosts")
		if r.Code != 0 || r.Line() != n+"\npage of "+n+"\n1" {
			t.Errorf("in the network of another: %s", r)
		}
		for flags, text := range map[string]string{
			"-h x": "conflicting options: hostname and the network mode", "-p 80": "port publishing and the container type network mode",
			"--dns 1.1.1.1": "dns and the network mode", "--add-host a:1.1.1.1": "custom host-to-IP mapping and the network mode",
		} {
			args := append([]string{"run", "--rm", "--network", "container:" + n}, strings.Fields(flags)...)
			if r := e.Do(t, program, "", append(args, "busybox", "true")...); r.Code != 125 || !strings.Contains(r.Stderr, text) {
				t.Errorf("%s: %s", flags, r)
			}
		}
		e.OK(t, program, "stop", n)
		r = e.Do(t, program, "", "start", n+"-2")
		if r.Code == 0 || !strings.Contains(r.Stderr, "cannot join network namespace of a non running container") {
			t.Errorf("start without the other: %s", r)
		}
	})
}
