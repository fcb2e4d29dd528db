// Command bench measures Cleat beside whatever else is installed: dockerd, podman,
// buildah, and bare runc and crun, all in one run and by turns, so that a noisy machine
// disturbs all alike. It prints one table: the median and the best of each figure,
// the goal and whether it was met, and each other system's median with its ratio.
//
//	bench [-n rounds] [-only text] [-peers=false] [-bin dir] -image busybox.tar
//
// Each engine is brought up in namespaces of its own (process ids, mounts, network)
// on data of its own. The kernel ends all of it with the process that holds them,
// which ends with this one, however this one ends. Needs root.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
)

type options struct {
	rounds           int
	only, bin, image string
	peers            bool
}

func main() {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "hold":
			fail(hold(os.Args[2], os.Args[3:]))
		case "lines":
			fail(writeLines(os.Args[2], os.Args[3]))
		case "accept":
			fail(accept(os.Args[2]))
		case "dial":
			fail(dial(os.Args[2], os.Args[3], os.Args[4], os.Args[5:]))
		case "lookups":
			fail(askMany(os.Args[2], os.Args[3], os.Args[4]))
		}
	}
	var o options
	flag.IntVar(&o.rounds, "n", 30, "rounds of each short measurement")
	flag.StringVar(&o.only, "only", "", "measure only what has `text` in its name")
	flag.BoolVar(&o.peers, "peers", os.Getenv("PEERS") != "no", "measure the other engines and runtimes, too (PEERS=no in the environment turns it off)")
	flag.StringVar(&o.bin, "bin", "bin", "directory of cleatd and cleat")
	flag.StringVar(&o.image, "image", "/var/cache/cleat-test-images/busybox.tar", "archive of the image busybox")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	err := bench(ctx, o)
	if ctx.Err() != nil {
		os.Exit(130)
	}
	fail(err)
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// measure does what of the works is chosen.
func measure(ctx context.Context, t *table, works []work, systems []*system, o options) error {
	for _, w := range works {
		if !w.chosen(o.only) {
			continue
		}
		t.want(w.rows...)
		if err := w.measure(ctx, t, systems, o.rounds); err != nil {
			return err
		}
	}
	return nil
}

func bench(ctx context.Context, o options) (err error) {
	st, err := newStage(o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.clear()) }()
	systems, err := st.bringUp(ctx)
	if err != nil {
		return err
	}
	if systems, err = st.withBuildah(ctx, systems); err != nil {
		return err
	}
	t := newTable(systems)
	t.shares = buildShares()
	if err := measure(ctx, t, slices.Concat([]work{aloneWork(st)}, works(), networkWorks(), buildWorks()), systems, o); err != nil {
		return err
	}
	if composed := composeWorks(st); slices.ContainsFunc(composed, func(w work) bool { return w.chosen(o.only) }) {
		t.systems = st.composers(systems)
		if err := measure(ctx, t, composed, t.systems, o); err != nil {
			return err
		}
	}
	for _, w := range []struct {
		rows []row
		do   func(context.Context, *table, *stage) error
	}{{memoryRows(), measureMemory}, {syncRows(), countSyncs}} {
		if slices.ContainsFunc(w.rows, func(r row) bool { return strings.Contains(r.name, o.only) }) {
			t.want(w.rows...)
			if err := w.do(ctx, t, st); err != nil {
				return err
			}
		}
	}
	t.print(os.Stdout)
	return nil
}
