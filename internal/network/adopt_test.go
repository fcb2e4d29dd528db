package network_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	api "github.com/moby/moby/api/types/network"
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/network"
	"github.com/cleatlabs/cleat/test/expect"
)

const asEngine = "CLEAT_NETWORK_TEST_ENGINE"

// job is what an engine process of the tests does: open, adopt, attach, wait to be
// killed.
type job struct {
	Config network.Config
	Adopt  []*network.Sandbox
	Attach []network.Request
}

// attached is one line of its output.
type attached struct {
	Sandbox *network.Sandbox
	NS      int
}

// runEngine is that process.
func runEngine(spec string) {
	var j job
	check(json.Unmarshal([]byte(spec), &j))
	ctx := context.Background()
	s, err := network.Open(ctx, j.Config)
	check(err)
	for _, sb := range j.Adopt {
		check(s.Adopt(ctx, sb, 0))
	}
	for _, r := range j.Attach {
		sb, ns, err := s.Attach(ctx, r)
		check(err)
		check(json.NewEncoder(os.Stdout).Encode(attached{sb, ns}))
	}
	fmt.Println("ready")
	select {}
}

// engine starts one and returns what it attached, with the namespaces held by this
// process, as containers would hold them.
func (h *host) engine(j job) (boxes []*box, kill func()) {
	h.t.Helper()
	spec, err := json.Marshal(j)
	must(h.t, err)
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), asEngine+"="+string(spec))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	must(h.t, err)
	must(h.t, cmd.Start())
	kill = func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }
	h.t.Cleanup(kill)
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if lines.Text() == "ready" {
			return boxes, kill
		}
		var a attached
		must(h.t, json.Unmarshal(lines.Bytes(), &a))
		ns, err := unix.Open(fmt.Sprintf("/proc/%d/fd/%d", cmd.Process.Pid, a.NS), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		must(h.t, err)
		b := &box{a.Sandbox, a.Sandbox.Endpoints[0], ns}
		h.t.Cleanup(b.close)
		boxes = append(boxes, b)
	}
	h.t.Fatal("the engine process ended early")
	return nil, nil
}

func request(id int, ports api.PortMap) network.Request {
	return network.Request{ContainerID: fmt.Sprintf("c%063x", id), Name: fmt.Sprintf("c%d", id), Ports: ports}
}

func ports(spec ...string) api.PortMap {
	m := api.PortMap{}
	for i := 0; i < len(spec); i += 2 {
		m[api.MustParsePort(spec[i])] = []api.PortBinding{{HostPort: spec[i+1]}}
	}
	return m
}

func TestKilledEngineIsFollowedWithoutALeak(t *testing.T) {
	h := newHost(t)
	cfg := h.config()
	boxes, kill := h.engine(job{Config: cfg, Attach: []network.Request{
		request(1, ports("80/tcp", "8080", "53/udp", "5353")),
		request(2, ports("80/tcp", "8081", "81/tcp", "81", "82/tcp", "82")),
		request(3, ports("80/tcp", "")),
	}})
	kept, lost, free := boxes[0], boxes[1], boxes[2]
	h.listen(kept.ns, "kept", ":80")
	h.listen(free.ns, "free", ":80")
	kill()
	h.meets("while no engine runs", h.outside, "tcp4", hostAddr+":8080", "kept sees "+outsideAddr)
	h.meets("while no engine runs, by 127.0.0.1", h.home, "tcp4", "127.0.0.1:8080", "kept sees 172.29.0.1")

	// The next engine knows of two of the three: the record of the other was not
	// written, or its container died.
	s := h.open(cfg)
	ctx := context.Background()
	must(t, s.Adopt(ctx, kept.Sandbox, os.Getpid()))
	must(t, s.Adopt(ctx, free.Sandbox, os.Getpid()))
	h.meets("between adoption and reconciliation", h.outside, "tcp4", hostAddr+":8080", "kept sees "+outsideAddr)
	must(t, s.Reconcile(ctx, []*network.Sandbox{kept.Sandbox, free.Sandbox}))
	if got := s.Warnings(); len(got) != 0 {
		t.Errorf("warnings %q", got)
	}
	h.meets("adopted", h.outside, "tcp4", hostAddr+":8080", "kept sees "+outsideAddr)
	h.meets("adopted, by ::1", h.home, "tcp6", "[::1]:8080", "kept sees 172.29.0.1")
	h.meets("adopted free port", h.outside, "tcp4", hostAddr+":"+free.hostPort("80/tcp"), "free sees "+outsideAddr)
	if text := ruleset(t); strings.Contains(text, lost.IP.String()) {
		t.Errorf("rules of a container that is gone:\n%s", text)
	}
	if out, _ := exec.Command("ip", "link", "show", lost.Link).Output(); len(out) != 0 {
		t.Errorf("link of a container that is gone: %s", out)
	}
	h.expect("link of a container that lives", fmt.Sprint(exec.Command("ip", "link", "show", kept.Link).Run()), "<nil>")

	// Addresses and ports of the adopted are taken, those of the lost are free.
	_, err := h.tryAttach(s, "8080:80/tcp")
	wantError(t, err, errConflict, `container "c1"`)
	next := h.attach(s, "8081:80/tcp")
	if next.IP == kept.IP || next.IP == free.IP {
		t.Errorf("address %s was given out twice", next.IP)
	}
	h.detach(s, kept)
	h.meets("after detach", h.outside, "tcp4", hostAddr+":8080", "no connection")
	h.attach(s, "8080:80/tcp", "5353:53/udp")
}

func TestKillWhileAttachingLeaksNothing(t *testing.T) {
	h := newHost(t)
	cfg := h.config()
	var reqs []network.Request
	for i := range 20 {
		reqs = append(reqs, request(i+1, ports("80/tcp", fmt.Sprint(8100+i))))
	}
	_, kill := h.engine(job{Config: cfg, Attach: reqs})
	kill()
	s := h.open(cfg)
	must(t, s.Reconcile(context.Background(), nil))
	if text := ruleset(t); strings.Contains(text, " : 172.29.") {
		t.Errorf("elements left:\n%s", text)
	}
	var names []string
	for i := range reqs {
		names = append(names, fmt.Sprintf("%d:80/tcp", 8100+i))
	}
	h.attach(s, names...)
	must(t, s.Teardown())
	expect.Eventually(t, "no links left", func() bool {
		out, err := exec.Command("ip", "-br", "link").Output()
		return err == nil && !strings.Contains(string(out), "clt")
	})
}

// An engine that was stopped in an orderly way leaves everything for the next, even
// if somebody flushed the ruleset meanwhile.
func TestClosedServiceLeavesTrafficAlone(t *testing.T) {
	h := newHost(t)
	cfg := h.config()
	s, err := network.Open(context.Background(), cfg)
	must(t, err)
	a := h.attach(s, "8080:80/tcp")
	h.listen(a.ns, "a", ":80")
	must(t, s.Close())
	h.meets("after Close", h.outside, "tcp4", hostAddr+":8080", "a sees "+outsideAddr)
	if _, _, err := s.Attach(context.Background(), request(9, nil)); err == nil {
		t.Error("a closed service attaches")
	}
	h.nft("flush ruleset")
	next := h.open(cfg)
	must(t, next.Adopt(context.Background(), a.Sandbox, os.Getpid()))
	h.meets("adopted after a flush", h.outside, "tcp4", hostAddr+":8080", "a sees "+outsideAddr)
}

func TestAdoptedPortThatAnotherProcessTook(t *testing.T) {
	h := newHost(t)
	cfg := h.config()
	boxes, kill := h.engine(job{Config: cfg, Attach: []network.Request{request(1, ports("80/tcp", "8080"))}})
	kill()
	h.listen(boxes[0].ns, "a", ":80")
	pid, stop := startHolder(t, "8080")
	defer stop()
	s := h.open(cfg)
	must(t, s.Adopt(context.Background(), boxes[0].Sandbox, os.Getpid()))
	if got := strings.Join(s.Warnings(), "\n"); !strings.Contains(got, fmt.Sprintf("pid %d", pid)) || !strings.Contains(got, "c1") {
		t.Errorf("warnings %q do not name container and process", got)
	}
	h.meets("the container keeps its port", h.outside, "tcp4", hostAddr+":8080", "a sees "+outsideAddr)
}

func TestDetachTwiceAndUnknown(t *testing.T) {
	h := newHost(t)
	s := h.open(h.config())
	a := h.attach(s, "8080:80/tcp")
	h.detach(s, a)
	must(t, s.Detach(context.Background(), a.Sandbox))
	// The container is started again: the old sandbox must not free the new one.
	again, err := h.request(s, network.Request{ContainerID: a.ContainerID, Ports: ports("80/tcp", "8080")})
	must(t, err)
	must(t, s.Detach(context.Background(), a.Sandbox))
	h.listen(again.ns, "again", ":80")
	h.meets("after a late detach", h.outside, "tcp4", hostAddr+":8080", "again sees "+outsideAddr)
	h.expect("its address", again.IP.String(), a.IP.String())
	if _, err := h.request(s, network.Request{ContainerID: a.ContainerID}); err == nil {
		t.Error("one container was attached twice")
	}
}
