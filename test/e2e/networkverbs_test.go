package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"

	"github.com/cleatlabs/cleat/test/harness"
)

// Static addresses are kept over stop, start and a killed engine, and while a container
// stands still nobody else is given its address.
func TestStaticAddressesAreKept(t *testing.T) {
	e := harness.Start(t, harness.Options{})
	e.Load(t, "busybox")
	four, _ := harness.Subnet(t)
	e.OK(t, "docker", "network", "create", "--subnet", four+"0/28", "--ip-range", four+"0/29", "--gateway", four+"1", "fixed")
	server(t, e, "docker", "web", "--network", "fixed", "--ip", four+"2", "-p", "80")
	remove(t, e, "other")
	e.OK(t, "docker", "stop", "-t", "0", "web")
	e.OK(t, "cleat", "run", "-d", "--name", "other", "--network", "fixed", "busybox", "sleep", "600")
	if ip := address(t, e, "other", "fixed"); ip != four+"3" {
		t.Errorf("another was given %s", ip)
	}
	e.Kill()
	e.Run(t)
	e.OK(t, "docker", "start", "web")
	if ip := address(t, e, "web", "fixed"); ip != four+"2" {
		t.Errorf("started again with %s", ip)
	}
	reaches(t, e, "other", four+"2", "page of web")
	e.OK(t, "cleat", "network", "create", "second")
	e.OK(t, "cleat", "network", "connect", "second", "other")
	second := address(t, e, "other", "second")
	e.Kill()
	e.Run(t)
	if ip := address(t, e, "other", "second"); ip != second {
		t.Errorf("after a killed engine %s, before %s", ip, second)
	}
	r := e.Docker(t, "run", "--rm", "--network", "fixed", "--ip", four+"2", "busybox", "true")
	if r.Code != 125 || !strings.Contains(r.Stderr, "Address already in use") || !strings.Contains(r.Stderr, `"web"`) {
		t.Errorf("the address of another: %s", r)
	}
	for _, c := range []string{"web", "other"} {
		e.OK(t, "docker", "rm", "-f", c)
	}
	e.OK(t, "docker", "network", "rm", "fixed", "second")
}

const six = `import socket
s = socket.create_server(('::', 80), family=socket.AF_INET6, dualstack_ipv6=True)
while True:
  c, a = s.accept()
  c.recv(999)
  c.sendall(b'HTTP/1.0 200 OK\r\n\r\npage of six')
  c.close()`

func TestIPv6Network(t *testing.T) {
	e := engine(t, "busybox", "python")
	each(t, func(t *testing.T, program string) {
		net, n := made(t, e, program, "-net", "--ipv6"), name(t)
		remove(t, e, n, n+"-2")
		e.OK(t, program, "run", "-d", "--name", n, "--network", net, "-p", "80", "python", "python3", "-c", six)
		e.OK(t, program, "run", "-d", "--name", n+"-2", "--network", net, "busybox", "sleep", "600")
		ip := e.OK(t, "cleat", "inspect", "-f", fmt.Sprintf(`{{(index .NetworkSettings.Networks %q).GlobalIPv6Address}}`, net), n)
		harness.Eventually(t, func() (bool, string) {
			r := e.Cleat(t, "exec", n+"-2", "sh", "-c", get(ip, "80"))
			return strings.Contains(r.Stdout, "page of six"), r.String()
		})
		port := e.OK(t, "cleat", "inspect", "-f", `{{(index (index .NetworkSettings.Ports "80/tcp") 0).HostPort}}`, n)
		gateway := e.OK(t, "cleat", "inspect", "-f", fmt.Sprintf(`{{(index .NetworkSettings.Networks %q).IPv6Gateway}}`, net), n)
		for _, host := range []string{"[" + gateway + "]", "127.0.0.1", "[::1]"} {
			if got, err := body("http://" + host + ":" + port + "/"); !strings.Contains(got, "page of six") {
				t.Errorf("published on %s: %q %v", host, got, err)
			}
		}
	})
}

// TestContainerThatSwitchesIPv6Off: it has IPv4 alone on networks that have both, and nobody is sent to an address that it
// has not.
func TestContainerThatSwitchesIPv6Off(t *testing.T) {
	t.Parallel()
	e := engine(t, "busybox")
	each(t, func(t *testing.T, program string) {
		net, second, six := made(t, e, program, "-net", "--ipv6"), made(t, e, program, "-second", "--ipv6"), made(t, e, "cleat", "-six", "--ipv6", "--ipv4=false")
		n, off := name(t), []string{"--sysctl", "net.ipv6.conf.all.disable_ipv6=1"}
		server(t, e, program, n, append(off, "--network", net, "-p", "80")...)
		server(t, e, program, n+"-asks", "--network", net)
		e.OK(t, program, "network", "connect", second, n)
		if got := e.OK(t, program, "inspect", "-f", "{{range .NetworkSettings.Networks}}{{json .GlobalIPv6Address}}{{json .IPv6Gateway}}{{end}}", n); strings.Trim(got, `"`) != "" {
			t.Errorf("inspect: %s", got)
		}
		if got := e.OK(t, program, "exec", n, "cat", "/etc/hosts"); strings.Count(got, "localhost") != 1 || strings.Count(got, n) != 2 || strings.Contains(got, "::") {
			t.Errorf("hosts:\n%s", got)
		}
		reaches(t, e, n+"-asks", n, "page of "+n)
		if got := e.OK(t, program, "exec", n+"-asks", "nslookup", "-type=aaaa", n, "127.0.0.11"); strings.Contains(got, "fd") {
			t.Errorf("its name: %s", got)
		}
		port := e.OK(t, program, "inspect", "-f", `{{(index (index .NetworkSettings.Ports "80/tcp") 0).HostPort}}`, n)
		for _, host := range []string{"127.0.0.1", "[::1]"} {
			if got, err := body("http://" + host + ":" + port + "/"); !strings.Contains(got, "page of "+n) {
				t.Errorf("published on %s: %q %v", host, got, err)
			}
		}
		remove(t, e, n+"-refused")
		r := e.Do(t, program, "", append(append([]string{"run", "--name", n + "-refused", "--network", six}, off...), "busybox", "true")...)
		if r.Code == 0 || !strings.Contains(r.Stderr, "net.ipv6.conf.all.disable_ipv6") {
			t.Errorf("on a network that has nothing else: %s", r)
		}
	})
}

func TestLegacyLinks(t *testing.T) {
	e := engine(t, "busybox")
	each(t, func(t *testing.T, program string) {
		n := name(t)
		db, app := n+"-db", n+"-app"
		server(t, e, program, db, "-e", "SECRET=1", "--expose", "80")
		remove(t, e, app)
		e.OK(t, program, "run", "-d", "--name", app, "--link", db+":database", "busybox", "sleep", "600")
		ip := address(t, e, db, "bridge")
		if got := e.OK(t, program, "exec", app, "grep", "database", "/etc/hosts"); got != ip+"\tdatabase "+db {
			t.Errorf("hosts: %q", got)
		}
		env := e.OK(t, program, "exec", app, "sh", "-c", "tr '\\0' '\\n' </proc/1/environ")
		for _, v := range []string{"DATABASE_PORT=tcp://" + ip + ":80", "DATABASE_PORT_80_TCP_ADDR=" + ip, "DATABASE_NAME=/" + app + "/database", "DATABASE_ENV_SECRET=1"} {
			if !strings.Contains(env+"\n", v+"\n") {
				t.Errorf("no %s in\n%s", v, env)
			}
		}
		if got := e.OK(t, program, "inspect", "-f", "{{.HostConfig.Links}}", app); got != "[/"+db+":/"+app+"/database]" {
			t.Errorf("inspect: %s", got)
		}
		e.OK(t, program, "stop", "-t", "0", db, app)
		if r := e.Do(t, program, "", "start", app); r.Code == 0 || !strings.Contains(r.Stderr, "Cannot link to a non running container: /"+db+" AS /"+app+"/database") {
			t.Errorf("start without the other: %s", r)
		}
	})
}

// TestNetworkVerbs is what programs rely on: classes of errors, shapes, events.
func TestNetworkVerbs(t *testing.T) {
	e := engine(t, "busybox")
	g := gophers(t, e)
	n := name(t)
	start := now()
	made, err := g.NetworkCreate(g.ctx, n, client.NetworkCreateOptions{Labels: map[string]string{"suite": n}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Cleat(t, "network", "rm", "-f", n) })
	if _, err := g.NetworkCreate(g.ctx, n, client.NetworkCreateOptions{}); !errdefs.IsConflict(err) {
		t.Errorf("the same name again: %v", err)
	}
	if _, err := g.NetworkCreate(g.ctx, "bridge", client.NetworkCreateOptions{}); !errdefs.IsPermissionDenied(err) {
		t.Errorf("a predefined name: %v", err)
	}
	if _, err := g.NetworkRemove(g.ctx, "host", client.NetworkRemoveOptions{}); !errdefs.IsPermissionDenied(err) {
		t.Errorf("rm of a predefined network: %v", err)
	}
	if _, err := g.NetworkRemove(g.ctx, n+"-no", client.NetworkRemoveOptions{}); !errdefs.IsNotFound(err) {
		t.Errorf("rm of none: %v", err)
	}
	for _, ref := range []string{n, made.ID, made.ID[:12]} {
		got, err := g.NetworkInspect(g.ctx, ref, client.NetworkInspectOptions{})
		if err != nil || got.Network.ID != made.ID || got.Network.Scope != "local" || len(got.Network.IPAM.Config) != 1 {
			t.Errorf("inspect %s: %+v %v", ref, got.Network, err)
		}
	}
	if _, err := g.NetworkInspect(g.ctx, n, client.NetworkInspectOptions{Scope: "swarm"}); !errdefs.IsNotFound(err) {
		t.Errorf("in another scope: %v", err)
	}
	if got := e.OK(t, "docker", "network", "ls", "--filter", "label=suite="+n, "--format", "{{.Name}}/{{.Driver}}"); got != n+"/bridge" {
		t.Errorf("ls: %q", got)
	}

	id := g.busybox("sleep 600")
	connect := func() error {
		_, err := g.NetworkConnect(g.ctx, n, client.NetworkConnectOptions{Container: id, EndpointConfig: &network.EndpointSettings{Aliases: []string{"alias"}}})
		return err
	}
	for range 2 { // twice while it stands still is no error
		if err := connect(); err != nil {
			t.Errorf("connect of a stopped container: %v", err)
		}
	}
	if _, err := g.ContainerStart(g.ctx, id, client.ContainerStartOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := connect(); !errdefs.IsPermissionDenied(err) {
		t.Errorf("connect of a running container that is connected: %v", err)
	}
	in, err := g.ContainerInspect(g.ctx, id, client.ContainerInspectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ep := in.Container.NetworkSettings.Networks[n]
	if ep == nil || ep.NetworkID != made.ID || !ep.IPAddress.IsValid() || len(ep.DNSNames) < 2 || len(in.Container.NetworkSettings.Networks) != 2 {
		t.Errorf("endpoint %+v", ep)
	}
	if _, err := g.NetworkRemove(g.ctx, n, client.NetworkRemoveOptions{}); !errdefs.IsPermissionDenied(err) {
		t.Errorf("rm of a network in use: %v", err)
	}
	if _, err := g.NetworkDisconnect(g.ctx, n, client.NetworkDisconnectOptions{Container: id}); err != nil {
		t.Errorf("disconnect: %v", err)
	}
	if _, err := g.NetworkDisconnect(g.ctx, n, client.NetworkDisconnectOptions{Container: id}); err == nil || !strings.Contains(err.Error(), "is not connected to network "+n) {
		t.Errorf("disconnect again: %v", err)
	}
	if _, err := g.NetworkConnect(g.ctx, n+"-no", client.NetworkConnectOptions{Container: id}); !errdefs.IsNotFound(err) {
		t.Errorf("connect of a running container to no network: %v", err)
	}
	if r := e.Cleat(t, "network", "prune", "-f", "--filter", "label=suite="+n); r.Code != 0 || !strings.Contains(r.Stdout, "Deleted Networks:\n"+n+"\n") {
		t.Errorf("prune: %s", r)
	}
	seen := e.OK(t, "cleat", "events", "--since", start, "--until", now(), "--filter", "type=network", "--filter", "network="+n, "--format", "{{.Action}}")
	if got := strings.Join(strings.Fields(seen), " "); got != "create connect disconnect destroy" {
		t.Errorf("events: %s", got)
	}
}

// TestNetworkModeIsWhatWasSaid: Ansible and Terraform make a container anew whose mode is not what they said. The
// network of the mode has the first interface, by whatever it was named.
func TestNetworkModeIsWhatWasSaid(t *testing.T) {
	e := engine(t, "busybox")
	p := plainly(t, e)
	first, n := name(t)+"-a", name(t)+"-b"
	id := func(network string) string {
		return e.OK(t, "docker", "network", "inspect", "-f", "{{.ID}}", network)
	}
	for _, network := range []string{first, n} {
		e.Cleat(t, "network", "create", network)
		t.Cleanup(func() { e.Cleat(t, "network", "rm", "-f", network) })
	}
	for said, want := range map[string]string{n: n, id(n): id(n), id(n)[:12]: id(n), id("bridge"): "bridge", id("host"): "host"} {
		endpoints := "{}"
		if want != "host" {
			endpoints = `{"` + first + `":{},"` + said + `":{}}`
		}
		c := p.create(`{"Image":"busybox","Cmd":["sleep","600"],"StopSignal":"SIGKILL","HostConfig":{"NetworkMode":"` + said +
			`"},"NetworkingConfig":{"EndpointsConfig":` + endpoints + `}}`)
		if got := e.OK(t, "docker", "inspect", "-f", "{{.HostConfig.NetworkMode}}", c); got != want {
			t.Errorf("the mode that was said as %s is told as %s, want %s", said, got, want)
		}
		e.OK(t, "docker", "start", c)
		if want != "host" {
			network := want
			if want != "bridge" {
				network = n
			}
			address := e.OK(t, "docker", "inspect", "-f", `{{(index .NetworkSettings.Networks "`+network+`").IPAddress}}`, c)
			if eth0 := e.OK(t, "docker", "exec", c, "ip", "-4", "addr", "show", "eth0"); !strings.Contains(eth0, "inet "+address+"/") {
				t.Errorf("%s: eth0 is not in the network of the mode, with %s: %s", said, address, eth0)
			}
		}
		e.OK(t, "docker", "rm", "-f", c)
	}
}
