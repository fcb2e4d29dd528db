package e2e

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cleatlabs/cleat/test/harness"
)

func TestFsckSaysWhatDiffers(t *testing.T) {
	e := harness.Start(t, harness.Options{})
	e.Load(t, "busybox")
	e.OK(t, "docker", "run", "-d", "--name", "victim", "busybox", "sleep", "600")
	harness.Eventually(t, func() (bool, string) { // which may be about its spare links
		out, err := e.Debug(t, "fsck")
		return err == nil && strings.Contains(out, "agree"), "of a sound engine: " + out
	})
	e.OK(t, "cleat", "run", "-d", "--name", "gone", "busybox", "sleep", "600")
	e.OK(t, "cleat", "rm", "-f", "gone")
	if out, err := e.Debug(t, "fsck"); err != nil {
		t.Errorf("what the engine has put off is no difference: %v\n%s", err, out)
	}
	pid := e.OK(t, "docker", "inspect", "-f", "{{.State.Pid}}", "victim")
	e.Kill()
	harness.Eventually(t, func() (bool, string) { // its spare links vanish with it, in the background
		out, err := e.Debug(t, "fsck")
		return err == nil, "without an engine: " + out
	})
	n, _ := strconv.Atoi(pid)
	if err := syscall.Kill(n, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	stray := filepath.Join(hierarchies()[0], e.CgroupParent, strings.Repeat("ab", 32))
	if err := os.Mkdir(stray, 0o755); err != nil {
		t.Fatal(err)
	}
	harness.Eventually(t, func() (bool, string) {
		out, err := e.Debug(t, "fsck")
		return err != nil && strings.Contains(out, "process (PID "+pid+") is gone") && strings.Contains(out, strings.Repeat("ab", 32)), out
	})
	e.Run(t) // puts both in order
	harness.Eventually(t, func() (bool, string) {
		out, err := e.Debug(t, "fsck")
		return err == nil, out
	})
}

// TestFsckComparesTheNetwork: each difference, made by hand, is named.
func TestFsckComparesTheNetwork(t *testing.T) {
	e := harness.Start(t, harness.Options{})
	e.Load(t, "busybox")
	e.OK(t, "docker", "run", "-d", "--name", "victim", "-p", "127.0.0.1:0:80", "-p", "0:81/udp", "busybox", "sleep", "600")
	e.OK(t, "docker", "exec", "-d", "victim", "sleep", "600")
	e.Kill()
	fsck := func(wants ...string) {
		t.Helper()
		harness.Eventually(t, func() (bool, string) {
			out, err := e.Debug(t, "fsck")
			for _, want := range wants {
				if !strings.Contains(out, want) {
					return false, fmt.Sprintf("no %q in:\n%s", want, out)
				}
			}
			return (err != nil) == (len(wants) > 0), out
		})
	}
	fsck()
	ports, err := os.ReadDir("/sys/class/net/" + e.Bridge + "/brif")
	if err != nil || len(ports) != 1 {
		t.Fatalf("links: %v, %v", ports, err)
	}
	link := ports[0].Name()
	table := []string{"inet", "cleat-" + e.Bridge}
	listing := hostCommand(t, "nft", append([]string{"-n", "list", "table"}, table...)...)
	element := regexp.MustCompile(`127\.0\.0\.1 \. (?:tcp|6) \. (\d+) : ([0-9.]+) \. 80`).FindStringSubmatch(listing)
	if element == nil {
		t.Fatalf("no published port in:\n%s", listing)
	}
	set := regexp.MustCompile(`(?s)map (\w+) \{[^}]*127\.0\.0\.1 \. `).FindStringSubmatch(listing)
	if set == nil {
		t.Fatalf("no map in:\n%s", listing)
	}
	change := func(verb, key, value string) {
		hostCommand(t, "nft", append(append([]string{verb, "element"}, table...), set[1], "{ "+key+value+" }")...)
	}
	key := "127.0.0.1 . tcp . " + element[1]
	change("delete", key, "")
	change("add", "127.0.0.1 . tcp . 9", " : 10.0.0.1 . 99")
	hostCommand(t, "ip", "link", "set", link, "nomaster")
	stray := fmt.Sprintf("clt%x", os.Getpid())
	hostCommand(t, "ip", "link", "add", stray, "type", "veth", "peer", "name", stray+"p")
	t.Cleanup(func() { exec.Command("ip", "link", "del", stray).Run() })
	hostCommand(t, "ip", "link", "set", stray, "master", e.Bridge)
	fsck("its published port 127.0.0.1:"+element[1]+" is not in the nftables table cleat-"+e.Bridge,
		"port 127.0.0.1:9, published to 10.0.0.1 in the nftables table cleat-"+e.Bridge+", belongs to no container",
		"container victim", "has lost its link "+link+" to network bridge",
		"link "+stray+" on bridge "+e.Bridge+" belongs to no container")
	hostCommand(t, "ip", "link", "set", link, "master", e.Bridge)
	e.Run(t) // puts the rest in order
	fsck()
	e.OK(t, "docker", "rm", "-f", "victim")
	fsck()
}

// hostCommand runs a program of the host and returns what it printed.
func hostCommand(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// TestTeardownLeavesWhatIsNotOurs: a bridge that was there, or with whose data nobody
// can tell, stays and is said to stay.
func TestTeardownLeavesWhatIsNotOurs(t *testing.T) {
	bridge := fmt.Sprintf("ctown%d", os.Getpid())
	hostCommand(t, "ip", "link", "add", bridge, "type", "bridge")
	t.Cleanup(func() { exec.Command("ip", "link", "del", bridge).Run() })
	e := harness.Start(t, harness.Options{Args: []string{"--bridge", bridge}})
	e.Stop(t)
	if out := e.Teardown(t); !strings.Contains(out, "bridge "+bridge+" stays: it was there before the engine") {
		t.Errorf("%s", out)
	}
	if _, err := net.InterfaceByName(bridge); err != nil {
		t.Error(err)
	}
	// without the engine's data
	if err := os.Rename(e.DataRoot, e.DataRoot+".away"); err != nil {
		t.Fatal(err)
	}
	out, err := e.Debug(t, "teardown")
	if err == nil || !strings.Contains(out, "bridge "+bridge+" stays: there is no engine's data in "+e.DataRoot) {
		t.Errorf("%v\n%s", err, out)
	}
	if _, err := net.InterfaceByName(bridge); err != nil {
		t.Error(err)
	}
	if err := os.Rename(e.DataRoot+".away", e.DataRoot); err != nil {
		t.Fatal(err)
	}
}

// TestTeardownOfABridgeWithForeignPorts: what others have plugged into our bridge
// goes on to exist; the bridge is ours and goes.
func TestTeardownOfABridgeWithForeignPorts(t *testing.T) {
	e := harness.Start(t, harness.Options{})
	foreign := fmt.Sprintf("ctf%d", os.Getpid())
	hostCommand(t, "ip", "link", "add", foreign, "type", "veth", "peer", "name", foreign+"p")
	t.Cleanup(func() { exec.Command("ip", "link", "del", foreign).Run() })
	hostCommand(t, "ip", "link", "set", foreign, "master", e.Bridge)
	e.Stop(t)
	if out := e.Teardown(t); out != "" {
		t.Errorf("%s", out)
	}
	if _, err := net.InterfaceByName(e.Bridge); err == nil {
		t.Error("the bridge is left")
	}
	if _, err := net.InterfaceByName(foreign); err != nil {
		t.Error(err)
	}
}

func TestTeardownRefusesWhileSomethingRunsAndLeavesNothing(t *testing.T) {
	e := harness.Start(t, harness.Options{})
	e.Load(t, "busybox")
	e.OK(t, "docker", "run", "-d", "--name", "running", "-p", "0:80", "busybox", "sleep", "600")
	if out, err := e.Debug(t, "teardown"); err == nil || !strings.Contains(out, strconv.Itoa(e.PID())) {
		t.Errorf("under an engine: %v\n%s", err, out)
	}
	e.Kill()
	if out, err := e.Debug(t, "teardown"); err == nil || !strings.Contains(out, "running") {
		t.Errorf("under a container: %v\n%s", err, out)
	}
	e.Run(t)
	e.OK(t, "docker", "rm", "-f", "running")
	e.Kill() // socket and pidfile stay
	if out := e.Teardown(t); out != "" {
		t.Errorf("%s", out)
	}
	if _, err := net.InterfaceByName(e.Bridge); err == nil {
		t.Error("the bridge is left")
	}
	for _, p := range append(groupsNamed(e.CgroupParent), e.Socket, filepath.Join(e.Dir, "cleatd.pid"), e.ExecRoot) {
		if _, err := os.Lstat(p); err == nil {
			t.Errorf("%s is left", p)
		}
	}
}

// TestFiftyContainersOutliveTheirEngine stops the engine under them and starts it again.
func TestFiftyContainersOutliveTheirEngine(t *testing.T) {
	e := harness.Start(t, harness.Options{})
	e.Load(t, "busybox")
	const n = 50
	for i := range n {
		e.OK(t, "docker", "run", "-d", "--name", fmt.Sprint("c", i), "busybox", "sleep", "600")
	}
	pids := func() string {
		args := []string{"inspect", "-f", "{{.State.Status}} {{.State.Pid}} {{.RestartCount}}"}
		for i := range n {
			args = append(args, fmt.Sprint("c", i))
		}
		return e.OK(t, "docker", args...)
	}
	before := pids()
	began := time.Now()
	e.Stop(t)
	stopped := time.Now()
	e.Run(t)
	t.Logf("stop %v, start %v", stopped.Sub(began), time.Since(stopped))
	if after := pids(); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
	if got := strings.Count(before, "running"); got != n {
		t.Errorf("%d of %d run", got, n)
	}
}
