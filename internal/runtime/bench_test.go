package runtime_test

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/cleatlabs/cleat/internal/kernel"
	"github.com/cleatlabs/cleat/internal/runtime"
	"github.com/cleatlabs/cleat/internal/seccomp"
	"golang.org/x/sys/unix"
)

func filter(tb testing.TB, f kernel.Features, caps uint64) []byte {
	tb.Helper()
	b, err := seccomp.Default(caps, f.Major, f.Minor)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// Everything of one short container: overlay, control groups, all namespaces, start, end, removal.
func BenchmarkStartTrueWaitNetNone(b *testing.B) { benchmarkStart(b, "true") }

// The same with a line of output, which the keeper lets the engine read before it ends.
func BenchmarkStartEchoWaitNetNone(b *testing.B) { benchmarkStart(b, "echo", "hello") }

func benchmarkStart(b *testing.B, command ...string) {
	l := newLab(b)
	bpf := filter(b, l.c.Features, defaultCaps)
	var times durations
	defer func() { times.report(b) }()
	for b.Loop() {
		start := time.Now()
		s := l.spec(command...)
		s.Seccomp = bpf
		p, err := l.r.Start(context.Background(), s)
		if err != nil {
			b.Fatal(err)
		}
		go io.Copy(io.Discard, p.Stdout())
		<-p.Done()
		if p.Status().Code != 0 {
			b.Fatal(p.Status())
		}
		p.LetMountsGo()
		if err := p.Release(); err != nil {
			b.Fatal(err)
		}
		if err := l.r.RemoveCgroup(s.CgroupPath); err != nil {
			b.Fatal(err)
		}
		unix.Close(s.RootFD)
		for _, d := range []string{"-u", "-w"} {
			os.RemoveAll(filepath.Join(l.dir, s.ID+d))
		}
		times = append(times, time.Since(start))
	}
}

// durations reports the quartiles that a mean hides on a machine with other work.
type durations []time.Duration

func (d durations) report(b *testing.B) {
	slices.Sort(d)
	if n := len(d); n > 0 {
		b.ReportMetric(float64(d[0].Microseconds()), "min-µs")
		b.ReportMetric(float64(d[n/4].Microseconds()), "q1-µs")
		b.ReportMetric(float64(d[n/2].Microseconds()), "median-µs")
	}
}

func BenchmarkExec(b *testing.B) {
	l := newLab(b)
	bpf := filter(b, l.c.Features, defaultCaps)
	s := l.spec("sleep", "1000")
	s.Seccomp = bpf
	c := l.start(s)
	var times durations
	defer func() { times.report(b) }()
	for b.Loop() {
		start := time.Now()
		p, err := l.r.Exec(context.Background(), &runtime.ExecSpec{
			ID: newID(), ContainerID: s.ID, Target: c.Process, Args: []string{"true"}, Env: s.Env, Capabilities: defaultCaps, Seccomp: bpf, CgroupPath: s.CgroupPath,
		})
		if err != nil {
			b.Fatal(err)
		}
		<-p.Done()
		if p.Status().Code != 0 {
			b.Fatal(p.Status())
		}
		p.LetMountsGo()
		if err := p.Release(); err != nil {
			b.Fatal(err)
		}
		times = append(times, time.Since(start))
	}
}
