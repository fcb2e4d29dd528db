package network

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/netlink"
)

// innerLink is a container's link that can only be deleted from inside its namespace.
type innerLink struct {
	ns    *os.File // keeps the namespace, and with it the link
	inode uint64   // the namespace's
	index int
	name  string
	ended atomic.Bool // the container has: the link goes with its namespace
}

// inner is an endpoint's link in a namespace; nil where there is none, or no namespace at hand.
func (l *lan) inner(ns int, e *Endpoint) (*innerLink, error) {
	if ns < 0 {
		return nil, nil
	}
	inode, err := inodeOf(ns)
	if err != nil {
		return nil, err
	}
	fd, err := unix.FcntlInt(uintptr(ns), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("keep the network namespace of a container: %w", err)
	}
	link := &innerLink{ns: os.NewFile(uintptr(fd), "network namespace"), inode: inode, index: e.Index, name: e.Interface}
	if link.index != 0 {
		return link, nil
	}
	err = l.host.within(link.ns, func(conn *netlink.Conn) error {
		got, err := conn.LinkByName(e.Interface)
		link.index = got.Index
		return err
	})
	if err == nil {
		return link, nil
	}
	link.ns.Close()
	if errors.Is(err, unix.ENODEV) {
		return nil, nil
	}
	return nil, err
}

// within has f speak to the kernel about a namespace.
func (u *uplink) within(ns *os.File, f func(*netlink.Conn) error) error {
	in, err := u.enter(int(ns.Fd()))
	if err != nil {
		return err
	}
	defer in.close()
	if err := f(in.conn); err != nil {
		return fmt.Errorf("in the container's namespace: %w", err)
	}
	return nil
}

// deleteInners is deleteLinks for links inside. One that has gone, or is about to go with its namespace, is no error, and
// then the namespace is held no longer.
func (u *uplink) deleteInners(links []*innerLink) []error {
	errs := make([]error, len(links))
	for i, l := range links {
		if !l.ended.Load() {
			errs[i] = u.deleteInner(l)
		}
		if errs[i] == nil {
			l.ns.Close()
		}
	}
	return errs
}

func (u *uplink) deleteInner(l *innerLink) error {
	err := u.within(l.ns, func(conn *netlink.Conn) error { return conn.Do(netlink.DeleteLinkIndex(l.index)) })
	if err == nil || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return fmt.Errorf("link %s of a container, which is of no use any more, is still there: %w", l.name, err)
}

// leaveInners gives up the links of a namespace whose container has ended.
func (u *uplink) leaveInners(ns int) {
	inode, err := inodeOf(ns)
	if err != nil {
		return // there is none
	}
	for _, l := range u.inners.all() {
		if l.inode == inode {
			l.ended.Store(true)
			u.inners.stir()
		}
	}
}

// inodeOf tells namespaces apart, as long as they are held.
func inodeOf(ns int) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(ns, &st); err != nil {
		return 0, fmt.Errorf("network namespace of a container: %w", err)
	}
	return st.Ino, nil
}
