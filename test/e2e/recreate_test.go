package e2e

import (
	"fmt"
	"testing"

	"github.com/cleatlabs/cleat/test/harness"
)

// A container that is made anew has the address of the one before, and serves by it with its
// first packet: who has looked the name up once goes on. So it is for one whose hardware
// address others knew by another.
func TestRecreatedContainerHasItsAddress(t *testing.T) {
	// An engine of its own: what other tests have left is still giving addresses of the default bridge back.
	e := harness.Start(t, harness.Options{})
	e.Load(t, "busybox")
	for _, kind := range []string{"bridge", "own"} {
		t.Run(kind, func(t *testing.T) {
			n, network := name(t), "bridge"
			if kind == "own" {
				network = userNetwork(t, e)
			}
			remove(t, e, n+"-client", n+"-web", n+"-other")
			e.OK(t, "cleat", "run", "-d", "--name", n+"-client", "--network", network, "busybox", "sleep", "600")
			first := ""
			for i, mac := range []string{"", "", "02:42:00:00:00:07", ""} {
				page := fmt.Sprint("page ", i)
				args := []string{"run", "-d", "--name", n + "-web", "--network", network}
				if mac != "" {
					args = append(args, "--mac-address", mac)
				}
				e.OK(t, "cleat", append(args, "busybox", "sh", "-c", "mkdir /www; echo "+page+" >/www/index.html; exec httpd -f -h /www")...)
				address := addressOn(t, e, n+"-web", network)
				if first == "" {
					first = address
				}
				if address != first {
					t.Fatalf("the address was %s and is %s", first, address)
				}
				if i == 1 {
					e.OK(t, "cleat", "restart", "-t", "0", n+"-web")
				}
				// The server may take its time, but what is asked is answered: no attempt waits
				// for an answer that does not come.
				harness.Eventually(t, func() (bool, string) {
					r := e.Do(t, "cleat", "", "exec", n+"-client", "timeout", "5", "wget", "-qO-", "http://"+first)
					return r.Line() == page, r.String()
				})
				e.OK(t, "cleat", "rm", "-f", n+"-web")
			}
		})
	}
}

// A container that has been stopped has no address, as with Docker: another one gets it, and the container takes the
// lowest that is free when it is started again. One that is restarted does so, too.
func TestStoppedContainerGivesItsAddress(t *testing.T) {
	e := engine(t, "busybox")
	n, network := name(t), userNetwork(t, e)
	remove(t, e, n+"-a", n+"-b", n+"-c")
	run := func(c string) string {
		e.OK(t, "cleat", "run", "-d", "--name", n+c, "--network", network, "--stop-signal", "KILL", "busybox", "httpd", "-f", "-p", "80")
		return addressOn(t, e, n+c, network)
	}
	first, second := run("-a"), run("-b")
	e.OK(t, "docker", "stop", n+"-a")
	if ip := run("-c"); ip != first {
		t.Errorf("the address %s of a stopped container is not given to the next one, which has %s", first, ip)
	}
	e.OK(t, "docker", "start", n+"-a")
	third := addressOn(t, e, n+"-a", network)
	if third == first || third == second || third == "" {
		t.Errorf("started again with %q, others have %s and %s", third, first, second)
	}
	e.OK(t, "docker", "rm", "-f", n+"-c")
	e.OK(t, "docker", "restart", n+"-b")
	if ip := addressOn(t, e, n+"-b", network); ip != first {
		t.Errorf("restarted with %s, the lowest that was free is %s", ip, first)
	}
}

// nginx looks its upstream up when it starts, and only then: a service that compose makes anew
// behind it is found nevertheless.
func TestComposeRecreatesAnUpstream(t *testing.T) {
	port := freePort(t)
	files := map[string]string{
		"compose.yaml": `
services:
  backend: {image: busybox, command: "sh -c 'mkdir /www; echo $PAGE >/www/index.html; exec httpd -f -h /www'", stop_signal: SIGKILL}
  cache: {image: busybox, command: sleep 600, stop_signal: SIGKILL}
  front:
    image: nginx
    depends_on: [backend]
    ports: ["127.0.0.1:` + port + `:80"]
    volumes: ["./nginx.conf:/etc/nginx/nginx.conf:ro"]
`,
		"nginx.conf": "events {} http { upstream backend { server backend:80; } server { listen 80; location / { proxy_pass http://backend; } } }\n",
	}
	a := compose(t, engine(t, "busybox", "nginx"), files)
	for i, c := range []*application{a, a, a.theirs(t), a} {
		c.env = []string{fmt.Sprint("PAGE=page-", i)}
		c.ok(t, "up", "-d")
		says(t, a, "http://localhost:"+port+"/", fmt.Sprint("page-", i))
	}
	started := a.e.OK(t, "cleat", "inspect", "-f", "{{.State.StartedAt}} {{.RestartCount}}", a.name+"-front-1")
	a.ok(t, "up", "-d", "--force-recreate", "--no-deps", "backend")
	says(t, a, "http://localhost:"+port+"/", "page-3")
	if now := a.e.OK(t, "cleat", "inspect", "-f", "{{.State.StartedAt}} {{.RestartCount}}", a.name+"-front-1"); now != started {
		t.Errorf("nginx was started at %s, and at %s", started, now)
	}
}
