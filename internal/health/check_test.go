package health

import (
	"fmt"
	"strings"
	"testing"
	"time"

	api "github.com/moby/moby/api/types/container"

	"github.com/cleatlabs/cleat/internal/container"
)

func TestHealthFollowsItsProbes(t *testing.T) {
	started := time.Unix(1000, 0)
	check := &Check{Retries: 2, StartPeriod: 10 * time.Second}
	for _, c := range []struct {
		probes string // exit codes, one a second
		want   string // the state after each: status and failing streak
	}{
		{"0", "healthy0"},
		{"1 1 1", "starting0 starting0 starting0"},
		{"1 1 1 1 1 1 1 1 1 1 1 1", strings.TrimSpace(strings.Repeat("starting0 ", 9)) + " starting1 unhealthy2 unhealthy3"},
		{"1 0 1 1 1", "starting0 healthy0 healthy1 unhealthy2 unhealthy3"}, // a success ends the start period
		{"0 -1 0 125 2 0", "healthy0 healthy1 healthy0 healthy1 unhealthy2 healthy0"},
	} {
		h := &api.Health{Status: api.Starting}
		var got []string
		for i, code := range strings.Fields(c.probes) {
			r := &api.HealthcheckResult{Start: started.Add(time.Duration(i+1) * time.Second)}
			fmt.Sscan(code, &r.ExitCode)
			before := *h
			h2 := check.after(h, r, r.Start.Sub(started))
			if h.Status != before.Status || len(h.Log) != len(before.Log) {
				t.Fatal("the earlier state was changed")
			}
			h = h2
			got = append(got, fmt.Sprint(h.Status, h.FailingStreak))
			if len(h.Log) != min(i+1, 5) || h.Log[len(h.Log)-1] != r {
				t.Errorf("%s: log %v", c.probes, h.Log)
			}
		}
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("%s:\n got %s\nwant %s", c.probes, s, c.want)
		}
	}
}

func TestOf(t *testing.T) {
	for _, c := range []struct {
		test  []string
		shell []string
		want  string
	}{
		{nil, nil, ""}, {[]string{}, nil, ""}, {[]string{"NONE"}, nil, ""},
		{[]string{"CMD", "a", "b c"}, nil, "a|b c"},
		{[]string{"CMD-SHELL", "a b"}, nil, "/bin/sh|-c|a b"},
		{[]string{"CMD-SHELL", "a b"}, []string{"bash", "-ec"}, "bash|-ec|a b"},
		{[]string{"CMD"}, nil, ""}, {[]string{"other", "x"}, nil, ""},
	} {
		r := &container.Record{Definition: container.Definition{
			Config: &api.Config{Shell: c.shell, Healthcheck: &api.HealthConfig{Test: c.test, Interval: time.Second}}, HostConfig: &api.HostConfig{},
		}}
		check := Of(r)
		if (check == nil) != (c.want == "") {
			t.Errorf("%q: %+v", c.test, check)
			continue
		}
		if check == nil {
			continue
		}
		if got := strings.Join(check.Cmd, "|"); got != c.want {
			t.Errorf("%q: %q", c.test, got)
		}
		if check.Interval != time.Second || check.Timeout != 30*time.Second || check.StartInterval != 5*time.Second || check.StartPeriod != 0 || check.Retries != 3 {
			t.Errorf("defaults: %+v", check)
		}
	}
}

func TestOutputIsCut(t *testing.T) {
	for _, n := range []int{0, 1, 4095, 4096, 4097, 100000} {
		o := &Output{}
		for left := n; left > 0; left -= min(left, 1000) {
			if w, err := o.Write(make([]byte, min(left, 1000))); err != nil || w != min(left, 1000) {
				t.Fatal(w, err)
			}
		}
		want := n
		if n > 4096 {
			want = 4096 + len("...")
		}
		if s := o.String(); len(s) != want || strings.HasSuffix(s, "...") != (n > 4096) {
			t.Errorf("%d bytes give %d", n, len(s))
		}
	}
}

func TestNextProbe(t *testing.T) {
	check := &Check{Interval: 30 * time.Second, StartInterval: time.Second, StartPeriod: time.Minute}
	for _, c := range []struct {
		status api.HealthStatus
		age    time.Duration
		want   time.Duration
	}{
		{api.Starting, 0, time.Second}, {api.Starting, 59 * time.Second, time.Second}, {api.Starting, time.Minute, 30 * time.Second},
		{api.Starting, time.Minute - time.Millisecond, time.Millisecond},
		{api.Healthy, time.Second, 30 * time.Second}, {api.Unhealthy, 2 * time.Minute, 30 * time.Second},
	} {
		if got := check.wait(&api.Health{Status: c.status}, c.age); got != c.want {
			t.Errorf("%s after %v: %v, want %v", c.status, c.age, got, c.want)
		}
	}
}
