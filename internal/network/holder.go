package network

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/network"

	"github.com/cleatlabs/cleat/internal/failure"
)

// describe makes of "port is already allocated" an error that says by whom, and
// what to do about it; r is what was taken before for the same container.
func (s *Service) describe(err error, r *reservation) error {
	var t *errTaken
	if !errors.As(err, &t) {
		return err
	}
	// Nobody else finds these: sockets that are bound and do not listen are in no list of the kernel's.
	if slices.ContainsFunc(r.ports, t.is) {
		return failure.Conflict("%w: this container publishes it twice; choose another host port for one of them", t)
	}
	if name, ok := s.holderContainer(t); ok {
		return failure.Conflict("%w: container %q publishes it; stop that container or choose another host port", t, name)
	}
	if pid, name, ok := holderProcess(t.proto, t.port); ok {
		if pid == os.Getpid() {
			return failure.Conflict("%w: the engine itself holds it; choose another host port", t)
		}
		return failure.Conflict("%w: process %q (pid %d) uses it; stop that process or choose another host port", t, name, pid)
	}
	show := "ss -lntup"
	if t.proto == network.SCTP {
		show = "ss -lnSp"
	}
	return failure.Conflict("%w: another socket of this host uses it (`%s` shows which); choose another host port", t, show)
}

func (s *Service) holderContainer(t *errTaken) (string, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.attachments {
		if slices.ContainsFunc(a.ports.ports, t.is) {
			return a.sandbox.Name, true
		}
	}
	return "", false
}

// holderProcess finds a process with a socket on the port: the socket's inode in
// /proc/net, then the file descriptor that is it. A name-only answer is not
// possible; false means that nobody was found, as for the kernel's own sockets.
func holderProcess(proto network.IPProtocol, port uint16) (pid int, name string, found bool) {
	inodes := map[string]bool{}
	for _, file := range []string{"/proc/thread-self/net/" + string(proto), "/proc/thread-self/net/" + string(proto) + "6"} {
		data, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		for inode := range socketInodes(string(data), port) {
			inodes["socket:["+inode+"]"] = true
		}
	}
	if len(inodes) == 0 {
		return 0, "", false
	}
	fds, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, fd := range fds {
		if target, err := os.Readlink(fd); err == nil && inodes[target] {
			dir := filepath.Dir(filepath.Dir(fd))
			comm, _ := os.ReadFile(dir + "/comm")
			pid, _ := strconv.Atoi(filepath.Base(dir))
			return pid, strings.TrimSpace(string(comm)), true
		}
	}
	return 0, "", false
}

// socketInodes reads /proc/net/tcp and its like.
func socketInodes(table string, port uint16) map[string]bool {
	inodes := map[string]bool{}
	suffix := fmt.Sprintf(":%04X", port)
	for line := range strings.Lines(table) {
		f := strings.Fields(line)
		if len(f) > 9 && strings.HasSuffix(f[1], suffix) && f[9] != "0" {
			inodes[f[9]] = true
		}
	}
	return inodes
}

// overlaps says whether two host addresses can serve the same packet.
func overlaps(a, b netip.Addr) bool {
	return a == b || a.IsUnspecified() || b.IsUnspecified()
}
