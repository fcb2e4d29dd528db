package netlink

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

// A list that changes interrupt again and again is had in the end; any other error is told at once.
func TestRepeatedLists(t *testing.T) {
	calls := 0
	err := repeated(func() error {
		if calls++; calls < 20 {
			return &Error{Object: "list of links", Errno: unix.EINTR}
		}
		return nil
	})
	if err != nil || calls != 20 {
		t.Errorf("after %d calls: %v", calls, err)
	}
	calls = 0
	err = repeated(func() error {
		calls++
		return &Error{Object: "list of links", Errno: unix.EPERM}
	})
	if !errors.Is(err, unix.EPERM) || calls != 1 {
		t.Errorf("after %d calls: %v", calls, err)
	}
}
