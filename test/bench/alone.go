package main

import (
	"context"
	"os/exec"
	"syscall"
)

// trueAlone is what a life and an exec contain of the program itself, whatever runs it. On a virtual machine that may be
// half of an exec: a C library asks the processor for its features some sixty times when it starts (CPUID), and each time
// the host answers, which takes a microsecond to ten.
const trueAlone = "true itself, without a container"

// aloneWork measures the program in its files, started as any other.
func aloneWork(st *stage) work {
	return work{
		rows: []row{{trueAlone, "ms", 0, false}},
		prepare: func(_ context.Context, s *system) (any, func() error, error) {
			if s != st.cleat {
				return nil, nil, errNotApplicable // it is the machine's figure, not another system's
			}
			dir := st.path("alone")
			return dir, nil, unpackImage(st.image, dir)
		},
		turn: func(ctx context.Context, _ *system, state any, record func(string, float64)) error {
			cmd := exec.CommandContext(ctx, "/bin/true")
			cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: state.(string)}
			return timed(record, trueAlone, cmd.Run)
		},
	}
}
