package imagefile

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/bzip2"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"
)

// tarDirectory writes a root directory as a layer: owners, modes, times, links, hard
// links, devices and file capabilities as they are. Sockets are left out, and the files of these paths, if they are there.
func tarDirectory(w io.Writer, root string, without ...string) error {
	info, err := os.Stat(root)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("%s is not a directory", root)
	}
	t := &treeWriter{tw: tar.NewWriter(w), root: root, seen: map[inode]string{}}
	for _, path := range without {
		if own, err := os.Lstat(path); err == nil {
			t.without = append(t.without, own)
		}
	}
	if err := filepath.WalkDir(root, t.add); err != nil {
		return fmt.Errorf("read the root directory %s: %w", root, err)
	}
	return t.tw.Close()
}

type inode struct{ dev, ino uint64 }

type treeWriter struct {
	tw   *tar.Writer
	root string
	seen map[inode]string // files with several names, by their first one

	without []fs.FileInfo
}

func (t *treeWriter) add(path string, _ fs.DirEntry, err error) error {
	if err != nil {
		return err
	}
	name, err := filepath.Rel(t.root, path)
	if err != nil || name == "." {
		return err
	}
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if info.Mode()&fs.ModeSocket != 0 || slices.ContainsFunc(t.without, func(own fs.FileInfo) bool { return os.SameFile(own, info) }) {
		return nil
	}
	h, err := headerOf(path, name, info)
	if err != nil {
		return err
	}
	st := info.Sys().(*syscall.Stat_t)
	if info.Mode().IsRegular() && st.Nlink > 1 {
		id := inode{uint64(st.Dev), st.Ino}
		if first, ok := t.seen[id]; ok {
			h.Typeflag, h.Linkname, h.Size = tar.TypeLink, first, 0
			return t.tw.WriteHeader(h)
		}
		t.seen[id] = h.Name
	}
	if info.Mode().IsRegular() {
		if err := addCapability(h, path); err != nil {
			return err
		}
	}
	if err := t.tw.WriteHeader(h); err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return nil
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(t.tw, f)
	return err
}

// headerOf is the header of the file at path, which the layer knows as name.
func headerOf(path, name string, info fs.FileInfo) (*tar.Header, error) {
	link := ""
	if info.Mode()&fs.ModeSymlink != 0 {
		var err error
		if link, err = os.Readlink(path); err != nil {
			return nil, err
		}
	}
	h, err := tar.FileInfoHeader(info, link)
	if err != nil {
		return nil, err
	}
	h.Name = filepath.ToSlash(name)
	if info.IsDir() {
		h.Name += "/"
	}
	// Names of this machine's users mean nothing in an image, and neither do the times
	// at which a file was looked at.
	h.Uname, h.Gname = "", ""
	h.Format = tar.FormatPAX
	h.AccessTime, h.ChangeTime = time.Time{}, time.Time{}
	return h, nil
}

// addCapability keeps a file's capabilities (ping, for one, has some).
func addCapability(h *tar.Header, path string) error {
	const name = "security.capability"
	buf := make([]byte, 64)
	n, err := unix.Lgetxattr(path, name, buf)
	switch {
	case errors.Is(err, unix.ENODATA), errors.Is(err, unix.ENOTSUP):
		return nil
	case err != nil:
		return fmt.Errorf("read the capabilities of %s: %w", path, err)
	}
	h.PAXRecords = map[string]string{"SCHILY.xattr." + name: string(buf[:n])}
	return nil
}

// The first bytes of compressed streams.
var (
	magicGzip  = []byte{0x1f, 0x8b, 0x08}
	magicZstd  = []byte{0x28, 0xb5, 0x2f, 0xfd}
	magicBzip2 = []byte("BZh")
	magicXz    = []byte("\xfd7zXZ\x00")
)

func compressed(head []byte) bool {
	for _, magic := range [][]byte{magicGzip, magicZstd, magicBzip2, magicXz} {
		if bytes.HasPrefix(head, magic) {
			return true
		}
	}
	return false
}

// Decompress recognises gzip, zstd and bzip2 by their first bytes, and gives the plain
// stream. xz is refused by name.
func Decompress(r io.Reader) (io.ReadCloser, error) {
	b := bufio.NewReaderSize(r, 64<<10)
	head, err := b.Peek(6)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	switch {
	case bytes.HasPrefix(head, magicGzip):
		return gzip.NewReader(b)
	case bytes.HasPrefix(head, magicZstd):
		z, err := zstd.NewReader(b)
		if err != nil {
			return nil, err
		}
		return z.IOReadCloser(), nil
	case bytes.HasPrefix(head, magicBzip2):
		return io.NopCloser(bzip2.NewReader(b)), nil
	case bytes.HasPrefix(head, magicXz):
		return nil, errors.New("xz compression is not supported: decompress it first (xz -d)")
	}
	return io.NopCloser(b), nil
}

// tagOf is the tag of a full name.
func tagOf(name string) string {
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		return name[i+1:]
	}
	return "latest"
}
