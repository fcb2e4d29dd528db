package logs_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cleatlabs/cleat/internal/logs"
	"github.com/cleatlabs/cleat/internal/stdio"
)

func TestFollow(t *testing.T) {
	cfg := logs.Config{Bell: new(logs.Bell), Path: filepath.Join(t.TempDir(), "log")}
	live := make(chan struct{})
	o := all()
	early, earlyResult, _ := following(t, cfg, o, live) // before there is a file
	o.Tail = 1
	w := open(t, cfg)
	feed(t, w, stdio.Stdout, "a\nb\n", noon, false)
	expect(t, early, "a\n", "b\n")
	late, lateResult, _ := following(t, cfg, o, live)
	expect(t, late, "b\n")
	feed(t, w, stdio.Stdout, "c\n", noon, false)
	expect(t, early, "c\n")
	expect(t, late, "c\n")
	gone, goneResult, cancel := following(t, cfg, o, live)
	expect(t, gone, "c\n")
	cancel()
	if err := <-goneResult; !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	feed(t, w, stdio.Stdout, "last words", noon, true)
	close(live)
	expect(t, early, "last words")
	expect(t, late, "last words")
	for _, r := range []chan error{earlyResult, lateResult} {
		if err := <-r; err != nil {
			t.Error(err)
		}
	}
	o.Until = time.Now().Add(-time.Hour)
	_, result, _ := following(t, cfg, o, make(chan struct{}))
	if err := <-result; err != nil {
		t.Errorf("follow until a past time: %v", err)
	}
}

func TestFollowAcrossRotations(t *testing.T) {
	for _, opts := range []map[string]string{
		{"max-size": "2k", "max-file": "5000"},
		{"max-size": "2k", "max-file": "5000", "compress": "true"},
	} {
		t.Run(fmt.Sprint(opts), func(t *testing.T) {
			cfg := logs.Config{Bell: new(logs.Bell), Path: filepath.Join(t.TempDir(), "log"), Opts: opts}
			live := make(chan struct{})
			lines, result, _ := following(t, cfg, all(), live)
			w := open(t, cfg)
			var want []string
			start := time.Now()
			for i := range 3000 {
				line := fmt.Sprintf("line %d\n", i)
				want = append(want, line)
				feed(t, w, stdio.Stdout, line, start.Add(time.Duration(i)*time.Microsecond), false)
			}
			close(live)
			expect(t, lines, want...)
			if err := <-result; err != nil {
				t.Fatal(err)
			}
			if extra, ok := <-lines; ok {
				t.Errorf("doubled: %q", extra)
			}
		})
	}
}

// Followers are woken in memory: a kernel that gives out no more instances of inotify, of which there are 128 for all
// programs of a user, delays none.
func TestManyFollowers(t *testing.T) {
	cfg := logs.Config{Path: filepath.Join(t.TempDir(), "log"), Bell: new(logs.Bell)}
	w := open(t, cfg)
	live := make(chan struct{})
	var all300 []chan string
	var results []chan error
	feed(t, w, stdio.Stdout, "first\n", noon, false)
	for range 300 {
		lines, result, _ := following(t, cfg, all(), live)
		all300, results = append(all300, lines), append(results, result)
	}
	for _, lines := range all300 {
		expect(t, lines, "first\n")
	}
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if to, _ := os.Readlink("/proc/self/fd/" + fd.Name()); to == "anon_inode:inotify" {
			t.Errorf("descriptor %s is one of inotify", fd.Name())
		}
	}
	feed(t, w, stdio.Stdout, "second\n", noon.Add(time.Second), false)
	for _, lines := range all300 {
		expect(t, lines, "second\n")
	}
	close(live)
	for _, r := range results {
		if err := <-r; err != nil {
			t.Fatal(err)
		}
	}
}

// A follower that found no file yet must not begin with the second one when the
// first is rotated away before it looks again.
func TestFollowFromBeforeTheFirstFile(t *testing.T) {
	opts := map[string]string{"max-size": "100", "max-file": "1"}
	cfg := logs.Config{Path: filepath.Join(t.TempDir(), "log"), Opts: opts, Bell: new(logs.Bell)}
	looked, written := make(chan struct{}), make(chan struct{})
	o := all()
	o.Flush = sync.OnceValue(func() error { close(looked); <-written; return nil })
	live := make(chan struct{})
	lines, result, _ := following(t, cfg, o, live)
	<-looked
	w := open(t, cfg)
	for i := range 6 {
		feed(t, w, stdio.Stdout, fmt.Sprintf("line %d\n", i), time.Now(), false)
	}
	close(written)
	close(live)
	for i := range 6 {
		expect(t, lines, fmt.Sprintf("line %d\n", i))
	}
	if err := <-result; err != nil {
		t.Fatal(err)
	}
}

// standing is a follower that stands still at the first line until it is let go.
func standing(t *testing.T, cfg logs.Config, o logs.ReadOptions, live chan struct{}) (lines []chan string, letGo func(), result chan error) {
	t.Helper()
	begun, on := make(chan struct{}), make(chan struct{})
	begin := sync.OnceFunc(func() { close(begun); <-on })
	out := make(chan string, 100000)
	result = make(chan error, 1)
	o.Follow = true
	go func() {
		result <- logs.Read(t.Context(), cfg, o, live, func(e logs.Entry) error { out <- string(e.Line); begin(); return nil })
		close(out)
	}()
	<-begun
	return []chan string{out}, sync.OnceFunc(func() { close(on) }), result
}

// deleted is how many files of the directory this process has open that have no name any more.
func deleted(t *testing.T, dir string) (n int) {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		to, _ := os.Readlink("/proc/self/fd/" + fd.Name())
		if strings.HasPrefix(to, dir+"/") && strings.HasSuffix(to, " (deleted)") {
			n++
		}
	}
	return n
}

// What is rotated away while somebody follows is kept until he has read it.
func TestSlowFollowerLosesNothing(t *testing.T) {
	for _, opts := range []map[string]string{
		{"max-size": "2k", "max-file": "1"},
		{"max-size": "2k", "max-file": "3"},
		{"max-size": "2k", "max-file": "3", "compress": "true"},
	} {
		t.Run(fmt.Sprint(opts), func(t *testing.T) {
			cfg := logs.Config{Bell: new(logs.Bell), Path: filepath.Join(t.TempDir(), "log"), Opts: opts}
			w := open(t, cfg)
			feed(t, w, stdio.Stdout, "line 0\n", time.Now(), false)
			live := make(chan struct{})
			o := all()
			o.Lost = func() { t.Error("lines are said to be lost") }
			lines, letGo, result := standing(t, cfg, o, live)
			want := []string{"line 0\n"}
			for i := 1; i < 3000; i++ {
				want = append(want, fmt.Sprintf("line %d\n", i))
				feed(t, w, stdio.Stdout, want[i], time.Now(), false)
			}
			if n := deleted(t, filepath.Dir(cfg.Path)); n < 50 {
				t.Errorf("%d rotated files are kept, want nearly all of a hundred", n)
			}
			close(live)
			letGo()
			expect(t, lines[0], want...)
			if err := <-result; err != nil {
				t.Fatal(err)
			}
			if extra, ok := <-lines[0]; ok {
				t.Errorf("doubled: %q", extra)
			}
			if n := deleted(t, filepath.Dir(cfg.Path)); n > 0 {
				t.Errorf("%d rotated files are still open", n)
			}
		})
	}
}

// What is kept for a follower is bounded, and what he does not get is said in its place.
func TestFollowerIsToldWhatIsLost(t *testing.T) {
	cfg := logs.Config{Bell: new(logs.Bell), Path: filepath.Join(t.TempDir(), "log"), Opts: map[string]string{"max-size": "1k", "max-file": "2"}}
	w := open(t, cfg)
	feed(t, w, stdio.Stdout, "line 0\n", time.Now(), false)
	live := make(chan struct{})
	var lost atomic.Int32
	o := all()
	o.Lost = func() { lost.Add(1) }
	lines, letGo, result := standing(t, cfg, o, live)
	const count = 20000
	for i := 1; i < count; i++ {
		feed(t, w, stdio.Stdout, fmt.Sprintf("line %d\n", i), time.Now(), false)
	}
	if n := deleted(t, filepath.Dir(cfg.Path)); n < 100 || n > 257 {
		t.Errorf("%d files without a name are open, want the kept ones, which are 256 at most, and the follower's", n)
	}
	close(live)
	letGo()
	if err := <-result; err != nil {
		t.Fatal(err)
	}
	at, gaps, got := -1, 0, 0
	for line := range lines[0] {
		var i int
		if _, err := fmt.Sscanf(line, "line %d\n", &i); err != nil {
			if gaps++; !strings.Contains(line, "lines are missing here") {
				t.Fatalf("%q", line)
			}
			at = -1
			continue
		}
		if at >= 0 && i != at+1 {
			t.Fatalf("line %d comes after line %d, and nothing tells it", i, at)
		}
		at = i
		got++
	}
	if at != count-1 || gaps != 1 || lost.Load() != 1 || got < 2000 || got == count {
		t.Errorf("%d lines up to %d, %d gaps, told %d times", got, at, gaps, lost.Load())
	}
	if n := deleted(t, filepath.Dir(cfg.Path)); n > 0 {
		t.Errorf("%d rotated files are still open", n)
	}
}

// Followers that come while the log is rotated all the time get each line after their first one, once.
func TestFollowFromTheMidstOfRotations(t *testing.T) {
	cfg := logs.Config{Bell: new(logs.Bell), Path: filepath.Join(t.TempDir(), "log"), Opts: map[string]string{"max-size": "1k", "max-file": "3"}}
	w := open(t, cfg)
	live, stop := make(chan struct{}), make(chan struct{})
	var last atomic.Int64
	written := make(chan struct{})
	go func() {
		defer close(written)
		for i := int64(0); ; i++ {
			select {
			case <-stop:
				return
			default:
				feed(t, w, stdio.Stdout, fmt.Sprintf("line %d\n", i), time.Now(), false)
				last.Store(i)
			}
		}
	}()
	var wg sync.WaitGroup
	for round := range 200 {
		wg.Go(func() { followSome(t, cfg, live, 200+round) })
		if round%8 == 7 {
			wg.Wait()
		}
	}
	wg.Wait()
	close(stop)
	<-written
}

// followSome reads some lines, which must be one after the other.
func followSome(t *testing.T, cfg logs.Config, live chan struct{}, count int) {
	at, got := -1, 0
	o := all()
	o.Follow = true
	lost := false
	o.Lost = func() { lost = true }
	enough := errors.New("enough")
	err := logs.Read(t.Context(), cfg, o, live, func(e logs.Entry) error {
		var i int
		if _, err := fmt.Sscanf(string(e.Line), "line %d\n", &i); err != nil {
			return nil
		}
		if at >= 0 && i != at+1 && !lost {
			t.Errorf("line %d comes after line %d", i, at)
		}
		lost, at = false, i
		if got++; got == count {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) {
		t.Error(err)
	}
}
