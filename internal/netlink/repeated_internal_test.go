package netlink

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

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
	// However long each takes.
	calls = 0
	synctest.Test(t, func(t *testing.T) {
		err = repeated(func() error {
			time.Sleep(time.Second)
			if calls++; calls < 100 {
				return &Error{Object: "list of links", Errno: unix.EINTR}
			}
			return nil
		})
	})
	if err != nil || calls != 100 {
		t.Errorf("after %d slow calls: %v", calls, err)
	}
	// Not for ever.
	synctest.Test(t, func(t *testing.T) {
		err = repeated(func() error { return &Error{Object: "list of links", Errno: unix.EINTR} })
	})
	if !errors.Is(err, unix.EINTR) {
		t.Errorf("of a list that is never whole: %v", err)
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
