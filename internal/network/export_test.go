package network

import (
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// HoldPools does what an engine does that chooses subnets.
func HoldPools(t *testing.T) (release func()) {
	t.Helper()
	fd, err := listenAt(poolLockName)
	if err != nil {
		t.Fatal(err)
	}
	return func() { unix.Close(fd) }
}

// BeginRemoval begins to remove a network, which ends when finish is called.
func BeginRemoval(t *testing.T, s *Service, name string) (finish func() error) {
	t.Helper()
	n, err := s.doom(name)
	if err != nil {
		t.Fatal(err)
	}
	return func() error { _, err := s.finishRemoval(n); return err }
}

// PoolLockName and ClaimName are names that engines hold.
const PoolLockName = poolLockName

func ClaimName(bridge string) string { return claimName(bridge) }

// Connected before a name has HoldUntil connect the socket that has it.
const Connected = "connected "

// HoldUntil holds a name in a process of its own, until what it reads ends.
func HoldUntil(name string, r io.Reader) error {
	name, connected := strings.CutPrefix(name, Connected)
	hold := listenAt
	if connected {
		hold = holdConnected
	}
	if _, err := hold(name); err != nil {
		return err
	}
	fmt.Println("holds")
	_, err := io.Copy(io.Discard, r)
	os.Exit(0)
	return err
}

// holdConnected makes a socket of that name that is connected to another one.
func holdConnected(name string) (int, error) {
	other := name + "-other"
	if _, err := listenAt(other); err != nil {
		return -1, err
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrUnix{Name: name})
	}
	if err == nil {
		err = unix.Connect(fd, &unix.SockaddrUnix{Name: other})
	}
	return fd, err
}

// Traffic is how many bytes the service has exchanged with the kernel about the host's
// links and rules.
func (s *Service) Traffic() int64 {
	sent, received := s.host.conn.Traffic()
	tableSent, tableReceived := s.table.Traffic()
	return sent + received + tableSent + tableReceived
}

// Leaving is how many ended containers' addresses are not free yet.
func (s *Service) Leaving() int { return len(s.leaving.list()) }

// Answered is how many containers' lookups are answered.
func (s *Service) Answered() int {
	s.lookups.mu.Lock()
	defer s.lookups.mu.Unlock()
	return len(s.lookups.clients)
}

// WaitForFirewalld has changes of the bridges wait for it for so long.
func (s *Service) WaitForFirewalld(d time.Duration) { s.zone.patience = d }

// FindFlowsByList has the service do what it has to on kernels before Linux 6.8.
func (s *Service) FindFlowsByList() { s.flows.FindByList() }

// FailLinkRemovals has containers' links not be deleted while failing gives an error.
func (s *Service) FailLinkRemovals(failing func() error) {
	fail(s.host.unused, func(string) error { return failing() })
	fail(s.host.inners, func(l *innerLink) error {
		if l.ended.Load() {
			return nil
		}
		return failing()
	})
}

func fail[T any](r *removals[T], failing func(T) error) {
	remove := r.remove
	r.remove = func(all []T) []error {
		errs := make([]error, len(all))
		for i, one := range all {
			if errs[i] = failing(one); errs[i] == nil {
				errs[i] = remove([]T{one})[0]
			}
		}
		return errs
	}
}

// RetryLinkRemovals has those that failed tried again now.
func (s *Service) RetryLinkRemovals() {
	s.host.unused.stir()
	s.host.inners.stir()
}
