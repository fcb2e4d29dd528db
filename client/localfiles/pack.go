package localfiles

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Pack writes a tar archive of the source to w: of a directory with everything below it.
// Sockets are left out.
func Pack(ctx context.Context, w io.Writer, src Info, plan Plan) error {
	_, base := Split(src.Path)
	if src.Rebase != "" {
		base = src.Rebase
	}
	p := &packer{tw: tar.NewWriter(w), links: map[[2]uint64]string{}, plan: plan}
	root := filepath.Clean(src.Path)
	err := filepath.WalkDir(root, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		name := base
		if path != root {
			name = strings.TrimSuffix(base, "/") + "/" + strings.TrimPrefix(strings.TrimPrefix(path, root), "/")
		}
		return p.add(path, plan.Rename(name))
	})
	if err != nil {
		return err
	}
	return p.tw.Close()
}

type packer struct {
	tw    *tar.Writer
	links map[[2]uint64]string
	plan  Plan
}

func (p *packer) add(path, name string) error {
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if info.Mode()&os.ModeSocket != 0 {
		return nil
	}
	target := ""
	if info.Mode()&os.ModeSymlink != 0 {
		if target, err = os.Readlink(path); err != nil {
			return err
		}
	}
	h, err := tar.FileInfoHeader(ownerless{info}, target)
	if err != nil {
		return err
	}
	h.Name, h.Format = name, tar.FormatPAX
	if info.IsDir() {
		h.Name = strings.TrimSuffix(name, "/") + "/"
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		h.Uid, h.Gid = int(st.Uid), int(st.Gid)
		if info.Mode()&os.ModeDevice != 0 {
			h.Devmajor, h.Devminor = int64(unix.Major(uint64(st.Rdev))), int64(unix.Minor(uint64(st.Rdev)))
		}
		if key := [2]uint64{uint64(st.Dev), st.Ino}; st.Nlink > 1 && !info.IsDir() {
			if first, seen := p.links[key]; seen {
				h.Typeflag, h.Linkname, h.Size = tar.TypeLink, first, 0
				return p.tw.WriteHeader(h)
			}
			p.links[key] = h.Name
		}
	}
	if !info.Mode().IsRegular() {
		return p.tw.WriteHeader(h)
	}
	return p.file(path, h)
}

func (p *packer) file(path string, h *tar.Header) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	h.PAXRecords = readAttributes(f)
	if err := p.tw.WriteHeader(h); err != nil {
		return err
	}
	n, err := io.Copy(p.tw, io.LimitReader(f, h.Size))
	if err == nil && n < h.Size {
		err = fmt.Errorf("%s became shorter while it was copied", path)
	}
	return err
}

// ownerless keeps archive/tar from looking up user names, which mean nothing elsewhere.
type ownerless struct{ os.FileInfo }

func (ownerless) Uname() (string, error) { return "", nil }
func (ownerless) Gname() (string, error) { return "", nil }

const paxAttribute = "SCHILY.xattr."

// readAttributes gives a file's own attributes and its capabilities; those that cannot
// be read are left out.
func readAttributes(f *os.File) map[string]string {
	fd := int(f.Fd())
	buf := make([]byte, 64<<10)
	n, err := unix.Flistxattr(fd, buf)
	if err != nil || n <= 0 {
		return nil
	}
	records := map[string]string{}
	value := make([]byte, 64<<10)
	for name := range strings.SplitSeq(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00") {
		if !carried(name) {
			continue
		}
		if n, err := unix.Fgetxattr(fd, name, value); err == nil {
			records[paxAttribute+name] = string(value[:n])
		}
	}
	return records
}

func carried(name string) bool {
	return (name == "security.capability" || strings.HasPrefix(name, "user.")) && !strings.Contains(name, "=")
}

func setAttributes(f *os.File, records map[string]string) error {
	for key, value := range records {
		name, ok := strings.CutPrefix(key, paxAttribute)
		if !ok || !carried(name) {
			continue
		}
		err := unix.Fsetxattr(int(f.Fd()), name, []byte(value), 0)
		if err != nil && !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EPERM) {
			return err
		}
	}
	return nil
}
