package runtime

import "golang.org/x/sys/unix"

// WithoutMknod makes r behave as in an engine that has no CAP_MKNOD.
func WithoutMknod(r *Runtime) { r.held &^= 1 << unix.CAP_MKNOD }
