package watch

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Copy is a file of the host and where it goes in a container.
type Copy struct {
	From, To string
	Target   string // of its rule, as the user wrote it; what of To is below it is made after the host's tree
}

// Archive writes a tar archive of files as they are now. One that has vanished meanwhile, and what no archive can hold,
// is left out. A directory is made, without what is in it, and before that.
func Archive(w io.Writer, files []Copy) error {
	t := tar.NewWriter(w)
	last := map[string]int{}
	for i, c := range files {
		last[c.To] = i
	}
	for i, c := range files {
		if last[c.To] != i {
			continue // the last rule wins
		}
		if err := addTo(t, c); err != nil && !Gone(err) {
			return fmt.Errorf("%s: %w", c.From, err)
		}
	}
	return t.Close()
}

// Gone says that a file is not there, be it that a file has come in the place of its directory.
func Gone(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) }

func addTo(t *tar.Writer, c Copy) error {
	info, err := os.Lstat(c.From)
	if err != nil {
		return err
	}
	link := ""
	switch info.Mode().Type() {
	case 0, fs.ModeDir:
	case fs.ModeSymlink:
		if link, err = os.Readlink(c.From); err != nil {
			return err
		}
	default:
		return nil
	}
	h, err := tar.FileInfoHeader(info, link)
	if err != nil {
		return err
	}
	h.Name = strings.TrimPrefix(c.To, "/")
	h.Uname, h.Gname = "", "" // the host's names say nothing in a container
	if info.IsDir() {
		h.Name += "/"
	}
	if !info.Mode().IsRegular() {
		return t.WriteHeader(h)
	}
	f, err := os.Open(c.From)
	if err != nil {
		return err
	}
	defer f.Close()
	// It may be written just now: what it was first is what goes, and a later change comes with the next batch.
	if info, err = f.Stat(); err != nil {
		return err
	}
	h.Size = info.Size()
	if err := t.WriteHeader(h); err != nil {
		return err
	}
	n, err := io.Copy(t, io.LimitReader(f, h.Size))
	if err == nil && n < h.Size {
		_, err = io.CopyN(t, zeros{}, h.Size-n) // it was cut meanwhile
	}
	return err
}

// zeros fills up what a file has lost while it was read.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
