package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"
)

// row is one figure. A goal of 0 means that there is none.
type row struct {
	name, unit string
	goal       float64
	atLeast    bool // the goal is a least, not a most
}

// table collects samples and prints them.
type table struct {
	systems []*system
	rows    []row
	samples map[string]map[string][]float64 // by row, by system
	shares  map[string]float64              // by row: goals in terms of the best of the other systems
	begin   string
}

func newTable(systems []*system) *table {
	return &table{systems: systems, samples: map[string]map[string][]float64{}, begin: load()}
}

func (t *table) want(rows ...row) { t.rows = append(t.rows, rows...) }

// goal is a row with its goal in figures: one in terms of the others is known when they are.
func (t *table) goal(r row) row {
	for _, s := range t.systems[1:] {
		theirs := t.samples[r.name][s.name]
		if share := t.shares[r.name]; share > 0 && len(theirs) > 0 {
			if g := share * median(theirs); r.goal == 0 || g < r.goal {
				r.goal = g
			}
		}
	}
	return r
}

func (t *table) record(row, system string, v float64) {
	if t.samples[row] == nil {
		t.samples[row] = map[string][]float64{}
	}
	t.samples[row][system] = append(t.samples[row][system], v)
}

func median(samples []float64) float64 {
	s := slices.Clone(samples)
	slices.Sort(s)
	return s[len(s)/2]
}

func (r row) best(samples []float64) float64 {
	if r.atLeast {
		return slices.Max(samples)
	}
	return slices.Min(samples)
}

func (r row) verdict(v float64) string {
	switch {
	case r.goal == 0:
		return ""
	case r.atLeast == (v >= r.goal) || v == r.goal:
		return "met"
	default:
		return "MISSED"
	}
}

func (r row) bound() string {
	switch {
	case r.goal == 0:
		return ""
	case r.atLeast:
		return "≥ " + number(r.goal)
	default:
		return "≤ " + number(r.goal)
	}
}

func number(v float64) string {
	switch {
	case v == float64(int(v)) || v >= 1000:
		return fmt.Sprintf("%.0f", v)
	case v >= 100:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.2f", v)
	}
}

// print writes the table: Cleat's median and best, the verdict on the median, and the
// others' medians with how many times as much (or, of a rate, as little) it is.
func (t *table) print(out io.Writer) {
	fmt.Fprintf(out, "%s, %d CPUs, load average %s at the beginning and %s at the end; medians, ratios to Cleat's\n\n", kernelRelease(), runtime.NumCPU(), t.begin, load())
	var text bytes.Buffer
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	fmt.Fprint(w, "\tunit\tgoal\tcleat\tbest\tverdict")
	for _, s := range t.systems[1:] {
		fmt.Fprintf(w, "\t%s\t", s.name)
	}
	fmt.Fprintln(w)
	for _, r := range t.rows {
		r = t.goal(r)
		ours := t.samples[r.name][t.systems[0].name]
		fmt.Fprintf(w, "%s\t%s\t%s", r.name, r.unit, r.bound())
		var base float64
		if len(ours) > 0 {
			base = median(ours)
			fmt.Fprintf(w, "\t%s\t%s\t%s", number(base), number(r.best(ours)), r.verdict(base))
		} else {
			fmt.Fprint(w, "\t-\t\t")
		}
		for _, s := range t.systems[1:] {
			theirs := t.samples[r.name][s.name]
			if len(theirs) == 0 {
				fmt.Fprint(w, "\t-\t")
				continue
			}
			m := median(theirs)
			ratio := ""
			if q := m / base; base > 0 && m > 0 {
				if r.atLeast {
					q = 1 / q
				}
				ratio = fmt.Sprintf("×%.1f", q)
			}
			fmt.Fprintf(w, "\t%s\t%s", number(m), ratio)
		}
		fmt.Fprintln(w)
	}
	_ = w.Flush()
	for line := range strings.Lines(text.String()) {
		fmt.Fprintln(out, strings.TrimRight(line, " \n"))
	}
}

func kernelRelease() string {
	var u unix.Utsname
	_ = unix.Uname(&u)
	return "Linux " + unix.ByteSliceToString(u.Release[:]) + ", " + time.Now().Format("2006-01-02 15:04")
}

func load() string {
	b, _ := os.ReadFile("/proc/loadavg")
	first, _, _ := strings.Cut(string(b), " ")
	return first
}
