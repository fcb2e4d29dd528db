package events_test

import (
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	apievents "github.com/moby/moby/api/types/events"

	"github.com/cleatlabs/cleat/internal/events"
	"github.com/cleatlabs/cleat/test/expect"
)

func event(typ apievents.Type, action, id string, attrs map[string]string) events.Message {
	return events.Message{Type: typ, Action: apievents.Action(action), Actor: apievents.Actor{ID: id, Attributes: attrs}}
}

func ids(list []events.Message) (out []string) {
	for _, m := range list {
		out = append(out, m.Actor.ID)
	}
	return out
}

// rest takes n events from a subscription, or all until its end with n < 0.
func rest(t *testing.T, ch <-chan events.Message, n int) (list []events.Message) {
	t.Helper()
	for n < 0 || len(list) < n {
		select {
		case m, ok := <-ch:
			if !ok {
				return list
			}
			list = append(list, m)
		case <-time.After(expect.Patience):
			t.Fatalf("only %d events came", len(list))
		}
	}
	return list
}

func TestStamps(t *testing.T) {
	b := events.NewBus()
	before := time.Now()
	_, ch, cancel := b.Subscribe(time.Time{}, time.Time{}, nil)
	defer cancel()
	var last int64
	for range 1000 {
		b.Publish(event("container", "start", "a", nil))
	}
	for _, m := range rest(t, ch, 1000) {
		if m.Scope != "local" || m.Time != m.TimeNano/1e9 || m.TimeNano <= last || m.TimeNano < before.UnixNano() {
			t.Fatalf("stamp %+v after %d", m, last)
		}
		last = m.TimeNano
	}
}

func TestPastAndLiveWithoutGapOrDouble(t *testing.T) {
	b := events.NewBus()
	next := 0
	since := time.Unix(1, 0)
	both := 0
	for range 300 {
		// A client connects again, with the time of the last event that it
		// saw, while events are being published.
		var wg sync.WaitGroup
		begun := make(chan struct{})
		wg.Go(func() {
			for i := range 100 {
				b.Publish(event("container", "start", fmt.Sprint(next+i), nil))
				if i == 10 {
					close(begun)
				}
				runtime.Gosched()
			}
		})
		<-begun
		past, ch, cancel := b.Subscribe(since, time.Time{}, nil)
		if n := len(past); n > 0 && n < 100 {
			both++
		}
		list := append(past, rest(t, ch, 100-len(past))...)
		wg.Wait()
		cancel()
		for i, id := range ids(list) {
			if id != fmt.Sprint(next+i) {
				t.Fatalf("event %s in place of %d", id, next+i)
			}
		}
		next += 100
		since = time.Unix(0, list[len(list)-1].TimeNano+1)
	}
	if both == 0 {
		t.Error("no subscription fell in the middle of the events: nothing was tested")
	}
}

func TestRingKeeps256AndSinceUntilCut(t *testing.T) {
	b := events.NewBus()
	if past, _, cancel := b.Subscribe(time.Unix(1, 0), time.Time{}, nil); len(past) != 0 {
		t.Errorf("past of an empty bus: %v", past)
	} else {
		cancel()
	}
	for i := range 300 {
		m := event("container", "start", fmt.Sprint(i), nil)
		m.Time, m.TimeNano = int64(1000+i), int64(1000+i)*1e9
		b.Publish(m)
	}
	cases := []struct {
		since, until int64
		first, n     int
	}{{1, 0, 44, 256}, {1290, 0, 290, 10}, {1290, 1292, 290, 3}, {0, 1050, 44, 7}, {5000, 0, 0, 0}}
	for _, c := range cases {
		var since, until time.Time
		if c.since > 0 {
			since = time.Unix(c.since, 0)
		}
		if c.until > 0 {
			until = time.Unix(c.until, 0)
		}
		past, ch, cancel := b.Subscribe(since, until, nil)
		if len(past) != c.n || c.n > 0 && past[0].Actor.ID != fmt.Sprint(c.first) {
			t.Errorf("since %d until %d: %d events from %v", c.since, c.until, len(past), ids(past[:min(1, len(past))]))
		}
		if c.until > 0 {
			if live := rest(t, ch, -1); len(live) > 0 {
				t.Errorf("until a past time gave live events %v", ids(live))
			}
		}
		cancel()
		cancel()
		if live := rest(t, ch, -1); len(live) > 0 {
			t.Errorf("cancelled but %v", ids(live))
		}
	}
	if past, _, cancel := b.Subscribe(time.Time{}, time.Time{}, nil); past != nil {
		t.Error("past events without being asked")
	} else {
		cancel()
	}
}

func TestUntilEndsLiveEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := events.NewBus()
		until := time.Now().Add(time.Minute)
		_, ch, cancel := b.Subscribe(time.Time{}, until, nil)
		defer cancel()
		b.Publish(event("image", "pull", "in time", nil))
		late := event("image", "pull", "late", nil)
		late.TimeNano = until.UnixNano() + 1
		b.Publish(late)
		var got []events.Message
		for m := range ch {
			got = append(got, m)
		}
		if !slices.Equal(ids(got), []string{"in time"}) {
			t.Errorf("got %v", ids(got))
		}
		if !time.Now().Equal(until) {
			t.Errorf("ended at %v, not at %v", time.Now(), until)
		}
	})
}

func TestSlowSubscriberBlocksNobodyAndSeesNoGap(t *testing.T) {
	b := events.NewBus()
	_, slow, cancelSlow := b.Subscribe(time.Time{}, time.Time{}, nil)
	defer cancelSlow()
	const behind = 30000
	for i := range behind {
		b.Publish(event("container", "start", fmt.Sprint(i), nil))
	}
	got := ids(rest(t, slow, behind/2))
	for i := behind; i < 5*behind; i++ { // more than it may lag
		b.Publish(event("container", "start", fmt.Sprint(i), nil))
	}
	got = append(got, ids(rest(t, slow, -1))...)
	if len(got) < behind/2 || len(got) == 5*behind {
		t.Errorf("%d events until the channel was closed", len(got))
	}
	for i, id := range got {
		if id != fmt.Sprint(i) {
			t.Fatalf("event %s in place of %d", id, i)
		}
	}
}

// TestManySlowSubscribersShareWhatTheyLag: what clients do not read is in memory once,
// and not for long; those who want none of it hold none.
func TestManySlowSubscribersShareWhatTheyLag(t *testing.T) {
	b := events.NewBus()
	heap := func() int64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	for range 200 {
		_, _, cancel := b.Subscribe(time.Time{}, time.Time{}, nil)
		defer cancel()
		_, _, cancelOther := b.Subscribe(time.Time{}, time.Time{}, func(m events.Message) bool { return m.Type == "volume" })
		defer cancelOther()
	}
	before := heap()
	publish := func(n int) {
		for i := range n {
			b.Publish(event("container", "start", fmt.Sprint(i), map[string]string{"name": "web"}))
		}
	}
	publish(20000)
	if grown := heap() - before; grown > 60<<20 {
		t.Errorf("20,000 events that 200 subscribers have not taken are %d MiB", grown>>20)
	}
	publish(60000)
	expect.Eventually(t, "those who were lost hold nothing", func() bool { return heap()-before < 20<<20 })
}

func TestFilters(t *testing.T) {
	web := event("container", "die", "abc123", map[string]string{"name": "web", "image": "nginx:1.2", "app": "shop", "tier": "front"})
	health := event("container", "health_status: healthy", "abc123", map[string]string{"name": "web"})
	exec := event("container", "exec_start: sh -c ls", "abc123", map[string]string{"name": "web"})
	pull := event("image", "pull", "host:5000/a/b:tag", map[string]string{"name": "host:5000/a/b"})
	network := event("network", "connect", "f00", map[string]string{"name": "bridge", "container": "abc123"})
	volume := event("volume", "mount", "data", nil)
	cases := []struct {
		name    string
		filters map[string][]string
		match   []events.Message
	}{
		{"none", nil, []events.Message{web, health, exec, pull, network, volume}},
		{"unknown key", map[string][]string{"colour": {"red"}}, []events.Message{web, health, exec, pull, network, volume}},
		{"type", map[string][]string{"type": {"image", "volume"}}, []events.Message{pull, volume}},
		{"event", map[string][]string{"event": {"die"}}, []events.Message{web}},
		{"event is exact", map[string][]string{"event": {"di"}}, nil},
		{"event with text", map[string][]string{"event": {"health_status", "exec_start"}}, []events.Message{health, exec}},
		{"event and its text", map[string][]string{"event": {"health_status: healthy"}}, []events.Message{health}},
		{"container by name", map[string][]string{"container": {"we"}}, []events.Message{web, health, exec}},
		{"container by id", map[string][]string{"container": {"abc"}}, []events.Message{web, health, exec}},
		{"network", map[string][]string{"network": {"bridge"}}, []events.Message{network}},
		{"volume", map[string][]string{"volume": {"data"}}, []events.Message{volume}},
		{"labels are joined by and", map[string][]string{"label": {"app=shop", "tier"}}, []events.Message{web}},
		{"label value", map[string][]string{"label": {"app=other"}}, nil},
		{"image of a container", map[string][]string{"image": {"nginx"}}, []events.Message{web}},
		{"image with tag", map[string][]string{"image": {"nginx:1.2", "host:5000/a/b:tag"}}, []events.Message{web, pull}},
		{"image without tag", map[string][]string{"image": {"host:5000/a/b"}}, []events.Message{pull}},
		{"keys are joined by and", map[string][]string{"type": {"container"}, "event": {"die", "pull"}}, []events.Message{web}},
		{"scope", map[string][]string{"scope": {"swarm"}}, nil},
		{"daemon", map[string][]string{"daemon": {"x"}}, nil},
	}
	for _, c := range cases {
		match, err := events.NewFilter(c.filters)
		if err != nil {
			t.Fatal(err)
		}
		b := events.NewBus()
		for _, m := range []events.Message{web, health, exec, pull, network, volume} {
			b.Publish(m)
		}
		past, _, cancel := b.Subscribe(time.Unix(1, 0), time.Time{}, match)
		cancel()
		var got, want []string
		for _, m := range past {
			got = append(got, string(m.Type)+" "+string(m.Action))
		}
		for _, m := range c.match {
			want = append(want, string(m.Type)+" "+string(m.Action))
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", c.name, got, want)
		}
	}
	if _, err := events.NewFilter(map[string][]string{"label": {"=x"}}); err == nil {
		t.Error("a label without a key is accepted")
	}
}

func FuzzFilter(f *testing.F) {
	f.Add("image", "a/b:c@sha256:d", "a/b")
	f.Add("event", "exec_start", "exec_start: ls")
	f.Add("label", "a=b", "a")
	f.Fuzz(func(t *testing.T, key, value, text string) {
		match, err := events.NewFilter(map[string][]string{key: {value}})
		if err != nil || match == nil {
			return
		}
		match(event(apievents.Type(text), text, text, map[string]string{"name": text, "image": text, text: value}))
		match(events.Message{})
	})
}
