// Package metrics tells what an engine does in the text format of Prometheus, under the
// names that dockerd has for it.
//
// It promises that an engine which nobody measures pays nothing for it, that what is told
// costs no more than a look at what is known already, and that counters never go back
// while the engine lives.
package metrics

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Engine is what stays the same while an engine runs.
type Engine struct {
	ID, Version, Commit, Driver, Kernel, Architecture string
	OS, OSType, OSVersion                             string
	CPUs                                              int
	Memory                                            int64 // bytes of the host
}

// Counts are how many containers are in which state.
type Counts struct{ Running, Paused, Stopped int }

// Registry collects what is told. Its methods are safe for concurrent use.
type Registry struct {
	engine Engine
	counts func() Counts
	begin  time.Time
	events atomic.Int64

	mu      sync.Mutex
	actions map[string]*histogram
}

// New makes a registry; counts is asked whenever somebody wants to know.
func New(engine Engine, counts func() Counts) *Registry {
	r := &Registry{engine: engine, counts: counts, begin: time.Now(), actions: map[string]*histogram{}}
	for _, a := range actions() {
		r.actions[a] = newHistogram()
	}
	return r
}

// actions are those that are timed, as in dockerd.
func actions() []string { return []string{"changes", "commit", "create", "delete", "start"} }

// CountEvents counts what comes from a channel until that or ctx ends.
func CountEvents[E any](ctx context.Context, r *Registry, events <-chan E) {
	for {
		select {
		case _, open := <-events:
			if !open {
				return
			}
			r.events.Add(1)
		case <-ctx.Done():
			return
		}
	}
}

// Time passes requests on, and takes the time of those that do something to containers and
// succeed.
func (r *Registry) Time(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		action := actionOf(req.Method, req.URL.Path)
		if action == "" {
			next.ServeHTTP(w, req)
			return
		}
		begin := time.Now()
		answer := &answer{ResponseWriter: w}
		next.ServeHTTP(answer, req)
		if answer.status < http.StatusMultipleChoices {
			r.took(action, time.Since(begin))
		}
	})
}

// answer notes the status of a response.
type answer struct {
	http.ResponseWriter
	status int
}

func (a *answer) WriteHeader(status int) {
	a.status = status
	a.ResponseWriter.WriteHeader(status)
}

// Unwrap is for http.ResponseController.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// actionOf is what a request does to a container, "" if that is not timed.
func actionOf(method, path string) string {
	parts := strings.Split(strings.Trim(path, "/"), "/")
	if len(parts) > 1 && strings.HasPrefix(parts[0], "v1.") {
		parts = parts[1:]
	}
	route := method + " " + parts[0]
	switch {
	case route == "POST commit" && len(parts) == 1:
		return "commit"
	case route == "DELETE containers" && len(parts) == 2:
		return "delete"
	case route == "POST containers" && len(parts) == 2 && parts[1] == "create":
		return "create"
	case route == "POST containers" && len(parts) == 3 && parts[2] == "start":
		return "start"
	case route == "GET containers" && len(parts) == 3 && parts[2] == "changes":
		return "changes"
	}
	return ""
}

func (r *Registry) took(action string, d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.actions[action].add(d.Seconds())
}

// ServeHTTP tells all of it.
func (r *Registry) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	var b bytes.Buffer
	r.write(&b)
	_, _ = w.Write(b.Bytes())
}

func (r *Registry) write(w io.Writer) {
	e, n := r.engine, r.counts()
	head(w, "engine_daemon_engine_info", "gauge", "The information related to the engine and the OS it is running on")
	fmt.Fprintf(w, "engine_daemon_engine_info{architecture=%s,commit=%s,daemon_id=%s,graphdriver=%s,kernel=%s,os=%s,os_type=%s,os_version=%s,version=%s} 1\n",
		label(e.Architecture), label(e.Commit), label(e.ID), label(e.Driver), label(e.Kernel), label(e.OS), label(e.OSType), label(e.OSVersion), label(e.Version))
	single(w, "engine_daemon_engine_cpus_cpus", "gauge", "The number of cpus that the host system of the engine has", float64(e.CPUs))
	single(w, "engine_daemon_engine_memory_bytes", "gauge", "The number of bytes of memory that the host system of the engine has", float64(e.Memory))
	head(w, "engine_daemon_container_states_containers", "gauge", "The count of containers in various states")
	for _, s := range []struct {
		state string
		n     int
	}{{"paused", n.Paused}, {"running", n.Running}, {"stopped", n.Stopped}} {
		fmt.Fprintf(w, "engine_daemon_container_states_containers{state=%q} %d\n", s.state, s.n)
	}
	single(w, "engine_daemon_events_total", "counter", "The number of events logged", float64(r.events.Load()))
	r.writeActions(w)
	r.writeProcess(w)
}

func (r *Registry) writeActions(w io.Writer) {
	const name = "engine_daemon_container_actions_seconds"
	head(w, name, "histogram", "The number of seconds it takes to process each container action")
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, action := range actions() {
		r.actions[action].write(w, name, action)
	}
}

// writeProcess tells of the engine's own process, as all programs in Go do.
func (r *Registry) writeProcess(w io.Writer) {
	single(w, "go_goroutines", "gauge", "Number of goroutines that currently exist.", float64(runtime.NumGoroutine()))
	single(w, "process_start_time_seconds", "gauge", "Start time of the process since unix epoch in seconds.", float64(r.begin.UnixMilli())/1000)
	var use unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &use) == nil {
		seconds := float64(use.Utime.Nano()+use.Stime.Nano()) / 1e9
		single(w, "process_cpu_seconds_total", "counter", "Total user and system CPU time spent in seconds.", seconds)
	}
	if pages, ok := residentPages(); ok {
		single(w, "process_resident_memory_bytes", "gauge", "Resident memory size in bytes.", float64(pages*os.Getpagesize()))
	}
}

func residentPages() (int, bool) {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0, false
	}
	f := strings.Fields(string(b))
	if len(f) < 2 {
		return 0, false
	}
	n, err := strconv.Atoi(f[1])
	return n, err == nil
}

func head(w io.Writer, name, kind, help string) {
	fmt.Fprintf(w, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
}

func single(w io.Writer, name, kind, help string, v float64) {
	head(w, name, kind, help)
	fmt.Fprintf(w, "%s %s\n", name, number(v))
}

func number(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }

// label quotes a value as the format has it.
func label(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(s) + `"`
}

// histogram counts durations by how long they were.
type histogram struct {
	counts []int64 // one more than there are bounds
	sum    float64
}

// bounds are Prometheus' own, in seconds, with finer ones below, where containers start.
func bounds() []float64 {
	return []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}
}

func newHistogram() *histogram { return &histogram{counts: make([]int64, len(bounds())+1)} }

func (h *histogram) add(seconds float64) {
	i, _ := slices.BinarySearch(bounds(), seconds)
	h.counts[i]++
	h.sum += seconds
}

func (h *histogram) write(w io.Writer, name, action string) {
	var n int64
	for i, bound := range bounds() {
		n += h.counts[i]
		fmt.Fprintf(w, "%s_bucket{action=%q,le=%q} %d\n", name, action, number(bound), n)
	}
	n += h.counts[len(h.counts)-1]
	fmt.Fprintf(w, "%s_bucket{action=%q,le=\"+Inf\"} %d\n%s_sum{action=%q} %s\n%s_count{action=%q} %d\n",
		name, action, n, name, action, number(h.sum), name, action, n)
}
