package network

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/netlink"
)

// claimName is that of the socket by which an engine claims a bridge.
func claimName(bridge string) string { return "@cleat-network-" + bridge }

// claimBridge makes this process the one engine that works with a bridge: two would
// take each other's containers for leftovers. The claim is an abstract socket, whose
// names belong to the network namespace, as bridges do, and which the kernel drops
// with the process, in whatever way that ends. Anybody may take such a name; one who
// is no engine is passed over, which the warning tells, as there is no claim then.
func claimBridge(bridge string) (fd int, warning string, err error) {
	name := claimName(bridge)
	const most = 100 // tries: the name may be let go, and taken again, while it is looked who has it
	among := unconnected
	for range most {
		fd, err := listenAt(name)
		if err == nil {
			return fd, "", nil
		}
		if !errors.Is(err, unix.EADDRINUSE) {
			return -1, "", fmt.Errorf("claim bridge %q: %w", bridge, err)
		}
		uids, err := holders(name, among)
		if err != nil {
			return -1, "", fmt.Errorf("bridge %q is claimed; by whom could not be found out: %w", bridge, err)
		}
		if len(uids) == 0 {
			among = ^uint32(0) // it has just gone, or is connected
			continue
		}
		who := claimant(&unix.SockaddrUnix{Name: name})
		for _, uid := range uids {
			if int(uid) == unix.Geteuid() {
				return -1, "", failure.Conflict("bridge %q is in use by another engine%s: give each engine bridges of its own, with --bridge NAME and, for networks, the option "+optBridgeName, bridge, who)
			}
		}
		return -1, fmt.Sprintf("a process of user %d%s has taken the name by which engines keep each other off bridge %s: see to it that it ends, "+
			"and until then that no other engine uses that bridge", uids[0], who, bridge), nil
	}
	return -1, "", fmt.Errorf("bridge %q is claimed: by whom could not be found out in %d tries", bridge, most)
}

// unconnected are the states of sockets but that of connected ones (TCP_ESTABLISHED). What a listening socket has got is
// such a one, and has its name, too, whoever it is of; so may be one that has taken the name by itself.
const unconnected = ^uint32(1 << 1)

// holders are the users that have made the sockets of an abstract name which nobody else can take therefore, among those
// in some states.
func holders(name string, states uint32) ([]uint32, error) {
	const (
		byFamily   = 20 // SOCK_DIAG_BY_FAMILY
		showName   = 1 << 0
		showUID    = 1 << 6
		attrName   = 0
		attrUID    = 7
		sizeOfDiag = 16 // struct unix_diag_msg
	)
	conn, err := netlink.Dial(unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	req := make([]byte, 24) // struct unix_diag_req
	req[0] = unix.AF_UNIX
	binary.NativeEndian.PutUint32(req[4:], states)
	binary.NativeEndian.PutUint32(req[12:], showName|showUID)
	var uids []uint32
	err = conn.Dump(netlink.NewMessage(byFamily, 0, req, "sockets"), func(_ uint16, body []byte) error {
		if len(body) < sizeOfDiag || body[1] != unix.SOCK_STREAM {
			return nil
		}
		attrs, err := netlink.ParseAttrs(body[sizeOfDiag:])
		if err != nil {
			return err
		}
		named := false
		for _, a := range attrs {
			switch a.Type {
			case attrName:
				named = string(a.Value) == "\x00"+name[1:]
			case attrUID:
				if named {
					uids = append(uids, a.U32())
				}
			}
		}
		return nil
	})
	return uids, err
}

// claimant is " (pid N)", as far as it can be found out.
func claimant(addr unix.Sockaddr) string {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return ""
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, addr); err != nil {
		return ""
	}
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return ""
	}
	return fmt.Sprintf(" (pid %d)", cred.Pid)
}
