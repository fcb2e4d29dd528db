package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Rows of Compose: `up -d` until all run, `up -d` of what runs as it should, and `down`, each
// by the client from its start to its end.
const (
	composeUp   = "compose up -d, %d services"
	composeSame = "compose up -d unchanged, %d services"
	composeDown = "compose down, %d services"
	// of the client alone, which tells more than the time where other work has the processors
	composeWork = "  client's processor time of up -d unchanged"
)

// composeAllowance keeps the rows below two minutes: dockerd takes ten seconds for a turn of 30 services.
const composeAllowance = 10 * time.Second

func composeWorks(st *stage) []work {
	var all []work
	for _, n := range []int{6, 30} {
		up, same, down := fmt.Sprintf(composeUp, n), fmt.Sprintf(composeSame, n), fmt.Sprintf(composeDown, n)
		used := fmt.Sprintf("%s, %d services", composeWork, n)
		goals := map[int][3]float64{6: {150, 25, 150}, 30: {700, 40, 0}}[n]
		all = append(all, work{
			rows:   []row{{up, "ms", goals[0], false}, {same, "ms", goals[1], false}, {down, "ms", goals[2], false}, {used, "ms", 0, false}},
			rounds: 7, allowance: composeAllowance,
			prepare: func(ctx context.Context, s *system) (any, func() error, error) {
				return st.composeProject(s, n)
			},
			turn: func(ctx context.Context, s *system, state any, record func(string, float64)) error {
				project := state.([]string)
				// What the turn before has left is taken down off the way of its answers: not at
				// the cost of this one.
				time.Sleep(500 * time.Millisecond)
				var errs []error
				for _, step := range []struct {
					name string
					args []string
				}{{up, []string{"up", "-d"}}, {same, []string{"up", "-d"}}, {down, []string{"down"}}} {
					errs = append(errs, timed(record, step.name, func() error {
						spent, err := s.compose(ctx, project, step.args...)
						if step.name == same && err == nil {
							record(composeWork, float64(spent.Microseconds())/1000)
						}
						return err
					}))
				}
				return errors.Join(errs...)
			},
		})
	}
	return all
}

// composeProject writes the file for n services that wait for nothing, and end at once when
// they are stopped: the wait for a first process without a handler would hide the rest.
func (st *stage) composeProject(s *system, n int) (any, func() error, error) {
	if s.composer == nil {
		return nil, nil, errNotApplicable
	}
	dir := st.path(fmt.Sprintf("compose-%s-%d", s.name, n))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, nil, err
	}
	var text strings.Builder
	text.WriteString("services:\n")
	for i := range n {
		fmt.Fprintf(&text, "  s%02d: {image: busybox, command: sleep 1000, stop_signal: SIGKILL, cgroup_parent: %s}\n", i, s.cgroup)
	}
	file := filepath.Join(dir, "compose.yaml")
	return []string{"-f", file, "-p", fmt.Sprintf("bench%d", n)}, nil, os.WriteFile(file, []byte(text.String()), 0o644)
}

// compose runs the system's client of Compose, and says what that has used of the processors.
func (s *system) compose(ctx context.Context, project []string, args ...string) (spent time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	line := append(append(s.composer[1:len(s.composer):len(s.composer)], project...), args...)
	cmd := exec.CommandContext(ctx, s.composer[0], line...)
	cmd.Env = append(os.Environ(), "DOCKER_HOST=unix://"+s.socket)
	if out, err := cmd.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("compose %v: %w: %s", args, err, out)
	}
	return cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), nil
}

// composers says what brings up Compose projects on each system: the stock docker compose that
// the suite builds (test/compose), on Cleat's engine it is a system of its own beside `cleat
// compose`, and measured with it where no other engine is.
func (st *stage) composers(systems []*system) []*system {
	stock, _ := filepath.Glob("/var/cache/cleat-test-tools/compose-*")
	for _, s := range systems {
		switch {
		case s.name == "cleat":
			s.composer = []string{s.client[0], "compose"}
		case s.client != nil && len(stock) > 0:
			s.composer = stock[len(stock)-1:]
		}
	}
	if len(stock) > 0 {
		systems = append(slices.Clone(systems), &system{name: "compose v2", socket: st.cleat.socket, cgroup: st.cleat.cgroup, composer: stock[len(stock)-1:]})
	}
	return systems
}
