package logship

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/cleatlabs/cleat/internal/logs"
	"github.com/cleatlabs/cleat/internal/logsend"
	"github.com/cleatlabs/cleat/internal/record"
)

// keepFor is how long the lines of a removed container wait for a server that is away.
const keepFor = 24 * time.Hour

const parcelFile = "parcel.json"

// parcel says what is needed to send the lines of a removed container. It holds what
// the options select of its labels and environment, not all of these.
type parcel struct {
	Driver  string
	Options map[string]string
	Source  logsend.Source
	File    string // the log's name in the directory
	Removed time.Time
}

// left is how long the lines are still kept: no longer than keepFor where the clock was set back since.
func (p *parcel) left() time.Duration { return min(keepFor, keepFor-time.Since(p.Removed)) }

func openParcel(dir string) (*parcel, logs.Config, error) {
	var p parcel
	if err := record.ReadJSON(filepath.Join(dir, parcelFile), &p); err != nil {
		return nil, logs.Config{}, err
	}
	if p.File == "" || filepath.Base(p.File) != p.File {
		return nil, logs.Config{}, fmt.Errorf("%s names no file", parcelFile)
	}
	return &p, logs.Config{Driver: p.Driver, Path: filepath.Join(dir, p.File), ContainerID: p.Source.ID, ContainerName: p.Source.Name}, nil
}

// pack makes a directory in parent with everything but the lines. A removal that was cut
// short may have left one of the container already, which is sent for itself.
func pack(parent string, c logs.Config) (string, error) {
	src, err := logs.Source(c)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(parent, 0o700); err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp(parent, c.ContainerID+"-")
	if err != nil {
		return "", err
	}
	p := &parcel{Driver: c.Driver, Options: logs.SendOptions(c), Source: *src, File: filepath.Base(c.Path), Removed: time.Now()}
	if err := record.WriteJSON(filepath.Join(dir, parcelFile), p, 0o600); err != nil {
		return "", errors.Join(err, os.RemoveAll(dir))
	}
	return dir, nil
}

// discard takes back what pack has made, unless lines have come there already.
func discard(dir string, c logs.Config) error {
	c.Path = filepath.Join(dir, filepath.Base(c.Path))
	if files, err := logs.Files(c); err != nil || len(files) > 0 {
		return err
	}
	return os.RemoveAll(dir)
}

// moveFiles moves a log, and its position with it, which has two names meanwhile: of whichever place an engine that is
// killed in between has left the log in, the next one knows what was sent. (Of several files some may lie here and some
// there then, and are sent once more.)
func moveFiles(from logs.Config, to string) error {
	files, err := logs.Files(from)
	if err != nil {
		return err
	}
	position := logs.PositionPath(from)
	if err := place(os.Link, position, to); err != nil {
		return err
	}
	for _, name := range files {
		if err := place(os.Rename, name, to); err != nil {
			return err
		}
	}
	if err := os.Remove(position); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// place gives a file its own name in dir, if there is one.
func place(by func(from, to string) error, name, dir string) error {
	err := by(name, filepath.Join(dir, filepath.Base(name)))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	record.Failpoint("logship.remove.between-files")
	return nil
}
