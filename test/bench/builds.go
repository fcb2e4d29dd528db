package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	buildCold    = "build of 12 steps, cold"
	buildCached  = "build of 12 steps, all cached"
	buildLate    = "build of 12 steps, one late file changed"
	buildContext = "build, context of 4,000 files unchanged"
	buildLayer   = "build, layer of 125 MB changed"
)

func buildWorks() []work {
	return []work{
		{rows: []row{{buildCold, "ms", 0, false}, {buildCached, "ms", 50, false}, {buildLate, "ms", 0, false}}, rounds: 7, prepare: twelveSteps, turn: buildTwelve},
		{rows: []row{{buildContext, "ms", 0, false}}, rounds: 7, prepare: manyFiles, turn: buildUnchanged},
		{rows: []row{{buildLayer, "ms", 0, false}}, rounds: 3, prepare: largeFiles, turn: buildLarge},
	}
}

// buildShares are goals in terms of the best of the others.
func buildShares() map[string]float64 { return map[string]float64{buildCold: 0.7, buildLate: 0.5} }

// withBuildah adds buildah, which has no engine, if builds are measured. It is what podman builds with: podman itself
// is left out of these rows.
func (st *stage) withBuildah(ctx context.Context, systems []*system) ([]*system, error) {
	path, err := exec.LookPath("buildah")
	if err != nil || !st.peers || !slices.ContainsFunc(buildWorks(), func(w work) bool { return w.chosen(st.only) }) {
		return systems, nil
	}
	s, err := st.buildah(ctx, path)
	if err != nil {
		if !leftOut(ctx, "buildah", err) {
			return nil, err
		}
		return systems, nil
	}
	return append(systems, s), nil
}

// buildah is run in namespaces of its own, which end with this process.
func (st *stage) buildah(ctx context.Context, path string) (*system, error) {
	thread, err := startThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET | unix.CLONE_NEWIPC); err != nil {
			return err
		}
		return errors.Join(furnish(st.path("buildah-scratch")), hideUnified())
	})
	if err != nil {
		return nil, err
	}
	s := &system{name: "buildah", thread: thread, client: []string{path, "--root", st.path("buildah"), "--runroot", "/run/containers/storage"}}
	// It takes an archive's names for its own machine's, not for Docker Hub's.
	if err := s.command(ctx, "pull", "--quiet", "docker-archive:"+st.image); err != nil {
		return nil, err
	}
	return s, s.command(ctx, "tag", "localhost/busybox", "docker.io/library/busybox")
}

// builder is a system with something to build.
type builder struct {
	system
	dir     string // the context
	changes int
}

// newBuilder makes the context and builds it once. The newest clients of Docker want a plugin to build with BuildKit:
// the first that can do it is taken.
func newBuilder(ctx context.Context, s *system, fill func(dir string) error) (any, func() error, error) {
	if s.client == nil || s.name == "podman" {
		return nil, nil, errNotApplicable
	}
	dir, err := os.MkdirTemp("", "cleat-bench-context.")
	if err != nil {
		return nil, nil, err
	}
	done := func() error { return os.RemoveAll(dir) }
	if err := fill(dir); err != nil {
		return nil, done, err
	}
	clients := [][]string{s.client}
	if s.name == "dockerd" {
		clients = append(clients, []string{"/usr/bin/docker"})
	}
	var errs []error
	for _, c := range clients {
		b := &builder{system: *s, dir: dir}
		b.client = c
		err := b.build(ctx)
		if err == nil {
			return b, done, nil
		}
		errs = append(errs, err)
	}
	return nil, done, errors.Join(errs...)
}

func (b *builder) build(ctx context.Context, flags ...string) error {
	args := append([]string{"build", "-t", "bench-built"}, flags...)
	if b.name == "buildah" {
		args = append(args, "--layers")
	}
	return b.command(ctx, append(args, b.dir)...)
}

// timed builds when what was written before is on the disk: nobody is to wait for what another has left.
func (b *builder) timed(ctx context.Context, record func(string, float64), name string, flags ...string) error {
	unix.Sync()
	return timed(record, name, func() error { return b.build(ctx, flags...) })
}

// change gives a file of the context another beginning.
func (b *builder) change(name string) error {
	b.changes++
	f, err := os.OpenFile(filepath.Join(b.dir, name), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, "%d at %d\n", b.changes, time.Now().UnixNano())
	return errors.Join(err, f.Close())
}

const twelve = `FROM docker.io/library/busybox:latest
ENV MODE=bench
WORKDIR /app
COPY packages .
RUN mkdir -p lib && cp packages lib/a
RUN cp packages lib/b
RUN cat lib/a lib/b > lib/c
RUN touch lib/d
COPY src src
RUN cat src/* > all
RUN chown -R 1000 all
COPY late .
RUN cat all late > result
`

func twelveSteps(ctx context.Context, s *system) (any, func() error, error) {
	return newBuilder(ctx, s, func(dir string) error {
		files := map[string]string{"Dockerfile": twelve, "packages": strings.Repeat("a package\n", 100), "late": strings.Repeat("late\n", 100)}
		for i := range 20 {
			files[fmt.Sprintf("src/%d.txt", i)] = strings.Repeat("source\n", 500)
		}
		return writeFiles(dir, files)
	})
}

func buildTwelve(ctx context.Context, _ *system, state any, record func(string, float64)) error {
	b := state.(*builder)
	if err := b.timed(ctx, record, buildCold, "--no-cache"); err != nil {
		return err
	}
	if err := b.timed(ctx, record, buildCached); err != nil {
		return err
	}
	if err := b.change("late"); err != nil {
		return err
	}
	return b.timed(ctx, record, buildLate)
}

const copyAll = "FROM docker.io/library/busybox:latest\nCOPY . /src\n"

func manyFiles(ctx context.Context, s *system) (any, func() error, error) {
	return newBuilder(ctx, s, func(dir string) error {
		files := map[string]string{"Dockerfile": copyAll}
		for i := range 3999 {
			files[fmt.Sprintf("package%d/part%d/file%d.txt", i/200, i/20, i)] = strings.Repeat(fmt.Sprintln("line", i), 100)
		}
		return writeFiles(dir, files)
	})
}

func buildUnchanged(ctx context.Context, _ *system, state any, record func(string, float64)) error {
	return state.(*builder).timed(ctx, record, buildContext)
}

// largeParts files of largePart bytes each are the large layer.
const largeParts, largePart = 5, 25_000_000

func largeFiles(ctx context.Context, s *system) (any, func() error, error) {
	return newBuilder(ctx, s, func(dir string) error {
		if err := writeFiles(dir, map[string]string{"Dockerfile": copyAll}); err != nil {
			return err
		}
		noise := make([]byte, largePart)
		for i := range largeParts {
			_, _ = rand.Read(noise) // never fails
			if err := os.WriteFile(filepath.Join(dir, fmt.Sprint("part", i)), noise, 0o644); err != nil {
				return err
			}
		}
		return nil
	})
}

func buildLarge(ctx context.Context, _ *system, state any, record func(string, float64)) error {
	b := state.(*builder)
	for i := range largeParts {
		if err := b.change(fmt.Sprint("part", i)); err != nil {
			return err
		}
	}
	return b.timed(ctx, record, buildLayer)
}

func writeFiles(dir string, files map[string]string) error {
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}
