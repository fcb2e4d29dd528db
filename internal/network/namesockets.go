package network

import (
	"errors"
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/netlink"
	"github.com/cleatlabs/cleat/internal/nft"
)

// nameServer is where containers find the engine's name server: Docker's address.
func nameServer() netip.Addr { return netip.AddrFrom4([4]byte{127, 0, 0, 11}) }

// nameSockets are where the lookups of one container arrive: a UDP and a listening
// TCP socket inside its namespace, at ports that the kernel chose, with a redirection
// from port 53.
type nameSockets struct {
	udp, tcp *os.File
}

// close closes both; those of a later engine or of the keeper are others' files.
func (n *nameSockets) close() {
	n.udp.Close()
	n.tcp.Close()
}

// copy duplicates both: the same sockets, by other descriptors.
func (n *nameSockets) copy() (*nameSockets, error) {
	fds, err := n.descriptors()
	if err != nil {
		return nil, err
	}
	return &nameSockets{os.NewFile(uintptr(fds[0]), "names"), os.NewFile(uintptr(fds[1]), "names")}, nil
}

// descriptors are copies of both. (os.File.Fd would make the sockets blocking, for all
// who have them.)
func (n *nameSockets) descriptors() ([]int, error) {
	var fds []int
	for _, f := range []*os.File{n.udp, n.tcp} {
		c, err := f.SyscallConn()
		if err == nil {
			var dup error
			err = c.Control(func(fd uintptr) {
				var n int
				if n, dup = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0); dup == nil {
					fds = append(fds, n)
				}
			})
			err = errors.Join(err, dup)
		}
		if err != nil {
			for _, fd := range fds {
				unix.Close(fd)
			}
			return nil, fmt.Errorf("name server in the container's namespace: %w", err)
		}
	}
	return fds, nil
}

// openNameSockets makes them in the calling thread's network namespace, whose lo must
// be up. again replaces the redirection of an earlier engine.
func openNameSockets(again bool) (*nameSockets, error) {
	udp, udpPort, err := nameSocket(unix.SOCK_DGRAM)
	if err != nil {
		return nil, err
	}
	tcp, tcpPort, err := nameSocket(unix.SOCK_STREAM)
	if err != nil {
		udp.Close()
		return nil, err
	}
	n := &nameSockets{udp, tcp}
	if err := redirectNames(udpPort, tcpPort, again); err != nil {
		n.close()
		return nil, err
	}
	return n, nil
}

func redirectNames(udp, tcp uint16, again bool) error {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER)
	if err != nil {
		return err
	}
	defer conn.Close()
	r := nft.Redirect{Addr: nameServer(), Port: 53, UDP: udp, TCP: tcp}
	if err := r.Apply(conn, again); err != nil {
		return fmt.Errorf("name server in the container's namespace: %w", err)
	}
	return nil
}

// nameSocket binds one socket, and lets it listen if it is TCP.
func nameSocket(kind int) (*os.File, uint16, error) {
	fd, err := unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, 0, fmt.Errorf("name server in the container's namespace: %w", err)
	}
	err = unix.Bind(fd, &unix.SockaddrInet4{Addr: nameServer().As4()})
	if err == nil && kind == unix.SOCK_STREAM {
		const backlog = 128
		err = unix.Listen(fd, backlog)
	}
	var name unix.Sockaddr
	if err == nil {
		name, err = unix.Getsockname(fd)
	}
	if err != nil {
		unix.Close(fd)
		return nil, 0, fmt.Errorf("name server in the container's namespace, at %s: %w", nameServer(), err)
	}
	return os.NewFile(uintptr(fd), "names"), uint16(name.(*unix.SockaddrInet4).Port), nil
}
