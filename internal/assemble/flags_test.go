package assemble

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

func parse(t *testing.T, args ...string) (*Config, error) {
	t.Helper()
	c := &Config{}
	fs := pflag.NewFlagSet("cleatd", pflag.ContinueOnError)
	c.BindFlags(fs)
	if err := fs.Parse(args); err != nil {
		return c, err
	}
	return c, c.Check()
}

func TestFlagsOfDockerdActAreNeedlessOrAreRefusedByName(t *testing.T) {
	for _, c := range []struct {
		args    []string
		warning string
		bad     string
	}{
		{nil, "", ""},
		{[]string{"-H", "unix:///a", "--host=unix:///b", "-D", "-l", "warn", "-G", "root", "-b", "br0", "--bip", "10.1.0.1/16", "-p", "/x"}, "", ""},
		{[]string{"--containerd=/run/containerd/containerd.sock"}, "--containerd is not needed", ""},
		{[]string{"--userland-proxy=false"}, "", ""},
		{[]string{"--userland-proxy-path=/usr/bin/docker-proxy"}, "the engine is its own proxy", ""},
		{[]string{"--live-restore"}, "--live-restore is not needed", ""},
		{[]string{"--live-restore=false"}, "", "--live-restore=false is not supported"},
		{[]string{"--storage-driver", "overlay2"}, "--storage-driver is not needed", ""},
		{[]string{"-s", "btrfs"}, "", "--storage-driver=btrfs is not supported"},
		{[]string{"--iptables=true"}, "--iptables is not needed", ""},
		{[]string{"--iptables=false"}, "", "--iptables=false is not supported"},
		{[]string{"--iptables=maybe"}, "", "not a truth value"},
		{[]string{"--userns-remap=default"}, "", "--userns-remap is not supported by this engine: containers share the host's user ids"},
		{[]string{"--add-runtime", "x=/usr/bin/x"}, "", "--add-runtime is not supported by this engine: processes are started without an outside runtime; leave it out"},
		{[]string{"--init-path", "/usr/bin/tini"}, "the init process of --init is built in", ""},
		{[]string{"--allow-direct-routing", "--bridge-accept-fwmark", "0x1/0x3"}, "", ""},
		{[]string{"--bridge-accept-fwmark", "0x4/0x3"}, "", "--bridge-accept-fwmark: \"0x4/0x3\" matches nothing"},
		{[]string{"--bridge-accept-fwmark", "1/"}, "", "is not a mark"},
		{[]string{"--bridge-accept-fwmark", "0x100000000"}, "", "is not a mark"},
		{[]string{"--metrics-addr", "127.0.0.1:9323"}, "", ""},
		{[]string{"--metrics-addr", "9323"}, "", "--metrics-addr"},
		{[]string{"--max-download-attempts", "0"}, "", "--max-download-attempts"},
		{[]string{"--tlsverify", "-H", "tcp://0.0.0.0:2376"}, "", ""},
		{[]string{"--tls"}, "", "--tls is not supported without --tlsverify"},
		{[]string{"--config-file", "/nonexistent/daemon.json"}, "", "/nonexistent/daemon.json: no such file"},
		{[]string{"-H", "fd://"}, "", ""},
		{[]string{"-H", "tcp://0.0.0.0:2375"}, "", "it needs --tlsverify"},
		{[]string{"-H", "tcp://0.0.0.0:x", "--tlsverify"}, "", "is not an address"},
		{[]string{"--default-address-pool", "base=10.10.0.0/16,size=24", "--default-address-pool", "base=fd00:1::/48,size=64"}, "", ""},
		{[]string{"--default-address-pool", "base=10.10.0.1/16,size=24"}, "", "it should be 10.10.0.0/16"},
		{[]string{"--default-address-pool", "base=10.10.0.0/16,size=8"}, "", "no subnet of that size"},
		{[]string{"--default-address-pool", "base=10.10.0.0/16,size=x"}, "", "invalid size value"},
		{[]string{"--default-address-pool", "bass=10.10.0.0/16"}, "", "unexpected key"},
		{[]string{"--default-network-opt", "bridge=com.docker.network.driver.mtu=1400"}, "", ""},
		{[]string{"--default-network-opt", "bridge=x"}, "", "driver=option=value"},
		{[]string{"--default-network-opt", "overlay=x=y"}, "", "overlay"},
		{[]string{"--default-publish-address", "127.0.0.1"}, "", ""},
		{[]string{"--ip", "::1"}, "", ""},
		{[]string{"--default-publish-address", "127.0.0.1", "--ip", "127.0.0.2"}, "", "different addresses"},
		{[]string{"--default-publish-address", "here"}, "", "--default-publish-address"},
		{[]string{"--label", "x"}, "", "is not key=value"},
		{[]string{"--registry-mirror", "hub.example"}, "", "--registry-mirror: invalid mirror"},
		{[]string{"--insecure-registry", "http://hub.example"}, "", "--insecure-registry: invalid insecure registry"},
		{[]string{"--label", "a=1", "--label", "a=2"}, "", "conflict labels"},
		{[]string{"--log-driver", "splunk"}, "", "--log-driver"},
		{[]string{"--log-opt", "max-size=1m", "--log-opt", "max-file=3"}, "", ""},
		{[]string{"--log-opt", "max-size=big"}, "", "max-size"},
		{[]string{"--default-ulimit", "nofile=10:5"}, "", "--default-ulimit"},
		{[]string{"--default-ulimit", "nofile=1024:2048", "--init", "--no-new-privileges", "--default-ipc-mode=shareable", "--default-shm-size=1g"}, "", ""},
		{[]string{"--default-ipc-mode=host"}, "", "--default-ipc-mode"},
		{[]string{"--default-shm-size=-1"}, "", "--default-shm-size"},
		{[]string{"--default-cgroupns-mode=x"}, "", "--default-cgroupns-mode"},
		{[]string{"--seccomp-profile=/nonexistent.json"}, "", "--seccomp-profile"},
		{[]string{"--http-proxy=nonsense"}, "", "--http-proxy"},
		{[]string{"--max-concurrent-downloads=0"}, "", "--max-concurrent-downloads"},
		{[]string{"--exec-opt=native.cgroupdriver=cgroupfs"}, "--exec-opt is not needed", ""},
		{[]string{"--exec-opt=native.cgroupdriver=systemd"}, "", "--exec-opt=native.cgroupdriver=systemd is not supported"},
		{[]string{"-H", "unix://relative"}, "", "is not an address"},
		{[]string{"--data-root", "relative"}, "", "must be an absolute path"},
		{[]string{"--bip", "10.0.0.1"}, "", "--bip"},
		{[]string{"--bridge", "averyveryverylongname"}, "", "--bridge"},
		{[]string{"--bridge", "none"}, "", "--network none"},
		{[]string{"--cgroup-parent", "/"}, "", "--cgroup-parent"},
		{[]string{"--cgroup-parent", "/a.slice"}, "", "nor a slice such as"},
		{[]string{"--cgroup-parent", "a--b.slice"}, "", "slice"},
		{[]string{"--log-level", "loud"}, "", "--log-level"},
		{[]string{"--log-format", "xml"}, "", "--log-format"},
		{[]string{"--dns", "example.org"}, "", "--dns"},
		{[]string{"--mtu", "10"}, "", "--mtu"},
	} {
		t.Run(strings.Join(c.args, " "), func(t *testing.T) {
			got, err := parse(t, c.args...)
			if (c.bad == "") != (err == nil) || (err != nil && !strings.Contains(err.Error(), c.bad)) {
				t.Fatalf("%v, want %q", err, c.bad)
			}
			if c.warning != "" && (len(got.Warnings) != 1 || !strings.Contains(got.Warnings[0], c.warning)) {
				t.Errorf("warnings: %q", got.Warnings)
			}
			if err == nil && c.warning == "" && len(got.Warnings) != 0 {
				t.Errorf("warnings: %q", got.Warnings)
			}
		})
	}
}

// dockerd's own list: a script that starts dockerd must never meet an unknown
// flag, but a reason.
func TestEveryFlagOfDockerdIsKnown(t *testing.T) {
	fs := pflag.NewFlagSet("cleatd", pflag.ContinueOnError)
	(&Config{}).BindFlags(fs)
	for _, name := range strings.Fields(`add-runtime allow-direct-routing authorization-plugin bip bip6 bridge bridge-accept-fwmark cdi-spec-dir
		cgroup-parent config-file containerd containerd-namespace containerd-plugins-namespace cpu-rt-period cpu-rt-runtime cri-containerd
		data-root debug default-address-pool default-cgroupns-mode default-gateway default-gateway-v6 default-ipc-mode default-network-opt
		default-runtime default-shm-size default-ulimit dns dns-opt dns-search exec-opt exec-root experimental feature firewall-backend
		fixed-cidr fixed-cidr-v6 group host host-gateway-ip http-proxy https-proxy icc init init-path insecure-registry ip ip-forward
		ip-forward-no-drop ip-masq ip6tables iptables ipv6 label live-restore log-driver log-format log-level log-opt
		max-concurrent-downloads max-concurrent-uploads max-download-attempts metrics-addr mtu network-control-plane-mtu
		no-new-privileges no-proxy node-generic-resource pidfile raw-logs registry-mirror rootless seccomp-profile selinux-enabled
		shutdown-timeout storage-driver storage-opt swarm-default-advertise-addr tls tlscacert tlscert tlskey tlsverify userland-proxy
		userland-proxy-path userns-remap validate`) {
		if fs.Lookup(name) == nil {
			t.Errorf("--%s is unknown", name)
		}
	}
}

func TestOneEnginePerDirectory(t *testing.T) {
	dir := t.TempDir()
	first, err := lockDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lockDir(dir); err == nil || !strings.Contains(err.Error(), "PID "+strconv.Itoa(os.Getpid())) {
		t.Errorf("a second engine: %v", err)
	}
	first.Close() // as the kernel does when the engine dies
	second, err := lockDir(dir)
	if err != nil {
		t.Fatalf("after the first has died: %v", err)
	}
	second.Close()
}

func TestPidfileIsTakenOverUnlessItsEngineRuns(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sub", "cleatd.pid")
	if err := takePidfile(path); err != nil {
		t.Fatal(err)
	}
	for _, stale := range []string{"", "garbage", "999999999", strconv.Itoa(os.Getppid())} { // the last one runs, but is no engine
		if err := os.WriteFile(path, []byte(stale), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := takePidfile(path); err != nil {
			t.Errorf("%q: %v", stale, err)
		}
		if readPID(path) != os.Getpid() {
			t.Errorf("%q was not replaced", stale)
		}
	}
	if err := os.WriteFile(path, []byte("1"), 0o644); err != nil {
		t.Fatal(err)
	}
	dropPidfile(path)
	if _, err := os.Stat(path); err != nil {
		t.Error("a pidfile of someone else was removed")
	}
}

func TestSocketGroup(t *testing.T) {
	if gid, err := socketGroup("root"); err != nil || gid != 0 {
		t.Errorf("%d, %v", gid, err)
	}
	if gid, err := socketGroup("4242"); err != nil || gid != 4242 {
		t.Errorf("%d, %v", gid, err)
	}
	if _, err := socketGroup("no-such-group"); err == nil || !strings.Contains(err.Error(), "no-such-group") {
		t.Errorf("%v", err)
	}
}

func FuzzAcceptedMark(f *testing.F) {
	for _, s := range []string{"1", "0x1/0x3", "0/0", "/", "4294967295", "0x10/", "-1", "1/2/3"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		m, err := defaultNetwork{acceptMark: text}.mark()
		if err == nil && (m == nil) != (text == "") {
			t.Errorf("%q: %v", text, m)
		}
		if m != nil && (m.Mask == 0 || m.Value&^m.Mask != 0) {
			t.Errorf("%q matches everything or nothing: %+v", text, m)
		}
	})
}
