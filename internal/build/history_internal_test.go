package build

import (
	"testing"
	"time"
)

// What BuildKit is told: a number that is not said means something else than 0.
func TestHistoryForBuildKit(t *testing.T) {
	const unsaid = -1
	for _, c := range []struct {
		bound  *History
		newest int64
		age    time.Duration
	}{
		{nil, DefaultHistory, 0},
		{&History{}, 0, 0},
		{&History{Newest: 3}, 3, 0},
		{&History{MaxAge: time.Hour}, unsaid, time.Hour},
		{&History{Newest: 3, MaxAge: time.Hour}, 3, time.Hour},
	} {
		got, newest := c.bound.config(), int64(unsaid)
		if got.MaxEntries != nil {
			newest = *got.MaxEntries
		}
		if newest != c.newest || got.MaxAge.Duration != c.age {
			t.Errorf("%+v: %d, %s", c.bound, newest, got.MaxAge.Duration)
		}
	}
}
