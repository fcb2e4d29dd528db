package filter_test

import (
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/cleatlabs/cleat/internal/filter"
)

func TestLabels(t *testing.T) {
	have := map[string]string{"app": "shop", "empty": ""}
	for _, c := range []struct {
		wanted []string
		want   bool
	}{
		{nil, true},
		{[]string{"app"}, true},
		{[]string{"app=shop", "empty"}, true},
		{[]string{"empty="}, true},
		{[]string{"app="}, false},
		{[]string{"app", "tier"}, false},
		{[]string{"app=shop=two"}, false},
	} {
		if got := filter.HasLabels(have, c.wanted); got != c.want {
			t.Errorf("%q: %v", c.wanted, got)
		}
	}
}

func TestNames(t *testing.T) {
	for _, c := range []struct {
		values []string
		name   string
		want   bool
	}{
		{nil, "web", true},
		{[]string{"^web$"}, "web", true},
		{[]string{"^web$"}, "web2", false},
		{[]string{"nothing", "eb"}, "web2", true},
		{[]string{"[a"}, "x[a", true}, // no regular expression
		{[]string{"[a"}, "a", false},
	} {
		if got := filter.Names(c.values)(c.name); got != c.want {
			t.Errorf("%q of %q: %v", c.name, c.values, got)
		}
	}
}

func TestBool(t *testing.T) {
	for _, c := range []struct {
		values    []string
		want, bad bool
	}{
		{nil, false, false},
		{[]string{"1"}, true, false},
		{[]string{"false"}, false, false},
		{[]string{"1", "true"}, true, false},
		{[]string{"true", "false"}, false, true},
		{[]string{"maybe"}, false, true},
	} {
		got, err := filter.Bool("dangling", c.values)
		if got != c.want || (err != nil) != c.bad || c.bad && !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: %v, %v", c.values, got, err)
		}
	}
}

func TestUntil(t *testing.T) {
	now := time.Date(2024, 5, 6, 7, 8, 9, 0, time.UTC)
	for text, want := range map[string]time.Time{
		"24h":                       now.Add(-24 * time.Hour),
		"1600000000":                time.Unix(1600000000, 0),
		"1600000000.5":              time.Unix(1600000000, 500000000),
		"1600000000.1234567891":     time.Unix(1600000000, 123456789),
		"2023-11-14T22:13:21Z":      time.Date(2023, 11, 14, 22, 13, 21, 0, time.UTC),
		"2023-11-14T22:13:21+02:00": time.Date(2023, 11, 14, 20, 13, 21, 0, time.UTC),
		"2023-11-14T22:13:21":       time.Date(2023, 11, 14, 22, 13, 21, 0, time.Local),
		"2023-11-14T22":             time.Date(2023, 11, 14, 22, 0, 0, 0, time.Local),
		"2023-11-14":                time.Date(2023, 11, 14, 0, 0, 0, 0, time.Local),
	} {
		if got, err := filter.Until("until", []string{text}, now); err != nil || !got.Equal(want) {
			t.Errorf("%s: %v, %v, not %v", text, got, err, want)
		}
	}
	if got, err := filter.Until("until", nil, now); err != nil || !got.IsZero() {
		t.Errorf("without a value: %v, %v", got, err)
	}
	for _, values := range [][]string{{""}, {"soon"}, {"inf"}, {"nan"}, {"1e400"}, {"1600000000.-5"}, {"1h", "2h"}} {
		if got, err := filter.Until("until", values, now); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: %v, %v", values, got, err)
		}
	}
}

func FuzzUntil(f *testing.F) {
	f.Add("24h")
	f.Add("1.5")
	f.Add("2006-01-02T15:04:05")
	f.Fuzz(func(t *testing.T, text string) {
		_, err := filter.Until("until", []string{text}, time.Now())
		if err != nil && !errdefs.IsInvalidArgument(err) {
			t.Error(err)
		}
	})
}
