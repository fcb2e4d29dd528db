package logs_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
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
	made := logs.Config{Path: filepath.Join(t.TempDir(), "log"), Opts: map[string]string{"max-size": "100", "max-file": "5"}}
	w := open(t, made)
	for i := range 3 {
		feed(t, w, stdio.Stdout, fmt.Sprintf("line %d\n", i), time.Now(), false)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	files, err := logs.Files(made)
	if err != nil || len(files) < 2 {
		t.Fatalf("not rotated: %q, %v", files, err)
	}

	cfg := logs.Config{Path: filepath.Join(t.TempDir(), "log"), Opts: made.Opts}
	looked := make(chan struct{})
	o := all()
	o.Flush = sync.OnceValue(func() error { close(looked); return nil })
	live := make(chan struct{})
	lines, result, _ := following(t, cfg, o, live)
	<-looked
	for _, f := range files {
		if err := os.Rename(f, filepath.Join(filepath.Dir(cfg.Path), filepath.Base(f))); err != nil {
			t.Fatal(err)
		}
	}
	close(live)
	expect(t, lines, "line 0\n", "line 1\n", "line 2\n")
	if err := <-result; err != nil {
		t.Fatal(err)
	}
}
