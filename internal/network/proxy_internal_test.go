package network

import (
	"net"
	"testing"

	"github.com/moby/moby/api/types/network"
	"golang.org/x/sys/unix"
)

// TestNoDescriptorsForAConnection says so: who is told of the connection again at once must not try again at once.
func TestNoDescriptorsForAConnection(t *testing.T) {
	l, err := net.Listen("tcp6", "[::1]:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	file, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	fd, port := int(file.Fd()), l.Addr().(*net.TCPAddr).Port
	if err := unix.SetNonblock(fd, true); err != nil {
		t.Fatal(err)
	}
	conn, err := net.DialTCP("tcp6", nil, &net.TCPAddr{IP: net.IPv6loopback, Port: port})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	p := &proxy{most: 0}
	s := &servedSocket{fd: fd, proto: network.TCP}
	free, err := unix.Dup(fd)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(free)
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	fewer := unix.Rlimit{Cur: uint64(free), Max: limit.Max}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &fewer); err != nil {
		t.Fatal(err)
	}
	short := p.serve(s)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if !short {
		t.Error("nothing is said of what was short")
	}
	if p.serve(s) {
		t.Error("nothing is short any more")
	}
}
