package network

import (
	"fmt"
	"io"
	"os"
	"testing"

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

// HoldPoolsUntil does so in a process of its own, until what it reads ends.
func HoldPoolsUntil(r io.Reader) error {
	if _, err := listenAt(poolLockName); err != nil {
		return err
	}
	fmt.Println("holds")
	_, err := io.Copy(io.Discard, r)
	os.Exit(0)
	return err
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

// FindFlowsByList has the service do what it has to on kernels before Linux 6.8.
func (s *Service) FindFlowsByList() { s.flows.FindByList() }

// FailLinkRemovals has containers' links not be deleted while failing gives an error.
func (s *Service) FailLinkRemovals(failing func() error) {
	remove := s.host.unused.remove
	s.host.unused.remove = func(names []string) []error {
		err := failing()
		if err == nil {
			return remove(names)
		}
		errs := make([]error, len(names))
		for i := range errs {
			errs[i] = err
		}
		return errs
	}
}

// RetryLinkRemovals has those that failed tried again now.
func (s *Service) RetryLinkRemovals() { s.host.unused.stir() }
