package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	idle      = 50 // containers whose memory is counted
	settling  = 2 * time.Second
	idleRSS   = "idle engine, RSS"
	perIdle   = "per idle container of 50: engine's growth, helpers' PSS, Shmem"
	perKeeper = "  its helper process (keeper, shim, conmon), PSS"
	perShmem  = "  Shmem"
	perEngine = "  growth of the engine, PSS"
	perKernel = "  kernel memory"
	bareNS    = "  kernel memory of a bare unshare with these namespaces"
	syncs     = "fdatasync and fsync per create…rm"
)

func memoryRows() []row {
	return []row{{idleRSS, "MB", 60, false}, {perIdle, "kB", 100, false}, {perKeeper, "kB", 0, false}, {perShmem, "kB", 0, false},
		{perEngine, "kB", 0, false}, {perKernel, "kB", 0, false}, {bareNS, "kB", 0, false}}
}

func syncRows() []row { return []row{{syncs, "calls", 2, false}} }

// memory is what is in use at an instant, in kB.
type memory struct{ engine, helpers, shmem, kernel float64 }

// measureMemory counts what each engine and the kernel need for containers that do
// nothing. Their own processes are not counted: they are the same everywhere. Kernel
// memory is the whole machine's and tells something only where nothing else happens.
func measureMemory(ctx context.Context, t *table, st *stage) error {
	fmt.Fprintln(os.Stderr, "measuring memory")
	for _, s := range t.systems {
		if s.held == nil { // a runtime alone, or another client of the same engine
			continue
		}
		// The first round brings the engine's heap to the size that fifty starts need.
		for _, counted := range []bool{false, true} {
			if err := idleContainers(ctx, t, s, counted); err != nil {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				fmt.Fprintf(os.Stderr, "memory on %s: %v\n", s.name, err)
				break
			}
		}
	}
	return bareNamespaces(ctx, t)
}

func idleContainers(ctx context.Context, t *table, s *system, counted bool) (err error) {
	ids := make([]string, idle)
	defer func() {
		err = errors.Join(err, byEight(idle, func(i int) error { return s.remove(ids[i]) }), pause(ctx))
	}()
	before := s.memory()
	if counted {
		t.record(idleRSS, s.name, s.idle()/1000)
	}
	if err := byEight(idle, func(i int) (err error) { ids[i], err = s.run(ctx, "none", "sleep", "600"); return err }); err != nil {
		return err
	}
	if err := pause(ctx); err != nil || !counted {
		return err
	}
	after := s.memory()
	for _, f := range []struct {
		row  string
		grew float64
	}{
		{perKeeper, after.helpers - before.helpers}, {perShmem, after.shmem - before.shmem}, {perEngine, after.engine - before.engine},
		{perKernel, after.kernel - before.kernel},
		{perIdle, after.helpers - before.helpers + after.shmem - before.shmem + after.engine - before.engine},
	} {
		t.record(f.row, s.name, f.grew/idle)
	}
	return nil
}

func pause(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(settling):
		return nil
	}
}

// engineNames are the processes that an engine consists of; every other one that is
// not a container's is a helper.
var engineNames = map[string]bool{"cleatd": true, "dockerd": true, "containerd": true, "podman": true}

func (s *system) memory() memory {
	m := memory{shmem: meminfo("Shmem"), kernel: meminfo("Slab", "KernelStack", "PageTables", "Percpu")}
	for _, p := range children(s.held.cmd.Process.Pid) {
		pss := field(fmt.Sprintf("/proc/%d/smaps_rollup", p), "Pss")
		switch name := comm(p); {
		case engineNames[name]:
			m.engine += pss
		case name != "sleep" || s.keeps(p):
			m.helpers += pss
		}
	}
	return m
}

// keeps says whether p is a keeper: it bears the name of what it has started.
func (s *system) keeps(p int) bool { return len(children(p)) > 0 }

// idle is the resident memory of the engine's processes.
func (s *system) idle() (kB float64) {
	for _, p := range children(s.held.cmd.Process.Pid) {
		if engineNames[comm(p)] {
			kB += field(fmt.Sprintf("/proc/%d/status", p), "VmRSS")
		}
	}
	return kB
}

func meminfo(names ...string) (kB float64) {
	for _, n := range names {
		kB += field("/proc/meminfo", n)
	}
	return kB
}

// field is a number of kB from a file of lines "name: number kB".
func field(path, name string) float64 {
	b, _ := os.ReadFile(path)
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, name+":"); ok {
			v, _ := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			return v
		}
	}
	return 0
}

func bareNamespaces(ctx context.Context, t *table) error {
	var cmds []*exec.Cmd
	defer func() {
		for _, cmd := range cmds {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	}()
	before := meminfo("Slab", "KernelStack", "PageTables", "Percpu")
	for range idle {
		cmd := exec.Command("sleep", "600")
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL,
			Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWNET | unix.CLONE_NEWCGROUP}
		if err := cmd.Start(); err != nil {
			return err
		}
		cmds = append(cmds, cmd)
	}
	if err := pause(ctx); err != nil {
		return err
	}
	t.record(bareNS, t.systems[0].name, (meminfo("Slab", "KernelStack", "PageTables", "Percpu")-before)/idle)
	return nil
}

// countSyncs counts with strace, if that is installed.
func countSyncs(ctx context.Context, t *table, st *stage) error {
	if _, err := exec.LookPath("strace"); err != nil {
		fmt.Fprintln(os.Stderr, "fdatasync is not counted: strace is not installed")
		return nil
	}
	fmt.Fprintln(os.Stderr, "measuring", syncs)
	pid := 0
	for _, p := range children(st.cleat.held.cmd.Process.Pid) {
		if comm(p) == "cleatd" {
			pid = p
			break
		}
	}
	trace := st.path("trace")
	cmd := exec.CommandContext(ctx, "strace", "-f", "-e", "trace=fsync,fdatasync,sync_file_range,syncfs", "-o", trace, "-p", strconv.Itoa(pid))
	attached, err := cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	// It says so when it has attached.
	if _, err := attached.Read(make([]byte, 256)); err != nil {
		return errors.Join(err, cmd.Wait())
	}
	const lives = 10
	for range lives {
		if err := st.cleat.life(ctx, "none", nothing, func(string, float64) {}); err != nil {
			return errors.Join(err, cmd.Process.Kill(), cmd.Wait())
		}
	}
	_ = cmd.Process.Signal(syscall.SIGINT)
	_ = cmd.Wait()
	b, err := os.ReadFile(trace)
	if err != nil {
		return err
	}
	calls := bytes.Count(b, []byte("fsync(")) + bytes.Count(b, []byte("fdatasync(")) + bytes.Count(b, []byte("syncfs("))
	t.record(syncs, st.cleat.name, float64(calls)/lives)
	return nil
}
