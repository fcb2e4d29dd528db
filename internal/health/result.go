package health

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	api "github.com/moby/moby/api/types/container"

	"github.com/cleatlabs/cleat/internal/container"
)

// Started is the health of a container that is being started; before is
// that of its last run, whose results stay to be seen.
func Started(r *container.Record, before *api.Health) *api.Health {
	if Of(r) == nil {
		return nil
	}
	h := &api.Health{Status: api.Starting, Log: []*api.HealthcheckResult{}}
	if before != nil {
		h.Log = before.Log
	}
	return h
}

// Ended is the health of a container that does not run: Docker's programs
// expect it not to be healthy.
func Ended(h *api.Health) *api.Health {
	if h == nil {
		return nil
	}
	next := *h
	next.Status = api.Unhealthy
	return &next
}

// after is the health that follows h with the result of one more probe, which began when the run was of that age.
func (k *Check) after(h *api.Health, result *api.HealthcheckResult, age time.Duration) *api.Health {
	next := api.Health{Status: h.Status, FailingStreak: h.FailingStreak}
	kept := h.Log
	if n := len(kept); n >= keptProbes {
		kept = kept[n-keptProbes+1:]
	}
	next.Log = append(slices.Clone(kept), result)
	switch {
	case result.ExitCode == 0:
		next.Status, next.FailingStreak = api.Healthy, 0
	case h.Status == api.Starting && age < k.StartPeriod:
		// It may still be on its way.
	default:
		next.FailingStreak++
		if next.FailingStreak >= k.Retries {
			next.Status = api.Unhealthy
		}
	}
	return &next
}

// wait is how long after now the next probe of a run of that age is due, if the last one ended, or the container
// started, just now. No start interval reaches beyond the start period.
func (k *Check) wait(h *api.Health, age time.Duration) time.Duration {
	if left := k.StartPeriod - age; h.Status == api.Starting && left > 0 {
		return min(k.StartInterval, left)
	}
	return k.Interval
}

// due is how long after now the next probe of a run is: for one that an earlier engine has probed it is counted from
// then.
func (k *Check) due(st *container.State, now time.Time) time.Duration {
	last := st.StartedAt
	if n := len(st.Health.Log); n > 0 && st.Health.Log[n-1].End.After(last) {
		last = st.Health.Log[n-1].End
	}
	return max(0, k.wait(st.Health, max(0, now.Sub(st.StartedAt)))-max(0, now.Sub(last)))
}

// Output keeps the first of a probe's output. It is written to by one goroutine at a time.
type Output struct {
	buf bytes.Buffer
	cut bool
}

func (o *Output) Write(p []byte) (int, error) {
	n := len(p)
	if room := keptOutput - o.buf.Len(); len(p) > room {
		p, o.cut = p[:room], true
	}
	o.buf.Write(p)
	return n, nil
}

func (o *Output) String() string {
	if o.cut {
		return o.buf.String() + "..."
	}
	return o.buf.String()
}

// TimedOut is the result of a probe that took too long, in Docker's words.
func TimedOut(timeout time.Duration, output string) *api.HealthcheckResult {
	text := fmt.Sprintf("Health check exceeded timeout (%v)", timeout)
	if output != "" {
		text += ": " + output
	}
	return &api.HealthcheckResult{ExitCode: -1, Output: text}
}
