package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/docker/cli/opts"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"github.com/spf13/pflag"
)

func (a *app) update() spec {
	return spec{
		use: "update [OPTIONS] CONTAINER [CONTAINER...]", short: "Update configuration of one or more containers",
		args: a.minArgs(1), shownAs: []string{"container update", "update"},
		setup: func(fs *pflag.FlagSet) action {
			f := newUpdateFlags(fs)
			return func(ctx context.Context, names []string) error {
				o, err := f.options()
				if err != nil {
					return err
				}
				var warnings []string
				err = a.inTurn(ctx, names, func(ctx context.Context, c *client.Client, name string) error {
					res, err := c.ContainerUpdate(ctx, name, o)
					warnings = append(warnings, res.Warnings...)
					return err
				})
				for _, w := range warnings {
					_, _ = fmt.Fprintln(a.out, w)
				}
				return err
			}
		},
	}
}

type updateFlags struct {
	fs                                *pflag.FlagSet
	r                                 container.Resources
	restart                           string
	pids                              int64
	cpus                              opts.NanoCPUs
	memory, reservation, kernelMemory opts.MemBytes
	swap                              opts.MemSwapBytes
}

func newUpdateFlags(fs *pflag.FlagSet) *updateFlags {
	f := &updateFlags{fs: fs}
	fs.Uint16Var(&f.r.BlkioWeight, "blkio-weight", 0, "Block IO (relative weight), between 10 and 1000, or 0 to disable (default 0)")
	fs.Int64Var(&f.r.CPUPeriod, "cpu-period", 0, "Limit CPU CFS (Completely Fair Scheduler) period")
	fs.Int64Var(&f.r.CPUQuota, "cpu-quota", 0, "Limit CPU CFS (Completely Fair Scheduler) quota")
	fs.Int64Var(&f.r.CPURealtimePeriod, "cpu-rt-period", 0, "Limit the CPU real-time period in microseconds")
	fs.Int64Var(&f.r.CPURealtimeRuntime, "cpu-rt-runtime", 0, "Limit the CPU real-time runtime in microseconds")
	fs.StringVar(&f.r.CpusetCpus, "cpuset-cpus", "", "CPUs in which to allow execution (0-3, 0,1)")
	fs.StringVar(&f.r.CpusetMems, "cpuset-mems", "", "MEMs in which to allow execution (0-3, 0,1)")
	fs.Int64VarP(&f.r.CPUShares, "cpu-shares", "c", 0, "CPU shares (relative weight)")
	fs.VarP(&f.memory, "memory", "m", "Memory limit")
	fs.Var(&f.reservation, "memory-reservation", "Memory soft limit")
	fs.Var(&f.swap, "memory-swap", `Swap limit equal to memory plus swap: -1 to enable unlimited swap`)
	fs.Var(&f.kernelMemory, "kernel-memory", "Kernel memory limit (deprecated)")
	_ = fs.MarkHidden("kernel-memory")
	fs.StringVar(&f.restart, "restart", "", "Restart policy to apply when a container exits")
	fs.Int64Var(&f.pids, "pids-limit", 0, "Tune container pids limit (set -1 for unlimited)")
	fs.Var(&f.cpus, "cpus", "Number of CPUs")
	return f
}

func (f *updateFlags) options() (client.ContainerUpdateOptions, error) {
	var o client.ContainerUpdateOptions
	if f.fs.NFlag() == 0 {
		return o, errors.New("you must provide one or more flags when using this command")
	}
	if f.fs.Changed("kernel-memory") {
		return o, errors.New("--kernel-memory is not supported: the kernel has dropped that limit, use --memory")
	}
	r := f.r
	r.Memory, r.MemoryReservation, r.MemorySwap, r.NanoCPUs = f.memory.Value(), f.reservation.Value(), f.swap.Value(), f.cpus.Value()
	if f.fs.Changed("pids-limit") {
		r.PidsLimit = &f.pids
	}
	o.Resources = &r
	if f.restart != "" {
		policy, err := opts.ParseRestartPolicy(f.restart)
		if err != nil {
			return o, err
		}
		o.RestartPolicy = &policy
	}
	return o, nil
}
