package e2e

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/cleatlabs/cleat/test/harness"
)

// The keys of daemon.json that are about the default network act, and both clients show
// them.
func TestDefaultNetworkSettings(t *testing.T) {
	file := filepath.Join(t.TempDir(), "daemon.json")
	_, own := harness.Subnet(t)
	writeSettings(t, file, `{"ipv6": true, "fixed-cidr-v6": "`+own+`/64", "icc": false, "ip-masq": false, "mtu": 1400, "default-gateway-v6": "`+own+`fe"}`)
	e := harness.Start(t, harness.Options{Args: []string{"--config-file", file}})
	e.Load(t, "busybox")
	each(t, func(t *testing.T, program string) {
		got := e.OK(t, program, "network", "inspect", "bridge", "-f",
			`{{.EnableIPv6}} {{(index .IPAM.Config 1).Subnet}} {{index .Options "com.docker.network.bridge.enable_icc"}} {{index .Options "com.docker.network.bridge.enable_ip_masquerade"}} {{index .Options "com.docker.network.driver.mtu"}}`)
		if got != "true "+own+"/64 false false 1400" {
			t.Errorf("inspect: %s", got)
		}
		n := name(t)
		remove(t, e, n)
		e.OK(t, program, "run", "-d", "--name", n, "busybox", "httpd", "-f", "-p", "80", "-h", "/etc")
		six := e.OK(t, program, "inspect", "-f", "{{.NetworkSettings.Networks.bridge.GlobalIPv6Address}}", n)
		if !strings.HasPrefix(six, own) {
			t.Errorf("IPv6 address %q", six)
		}
		four := addressOn(t, e, n, "bridge")
		got = e.OK(t, program, "run", "--rm", "busybox", "sh", "-c",
			"ip -6 route show default | cut -d' ' -f3; cat /sys/class/net/eth0/mtu; wget -T 1 -q -O /dev/null http://"+four+"/hosts 2>/dev/null || echo apart; wget -T 1 -q -O /dev/null http://["+six+"]/hosts 2>/dev/null || echo apart")
		if want := own + "fe\n1400\napart\napart"; got != want {
			t.Errorf("a container sees %q, want %q", got, want)
		}
	})
}
