package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cleatlabs/cleat/test/harness"
)

func writeSettings(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// TestSettingsFile: daemon.json's keys reach containers and info; SIGHUP brings what can change, all or nothing.
func TestSettingsFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "daemon.json")
	writeSettings(t, file, `{
		"labels": ["place=here"], "registry-mirrors": ["http://127.0.0.1:1"], "default-stop-timeout": 3,
		"log-opts": {"max-size": "3m"}, "default-ulimits": {"nofile": {"Name": "nofile", "Soft": 321, "Hard": 654}},
		"default-shm-size": "32M", "no-new-privileges": true, "init": true, "default-ipc-mode": "shareable"}`)
	e := harness.Start(t, harness.Options{Args: []string{"--config-file", file}})
	e.Load(t, "busybox")
	each(t, func(t *testing.T, program string) {
		if got := e.OK(t, program, "info", "-f", "{{.Labels}} {{.RegistryConfig.Mirrors}} {{.Debug}}"); got != "[place=here] [http://127.0.0.1:1] false" {
			t.Errorf("info: %q", got)
		}
		got := e.OK(t, program, "run", "--rm", "busybox", "sh", "-c", "ulimit -Sn; ulimit -Hn; grep NoNewPrivs /proc/self/status; df -k /dev/shm | tail -1 | awk '{print $2}'; echo $$")
		if got != "321\n654\nNoNewPrivs:\t1\n32768\n7" && !strings.HasPrefix(got, "321\n654\nNoNewPrivs:\t1\n32768\n") {
			t.Errorf("defaults of containers: %q", got)
		}
		if strings.HasSuffix(got, "\n1") {
			t.Error("the container has no init process")
		}
		// What a container chooses itself wins.
		got = e.OK(t, program, "run", "--rm", "--init=false", "--ulimit", "nofile=50:60", "--shm-size=8m", "--security-opt", "no-new-privileges=false", "busybox",
			"sh", "-c", "ulimit -Sn; ulimit -Hn; grep NoNewPrivs /proc/self/status; df -k /dev/shm | tail -1 | awk '{print $2}'; echo $$")
		if got != "50\n60\nNoNewPrivs:\t0\n8192\n1" {
			t.Errorf("own choices: %q", got)
		}
		n := name(t)
		remove(t, e, n)
		e.OK(t, program, "create", "--name", n, "--log-opt", "max-file=2", "busybox")
		if got := e.OK(t, program, "inspect", "-f", "{{.HostConfig.LogConfig.Config}} {{.HostConfig.IpcMode}}", n); got != "map[max-file:2 max-size:3m] shareable" {
			t.Errorf("log options and IPC mode: %q", got)
		}
	})

	since := now()
	writeSettings(t, file, `{"labels": ["place=there"], "debug": true, "insecure-registries": ["r.example:5000"], "mtu": 1400, "builder": {"gc": {"enabled": false}}}`)
	hangUp(t, e, "settings have been read anew")
	if got := e.OK(t, "docker", "info", "-f", "{{.Labels}} {{.RegistryConfig.Mirrors}} {{.Debug}} {{(index .RegistryConfig.IndexConfigs \"r.example:5000\").Secure}}"); got != "[place=there] [] true false" {
		t.Errorf("info after SIGHUP: %q", got)
	}
	if log := e.Log(); !strings.Contains(log, "take effect when the engine starts anew") || !strings.Contains(log, "mtu") || !strings.Contains(log, `, builder"`) {
		t.Errorf("a setting that has to wait is to be named:\n%s", log)
	}
	if got := e.OK(t, "docker", "events", "--since", since, "--until", now(), "--filter", "type=daemon", "--format", "{{.Action}} {{.Actor.Attributes.debug}}"); got != "reload true" {
		t.Errorf("event: %q", got)
	}

	for bad, text := range map[string]string{
		`{"labels": ["place=nowhere"], "registry-mirrors": ["nonsense"]}`: "nonsense",
		`{"labels": ["place=nowhere"], "log-level": "loud"}`:              "loud",
		`{"labels": ["place=nowhere"],`:                                   "not valid JSON",
		`{"labels": ["place=nowhere"], "no-such": 1}`:                     "no-such",
	} {
		writeSettings(t, file, bad)
		hangUp(t, e, text)
		if got := e.OK(t, "docker", "info", "-f", "{{.Labels}} {{.Debug}}"); got != "[place=there] true" {
			t.Errorf("%s: a broken file changed something: %q", bad, got)
		}
	}
	writeSettings(t, file, "{}")
}

// hangUp sends SIGHUP and waits until the engine has logged text anew.
func hangUp(t *testing.T, e *harness.Engine, text string) {
	t.Helper()
	log := filepath.Join(e.Dir, "cleatd.log") // all of it
	before := strings.Count(readFile(log), text)
	if err := syscall.Kill(e.PID(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	harness.Eventually(t, func() (bool, string) {
		return strings.Count(readFile(log), text) > before, "the engine has not logged " + text
	})
}

// TestCertificates: TCP is for clients that have a certificate, and nobody else.
func TestCertificates(t *testing.T) {
	dir := t.TempDir()
	makeCertificates(t, dir)
	port := freePort(t)
	file := func(name string) string { return filepath.Join(dir, name) }
	e := harness.Start(t, harness.Options{Args: []string{"-H", "tcp://127.0.0.1:" + port, "--tlsverify", "--tlscacert", file("ca.pem"), "--tlscert", file("server.pem"), "--tlskey", file("server.key")}})
	e.Load(t, "busybox")
	address := "tcp://127.0.0.1:" + port
	for _, c := range []struct{ said, flags string }{
		{"it is served with TLS there: give --tlsverify", ""},
		{"authority that is not trusted here: name that by --tlscacert", "--tlsverify"},
		{"it lets in only clients with a certificate", "--tlsverify --tlscacert " + file("ca.pem")},
		{"it lets in only clients with a certificate", "--tls"},
		{file("typo.pem") + ": no such file", "--tlsverify --tlscacert " + file("typo.pem")},
		{file("typo.pem") + ": no such file", "--tls --tlscert " + file("typo.pem") + " --tlskey " + file("client.key")},
		{"name yours by --tlscert", "--tlsverify --tlscacert " + file("ca.pem") + " --tlscert " + file("stranger.pem") + " --tlskey " + file("stranger.key")},
	} {
		if r := e.Cleat(t, append(append([]string{"-H", address}, strings.Fields(c.flags)...), "ps")...); r.Code != 1 || !strings.Contains(r.Stderr, c.said) {
			t.Errorf("want %q: %s", c.said, r)
		}
	}
	each(t, func(t *testing.T, program string) {
		tls := []string{"-H", address, "--tlsverify", "--tlscacert", file("ca.pem")}
		with := append(append([]string{}, tls...), "--tlscert", file("client.pem"), "--tlskey", file("client.key"))
		if got := e.Do(t, program, "hello\n", append(with, "run", "--rm", "-i", "busybox", "cat")...); got.Code != 0 || got.Stdout != "hello\n" {
			t.Errorf("with a certificate: %s", got)
		}
		if got := e.Do(t, program, "", append(tls, "ps")...); got.Code == 0 {
			t.Errorf("without a certificate: %s", got)
		}
		if got := e.Do(t, program, "", append(tls, "--tlscert", file("stranger.pem"), "--tlskey", file("stranger.key"), "ps")...); got.Code == 0 {
			t.Errorf("with a stranger's certificate: %s", got)
		}
		if got := e.Do(t, program, "", "-H", address, "ps"); got.Code == 0 {
			t.Errorf("without TLS: %s", got)
		}
	})
}

// TestInheritedSocket: a service manager listens, and its socket stays when the engine goes.
func TestInheritedSocket(t *testing.T) {
	e := harness.New(t, harness.Options{})
	t.Cleanup(func() { e.Run(t); e.Destroy(t) })
	path := filepath.Join(e.Dir, "inherited.sock")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	f, err := ln.File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	args := append([]string{}, e.Args()...)
	for i, a := range args {
		if a == "--host" {
			args[i+1] = "fd://"
		}
	}
	if out, err := exec.Command(harness.Binary(t, "cleatd"), args...).CombinedOutput(); err == nil || !strings.Contains(string(out), "no service manager has handed a socket") {
		t.Errorf("fd:// without a socket: %v\n%s", err, out)
	}
	cmd := exec.Command("sh", append([]string{"-c", `LISTEN_PID=$$ LISTEN_FDS=1 exec "$@"`, "sh", harness.Binary(t, "cleatd")}, args...)...)
	cmd.ExtraFiles = []*os.File{f}
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	each(t, func(t *testing.T, program string) {
		if got := e.Do(t, program, "", "-H", "unix://"+path, "ps", "-q"); got.Code != 0 {
			t.Errorf("through the inherited socket: %s", got)
		}
	})
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("the engine ended with %v", err)
	}
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("the service manager's socket has gone with the engine: %v", err)
	}
}

// nextPort counts what freePort has given away.
var nextPort atomic.Int32

// freePort is a port that nobody has, on any address, and nobody will: not of those that the kernel chooses for whoever
// connects or wants any, and not given to another test of this suite.
func freePort(t *testing.T) string {
	t.Helper()
	const first, ports = 20000, 9000
	for range ports {
		port := strconv.Itoa(first + (os.Getpid()*31+int(nextPort.Add(1)))%ports)
		tcp, err := net.Listen("tcp", ":"+port)
		if err != nil {
			continue
		}
		tcp.Close()
		udp, err := net.ListenPacket("udp", ":"+port)
		if err != nil {
			continue
		}
		udp.Close()
		return port
	}
	t.Fatal("no port is free")
	return ""
}

// makeCertificates writes an authority, what it has signed for a server and a client, and a stranger's.
func makeCertificates(t *testing.T, dir string) {
	t.Helper()
	ca, caKey := certificate(t, dir, "ca", nil, nil)
	certificate(t, dir, "server", ca, caKey)
	certificate(t, dir, "client", ca, caKey)
	other, otherKey := certificate(t, dir, "other", nil, nil)
	certificate(t, dir, "stranger", other, otherKey)
}

func certificate(t *testing.T, dir, name string, by *x509.Certificate, byKey *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: by == nil, BasicConstraintsValid: true,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if by == nil {
		c.KeyUsage = x509.KeyUsageCertSign
		by, byKey = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, by, &key.PublicKey, byKey)
	if err != nil {
		t.Fatal(err)
	}
	priv, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for suffix, block := range map[string]*pem.Block{"pem": {Type: "CERTIFICATE", Bytes: der}, "key": {Type: "EC PRIVATE KEY", Bytes: priv}} {
		if err := os.WriteFile(fmt.Sprintf("%s/%s.%s", dir, name, suffix), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return parsed, key
}

// TestNetworkSettings: where subnets come from, what new networks get, and where ports are published.
func TestNetworkSettings(t *testing.T) {
	file := filepath.Join(t.TempDir(), "daemon.json")
	writeSettings(t, file, `{"default-address-pools": [{"base": "10.194.0.0/16", "size": 24}], "default-network-opts": {"bridge": {"com.docker.network.driver.mtu": "1414"}},
		"default-publish-address": "127.0.0.1"}`)
	e := harness.Start(t, harness.Options{Args: []string{"--config-file", file}})
	e.Load(t, "busybox")
	n := made(t, e, "docker", "-net")
	if got := e.OK(t, "docker", "network", "inspect", "-f", "{{range .IPAM.Config}}{{.Subnet}}{{end}}", n); !strings.HasPrefix(got, "10.194.") || !strings.HasSuffix(got, "/24") {
		t.Errorf("subnet %s", got)
	}
	if got := e.OK(t, "docker", "run", "--rm", "--network", n, "busybox", "cat", "/sys/class/net/eth0/mtu"); got != "1414" {
		t.Errorf("MTU %s", got)
	}
	server(t, e, "docker", "published", "-p", "80", "-p", "0.0.0.0::81")
	for port, want := range map[string]string{"80": "127.0.0.1:", "81": "0.0.0.0:"} {
		if got := e.OK(t, "cleat", "port", "published", port); !strings.HasPrefix(got, want) || strings.Contains(got, "\n") {
			t.Errorf("port %s is published at %q, want %s", port, got, want)
		}
	}
}

// TestPublishedOnIPv6ByDefault: ports are published where --ip says, which may be an address of IPv6, and nowhere else.
func TestPublishedOnIPv6ByDefault(t *testing.T) {
	e := harness.Start(t, harness.Options{Args: []string{"--ip", "::1"}})
	e.Load(t, "busybox")
	server(t, e, "docker", "published", "-p", "80", "-p", "0.0.0.0::81")
	for port, want := range map[string]string{"80": "[::1]:", "81": "0.0.0.0:"} {
		if got := e.OK(t, "docker", "port", "published", port); !strings.HasPrefix(got, want) || strings.Contains(got, "\n") {
			t.Errorf("port %s is published at %q, want %s", port, got, want)
		}
	}
	at := e.OK(t, "cleat", "port", "published", "80")
	harness.Eventually(t, func() (bool, string) {
		got, err := body("http://" + at)
		return got == "page of published\n", fmt.Sprintf("%s: %q %v", at, got, err)
	})
	if got := e.OK(t, "docker", "network", "inspect", "-f", `{{index .Options "com.docker.network.bridge.host_binding_ipv4"}}`, "bridge"); got != "::1" {
		t.Errorf("host_binding_ipv4 of the default network is %q", got)
	}
}
