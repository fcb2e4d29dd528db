package main

import (
	"context"
	"os/exec"
	"syscall"
)

// What a life and an exec contain of the program itself, whatever runs it. On a virtual machine that may be half of an
// exec: a C library asks the processor for its features some sixty times when it starts (CPUID), and each time the host
// answers, which takes a microsecond to ten.
const (
	nothingAlone = "nothing itself, without a container"
	trueAlone    = "true itself, without a container"
)

// aloneWork measures the programs in their files, started as any other.
func aloneWork(st *stage) work {
	return work{
		rows: []row{{nothingAlone, "ms", 0, false}, {trueAlone, "ms", 0, false}},
		prepare: func(_ context.Context, s *system) (any, func() error, error) {
			if s != st.cleat {
				return nil, nil, errNotApplicable // it is the machine's figure, not another system's
			}
			dir := st.path("alone")
			return dir, nil, unpackImage(st.image, dir)
		},
		turn: func(ctx context.Context, _ *system, state any, record func(string, float64)) error {
			for row, program := range map[string]string{nothingAlone: nothing, trueAlone: "true"} {
				cmd := exec.CommandContext(ctx, "/bin/"+program)
				cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: state.(string)}
				if err := timed(record, row, cmd.Run); err != nil {
					return err
				}
			}
			return nil
		},
	}
}
