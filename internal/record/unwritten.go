package record

import (
	"errors"

	"github.com/containerd/errdefs"

	"github.com/cleatlabs/cleat/internal/failure"
)

// ErrUnwritten is matched by the errors of [Unwritten].
var ErrUnwritten = errors.New("not on the disk")

// Unwritten makes the error that stays when what was written to path did not come to the
// disk. Linux takes the pages that it could not write for clean: the next fsync of them
// answers success though they are on no disk, and reading shows them until the kernel needs
// their memory. So nobody may try a failed sync again and believe the second answer; who
// holds this error keeps it until the engine is started again, and sees to it that the
// next one goes on from what was on the disk before.
func Unwritten(path string, err error) error {
	if errors.Is(err, ErrUnwritten) {
		return err
	}
	return &unwritten{failure.New(errdefs.ErrUnavailable, "%s could not be written to the disk: %w. Containers go on, but nothing that would rely "+
		"on it is taken until cleatd is started again, which goes back to what was on the disk before; look at the disk first "+
		"(the kernel's log: dmesg; the space of what it is thinly provisioned from)", path, err)}
}

type unwritten struct{ error }

func (u *unwritten) Unwrap() []error { return []error{ErrUnwritten, u.error} }
