package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/client"
	"github.com/spf13/pflag"
)

// statsRefresh is how often the table is written anew.
const statsRefresh = 500 * time.Millisecond

type statsOptions struct {
	all, noStream, noTrunc bool
	format                 string
}

func (a *app) stats() spec {
	return spec{
		use: "stats [OPTIONS] [CONTAINER...]", short: "Display a live stream of container(s) resource usage statistics",
		shownAs: []string{"container stats", "stats"},
		setup: func(fs *pflag.FlagSet) action {
			var o statsOptions
			fs.BoolVarP(&o.all, "all", "a", false, "Show all containers (default shows just running)")
			fs.StringVar(&o.format, "format", "", formatHelp)
			fs.BoolVar(&o.noStream, "no-stream", false, "Disable streaming stats and only pull the first result")
			fs.BoolVar(&o.noTrunc, "no-trunc", false, "Do not truncate output")
			return func(ctx context.Context, names []string) error {
				if o.format == "" {
					o.format = a.config().StatsFormat
				}
				c, err := a.api()
				if err != nil {
					return err
				}
				s := &statsScreen{app: a, client: c, options: o, lost: make(chan error, 1)}
				return s.run(ctx, names)
			}
		},
	}
}

// statsScreen is the table and the streams that fill it.
type statsScreen struct {
	app     *app
	client  *client.Client
	options statsOptions
	lost    chan error // what ends the command: the events did

	mu   sync.Mutex
	rows []*statsEntry // in the order of their coming
}

// statsEntry is one container's row.
type statsEntry struct {
	asked  string // as the user or the list names it
	stop   context.CancelFunc
	filled chan struct{} // closed with the first record, or the error in its place

	mu     sync.Mutex
	record *container.StatsResponse // nil before the first
	err    error
}

func (s *statsScreen) run(ctx context.Context, names []string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if len(names) == 0 {
		if !s.options.noStream {
			s.followEvents(ctx)
		}
		list, err := s.client.ContainerList(ctx, client.ContainerListOptions{All: s.options.all})
		if err != nil {
			return err
		}
		for _, c := range list.Items {
			s.add(ctx, shortID(c.ID))
		}
	}
	for _, n := range names {
		s.add(ctx, n)
	}
	if err := s.awaitFirst(ctx); err != nil && len(names) > 0 {
		return err
	}
	if s.options.noStream {
		return s.write(false)
	}
	ticker := time.NewTicker(statsRefresh)
	defer ticker.Stop()
	for {
		if err := s.write(s.app.out.IsTerminal()); err != nil {
			return err
		}
		select {
		case <-ticker.C:
		case err := <-s.lost:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// followEvents adds and takes away rows as containers come and go. It has subscribed
// before the containers are listed, so that none is missed.
func (s *statsScreen) followEvents(ctx context.Context) {
	filter := client.Filters{}.Add("type", string(events.ContainerEventType))
	res := s.client.Events(ctx, client.EventsListOptions{Filters: filter})
	comes, goes := events.ActionStart, events.ActionDie
	if s.options.all {
		comes, goes = events.ActionCreate, events.ActionDestroy
	}
	go func() {
		for {
			select {
			case m := <-res.Messages:
				switch m.Action {
				case comes:
					s.add(ctx, shortID(m.Actor.ID))
				case goes:
					s.remove(shortID(m.Actor.ID))
				}
			case err := <-res.Err:
				s.lost <- err
				return
			}
		}
	}()
}

// add gives a container a row, if it has none yet.
func (s *statsScreen) add(ctx context.Context, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if slices.ContainsFunc(s.rows, func(e *statsEntry) bool { return e.asked == name }) {
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	e := &statsEntry{asked: name, stop: cancel, filled: make(chan struct{})}
	s.rows = append(s.rows, e)
	go func() {
		if err := e.follow(ctx, s.client, s.options.noStream); errors.Is(err, io.ErrUnexpectedEOF) {
			select {
			case s.lost <- err: // the engine has gone: there is nothing to come
			case <-ctx.Done():
			}
		}
	}()
}

func (s *statsScreen) remove(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rows = slices.DeleteFunc(s.rows, func(e *statsEntry) bool {
		if e.asked == name {
			e.stop()
			return true
		}
		return false
	})
}

func (s *statsScreen) entries() []*statsEntry {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.rows)
}

// awaitFirst waits until every row has something to show, and returns what went
// wrong with those that have not.
func (s *statsScreen) awaitFirst(ctx context.Context) error {
	var errs []error
	for _, e := range s.entries() {
		select {
		case <-e.filled:
			if _, err := e.latest(); err != nil {
				errs = append(errs, err)
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return errors.Join(errs...)
}

// follow takes records until the container is removed or nobody looks any more.
func (e *statsEntry) follow(ctx context.Context, c *client.Client, once bool) error {
	res, err := c.ContainerStats(ctx, e.asked, client.ContainerStatsOptions{Stream: !once, IncludePreviousSample: once})
	if err != nil {
		e.put(nil, err)
		return err
	}
	defer func() { _ = res.Body.Close() }()
	for dec := json.NewDecoder(res.Body); ; {
		var record container.StatsResponse
		if err := dec.Decode(&record); err != nil {
			if last, _ := e.latest(); !errors.Is(err, io.EOF) || !once || last == nil {
				e.put(nil, err)
			}
			return err
		}
		e.put(&record, nil)
	}
}

func (e *statsEntry) put(record *container.StatsResponse, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	first := e.record == nil && e.err == nil
	if record != nil {
		e.record = record
	}
	e.err = err
	if first {
		close(e.filled)
	}
}

func (e *statsEntry) latest() (*container.StatsResponse, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.record, e.err
}

// write shows the rows; live, over what was there before.
func (s *statsScreen) write(live bool) error {
	var rows []any
	for _, e := range s.entries() {
		record, err := e.latest()
		if record == nil && err == nil {
			continue // it has only just come
		}
		rows = append(rows, &statsRow{asked: e.asked, s: record, invalid: err != nil, trunc: !s.options.noTrunc})
	}
	var out bytes.Buffer
	if err := (listing{format: statsFormat(s.options.format), headers: statsHeaders}).write(&out, rows); err != nil {
		return err
	}
	text := out.String()
	if live {
		const home, eraseLine, eraseBelow = "\x1b[H", "\x1b[K", "\x1b[J"
		text = home + strings.ReplaceAll(text, "\n", eraseLine+"\n") + eraseBelow
	}
	_, err := io.WriteString(s.app.out, text)
	return err
}

func statsFormat(format string) string {
	if format == "" || format == "table" {
		return `table {{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}`
	}
	return format
}

var statsHeaders = map[string]string{
	"Container": "CONTAINER", "ID": "CONTAINER ID", "Name": "NAME", "CPUPerc": "CPU %", "MemUsage": "MEM USAGE / LIMIT", "MemPerc": "MEM %",
	"NetIO": "NET I/O", "BlockIO": "BLOCK I/O", "PIDs": "PIDS",
}

// noValue stands for what could not be measured.
const noValue = "--"

// statsRow is a container as stats shows it.
type statsRow struct {
	asked          string
	s              *container.StatsResponse // nil if there is none
	invalid, trunc bool
}

func (r *statsRow) MarshalJSON() ([]byte, error) { return marshalRow(r) }

func (r *statsRow) Container() string { return r.asked }

func (r *statsRow) ID() string {
	if r.s == nil || r.s.ID == "" {
		return noValue
	}
	if r.trunc {
		return shortID(r.s.ID)
	}
	return r.s.ID
}

func (r *statsRow) Name() string {
	if r.s == nil || len(r.s.Name) < 2 {
		return noValue
	}
	return strings.TrimPrefix(r.s.Name, "/")
}

// CPUPerc is the part of one CPU: a container that keeps two busy has 200 %.
func (r *statsRow) CPUPerc() string {
	if r.invalid {
		return noValue
	}
	return fmt.Sprintf("%.2f%%", cpuPercent(r.s))
}

func cpuPercent(s *container.StatsResponse) float64 {
	used := float64(s.CPUStats.CPUUsage.TotalUsage) - float64(s.PreCPUStats.CPUUsage.TotalUsage)
	host := float64(s.CPUStats.SystemUsage) - float64(s.PreCPUStats.SystemUsage)
	cpus := float64(s.CPUStats.OnlineCPUs)
	if cpus == 0 {
		cpus = float64(len(s.CPUStats.CPUUsage.PercpuUsage))
	}
	// Without an earlier sample there is nothing to compare with.
	if s.PreCPUStats.SystemUsage == 0 || used <= 0 || host <= 0 {
		return 0
	}
	return used / host * cpus * 100
}

// memoryUsed leaves out the page cache that the kernel can take back at once.
func memoryUsed(m *container.MemoryStats) float64 {
	for _, key := range []string{"total_inactive_file", "inactive_file"} { // v1, v2
		if n, ok := m.Stats[key]; ok && n < m.Usage {
			return float64(m.Usage - n)
		}
	}
	return float64(m.Usage)
}

func (r *statsRow) MemUsage() string {
	if r.invalid {
		return noValue + " / " + noValue
	}
	return units.BytesSize(memoryUsed(&r.s.MemoryStats)) + " / " + units.BytesSize(float64(r.s.MemoryStats.Limit))
}

func (r *statsRow) MemPerc() string {
	if r.invalid {
		return noValue
	}
	percent := 0.0
	if limit := r.s.MemoryStats.Limit; limit > 0 {
		percent = memoryUsed(&r.s.MemoryStats) / float64(limit) * 100
	}
	return fmt.Sprintf("%.2f%%", percent)
}

func (r *statsRow) NetIO() string {
	if r.invalid {
		return noValue
	}
	var in, out uint64
	for _, n := range r.s.Networks {
		in, out = in+n.RxBytes, out+n.TxBytes
	}
	return humanSize(in) + " / " + humanSize(out)
}

func (r *statsRow) BlockIO() string {
	if r.invalid {
		return noValue
	}
	var in, out uint64
	for _, e := range r.s.BlkioStats.IoServiceBytesRecursive {
		switch strings.ToLower(e.Op) {
		case "read":
			in += e.Value
		case "write":
			out += e.Value
		}
	}
	return humanSize(in) + " / " + humanSize(out)
}

func humanSize(n uint64) string { return units.HumanSizeWithPrecision(float64(n), 3) }

func (r *statsRow) PIDs() string {
	if r.invalid {
		return noValue
	}
	return fmt.Sprint(r.s.PidsStats.Current)
}
