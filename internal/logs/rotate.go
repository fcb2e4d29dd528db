package logs

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

const (
	gzSuffix  = ".gz"
	tmpSuffix = ".tmp"
)

// rotatedName is the name of the i-th older file, 1 being the youngest.
func rotatedName(path string, i int, compressed bool) string {
	name := path + "." + strconv.Itoa(i)
	if compressed {
		name += gzSuffix
	}
	return name
}

// rotate makes the current file the first old one and begins an empty one; w.mu
// is held. With max-file=1 the current file is removed; a new one rather than a
// truncated one, so that readers see which lines they have.
func (w *writer) rotate() error {
	w.compressor.Wait()
	if err := w.shift(); err != nil {
		return err
	}
	if w.turns != nil {
		w.turns.Add(1)
	}
	old := w.f
	w.f = nil
	w.rotated = w.opts.compress
	return errors.Join(w.bell.rotate(old, w.size, w.opts.held()), w.ensure())
}

// shift frees the current file's name.
func (w *writer) shift() error {
	oldest := w.opts.maxFile - 1
	if oldest == 0 {
		return ignoreMissing(os.Remove(w.path))
	}
	found, err := filesAt(w.path)
	if err != nil {
		return err
	}
	for _, name := range found { // the oldest first, so that each name is free
		age := fileAge(w.path, name)
		if age == 0 {
			continue
		}
		if age >= oldest {
			err = os.Remove(name)
		} else {
			err = os.Rename(name, rotatedName(w.path, age+1, strings.HasSuffix(name, gzSuffix)))
		}
		if err = ignoreMissing(err); err != nil {
			return err
		}
	}
	return ignoreMissing(os.Rename(w.path, rotatedName(w.path, 1, false)))
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// startCompression compresses the file that the last rotation made. It is called
// at the next output only: until then the new Mark may not have been recorded,
// and recovery looks for the old file. w.mu is held.
func (w *writer) startCompression() {
	if !w.rotated {
		return
	}
	w.rotated = false
	w.compressor.Go(func() {
		// A failure leaves the file as it was, readable and counted by the
		// rotation: nothing is lost but some space.
		_ = compress(rotatedName(w.path, 1, false), w.bell)
	})
}

// unfinished is where a file's gzip form is while it is being made.
func unfinished(path string) string { return path + gzSuffix + tmpSuffix }

// compress replaces a file by its gzip form, which is complete, and known to
// the bell, when it gets its name.
func compress(path string, bell *Bell) (err error) {
	src, err := os.Open(path)
	if err != nil {
		return err
	}
	defer src.Close()
	st, err := src.Stat()
	if err != nil {
		return err
	}
	tmp := unfinished(path)
	dst, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o640)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(tmp)
		}
	}()
	z := gzip.NewWriter(dst)
	_, err = io.Copy(z, src)
	made, serr := dst.Stat()
	if err = errors.Join(err, serr, z.Close(), dst.Close()); err != nil {
		return err
	}
	bell.compressed(inode(st), inode(made))
	// The time of the last line is what a reader with since looks at.
	if err = os.Chtimes(tmp, st.ModTime(), st.ModTime()); err != nil {
		return err
	}
	if err = os.Rename(tmp, path+gzSuffix); err != nil {
		return err
	}
	return os.Remove(path)
}

// Files lists the existing files of a log, the oldest first.
func Files(c Config) ([]string, error) { return filesAt(c.Path) }

func filesAt(path string) ([]string, error) {
	dir, _ := filepath.Split(path)
	entries, err := os.ReadDir(filepath.Clean(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list the log's files: %w", err)
	}
	var found []string
	for _, e := range entries {
		if name := dir + e.Name(); fileAge(path, name) >= 0 {
			found = append(found, name)
		}
	}
	slices.SortFunc(found, func(a, b string) int { return fileAge(path, b) - fileAge(path, a) })
	return found, nil
}

// fileAge is 0 for the current file, i for the i-th older one, and -1 for a file
// that does not belong to the log.
func fileAge(path, name string) int {
	rest, ok := strings.CutPrefix(name, path)
	if !ok {
		return -1
	}
	if rest == "" {
		return 0
	}
	number, ok := strings.CutPrefix(strings.TrimSuffix(rest, gzSuffix), ".")
	age, err := strconv.Atoi(number)
	if !ok || err != nil || age < 1 {
		return -1
	}
	return age
}
