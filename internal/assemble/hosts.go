package assemble

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/api"
)

// defaultTLSPort is where Docker's clients expect TLS.
const defaultTLSPort = "2376"

func (c *Config) bindTLS(fs *pflag.FlagSet) {
	dir := os.Getenv("DOCKER_CERT_PATH")
	if home, err := os.UserHomeDir(); dir == "" && err == nil {
		dir = filepath.Join(home, ".docker")
	}
	fs.BoolVar(&c.TLS, "tls", false, "Use TLS; implied by --tlsverify")
	fs.BoolVar(&c.TLSVerify, "tlsverify", false, "Use TLS and let in only clients with a certificate of --tlscacert (needed for tcp://)")
	fs.StringVar(&c.TLSCA, "tlscacert", filepath.Join(dir, "ca.pem"), "Certificates of who may sign clients' certificates")
	fs.StringVar(&c.TLSCert, "tlscert", filepath.Join(dir, "cert.pem"), "The engine's certificate")
	fs.StringVar(&c.TLSKey, "tlskey", filepath.Join(dir, "key.pem"), "The engine's private key")
}

// address is one place to listen on.
type address struct {
	scheme string // unix, tcp, fd
	value  string // a path, host:port, or the number or name of an inherited socket
}

func (c *Config) checkHosts() error {
	for _, h := range c.Hosts {
		a, err := parseAddress(h)
		if err != nil {
			return fmt.Errorf("%s: %w", c.spell("host"), err)
		}
		if a.scheme == "tcp" && !c.TLSVerify {
			return fmt.Errorf("%s: %s: whoever reaches that port is root here, so it needs --tlsverify with --tlscacert, --tlscert and --tlskey; "+
				"without certificates reach the engine by ssh (DOCKER_HOST=ssh://user@host)", c.spell("host"), h)
		}
	}
	if c.TLS && !c.TLSVerify {
		return fmt.Errorf("%s is not supported without --tlsverify: it would let in clients without a certificate", c.spell("tls"))
	}
	return nil
}

// parseAddress reads a value of --host.
func parseAddress(host string) (address, error) {
	scheme, value, ok := strings.Cut(host, "://")
	if !ok && strings.HasPrefix(host, "/") {
		scheme, value = "unix", host
	}
	switch {
	case scheme == "unix" && filepath.IsAbs(value):
		return address{"unix", filepath.Clean(value)}, nil
	case scheme == "fd":
		return address{"fd", strings.TrimPrefix(value, "*")}, nil
	case scheme == "tcp":
		name, port, err := net.SplitHostPort(value)
		if err != nil {
			name, port = strings.Trim(value, "[]"), defaultTLSPort
		}
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || strings.ContainsAny(name, "/ ") {
			return address{}, fmt.Errorf("%q is not an address such as tcp://0.0.0.0:2376", host)
		}
		return address{"tcp", net.JoinHostPort(name, port)}, nil
	}
	return address{}, fmt.Errorf("%q is not an address such as unix:///run/cleat.sock", host)
}

// listen opens the sockets of --host, or the default ones.
func (s *services) listen() (out []net.Listener, err error) {
	defer func() {
		if err != nil {
			closeAll(out)
			out = nil
		}
	}()
	gid, err := socketGroup(s.config.Group)
	if err != nil {
		return out, err
	}
	hosts := s.config.Hosts
	switch {
	case len(hosts) > 0:
	case handedOver() > 0: // by the service manager, in place of the socket of our own
		hosts = []string{"fd://"}
	default:
		hosts = []string{"unix://" + DefaultSocket}
	}
	for _, h := range hosts {
		a, err := parseAddress(h)
		if err != nil {
			return out, err
		}
		lns, err := s.config.open(a, gid)
		out = append(out, lns...)
		if err != nil {
			return out, err
		}
	}
	if len(s.config.Hosts) == 0 {
		ln, err := api.Listen(DockerSocket, gid)
		if err != nil {
			s.log.Info("Docker's socket is left to its owner", "error", err)
		} else {
			out = append(out, ln)
		}
	}
	return out, nil
}

// open listens on one address; those that were opened before an error are returned with it.
func (c *Config) open(a address, gid int) ([]net.Listener, error) {
	switch a.scheme {
	case "fd":
		return inherited(a.value)
	case "tcp":
		ln, err := c.listenTLS(a.value)
		if err != nil {
			return nil, err
		}
		return []net.Listener{ln}, nil
	}
	ln, err := api.Listen(a.value, gid)
	if err != nil {
		return nil, err
	}
	return []net.Listener{ln}, nil
}

// listenTLS listens for clients that have a certificate which --tlscacert has signed.
func (c *Config) listenTLS(addr string) (net.Listener, error) {
	pair, err := tls.LoadX509KeyPair(c.TLSCert, c.TLSKey)
	if err != nil {
		return nil, fmt.Errorf("the engine's certificate (--tlscert, --tlskey): %w", err)
	}
	pem, err := os.ReadFile(c.TLSCA)
	if err != nil {
		return nil, fmt.Errorf("the authority of clients' certificates (--tlscacert): %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("the authority of clients' certificates (--tlscacert): %s holds no certificate", c.TLSCA)
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("cannot listen on tcp://%s: %w", addr, err)
	}
	// HTTP/1.1 alone: attach and exec take connections over, which HTTP/2 has no word for.
	return tls.NewListener(ln, &tls.Config{
		MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}, ClientCAs: pool,
		ClientAuth: tls.RequireAndVerifyClientCert, NextProtos: []string{"http/1.1"},
	}), nil
}

// firstInherited is the first descriptor that a service manager hands over, sd_listen_fds(3).
const firstInherited = 3

// handedOver is how many sockets the service manager has handed to this process.
func handedOver() int {
	count, err := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	if err != nil || count < 0 || os.Getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) {
		return 0
	}
	return count
}

// inherited returns the sockets that the service manager listens on for this process: all of them, or the one with
// a number or name. They stay the manager's: closing them here removes nothing.
func inherited(which string) ([]net.Listener, error) {
	count := handedOver()
	if count == 0 {
		return nil, errors.New("--host fd://: no service manager has handed a socket to this process: start it from a systemd socket unit, or use unix:///path")
	}
	names := strings.Split(os.Getenv("LISTEN_FDNAMES"), ":")
	var out []net.Listener
	for i := range count {
		fd := firstInherited + i
		name := ""
		if i < len(names) {
			name = names[i]
		}
		if which != "" && which != strconv.Itoa(fd) && which != name {
			continue
		}
		unix.CloseOnExec(fd)
		f := os.NewFile(uintptr(fd), "inherited socket "+strconv.Itoa(fd))
		ln, err := net.FileListener(f)
		_ = f.Close() // FileListener has made a duplicate
		if err != nil {
			closeAll(out)
			return nil, fmt.Errorf("--host fd://: descriptor %d is no listening socket: %w", fd, err)
		}
		if _, ok := ln.(*net.UnixListener); !ok {
			closeAll(append(out, ln))
			return nil, fmt.Errorf("--host fd://: descriptor %d (%s) is not a Unix socket: whoever reaches a TCP port without TLS is root here", fd, ln.Addr())
		}
		out = append(out, ln)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("--host fd://%s: the service manager has handed over no such socket", which)
	}
	return out, nil
}

// addresses names the sockets, as they would be given.
func addresses(ls []net.Listener) string {
	var out []string
	for _, l := range ls {
		out = append(out, l.Addr().Network()+"://"+l.Addr().String())
	}
	return strings.Join(out, ", ")
}
