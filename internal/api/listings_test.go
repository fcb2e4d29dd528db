package api

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestListings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l listings
		l.note(7, []string{"project=a", "hash"})
		listed := time.Now()
		time.Sleep(gapLimit)
		for _, test := range []struct {
			pid    int32
			labels []string
			want   time.Time
		}{
			{7, []string{"project=a"}, listed},
			{7, []string{"hash", "project=a"}, listed},
			{7, []string{"project=a", "service=b"}, time.Time{}},
			{7, []string{"project"}, time.Time{}},
			{7, nil, time.Time{}},
			{8, []string{"project=a"}, time.Time{}},
			{0, []string{"project=a"}, time.Time{}},
		} {
			if got := l.latest(test.pid, test.labels); !got.Equal(test.want) {
				t.Errorf("process %d, labels %q: %v, want %v", test.pid, test.labels, got, test.want)
			}
		}
		l.note(7, []string{"project=a"})
		if got := l.latest(7, []string{"project=a"}); !got.Equal(time.Now()) {
			t.Errorf("the latest list is not from now: %v", got)
		}
		time.Sleep(gapLimit + 1)
		if got := l.latest(7, []string{"project=a"}); !got.IsZero() {
			t.Errorf("events go on from a list of long ago: %v", got)
		}
		l.note(7, nil)
		l.note(0, []string{"project=a"})
		if got := l.latest(0, []string{"project=a"}); !got.IsZero() {
			t.Errorf("a caller that is not known was remembered: %v", got)
		}
		l.note(7, []string{"project=a"})
		for range len(l.recent) {
			l.note(9, []string{"x"})
		}
		if got := l.latest(7, []string{"project=a"}); !got.IsZero() {
			t.Errorf("more lists are remembered than there is room for: %v", got)
		}
	})
}
