package archive

import (
	"archive/tar"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// However many directories an archive has, and however often, they take bounded memory, and all have their times in the end.
func TestTimesOfManyDirectories(t *testing.T) {
	root := t.TempDir()
	fd, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	when := time.Unix(1e9, 0)
	deep := strings.Repeat(strings.Repeat("d", 254)+"/", 14) // nearly as long as a path can be
	const many = 1300
	r, w := io.Pipe()
	go func() {
		tw := tar.NewWriter(w)
		put := func(name string, kind byte) {
			_ = tw.WriteHeader(&tar.Header{Name: name, Typeflag: kind, Mode: 0o755, ModTime: when, Format: tar.FormatPAX})
		}
		put("top/", tar.TypeDir)
		for range many {
			put("top/again/", tar.TypeDir)
		}
		for i := range many {
			put(fmt.Sprintf("top/%s%d/", deep, i), tar.TypeDir)
		}
		put("top/last", tar.TypeReg)
		w.CloseWithError(tw.Close())
	}()
	u := &unpacker{ctx: t.Context(), root: fd, dir: "/", parentFD: -1, dirs: map[string][]unix.Timespec{}}
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err == nil {
			err = u.entry(h, tr)
		}
		if err != nil {
			t.Fatal(err)
		}
		size := 0
		for name := range u.dirs {
			size += len(name)
		}
		if size != u.dirsBytes || size > mostDirsBytes {
			t.Fatalf("%d bytes of names are kept, and said to be %d", size, u.dirsBytes)
		}
	}
	if err := u.finish(); err != nil || len(u.dirs) != 0 {
		t.Fatalf("%d are left: %v", len(u.dirs), err)
	}
	for _, name := range []string{"top", "top/again", fmt.Sprint("top/", deep, 0), fmt.Sprint("top/", deep, many-1)} {
		if st, err := os.Stat(filepath.Join(root, name)); err != nil || !st.ModTime().Equal(when) {
			t.Errorf("%.20q …: %v, %v", name, st.ModTime(), err)
		}
	}
}
