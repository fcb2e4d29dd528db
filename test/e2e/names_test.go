package e2e

import (
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cleatlabs/cleat/test/harness"
)

// userNetwork makes a network that the test's end removes, behind its containers.
func userNetwork(t *testing.T, e *harness.Engine, args ...string) string {
	t.Helper()
	n := name(t)
	e.OK(t, "cleat", append(append([]string{"network", "create"}, args...), n)...)
	t.Cleanup(func() { e.OK(t, "cleat", "network", "rm", n) })
	return n
}

// addressOn is a container's address on a network.
func addressOn(t *testing.T, e *harness.Engine, container, network string) string {
	t.Helper()
	return e.OK(t, "cleat", "inspect", "-f", `{{(index .NetworkSettings.Networks "`+network+`").IPAddress}}`, container)
}

// lookups are programs that find names by resolvers of all kinds; each prints lines of
// a name and an address or "error".
func lookups(t *testing.T) map[string][]string {
	t.Helper()
	dir := t.TempDir()
	golang := builtLookup(t, dir, "go", "go", "build", "-o", "OUT", "testdata/lookup/main.go")
	musl := builtLookup(t, dir, "musl", "musl-gcc", "-static", "-o", "OUT", "testdata/muslookup/lookup.c")
	return map[string][]string{
		"go":   {"-v", golang, "busybox", "/lookup"},
		"musl": {"-v", musl, "busybox", "/lookup"},
		"glibc": {"python", "python3", "-c", `import socket, sys
for n in sys.argv[1:]:
    try:
        for a in socket.getaddrinfo(n, None, type=socket.SOCK_STREAM): print(n, a[4][0])
    except OSError: print(n, "error")`},
		"node, by its C library": {"node", "node", "-e", `(async () => { for (const n of process.argv.slice(1)) {
			try { for (const a of await require("dns").promises.lookup(n, {all: true})) console.log(n, a.address) } catch { console.log(n, "error") } } })()`},
		"node, by c-ares": {"node", "node", "-e", `(async () => { for (const n of process.argv.slice(1)) {
			try { for (const a of await require("dns").promises.resolve4(n)) console.log(n, a) } catch { console.log(n, "error") } } })()`},
		"busybox": {"busybox", "sh", "-c", `for n; do nslookup $n 127.0.0.11 | sed -n "/^Name/,\$s/^Address[ 0-9]*: /$n /p" | grep . || echo $n error; done`, "-"},
	}
}

// builtLookup builds a program as dir/name, which stands as OUT in args, and returns how
// a container mounts it as /lookup.
func builtLookup(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	file := filepath.Join(dir, name)
	args[slices.Index(args, "OUT")] = file
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", args, err, out)
	}
	return file + ":/lookup:ro"
}

func TestNamesByAllResolvers(t *testing.T) {
	e := engine(t, "busybox", "python", "node")
	n := userNetwork(t, e, "--internal")
	for _, c := range []string{"api-1", "api-2", "db"} {
		alias := "api"
		if c == "db" {
			alias = "postgres"
		}
		remove(t, e, n+c)
		e.OK(t, "docker", "run", "-d", "--name", n+c, "--network", n, "--network-alias", alias, "busybox", "sleep", "600")
	}
	want := []string{
		"api " + addressOn(t, e, n+"api-1", n), "api " + addressOn(t, e, n+"api-2", n), "postgres " + addressOn(t, e, n+"db", n),
		n + "db " + addressOn(t, e, n+"db", n), n + "db." + n + " " + addressOn(t, e, n+"db", n), "nobody error",
	}
	slices.Sort(want)
	for what, program := range lookups(t) {
		t.Run(what, func(t *testing.T) {
			args := append([]string{"run", "--rm", "--network", n}, program...)
			out := e.OK(t, "docker", append(args, "api", "postgres", n+"db", n+"db."+n, "nobody")...)
			got := strings.Split(out, "\n")
			slices.Sort(got)
			if !slices.Equal(got, want) {
				t.Errorf("found\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
		})
	}
}

// A lookup that is made while no engine runs is answered by the next one; the container
// is not touched.
func TestNamesOverAnEngineRestart(t *testing.T) {
	golang := builtLookup(t, t.TempDir(), "go", "go", "build", "-o", "OUT", "testdata/lookup/main.go")
	for how, end := range endings {
		t.Run(how, func(t *testing.T) {
			e := harness.Start(t, harness.Options{})
			e.Load(t, "busybox")
			e.OK(t, "cleat", "network", "create", "net")
			e.OK(t, "cleat", "run", "-d", "--name", "db", "--network", "net", "busybox", "sleep", "600")
			e.OK(t, "cleat", "run", "-d", "--name", "app", "--network", "net", "--dns-option", "timeout:20", "-v", golang, "busybox", "sleep", "700")
			ip := addressOn(t, e, "db", "net")
			end(t, e)
			// Into the container by its namespaces: no engine is there to do it.
			pid := pidOf(t, e, "sleep\x00700")
			lookup := exec.Command("nsenter", "-t", fmt.Sprint(pid), "-n", "-m", "--", "/lookup", "db")
			var out strings.Builder
			lookup.Stdout, lookup.Stderr = &out, &out
			if err := lookup.Start(); err != nil {
				t.Fatal(err)
			}
			e.Run(t)
			if err := lookup.Wait(); err != nil || out.String() != "db "+ip+"\n" {
				t.Errorf("a lookup while no engine ran: %v, %q; want %s", err, out.String(), ip)
			}
			if got := e.OK(t, "cleat", "exec", "app", "/lookup", "db"); got != "db "+ip {
				t.Errorf("after the restart: %s", got)
			}
			e.OK(t, "cleat", "rm", "-f", "db")
			if got := e.OK(t, "cleat", "exec", "app", "/lookup", "db"); got != "db error" {
				t.Errorf("a name of a container that is gone: %s", got)
			}
			e.OK(t, "cleat", "rm", "-f", "app")
			e.OK(t, "cleat", "network", "rm", "net")
		})
	}
}

// A container whose engine died while it was renamed is found by the name that it has.
func TestNamesAfterARenameThatWasCutShort(t *testing.T) {
	e := harness.Start(t, harness.Options{Env: []string{"CLEAT_FAILPOINTS=container.rename.after-config"}})
	e.Load(t, "busybox")
	e.OK(t, "cleat", "network", "create", "net")
	e.OK(t, "cleat", "run", "-d", "--name", "db", "--network", "net", "busybox", "sleep", "600")
	e.OK(t, "cleat", "run", "-d", "--name", "app", "--network", "net", "busybox", "sleep", "600")
	e.Do(t, "cleat", "", "rename", "db", "store")
	select {
	case <-e.Exited():
	case <-time.After(harness.Patience):
		t.Fatal("the engine lives")
	}
	e.SetEnv()
	e.Run(t)
	e.OK(t, "cleat", "exec", "app", "ping", "-c", "1", "store")
	if r := e.Do(t, "cleat", "", "exec", "app", "ping", "-c", "1", "db"); r.Code == 0 {
		t.Errorf("its former name still leads to it: %s", r)
	}
}

// The former name of a container stays one where it is an alias, as Compose gives a service's, or its host's name.
func TestNamesThatOutliveARename(t *testing.T) {
	e := engine(t, "busybox")
	n := userNetwork(t, e)
	remove(t, e, n+"app", n+"alias", n+"host", n+"neither")
	e.OK(t, "cleat", "run", "-d", "--name", n+"app", "--network", n, "busybox", "sleep", "600")
	for name, flag := range map[string]string{n + "alias": "--network-alias=" + n + "alias", n + "host": "--hostname=" + n + "host", n + "neither": "-t"} {
		e.OK(t, "cleat", "run", "-d", "--name", name, "--network", n, flag, "busybox", "sleep", "600")
		remove(t, e, name+"2")
		e.OK(t, "cleat", "rename", name, name+"2")
		e.OK(t, "cleat", "exec", n+"app", "ping", "-c", "1", name+"2")
		if r := e.Do(t, "cleat", "", "exec", n+"app", "ping", "-c", "1", name); (r.Code == 0) != (flag != "-t") {
			t.Errorf("the former name, with %s: %s", flag, r)
		}
	}
}

// nginx resolves the names of its upstreams again and again: those may come and go.
func TestNginxWithUpstreamsThatComeAndGo(t *testing.T) {
	e := engine(t, "busybox", "nginx")
	n := userNetwork(t, e)
	remove(t, e, n+"front", n+"back")
	back := func(page string) {
		e.OK(t, "docker", "run", "-d", "--name", n+"back", "--network", n, "--network-alias", "backend", "busybox", "sh", "-c",
			"mkdir /www; echo "+page+" >/www/index.html; exec httpd -f -p 80 -h /www")
	}
	back("first")
	e.OK(t, "docker", "run", "-d", "--name", n+"front", "--network", n, "-p", "80", "nginx", "sh", "-c",
		`printf 'events {} http { server { listen 80; resolver 127.0.0.11; set $b http://backend:80; location / { proxy_pass $b; proxy_connect_timeout 1s; } } }' >/etc/nginx/nginx.conf; exec nginx -g "daemon off;"`)
	port := e.OK(t, "docker", "inspect", "-f", `{{(index (index .NetworkSettings.Ports "80/tcp") 0).HostPort}}`, n+"front")
	page := func(want string) {
		t.Helper()
		harness.Eventually(t, func() (bool, string) {
			got, err := body("http://127.0.0.1:" + port + "/")
			return got == want+"\n", fmt.Sprintf("%q %v", got, err)
		})
	}
	page("first")
	e.OK(t, "docker", "rm", "-f", n+"back")
	// Somebody else has the old address.
	remove(t, e, n+"other")
	e.OK(t, "docker", "run", "-d", "--name", n+"other", "--network", n, "busybox", "sleep", "600")
	back("second")
	page("second")
}

// A container's own name server has port 53, and others use it.
func TestOwnServerOnPort53(t *testing.T) {
	e := engine(t, "busybox", "python")
	n := userNetwork(t, e)
	remove(t, e, n+"dns")
	e.OK(t, "docker", "run", "-d", "--name", n+"dns", "--network", n, "python", "python3", "-c", `import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(("", 53))
l = socket.socket(); l.bind(("", 53)); l.listen()
while True:
    q, a = s.recvfrom(512)
    s.sendto(q[:2] + b"\x81\x80\0\1\0\1\0\0\0\0" + q[12:q.index(b"\0", 12) + 5] + b"\xc0\x0c\0\1\0\1\0\0\0\1\0\4\xcb\0\x71\5", a)`)
	harness.Eventually(t, func() (bool, string) {
		r := e.Docker(t, "run", "--rm", "--network", n, "busybox", "nslookup", "-type=a", "anything.example", addressOn(t, e, n+"dns", n))
		return strings.Contains(r.Stdout, "203.0.113.5"), r.String()
	})
	if got := e.OK(t, "docker", "exec", n+"dns", "python3", "-c", `import socket; print(socket.gethostbyname("`+n+`dns"))`); got != addressOn(t, e, n+"dns", n) {
		t.Errorf("ours beside it: %s", got)
	}
}

// The container's own name servers are asked by the engine, from the container's place.
func TestNameServersOfAContainer(t *testing.T) {
	e := engine(t, "busybox", "python")
	n := userNetwork(t, e)
	if got := e.OK(t, "docker", "run", "--rm", "--network", n, "--dns", "203.0.113.1", "--dns-search", "corp.example", "--dns-option", "timeout:1", "busybox",
		"cat", "/etc/resolv.conf"); got != "nameserver 127.0.0.11\nsearch corp.example\noptions timeout:1 ndots:0" {
		t.Errorf("resolv.conf:\n%s", got)
	}
	remove(t, e, n+"dns")
	e.OK(t, "docker", "run", "-d", "--name", n+"dns", "--network", n, "python", "python3", "-c", `import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(("", 53))
while True:
    q, a = s.recvfrom(512)
    s.sendto(q[:2] + b"\x81\x80\0\1\0\1\0\0\0\0" + q[12:q.index(b"\0", 12) + 5] + b"\xc0\x0c\0\1\0\1\0\0\0\1\0\4\xcb\0\x71\6", a)`)
	server := addressOn(t, e, n+"dns", n)
	harness.Eventually(t, func() (bool, string) {
		r := e.Docker(t, "run", "--rm", "--network", n, "--dns", server, "--dns-search", "corp.example", "python", "python3", "-c",
			`import socket; print(socket.gethostbyname("intranet"), socket.gethostbyname("`+n+`dns"))`)
		return r.Line() == "203.0.113.6 "+server, r.String()
	})
	if got := e.OK(t, "docker", "run", "--rm", "--network", n, "python", "python3", "-c",
		`import socket; print(socket.gethostbyname("host.docker.internal"), socket.gethostbyname("gateway.docker.internal"))`); len(strings.Fields(got)) != 2 {
		t.Errorf("the host: %s", got)
	}
	if got := e.OK(t, "docker", "run", "--rm", "--network", n, "--add-host", "files.example:203.0.113.9", "busybox", "nslookup", "-type=a", "files.example"); !strings.Contains(got, "203.0.113.9") {
		t.Errorf("a host that was added, looked up: %s", got)
	}
}

// A client that goes on sending to a published UDP port reaches the container again
// when that was restarted, though the kernel remembers the flow.
func TestUDPServerRestarts(t *testing.T) {
	e := engine(t, "python")
	n, first := name(t), freePort(t)
	remove(t, e, n)
	e.OK(t, "docker", "run", "-d", "--name", n, "-p", first+":9000/udp", "python", "python3", "-c", `import os, socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(("", 9000))
me = open("/proc/uptime").read().split()[0].encode()
while True:
    q, a = s.recvfrom(99); s.sendto(me, a)`)
	gateway, _, _ := strings.Cut(e.Subnet, "/")
	c, err := net.Dial("udp", gateway+":"+first)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ask := func(other string) string {
		t.Helper()
		answer := ""
		harness.Eventually(t, func() (bool, string) {
			_, _ = c.Write([]byte("?"))
			_ = c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
			buf := make([]byte, 99)
			k, err := c.Read(buf)
			answer = string(buf[:k])
			return err == nil && answer != "" && answer != other, fmt.Sprintf("%q %v", answer, err)
		})
		return answer
	}
	before := ask("")
	// Another container takes the address before the first one is back.
	e.OK(t, "docker", "rm", "-f", n)
	other := n + "other"
	remove(t, e, other)
	e.OK(t, "docker", "run", "-d", "--name", other, "python", "sleep", "600")
	for range 3 {
		_, _ = c.Write([]byte("?")) // what the kernel would remember
	}
	e.OK(t, "docker", "run", "-d", "--name", n, "-p", first+":9000/udp", "python", "python3", "-c", `import os, socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(("", 9000))
while True:
    q, a = s.recvfrom(99); s.sendto(b"second", a)`)
	if got := ask(before); got != "second" {
		t.Errorf("answered by %q", got)
	}
}
