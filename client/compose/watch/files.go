package watch

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/fsnotify/fsnotify"
	"golang.org/x/sys/unix"
)

// A batch ends when nothing has happened for quiet: an editor that saves many files, or a version control system that
// checks out others, is done then. One that never ends is cut after longest.
const (
	quiet   = 100 * time.Millisecond
	longest = 3 * time.Second
)

// Files watches the files of rules. Close it.
type Files struct {
	rules []Rule
	fs    *fsnotify.Watcher
	watch func(path string) error // by fs
	lost  func(error)

	watched map[string]bool // directories
}

// NewFiles begins to watch. A path that does not exist is waited for. What comes later and cannot be watched is told to
// lost, and the rest is watched all the same.
func NewFiles(rules []Rule, lost func(error)) (*Files, error) {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, fmt.Errorf("files cannot be watched: %w", explain(err))
	}
	f := &Files{rules: rules, fs: w, watch: w.Add, lost: lost, watched: map[string]bool{}}
	for i := range rules {
		if err := f.add(existing(rules[i].Path), func(string) {}); err != nil {
			_ = w.Close()
			return nil, cannot(rules[i].Path, err)
		}
	}
	return f, nil
}

// Close ends the watch.
func (f *Files) Close() error { return f.fs.Close() }

func cannot(path string, err error) error {
	return fmt.Errorf("%s cannot be watched: %w", path, explain(err))
}

// explain says what to do about the kernel's limits.
func explain(err error) error {
	switch {
	case errors.Is(err, unix.ENOSPC):
		return fmt.Errorf("%w: raise the limit by `sysctl fs.inotify.max_user_watches=1048576`, or leave large directories out by `ignore`", err)
	case errors.Is(err, unix.EMFILE):
		return fmt.Errorf("%w: raise the limit by `sysctl fs.inotify.max_user_instances=1024`", err)
	}
	return err
}

// existing is the path, or the nearest directory above it that is there.
func existing(path string) string {
	for {
		if _, err := os.Stat(path); err == nil || path == filepath.Dir(path) {
			return path
		}
		path = filepath.Dir(path)
	}
}

// add watches a path, and found is told of the files in it. Of a file its directory is watched: editors replace files.
// Of a directory above that of a rule, only the way there is watched. All files are found, also those that cannot be
// watched.
func (f *Files) add(path string, found func(string)) error {
	st, err := os.Stat(path)
	if Gone(err) {
		return nil // gone again
	}
	if err != nil {
		return err
	}
	if !st.IsDir() {
		return f.enter(filepath.Dir(path))
	}
	var failed error
	err = filepath.WalkDir(path, func(name string, d fs.DirEntry, err error) error {
		if Gone(err) || errors.Is(err, fs.ErrPermission) {
			return nil
		}
		if err != nil {
			return err
		}
		if !f.wanted(name) {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		found(name)
		if !d.IsDir() {
			return nil
		}
		if err := f.enter(name); failed == nil && !Gone(err) {
			failed = err
		}
		return nil
	})
	if err == nil {
		err = failed
	}
	return err
}

// enter watches a directory.
func (f *Files) enter(dir string) error {
	err := f.watch(dir)
	if err == nil {
		f.watched[dir] = true
	}
	return err
}

// leave ends the watch of a directory that has been moved away, and of those in it: the kernel goes on to tell of them
// all, under the names that they had. Under their new ones they are entered anew.
func (f *Files) leave(dir string) {
	if !f.watched[dir] {
		return
	}
	for path := range f.watched {
		if _, in := below(dir, path); in {
			delete(f.watched, path)
			_ = f.fs.Remove(path) // the library may have done it for the directory itself
		}
	}
}

// wanted says whether a path is one of a rule's, or on the way to it.
func (f *Files) wanted(path string) bool {
	return slices.ContainsFunc(f.rules, func(r Rule) bool {
		if _, in := below(r.Path, path); in {
			return !r.prunes(path)
		}
		_, above := below(path, r.Path)
		return above
	})
}

// Batches gives the absolute paths that have changed, until ctx ends; then, or when the kernel tells nothing any more,
// the channel is closed. Whether a path still exists is for the reader to find out.
func (f *Files) Batches(ctx context.Context) <-chan []string {
	out := make(chan []string)
	go func() {
		defer close(out)
		for {
			batch, ok := f.batch(ctx)
			if !ok {
				return
			}
			select {
			case out <- batch:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}

// batch collects what changes until it is quiet.
func (f *Files) batch(ctx context.Context) ([]string, bool) {
	changed := map[string]bool{}
	var still, late <-chan time.Time
	end := func() ([]string, bool) {
		list := make([]string, 0, len(changed))
		for path := range changed {
			list = append(list, path)
		}
		slices.Sort(list)
		return list, true
	}
	for {
		select {
		case e, open := <-f.fs.Events:
			if !open {
				return nil, false
			}
			f.happened(e, func(path string) { changed[path] = true })
		case err, open := <-f.fs.Errors:
			if !open {
				return nil, false
			}
			if errors.Is(err, fsnotify.ErrEventOverflow) {
				f.all(func(path string) { changed[path] = true })
			}
		case <-still:
			return end()
		case <-late:
			return end()
		case <-ctx.Done():
			return nil, false
		}
		if len(changed) == 0 {
			continue
		}
		still = time.After(quiet)
		if late == nil {
			late = time.After(longest)
		}
	}
}

func (f *Files) happened(e fsnotify.Event, changed func(string)) {
	if !f.wanted(e.Name) {
		return
	}
	if e.Has(fsnotify.Create) {
		// A directory may have got files before it was watched.
		if err := f.add(e.Name, changed); err != nil {
			f.lost(cannot(e.Name, err))
		}
	}
	if e.Has(fsnotify.Remove) || e.Has(fsnotify.Rename) {
		f.leave(e.Name)
		f.wait(e.Name, changed)
	}
	changed(e.Name)
}

// wait waits for those of the rules' paths that have gone with a directory, as when a compiler empties its output: the
// kernel tells nothing of one that is made again. It may be there already.
func (f *Files) wait(gone string, changed func(string)) {
	for i := range f.rules {
		if _, in := below(gone, f.rules[i].Path); !in {
			continue
		}
		found := func(path string) { // not what else is in a directory above
			if _, in := below(f.rules[i].Path, path); in {
				changed(path)
			}
		}
		if err := f.add(existing(f.rules[i].Path), found); err != nil {
			f.lost(cannot(f.rules[i].Path, err))
		}
	}
}

// all takes everything for changed.
func (f *Files) all(changed func(string)) {
	for i := range f.rules {
		if err := f.add(existing(f.rules[i].Path), changed); err != nil {
			f.lost(cannot(f.rules[i].Path, err))
		}
	}
}
