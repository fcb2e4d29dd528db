// Command bench measures engines at their Docker API and at their command lines:
// medians of interleaved rounds, so that a noisy machine disturbs all alike, and
// ratios to the first engine given. It wants engines that run already, each with
// the image busybox:
//
//	bench [-n rounds] [-only text] NAME=SOCKET[,CLIENT] ...
//
// CLIENT is the engine's own command line program. test/bench/run brings the
// engines up and prints what a single container costs in memory.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"
)

type engine struct {
	name, socket, client string
	http                 *http.Client
	samples              map[string][]time.Duration
}

func main() {
	rounds := flag.Int("n", 30, "rounds of each short measurement")
	only := flag.String("only", "", "measure only what has `text` in its name")
	flag.Parse()
	var engines []*engine
	for _, a := range flag.Args() {
		name, rest, _ := strings.Cut(a, "=")
		socket, cli, _ := strings.Cut(rest, ",")
		engines = append(engines, newEngine(name, socket, cli))
	}
	if len(engines) == 0 {
		flag.Usage()
		os.Exit(2)
	}
	for _, w := range works {
		if !strings.Contains(w.name, *only) {
			continue
		}
		before := map[string]bool{}
		for _, e := range engines {
			for k := range e.samples {
				before[k] = true
			}
		}
		n := *rounds
		if w.heavy {
			n = 3
		}
		for i := range n {
			for _, e := range engines {
				if err := w.do(e, w.name, i); err != nil {
					fmt.Fprintf(os.Stderr, "%s on %s: %v\n", w.name, e.name, err)
				}
			}
		}
		report(w.name, engines)
		for _, k := range also(engines, before, w.name) {
			report(k, engines)
		}
	}
}

// also lists what a work has measured beside its main figure.
func also(engines []*engine, before map[string]bool, main string) (names []string) {
	for _, e := range engines {
		for k := range e.samples {
			if !before[k] && k != main && !slices.Contains(names, k) {
				names = append(names, k)
			}
		}
	}
	slices.Sort(names)
	return names
}

func report(work string, engines []*engine) {
	fmt.Printf("%-44s", work)
	var base time.Duration
	for _, e := range engines {
		s := e.samples[work]
		if len(s) == 0 {
			fmt.Printf("  %s -", e.name)
			continue
		}
		slices.Sort(s)
		m := s[len(s)/2]
		if base == 0 {
			base = m
		}
		fmt.Printf("  %s %.2f ms (min %.2f, ×%.1f)", e.name, ms(m), ms(s[0]), float64(m)/float64(base))
	}
	fmt.Println()
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func newEngine(name, socket, cli string) *engine {
	t := &http.Transport{MaxIdleConnsPerHost: 32, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}
	return &engine{name, socket, cli, &http.Client{Transport: t}, map[string][]time.Duration{}}
}

func (e *engine) call(method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequest(method, "http://engine/v1.40"+path, body)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := e.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode >= 400 {
		return fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, b)
	}
	if out != nil {
		return json.Unmarshal(b, out)
	}
	return nil
}

func (e *engine) timed(work string, f func() error) error {
	begin := time.Now()
	if err := f(); err != nil {
		return err
	}
	e.samples[work] = append(e.samples[work], time.Since(begin))
	return nil
}

type created struct{ Id string }

func (e *engine) create(network string, cmd ...string) (string, error) {
	return e.createWith(map[string]any{"NetworkMode": network}, cmd...)
}

func (e *engine) createWith(host map[string]any, cmd ...string) (string, error) {
	var c created
	err := e.call("POST", "/containers/create", map[string]any{"Image": "busybox", "Cmd": cmd, "HostConfig": host}, &c)
	return c.Id, err
}

func (e *engine) life(network string) error {
	var id string
	steps := []struct {
		name string
		do   func() error
	}{
		{"create", func() (err error) { id, err = e.create(network, "true"); return err }},
		{"start", func() error { return e.call("POST", "/containers/"+id+"/start", nil, nil) }},
		{"wait", func() error { return e.call("POST", "/containers/"+id+"/wait", nil, nil) }},
		{"rm", func() error { return e.call("DELETE", "/containers/"+id, nil, nil) }},
	}
	for _, s := range steps {
		if err := e.timed("  "+s.name+", "+network, s.do); err != nil {
			return err
		}
	}
	return nil
}

func (e *engine) run(network string, cmd ...string) (string, error) {
	id, err := e.create(network, cmd...)
	if err != nil {
		return "", err
	}
	return id, e.call("POST", "/containers/"+id+"/start", nil, nil)
}

func (e *engine) remove(id string) error {
	return e.call("DELETE", "/containers/"+id+"?force=1&v=1", nil, nil)
}

func (e *engine) cli(args ...string) error {
	cmd := exec.Command(e.client, args...)
	cmd.Env = append(os.Environ(), "DOCKER_HOST=unix://"+e.socket, "CONTAINER_HOST=unix://"+e.socket)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%v: %w: %s", args, err, out)
	}
	return nil
}

type work struct {
	name  string
	heavy bool
	do    func(e *engine, name string, round int) error
	parts []string // what do measures besides
}

const (
	removal = "rm -f of 50 by 8 clients (goal 300)"
	listing = "ps -a of 200, client (goal 12)"
	reading = "the same, read back (goal 1500)"
)

var works = []work{
	{"create+start+wait+rm, network none (goal 4)", false, func(e *engine, w string, _ int) error {
		return e.timed(w, func() error { return e.life("none") })
	}, []string{"  create, none", "  start, none", "  wait, none", "  rm, none"}},
	{"create+start+wait+rm, bridge (goal 6)", false, func(e *engine, w string, _ int) error {
		return e.timed(w, func() error { return e.life("bridge") })
	}, []string{"  create, bridge", "  start, bridge", "  wait, bridge", "  rm, bridge"}},
	{"exec true at the API (goal 1.5)", true, execs, nil},
	{"run --rm true, client (goal 15)", false, func(e *engine, w string, _ int) error {
		if e.client == "" {
			return nil
		}
		return e.timed(w, func() error { return e.cli("run", "--rm", "--network", "none", "busybox", "true") })
	}, nil},
	{"stop of sleep infinity (goal 100)", true, func(e *engine, w string, _ int) error {
		id, err := e.run("none", "sleep", "infinity")
		if err != nil {
			return err
		}
		defer e.remove(id)
		return e.timed(w, func() error { return e.call("POST", "/containers/"+id+"/stop", nil, nil) })
	}, nil},
	{"50 × run -d by 8 clients (goal 500)", true, fifty, []string{removal}},
	{"ps -a of 200 at the API (goal 3)", true, list, []string{listing}},
	{"200 MB of log lines, to exit (goal 1176)", true, logs, []string{reading}},
}

func execs(e *engine, w string, _ int) error {
	id, err := e.run("none", "sleep", "600")
	if err != nil {
		return err
	}
	defer e.remove(id)
	for range 20 {
		err := e.timed(w, func() error {
			var x created
			if err := e.call("POST", "/containers/"+id+"/exec", map[string]any{"Cmd": []string{"true"}, "AttachStdout": true}, &x); err != nil {
				return err
			}
			return e.call("POST", "/exec/"+x.Id+"/start", map[string]any{}, nil)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func fifty(e *engine, w string, _ int) error {
	ids := make([]string, 50)
	each := func(f func(i int) error) error {
		var wg sync.WaitGroup
		errs := make([]error, len(ids))
		next := make(chan int)
		for range 8 {
			wg.Go(func() {
				for i := range next {
					errs[i] = f(i)
				}
			})
		}
		for i := range ids {
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
	err := e.timed(w, func() error {
		return each(func(i int) (err error) { ids[i], err = e.run("bridge", "sleep", "600"); return err })
	})
	if rerr := e.timed(removal, func() error { return each(func(i int) error { return e.remove(ids[i]) }) }); err == nil {
		err = rerr
	}
	return err
}

func list(e *engine, w string, _ int) error {
	var ids []string
	defer func() {
		for _, id := range ids {
			e.remove(id)
		}
	}()
	for range 200 {
		id, err := e.create("none", "true")
		if err != nil {
			return err
		}
		ids = append(ids, id)
	}
	for range 10 {
		if err := e.timed(w, func() error { return e.call("GET", "/containers/json?all=1", nil, nil) }); err != nil {
			return err
		}
		if e.client != "" {
			if err := e.timed(listing, func() error { return e.cli("ps", "-a") }); err != nil {
				return err
			}
		}
	}
	return nil
}

// logs keeps all of what is written: rotation would hide the cost of reading it.
func logs(e *engine, w string, _ int) error {
	id, err := e.createWith(map[string]any{"NetworkMode": "none", "LogConfig": map[string]any{"Type": "json-file", "Config": map[string]string{"max-size": "1g"}}},
		"sh", "-c", "yes 'a line of ninety-nine bytes, which is about what a web server writes for each of its requests.....' | head -c 200000000")
	if err != nil {
		return err
	}
	defer e.remove(id)
	err = e.timed(w, func() error {
		if err := e.call("POST", "/containers/"+id+"/start", nil, nil); err != nil {
			return err
		}
		return e.call("POST", "/containers/"+id+"/wait", nil, nil)
	})
	if err != nil {
		return err
	}
	return e.timed(reading, func() error { return e.drain("/containers/" + id + "/logs?stdout=1") })
}

func (e *engine) drain(path string) error {
	resp, err := e.http.Get("http://engine/v1.40" + path)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	n, err := io.Copy(io.Discard, resp.Body)
	if err == nil && n < 200_000_000 {
		return fmt.Errorf("only %d bytes came back", n)
	}
	return err
}
