package build

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"github.com/containerd/containerd/v2/core/leases"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"

	"github.com/cleatlabs/cleat/internal/kernel"
)

// scarce is how little space, in bytes, is no longer left to the next collection.
const scarce = 64 << 20

// relief frees at once what builds let go of while the disk is full. BuildKit drops what a failed build has received or
// made, and leaves the files to the next collection of garbage: for that somebody would have to build, which needs space.
type relief struct {
	leases.Manager
	dir     string // on the filesystem of the contents
	collect func()
	// inodes is when it was files for which there was no room, in nanoseconds since 1970.
	inodes atomic.Int64
}

func (r *relief) Delete(ctx context.Context, lease leases.Lease, opts ...leases.DeleteOpt) error {
	if err := r.Manager.Delete(ctx, lease, opts...); err != nil {
		return err
	}
	if r.wanted() {
		runtime.GC() // closes what BuildKit has left open: as long as it is, the disk stays full
		r.collect()
	}
	return nil
}

// wanted says whether the disk is full.
func (r *relief) wanted() bool {
	space, err := kernel.SpaceOf(r.dir)
	if err != nil {
		return false // what it is of says so
	}
	if space.NoInodes() {
		r.inodes.Store(time.Now().UnixNano())
		return true
	}
	return space.Bytes < scarce
}

// causeLost is how fsutil says that a build's files could not be received, if its reader of them notices before the cause
// is told. It looks as if somebody had cancelled the build.
const causeLost = "walker is closed: context canceled"

// explain says of the error of a build that began at a time if it was inodes which it lacked, or any room at all where the
// error has lost its cause. BuildKit's errors are texts.
func (r *relief) explain(err error, began time.Time) error {
	if err == nil {
		return nil
	}
	text := err.Error()
	lost := strings.Contains(text, causeLost)
	if !lost && !strings.Contains(text, unix.ENOSPC.Error()) {
		return err
	}
	full := r.wanted() // what failed may not have been let go of yet
	inodes := r.inodes.Load() >= began.UnixNano()
	switch {
	case inodes && !lost:
		return fmt.Errorf("%w: %w", kernel.ErrNoInodes, err)
	case inodes:
		return fmt.Errorf("%w: %w", kernel.ErrNoInodes, unix.ENOSPC)
	case lost && full:
		return fmt.Errorf("receive the files of the build: %w", unix.ENOSPC)
	}
	return err
}

// intercept is explain for what clients of BuildKit's own API ask for.
func (r *relief) intercept(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	began := time.Now()
	res, err := handle(ctx, req)
	if ctx.Err() != nil {
		return res, err
	}
	return res, r.explain(err, began)
}
