package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/container"
	"github.com/cleatlabs/cleat/internal/record"
	"github.com/cleatlabs/cleat/internal/supervise"
)

// directories makes the directories of containers. It keeps a few ready, which a
// create only has to rename: making one takes longer than all else in a create but
// its wait for the disk, and that is shorter, too, where the disk knows the
// directory already.
type directories struct {
	root  string // of those that lie ready
	tasks *supervise.Group
	log   *slog.Logger
	ready *supervise.Reserve[string] // nil before keepReady
	made  int
	swept atomic.Bool // what an earlier engine has left in root is gone
}

const (
	spareDirectories = 16
	// directoriesQuiet is longer than a short-lived container takes.
	directoriesQuiet = 20 * time.Millisecond
)

func newDirectories(d *Deps) *directories {
	return &directories{root: filepath.Join(d.Settings.DataRoot, "spare"), tasks: d.Tasks, log: d.Log}
}

// keepReady begins to make directories ahead, until the engine ends. What an
// earlier engine has left of them goes first. Nothing else of d may run before it
// has returned.
func (d *directories) keepReady() {
	r := supervise.NewReserve(spareDirectories, spareDirectories+sweepBatch, directoriesQuiet, d.fill, d.drop)
	if !d.tasks.Go("directories", func(ctx context.Context) {
		<-ctx.Done()
		r.Close()
	}) {
		r.Close()
		return
	}
	d.ready = r
}

func (d *directories) fill(missing int, put func(string)) {
	made, err := d.prepare(missing)
	for _, dir := range made {
		put(dir)
	}
	if err != nil { // a create makes its own, or meets the same and reports it
		d.log.Debug("directories of containers cannot be made ahead", "error", err)
	}
}

func (d *directories) prepare(n int) (made []string, err error) {
	if d.made == 0 {
		if err := os.RemoveAll(d.root); err != nil {
			return nil, err
		}
		if err := os.Mkdir(d.root, 0o700); err != nil {
			return nil, err
		}
		container.Spread(d.root)
		d.swept.Store(true)
	}
	for range n {
		d.made++
		dir := filepath.Join(d.root, strconv.Itoa(d.made))
		if err = makeAll(dir); err != nil {
			_ = os.RemoveAll(dir)
			break
		}
		made = append(made, dir)
	}
	if perr := container.Prepare(made); perr != nil {
		for _, dir := range made {
			_ = os.RemoveAll(dir)
		}
		return nil, perr
	}
	return made, err
}

// make makes dir, a container's directory.
func (d *directories) make(dir string) error {
	if err := d.take(dir); err != nil {
		return err
	}
	return writeMountID(dir)
}

// take makes dir of one that lies ready, if there is one.
func (d *directories) take(dir string) error {
	if d.ready == nil {
		return makeAll(dir)
	}
	defer d.ready.Refill()
	spare, ok := d.ready.Take()
	if !ok {
		return makeAll(dir)
	}
	if err := unix.Rename(spare, dir); err != nil {
		_ = os.RemoveAll(spare)
		return makeAll(dir)
	}
	return nil
}

// recycle has directories of removed containers lie ready for others, and returns those of which
// more has been kept than of most. To delete one, and to make the next, is as much for the disk as
// all else of a container's life.
func (d *directories) recycle(batch []removed) (rest []removed) {
	if d.ready == nil || !d.swept.Load() {
		return batch
	}
	var spares []string
	for _, r := range batch {
		if spare, ok := d.asNew(r); ok {
			spares = append(spares, spare)
		} else {
			rest = append(rest, r)
		}
	}
	if len(spares) == 0 {
		return rest
	}
	give := d.ready.Give
	if err := container.Settle(d.root, spares); err != nil {
		give = d.drop
	}
	for _, spare := range spares {
		give(spare)
	}
	return rest
}

// asNew moves a removed container's directory to those that lie ready. What the container could reach, and
// something may still hold open, is made anew.
func (d *directories) asNew(r removed) (spare string, ok bool) {
	if r.last == nil || !r.last.left.isKnown() {
		return "", false
	}
	r.last.tidy() // no two overlays may share a directory to work in
	if !container.Recycle(r.dir, workDir, mountIDFile, upperLink) || makeDir(r.dir, upperDir) != nil || makeFiles(r.dir, engineFiles) != nil {
		return "", false
	}
	record.Failpoint("engine.recycle.after-files")
	spare = filepath.Join(d.root, filepath.Base(r.dir))
	if unix.Rename(r.dir, spare) != nil {
		return "", false
	}
	record.Failpoint("engine.recycle.after-rename")
	return spare, true
}

func (d *directories) drop(dir string) { _ = os.RemoveAll(dir) }

// makeAll makes what a directory that lay ready has, so that a start can be begun early (see attempt.makeReady) in both.
func makeAll(dir string) error {
	if err := makeDirs(dir); err != nil {
		return err
	}
	return errors.Join(makeFiles(dir, engineFiles), makeFiles(dir, []string{mountIDFile}), os.Symlink(upperDir, filepath.Join(dir, upperLink)))
}

func makeDirs(dir string) error {
	if err := os.Mkdir(dir, 0o710); err != nil {
		return fmt.Errorf("container directory: %w", err)
	}
	return errors.Join(makeDir(dir, upperDir), makeDir(dir, workDir))
}

func makeDir(dir, name string) error {
	if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
		return fmt.Errorf("container directory: %w", err)
	}
	return nil
}

// makeFiles makes files that the create and the first start fill, empty.
func makeFiles(dir string, names []string) error {
	for _, name := range names {
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		if err != nil {
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
	}
	return nil
}
