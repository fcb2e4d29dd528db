package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
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
//
// While containers come and go, most are made of removed ones' directories. What a
// container could get at is never used again, as somebody may have it open still: its
// layer and the files that are bound into it are deleted and made anew. What is kept
// (the directory itself, the work directory's place, and the record's file with its
// blocks) is half the work, and the disk need not be waited for.
type directories struct {
	root    string // of those that lie ready
	sweeper *sweeper
	tasks   *supervise.Group
	log     *slog.Logger
	ready   *supervise.Reserve[string] // nil before keepReady
	made    int
}

const (
	spareDirectories = 16
	// directoriesQuiet is longer than a short-lived container takes.
	directoriesQuiet = 20 * time.Millisecond
	// anewEvery is how often one is made anew although there is one to be used again: around a directory that many
	// containers have had lie the inodes of what they deleted, which ext4 without a journal steps over for minutes.
	anewEvery = 8
)

func newDirectories(d *Deps, s *sweeper) *directories {
	return &directories{root: filepath.Join(d.Settings.DataRoot, "spare"), sweeper: s, tasks: d.Tasks, log: d.Log}
}

// keepReady begins to make directories ahead, until the engine ends. What an
// earlier engine has left of them goes first. Nothing else of d may run before it
// has returned.
func (d *directories) keepReady() {
	r := supervise.NewReserve(spareDirectories, directoriesQuiet, d.fill, func(dir string) { _ = os.RemoveAll(dir) })
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
	}
	used := d.useAgain(n)
	for range n - len(used) {
		dir := d.next()
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
		return used, perr
	}
	return append(used, made...), err
}

func (d *directories) next() string {
	d.made++
	return filepath.Join(d.root, strconv.Itoa(d.made))
}

// useAgain makes up to n directories of those of removed containers. An engine that dies
// meanwhile leaves them where the next one removes everything, under either name.
func (d *directories) useAgain(n int) (used []string) {
	var stripped []string
	names := []string{d.root}
	for _, trash := range d.sweeper.reusable(n) {
		dir := d.next()
		if d.made%anewEvery == 0 || container.Strip(trash, workDir) != nil || unix.Rename(trash, dir) != nil {
			d.sweeper.empty(trash)
			continue
		}
		stripped, names = append(stripped, dir), []string{d.root, filepath.Dir(trash)}
	}
	if len(stripped) == 0 {
		return nil
	}
	// Else a loss of power could bring a removed container back, with another one's record.
	var err error
	for _, dir := range names {
		err = errors.Join(err, record.SyncDir(dir))
	}
	for _, dir := range stripped {
		if err == nil && container.Reuse(dir) == nil && makeRest(dir) == nil {
			used = append(used, dir)
		} else {
			_ = os.RemoveAll(dir)
		}
	}
	return used
}

// make makes dir, a container's directory.
func (d *directories) make(dir string) error {
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

// makeAll makes what a directory that lay ready has, so that a start can be begun early (see attempt.makeReady) in both.
func makeAll(dir string) error {
	if err := makeDirs(dir); err != nil {
		return err
	}
	return makeFiles(dir)
}

func makeDirs(dir string) error {
	if err := os.Mkdir(dir, 0o710); err != nil {
		return fmt.Errorf("container directory: %w", err)
	}
	for _, d := range []string{upperDir, workDir} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			return fmt.Errorf("container directory: %w", err)
		}
	}
	return nil
}

// makeRest is makeAll of a directory that was a removed container's.
func makeRest(dir string) error {
	if err := os.Mkdir(filepath.Join(dir, upperDir), 0o755); err != nil {
		return err
	}
	return makeFiles(dir)
}

// makeFiles makes the files that the first start fills, empty.
func makeFiles(dir string) error {
	for _, name := range engineFiles {
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
