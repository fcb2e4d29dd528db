package runtime

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/keeper"
	"github.com/cleatlabs/cleat/internal/mount"
)

// Root opens the root directory that the process's mount namespace has, as an O_PATH descriptor: with everything that is
// mounted there. A process that has ended is ErrNotRunning.
func (p *Process) Root() (int, error) { return p.openRoot(mount.RootOf) }

// BareRoot gives the root filesystem alone, without what is mounted on it, as a detached mount.
func (p *Process) BareRoot() (int, error) { return p.openRoot(mount.BareRootOf) }

func (p *Process) openRoot(open func(pidfd int) (int, error)) (int, error) {
	pidfd, err := p.dupPidfd()
	if err != nil {
		return -1, err
	}
	defer unix.Close(pidfd)
	fd, err := open(pidfd)
	if errors.Is(err, unix.ESRCH) || err != nil && keeper.Exited(pidfd) { // known before its keeper tells how it ended
		return -1, fmt.Errorf("%w: %v", ErrNotRunning, err)
	}
	return fd, err
}
