package engine

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"

	"github.com/moby/moby/api/types/mount"
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/container"
	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/record"
)

// A mount of type file is a file that the engine keeps for one container, and whose content a client sends after the
// create: Source says where it is kept. What lies in memory never touches the disk, and is lost with a reboot; what lies
// on the disk is there as long as the container. Docker's API has no such mount.
const (
	typeFile   mount.Type = "file"
	inMemory              = "memory"
	onDisk                = "disk"
	ownFileDir            = "files" // in the exec root by container, and in a container's directory
	maxOwnFile            = 16 << 20
)

// OwnFiles gives content to the mounts of type file.
type OwnFiles struct {
	containers *container.Store
}

func planFile(m *container.Mount, r *mount.Mount) error {
	if r.Source != inMemory && r.Source != onDisk {
		return fmt.Errorf("field Source must be %q or %q, which is where the file is kept", inMemory, onDisk)
	}
	m.Source = r.Source
	return nil
}

// placeFiles decides on the paths of a new container's files.
func placeFiles(s *Settings, id, dir string, mounts []container.Mount) error {
	for i := range mounts {
		m := &mounts[i]
		if m.Type != typeFile {
			continue
		}
		root := filepath.Join(dir, ownFileDir)
		if m.Source == inMemory {
			if err := inMemoryOnly(s.ExecRoot); err != nil {
				return err
			}
			root = ownFilesOf(s, id)
		}
		m.Source = filepath.Join(root, strconv.Itoa(i))
	}
	return nil
}

// inMemoryOnly makes sure that what is written below dir stays off the disk.
func inMemoryOnly(dir string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return &fs.PathError{Op: "statfs", Path: dir, Err: err}
	}
	if st.Type != unix.TMPFS_MAGIC && st.Type != unix.RAMFS_MAGIC {
		return failure.Invalid("no file can be kept in memory: the engine's exec root %s is on a disk; start the engine with --exec-root on a tmpfs", dir)
	}
	return nil
}

// ownFilesOf is where the files are that a container has in memory.
func ownFilesOf(s *Settings, id string) string { return filepath.Join(s.ExecRoot, ownFileDir, id) }

// absentFile is why a container whose file has no content does not start.
func absentFile(m *container.Mount) error {
	return failure.Conflict("the content of %s is not there: it is sent by whoever makes the container, and one that is kept in memory alone is lost with a reboot: "+
		"send it again (`cleat compose up` and `cleat compose start` do)", m.Destination)
}

// FillFiles reads a tar archive of regular files, each named by the target of a mount of type file, with owner and mode.
// What a running container has open stays as it is until its next start. On an error some files may have been replaced,
// each whole.
func (f *OwnFiles) FillFiles(ctx context.Context, name string, r io.Reader) error {
	c, err := f.containers.Find(name)
	if err != nil {
		return err
	}
	// Read first: a slow client must not hold the container's lock.
	contents, err := readOwnFiles(r, c.Load().Mounts)
	if err != nil {
		return err
	}
	unlock, err := c.Lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if c.Gone() {
		return failure.NotFound("No such container: %s", c.ID())
	}
	durable := false
	for _, o := range contents {
		if err := o.write(c); err != nil {
			return fmt.Errorf("file %s of container %s: %w", o.mount.Destination, name, err)
		}
		durable = durable || o.onDisk(c)
	}
	if durable {
		return syncOwnFiles(c)
	}
	return nil
}

// syncOwnFiles has the names of the files on the disk.
func syncOwnFiles(c *container.Container) error {
	var errs []error
	for _, dir := range []string{c.Path(ownFileDir), c.Path("")} {
		f, err := os.Open(dir)
		if err == nil {
			err = errors.Join(f.Sync(), f.Close())
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// ownFile is a file that a client has sent.
type ownFile struct {
	mount    *container.Mount
	header   *tar.Header
	contents []byte
}

func readOwnFiles(r io.Reader, mounts []container.Mount) ([]ownFile, error) {
	targets := map[string]*container.Mount{}
	for i := range mounts {
		if mounts[i].Type == typeFile {
			targets[mounts[i].Destination] = &mounts[i]
		}
	}
	var found []ownFile
	sent := map[*container.Mount]bool{}
	left := int64(maxOwnFile)
	archive := tar.NewReader(r)
	for {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return found, nil
		}
		if err != nil {
			return nil, failure.Invalid("the archive cannot be read: %w", err)
		}
		m := targets[path.Join("/", h.Name)]
		switch {
		case m == nil:
			return nil, failure.Invalid("%s is no mount of type %q of this container", h.Name, typeFile)
		case sent[m]:
			return nil, failure.Invalid("%s is in the archive twice", h.Name)
		case h.Typeflag != tar.TypeReg:
			return nil, failure.Invalid("%s is not a regular file in the archive", h.Name)
		case h.Size > left:
			return nil, failure.Invalid("%s is too large: the files of one request may have %d MiB together", h.Name, maxOwnFile>>20)
		case h.Mode&^0o7777 != 0 || h.Uid < 0 || h.Gid < 0:
			return nil, failure.Invalid("%s has mode %o and owner %d:%d, which no file has", h.Name, h.Mode, h.Uid, h.Gid)
		}
		sent[m] = true
		left -= h.Size
		data, err := io.ReadAll(archive)
		if err != nil {
			return nil, failure.Invalid("the archive cannot be read: %w", err)
		}
		found = append(found, ownFile{m, h, data})
	}
}

// onDisk says whether the file lies on the disk.
func (o *ownFile) onDisk(c *container.Container) bool {
	return filepath.Dir(o.mount.Source) == c.Path(ownFileDir)
}

// write replaces the file. Its directory is nobody's but the engine's: the file's own mode counts inside the container.
func (o *ownFile) write(c *container.Container) error {
	dir := filepath.Dir(o.mount.Source)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	// The container's lock makes this the only writer: what one that was killed has left is written over.
	f, err := os.OpenFile(o.mount.Source+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // gone by then, unless something failed
	defer f.Close()
	if _, err := f.Write(o.contents); err != nil {
		return err
	}
	if err := f.Chown(o.header.Uid, o.header.Gid); err != nil {
		return err
	}
	if err := unix.Fchmod(int(f.Fd()), uint32(o.header.Mode)); err != nil {
		return err
	}
	if o.onDisk(c) {
		if err := f.Sync(); err != nil {
			return err
		}
	}
	record.Failpoint("engine.files.before-rename")
	if err := os.Rename(f.Name(), o.mount.Source); err != nil {
		return err
	}
	record.Failpoint("engine.files.after-rename")
	return nil
}

// dropOwnFiles forgets what a removed container had in memory; what it had on the disk has gone with its directory.
func dropOwnFiles(s *Settings, r *container.Record) error {
	for i := range r.Mounts {
		if r.Mounts[i].Type == typeFile {
			return os.RemoveAll(ownFilesOf(s, r.ID))
		}
	}
	return nil
}

// strayOwnFiles are the directories of containers that are no more: their engine was killed while it removed them.
func strayOwnFiles(s *Settings, containers *container.Store) []string {
	entries, err := os.ReadDir(filepath.Join(s.ExecRoot, ownFileDir))
	if err != nil {
		return nil
	}
	var stray []string
	for _, e := range entries {
		if _, err := containers.Find(e.Name()); err != nil {
			stray = append(stray, filepath.Join(s.ExecRoot, ownFileDir, e.Name()))
		}
	}
	return stray
}
