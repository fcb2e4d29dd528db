package runtime

import "golang.org/x/sys/unix"

// WithoutMknod makes r behave as in an engine that has no CAP_MKNOD.
func WithoutMknod(r *Runtime) { r.held &^= 1 << unix.CAP_MKNOD }

// WithoutBase makes r behave as in an engine that is in a user namespace: its containers' mounts begin as a copy of its
// own.
func WithoutBase(r *Runtime) {
	unix.Close(r.base)
	r.base = -1
}

func (r *Runtime) HeldCapabilities() uint64 { return r.held }

func (g *Guard) PID() int { return g.pid }
