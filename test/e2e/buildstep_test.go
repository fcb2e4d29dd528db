package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	bkclient "github.com/moby/buildkit/client"
	"github.com/moby/buildkit/client/llb"
	gateway "github.com/moby/buildkit/frontend/gateway/client"
	gatewayapi "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/entitlements"

	"github.com/cleatlabs/cleat/test/expect"
	"github.com/cleatlabs/cleat/test/harness"
)

// buildClient is BuildKit's own client, by the door that buildx takes.
func buildClient(t *testing.T, e *harness.Engine) *bkclient.Client {
	t.Helper()
	api := e.Client(t)
	c, err := bkclient.New(t.Context(), "",
		bkclient.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return api.DialHijack(ctx, "/grpc", "h2c", nil) }),
		bkclient.WithSessionDialer(func(ctx context.Context, proto string, meta map[string][]string) (net.Conn, error) {
			return api.DialHijack(ctx, "/session", proto, meta)
		}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// runStep runs a script as a step of a build on busybox and returns its output. It is never answered from the cache.
func runStep(t *testing.T, c *bkclient.Client, script string, opts ...llb.RunOption) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), harness.Patience)
	defer cancel()
	opts = append([]llb.RunOption{llb.Args([]string{"/bin/sh", "-c", script}), llb.IgnoreCache}, opts...)
	def, err := llb.Image("busybox").Run(opts...).Root().Marshal(ctx, llb.LinuxAmd64)
	if err != nil {
		t.Fatal(err)
	}
	statuses := make(chan *bkclient.SolveStatus)
	var out strings.Builder
	var reading sync.WaitGroup
	reading.Go(func() {
		for s := range statuses {
			for _, l := range s.Logs {
				out.Write(l.Data)
			}
		}
	})
	_, err = c.Solve(ctx, def, bkclient.SolveOpt{AllowedEntitlements: []string{entitlements.EntitlementNetworkHost.String()}}, statuses)
	reading.Wait()
	return out.String(), err
}

// answering serves TCP on an address of the host and says its name to who comes.
func answering(t *testing.T, address, name string) int {
	t.Helper()
	ln, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			io.WriteString(conn, name+"\n")
			conn.Close()
		}
	}()
	return ln.Addr().(*net.TCPAddr).Port
}

// TestBuildStepReachesWhatContainersReach holds a step's place in the network against that of a container without any
// options.
func TestBuildStepReachesWhatContainersReach(t *testing.T) {
	e := engine(t, "busybox")
	c := buildClient(t, e)
	gatewayAddr, _, _ := strings.Cut(e.Subnet, "/")
	hostLoopback := answering(t, "127.0.0.1:0", "host")
	hostOpen := answering(t, gatewayAddr+":0", "bridge")
	names := []string{name(t) + "-private", name(t) + "-public"}
	remove(t, e, names...)
	serve := "exec nc -ll -p 80 -e echo container"
	e.OK(t, "docker", "run", "-d", "--name", names[0], "-p", "127.0.0.1::80", "busybox", "sh", "-c", serve)
	e.OK(t, "docker", "run", "-d", "--name", names[1], "-p", "80", "busybox", "sh", "-c", serve)
	port := func(name string) string {
		line, _, _ := strings.Cut(e.OK(t, "docker", "port", name, "80"), "\n")
		return line[strings.LastIndex(line, ":")+1:]
	}
	for _, n := range names { // once both listen
		harness.Eventually(t, func() (bool, string) {
			conn, err := net.Dial("tcp", "127.0.0.1:"+port(n))
			if err != nil {
				return false, err.Error()
			}
			defer conn.Close()
			said, err := io.ReadAll(conn)
			return string(said) == "container\n", fmt.Sprintf("%q %v", said, err)
		})
	}
	script := "cat /etc/resolv.conf | grep -v '^#'; ip route | cut -d' ' -f1-5\n"
	for _, to := range []string{
		"127.0.0.1 " + strconv.Itoa(hostLoopback), gatewayAddr + " " + strconv.Itoa(hostLoopback), gatewayAddr + " " + strconv.Itoa(hostOpen),
		"127.0.0.1 " + port(names[0]), gatewayAddr + " " + port(names[0]), gatewayAddr + " " + port(names[1]),
	} {
		script += fmt.Sprintf("echo '%[1]s:' $(nc -w 2 %[1]s </dev/null 2>/dev/null)\n", to)
	}
	script += fmt.Sprintf("ls %s %s 2>/dev/null | wc -l; ls /var/run/docker.sock /run/cleat.sock 2>/dev/null | wc -l; cat /proc/net/unix | wc -l; true\n", e.Socket, e.DataRoot)
	want := e.OK(t, "docker", "run", "--rm", "busybox", "sh", "-c", script)
	got, err := runStep(t, c, script)
	if err != nil {
		t.Fatal(err)
	}
	if strings.TrimSpace(got) != want {
		t.Errorf("a step reaches\n%s\na container\n%s", got, want)
	}
	for _, secret := range []string{": host", fmt.Sprintf("%s %s: container", gatewayAddr, port(names[0]))} {
		if strings.Contains(got, secret) {
			t.Errorf("a step reaches %q:\n%s", secret, got)
		}
	}
	if !strings.Contains(got, ": bridge") {
		t.Errorf("a step does not reach what listens on the bridge:\n%s", got)
	}
	if list := e.OK(t, "docker", "network", "inspect", "-f", "{{range .Containers}}{{.Name}} {{end}}", "bridge"); strings.Contains(" "+list, " build-") {
		t.Errorf("the network lists steps as containers: %s", list)
	}
	if got, err = runStep(t, c, "ip -o link | grep -c eth0; ip route", llb.Network(pb.NetMode_NONE)); err != nil && !strings.HasPrefix(got, "0") {
		t.Errorf("without a network: %q %v", got, err)
	}
	own, err := os.Readlink("/proc/" + strconv.Itoa(e.PID()) + "/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	if got, err = runStep(t, c, "readlink /proc/self/ns/net", llb.Network(pb.NetMode_HOST)); err != nil || strings.TrimSpace(got) != own {
		t.Errorf("in the host's network: %q %v", got, err)
	}
	if _, err = runStep(t, c, "true", llb.Security(pb.SecurityMode_INSECURE)); err == nil || !strings.Contains(err.Error(), "security.insecure") {
		t.Errorf("a step without confinement: %v", err)
	}
}

// TestBuildStepLimits holds what a build asks of a step's process against what it gets.
func TestBuildStepLimits(t *testing.T) {
	e := engine(t, "busybox")
	c := buildClient(t, e)
	parent := e.CgroupParent + "-steps/deep"
	got, err := runStep(t, c, "ulimit -n; cat /proc/self/cgroup", llb.AddUlimit(llb.UlimitNofile, 77, 78), llb.WithCgroupParent(parent))
	if err != nil || !strings.HasPrefix(got, "77\n") {
		t.Errorf("%q %v", got, err)
	}
	harness.Eventually(t, func() (bool, string) {
		left := groupsNamed(e.CgroupParent + "-steps")
		return len(left) == 0, fmt.Sprintf("control groups are left: %v", left)
	})
	if _, err := runStep(t, c, "true", llb.WithCgroupParent("system.slice:")); err == nil || !strings.Contains(err.Error(), "systemd slices are not supported") {
		t.Errorf("%v", err)
	}
	if _, err := runStep(t, c, "true", llb.AddCDIDevice(llb.CDIDeviceName("vendor.com/gpu=all"))); err == nil || !strings.Contains(err.Error(), "vendor.com/gpu=all") {
		t.Errorf("%v", err)
	}
}

// TestBuildShell opens a container of a build, as a shell in a failed step does: a terminal, processes beside it,
// sizes, signals.
func TestBuildShell(t *testing.T) {
	e := engine(t, "busybox")
	c := buildClient(t, e)
	ctx, cancel := context.WithTimeout(t.Context(), harness.Patience)
	defer cancel()
	_, err := c.Build(ctx, bkclient.SolveOpt{}, "", func(ctx context.Context, g gateway.Client) (*gateway.Result, error) {
		def, err := llb.Image("busybox").Run(llb.Args([]string{"/bin/sh", "-c", "echo built > /made"})).Root().Marshal(ctx, llb.LinuxAmd64)
		if err != nil {
			return nil, err
		}
		res, err := g.Solve(ctx, gateway.SolveRequest{Definition: def.ToPB(), Evaluate: true})
		if err != nil {
			return nil, err
		}
		ref, err := res.SingleRef()
		if err != nil {
			return nil, err
		}
		ctr, err := g.NewContainer(ctx, gateway.NewContainerRequest{Mounts: []gateway.Mount{{Dest: "/", MountType: pb.MountType_BIND, Ref: ref}}})
		if err != nil {
			return nil, err
		}
		defer ctr.Release(ctx)
		return res, useShell(ctx, t, ctr)
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
}

func useShell(ctx context.Context, t *testing.T, ctr gateway.Container) error {
	in, keys := io.Pipe()
	screen := &expect.Output{}
	shell, err := ctr.Start(ctx, gateway.StartRequest{Args: []string{"/bin/sh"}, Tty: true, Stdin: in, Stdout: screen})
	if err != nil {
		return err
	}
	if err := shell.Resize(ctx, gateway.WinSize{Rows: 51, Cols: 133}); err != nil {
		return err
	}
	go io.WriteString(keys, "cat /made; while [ \"$(stty size)\" != '51 133' ]; do sleep 0.1; done; stty size; echo $((40+2))\n")
	harness.Eventually(t, func() (bool, string) {
		said := screen.String()
		return strings.Contains(said, "built") && strings.Contains(said, "51 133\r\n") && strings.Contains(said, "42\r\n"), said
	})
	var beside expect.Output
	other, err := ctr.Start(ctx, gateway.StartRequest{Args: []string{"/bin/sh", "-c", "cat /made; pwd"}, Cwd: "/tmp", Stdout: &beside})
	if err != nil {
		return err
	}
	if err := other.Wait(); err != nil || beside.String() != "built\n/tmp\n" {
		t.Errorf("a process beside the shell: %v %q", err, beside.String())
	}
	var said expect.Output
	third, err := ctr.Start(ctx, gateway.StartRequest{Args: []string{"/bin/sh", "-c", "trap 'echo got it; exit 0' USR1; echo up; while :; do sleep 0.1; done"}, Stdout: &said})
	if err != nil {
		return err
	}
	harness.Eventually(t, func() (bool, string) { return said.String() == "up\n", said.String() })
	if err := third.Signal(ctx, syscall.SIGUSR1); err != nil {
		return err
	}
	if err := third.Wait(); err != nil || said.String() != "up\ngot it\n" {
		t.Errorf("a process that was sent a signal: %v %q", err, said.String())
	}
	// The first failure ends all of the container.
	var exit *gatewayapi.ExitError
	go io.WriteString(keys, "exit 3\n")
	if err := shell.Wait(); !errors.As(err, &exit) || exit.ExitCode != 3 {
		t.Errorf("the shell: %v", err)
	}
	return nil
}
