package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"
	"unsafe"
)

// work is something to measure: rounds of it, in which every system has its turn.
type work struct {
	rows []row
	// rounds of it; 0 is what -n says.
	rounds int
	// once says that the others have their turn in the first round only: they take so long.
	once bool
	// allowance bounds what each of the other engines may take altogether: one that has used it up has no more turns.
	// 0 is no bound.
	allowance time.Duration
	// prepare, if there is one, makes for a system what its turns need, and returns
	// what takes it away.
	prepare func(ctx context.Context, s *system) (state any, done func() error, err error)
	turn    func(ctx context.Context, s *system, state any, record func(string, float64)) error
}

// errNotApplicable is the answer of a system that has no such thing.
var errNotApplicable = errors.New("not applicable")

func (w work) chosen(only string) bool {
	for _, r := range w.rows {
		if strings.Contains(r.name, only) {
			return true
		}
	}
	return false
}

// measure takes a system out of the work when it fails for the third time.
func (w work) measure(ctx context.Context, t *table, systems []*system, rounds int) (err error) {
	fmt.Fprintf(os.Stderr, "measuring %s\n", w.rows[0].name)
	if w.rounds > 0 {
		rounds = w.rounds
	}
	states, failures, used := map[*system]any{}, map[*system]int{}, map[*system]time.Duration{}
	if w.prepare != nil {
		for _, s := range systems {
			state, done, perr := w.prepare(ctx, s)
			if done != nil {
				defer func() { err = errors.Join(err, done()) }()
			}
			if perr != nil {
				failures[s] = 3
				w.complain(ctx, s, perr)
			}
			states[s] = state
		}
	}
	for round := range rounds {
		for i, s := range systems {
			if failures[s] >= 3 || w.once && round > 0 && i > 0 || w.allowance > 0 && used[s] > w.allowance {
				continue
			}
			turn := func(name string, v float64) {
				if strings.HasPrefix(name, "  ") {
					name += w.rows[0].suffix()
				}
				t.record(name, s.name, v)
			}
			begin := time.Now()
			err := w.turn(ctx, s, states[s], turn)
			if i > 0 && s.held != nil {
				used[s] += time.Since(begin)
			}
			if err != nil {
				failures[s]++
				if errors.Is(err, errNotApplicable) {
					failures[s] = 3
				}
				w.complain(ctx, s, err)
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
		}
	}
	return nil
}

func (w work) complain(ctx context.Context, s *system, err error) {
	if ctx.Err() == nil && !errors.Is(err, errNotApplicable) {
		fmt.Fprintf(os.Stderr, "%s on %s: %v\n", w.rows[0].name, s.name, err)
	}
}

// suffix tells the steps of one work from another's.
func (r row) suffix() string {
	if _, network, ok := strings.Cut(r.name, ", "); ok {
		return ", " + network
	}
	return ""
}

const (
	lifeNone    = "create+start+wait+rm, network none"
	lifeBridge  = "create+start+wait+rm, bridge"
	lifeTrue    = "create+start+wait+rm of true, network none"
	lifeTrueToo = "create+start+wait+rm of true, bridge"
	execNothing = "exec"
	execTrue    = "exec true"
	clientRun   = "run --rm true, client"
	stopSleep   = "stop of sleep infinity"
	runFifty    = "50 × run -d by 8 clients"
	removeFifty = "rm -f of 50 by 8 clients"
	listAPI     = "ps -a of 200, API"
	listClient  = "ps -a of 200, client"
	logBlocks   = "200 MB of log lines in writes of 4 KB"
	logLines    = "200 MB of log lines, a write for each"
	logRotated  = "200 MB of log lines, default rotation"
	logRead     = "200 MB of log lines, read back"
	readyRow    = "engine ready"
)

func lifeRows(name, network string, goal float64) []row {
	rows := []row{{name, "ms", goal, false}}
	for _, step := range []string{"create", "start", "wait", "rm"} {
		rows = append(rows, row{"  " + step + ", " + network, "ms", 0, false})
	}
	return rows
}

func works() []work {
	return []work{
		{rows: []row{{readyRow, "ms", 60, false}}, rounds: 1, turn: func(_ context.Context, s *system, _ any, record func(string, float64)) error {
			if s.held == nil {
				return errNotApplicable
			}
			record(readyRow, float64(s.ready.Microseconds())/1000)
			return nil
		}},
		{rows: append(lifeRows(lifeNone, "network none", 4), row{lifeTrue, "ms", 0, false}), turn: lives("none", lifeNone, lifeTrue)},
		{rows: append(lifeRows(lifeBridge, "bridge", 6), row{lifeTrueToo, "ms", 0, false}), turn: lives("bridge", lifeBridge, lifeTrueToo)},
		{rows: []row{{execNothing, "ms", 1.5, false}, {execTrue, "ms", 0, false}}, prepare: sleeper, turn: execute},
		{rows: []row{{clientRun, "ms", 15, false}}, turn: runByClient},
		{rows: []row{{stopSleep, "ms", 100, false}}, rounds: 3, turn: stop},
		{rows: []row{{runFifty, "ms", 500, false}, {removeFifty, "ms", 300, false}}, rounds: 3, once: true, turn: fifty},
		{rows: []row{{listAPI, "ms", 3, false}, {listClient, "ms", 12, false}}, prepare: twoHundred, turn: list},
		{rows: []row{{logBlocks, "MB/s", 170, true}, {logRead, "s", 1.5, false}}, rounds: 3, once: true, turn: logTurn(logBlocks, "4096", keepAll)},
		{rows: []row{{logRotated, "MB/s", 170, true}}, rounds: 3, once: true, turn: logTurn(logRotated, "4096", nil)},
		{rows: []row{{logLines, "MB/s", 0, true}}, rounds: 3, once: true, turn: logTurn(logLines, "0", nil)},
	}
}

// sleeper is a container that exec goes into.
func sleeper(ctx context.Context, s *system) (any, func() error, error) {
	if s.bare != nil {
		id, err := s.bare.run(ctx, "sleep", "600")
		return id, func() error { return s.bare.remove(id) }, err
	}
	id, err := s.run(ctx, "none", "sleep", "600")
	return id, func() error { return s.remove(id) }, err
}

// lives is a life of nothing, by its steps, and one of true.
func lives(network, whole, wholeOfTrue string) func(context.Context, *system, any, func(string, float64)) error {
	return func(ctx context.Context, s *system, _ any, record func(string, float64)) error {
		if s.bare != nil && network != "none" {
			return errNotApplicable
		}
		life := func(program string, record func(string, float64)) error {
			if s.bare != nil {
				return s.bare.life(ctx, program, record)
			}
			return s.life(ctx, network, program, record)
		}
		err := timed(record, whole, func() error { return life(nothing, record) })
		if err != nil {
			return err
		}
		return timed(record, wholeOfTrue, func() error { return life("true", func(string, float64) {}) })
	}
}

func execute(ctx context.Context, s *system, state any, record func(string, float64)) error {
	err := timed(record, execNothing, func() error { return s.exec(ctx, state.(string), nothing) })
	if err != nil {
		return err
	}
	return timed(record, execTrue, func() error { return s.exec(ctx, state.(string), "true") })
}

func runByClient(ctx context.Context, s *system, _ any, record func(string, float64)) error {
	if s.bare != nil {
		id, err := s.bare.configure("true")
		if err != nil {
			return err
		}
		return timed(record, clientRun, func() error { return s.bare.call(ctx, "run", "--bundle", s.bare.dir, id) })
	}
	if s.client == nil {
		return errNotApplicable
	}
	return timed(record, clientRun, func() error {
		return s.command(ctx, "run", "--rm", "--network", "none", "--cgroup-parent", s.cgroup, "busybox", "true")
	})
}

func stop(ctx context.Context, s *system, _ any, record func(string, float64)) error {
	if s.bare != nil {
		return errNotApplicable
	}
	id, err := s.run(ctx, "none", "sleep", "infinity")
	if err == nil {
		err = timed(record, stopSleep, func() error { return s.call(ctx, "POST", "/containers/"+id+"/stop", nil, nil) })
	}
	return errors.Join(err, s.remove(id))
}

func fifty(ctx context.Context, s *system, _ any, record func(string, float64)) error {
	if s.bare != nil {
		return errNotApplicable
	}
	ids := make([]string, 50)
	err := timed(record, runFifty, func() error {
		return byEight(len(ids), func(i int) (err error) { ids[i], err = s.run(ctx, "bridge", "sleep", "600"); return err })
	})
	return errors.Join(err, timed(record, removeFifty, func() error { return byEight(len(ids), func(i int) error { return s.remove(ids[i]) }) }))
}

// byEight does all of n things, eight at a time, and returns the first error.
func byEight(n int, do func(i int) error) error {
	var wg sync.WaitGroup
	errs := make([]error, n)
	next := make(chan int)
	for range 8 {
		wg.Go(func() {
			for i := range next {
				errs[i] = do(i)
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func twoHundred(ctx context.Context, s *system) (any, func() error, error) {
	if s.bare != nil {
		return nil, nil, errNotApplicable
	}
	ids := make([]string, 200)
	err := byEight(len(ids), func(i int) (err error) {
		ids[i], err = s.create(ctx, object{"NetworkMode": "none"}, "true")
		return err
	})
	return nil, func() error { return byEight(len(ids), func(i int) error { return s.remove(ids[i]) }) }, err
}

func list(ctx context.Context, s *system, _ any, record func(string, float64)) error {
	if err := timed(record, listAPI, func() error { return s.call(ctx, "GET", "/containers/json?all=1", nil, nil) }); err != nil || s.client == nil {
		return err
	}
	return timed(record, listClient, func() error { return s.command(ctx, "ps", "-a") })
}

const (
	logBytes = 200_000_000
	logLine  = "a line of ninety-nine bytes, which is about what a web server writes for each of its requests.....\n"
)

// keepAll keeps all that is written: rotation would hide the cost of reading it back.
func keepAll() object {
	return object{"Type": "json-file", "Config": map[string]string{"max-size": "1g"}}
}

// logTurn has a container write lines, in writes of that many bytes, until it exits.
func logTurn(name, block string, config func() object) func(context.Context, *system, any, func(string, float64)) error {
	return func(ctx context.Context, s *system, _ any, record func(string, float64)) (err error) {
		self, err := os.Executable()
		if s.bare != nil || err != nil {
			return errors.Join(errNotApplicable, err)
		}
		host := object{"NetworkMode": "none", "Binds": []string{self + ":/bench:ro"}}
		if config != nil {
			host["LogConfig"] = config()
		}
		id, err := s.create(ctx, host, "/bench", "lines", fmt.Sprint(logBytes), block)
		defer func() { err = errors.Join(err, s.remove(id)) }()
		if err != nil {
			return err
		}
		begin := time.Now()
		if err := s.start(ctx, id); err != nil {
			return err
		}
		if err := s.wait(ctx, id); err != nil {
			return err
		}
		record(name, logBytes/1e6/time.Since(begin).Seconds())
		if config == nil {
			return nil
		}
		begin = time.Now()
		if err := s.drain(ctx, "/containers/"+id+"/logs?stdout=1"); err != nil {
			return err
		}
		record(logRead, time.Since(begin).Seconds())
		return nil
	}
}

// drain reads an answer to its end, and fails if lines are missing.
func (s *system) drain(ctx context.Context, path string) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	resp, err := s.request(ctx, "GET", path, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	n, err := io.Copy(io.Discard, resp.Body)
	if err == nil && n < logBytes {
		return fmt.Errorf("only %d bytes came back", n)
	}
	return err
}

// writeLines is the container's program: total bytes of lines, in writes of block
// bytes, or one for each line if block is 0.
func writeLines(total, block string) error {
	var n, size int
	if _, err := fmt.Sscan(total+" "+block, &n, &size); err != nil {
		return err
	}
	if size == 0 {
		size = len(logLine)
	}
	text := []byte(strings.Repeat(logLine, size/len(logLine)+2))
	for at := 0; at < n; at += size {
		from := at % len(logLine)
		if err := rawWrite(text[from : from+min(size, n-at)]); err != nil {
			return err
		}
	}
	return nil
}

// rawWrite writes to standard output without telling Go's scheduler, which would
// otherwise start threads for it: the program is to cost no more than one in C.
func rawWrite(b []byte) error {
	for len(b) > 0 {
		n, _, errno := syscall.RawSyscall(syscall.SYS_WRITE, 1, uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
		if errno != 0 {
			return errno
		}
		b = b[n:]
	}
	return nil
}
