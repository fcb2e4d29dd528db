package logs

import (
	"compress/gzip"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A compressed file has the time of the one that it replaces, by which readers with since leave it out and cursors know it
// again. One that cannot get its name leaves the other as it was, and nothing beside it.
func TestCompressKeepsTheTime(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.log.1")
	written := time.Unix(1_700_000_000, 0)
	put := func() {
		if err := os.WriteFile(path, []byte("lines\n"), 0o640); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, written, written); err != nil {
			t.Fatal(err)
		}
	}
	put()
	if err := compress(path, nil); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path + gzSuffix)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(z); err != nil || string(text) != "lines\n" {
		t.Errorf("%q %v", text, err)
	}
	if st, err := f.Stat(); err != nil || !st.ModTime().Equal(written) {
		t.Errorf("%v %v, want %v", st.ModTime(), err, written)
	}
	if left, _ := filepath.Glob(path + "*"); len(left) != 1 {
		t.Errorf("left %v", left)
	}

	if err := os.Remove(path + gzSuffix); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(path+gzSuffix+"/in the way", 0o750); err != nil {
		t.Fatal(err)
	}
	put()
	if err := compress(path, nil); err == nil {
		t.Error("a file took the place of a directory")
	}
	if left, _ := filepath.Glob(path + "*"); len(left) != 2 || left[0] != path {
		t.Errorf("left %v", left)
	}
}

func TestFileAge(t *testing.T) {
	for name, want := range map[string]int{
		"c.log": 0, "c.log.1": 1, "c.log.12.gz": 12, "c.log.0": -1, "c.log.-1": -1, "c.log.x": -1, "c.log.gz": -1, "c.logs.1": -1, "d.log": -1,
	} {
		if got := fileAge("c.log", name); got != want {
			t.Errorf("%s is %d, want %d", name, got, want)
		}
	}
}

func TestTagOfMessages(t *testing.T) {
	id := "0123456789abcdef"
	for tag, want := range map[string]string{"": id[:12], "{{.Name}}": "web"} {
		s, err := Source(Config{ContainerID: id, ContainerName: "/web", Opts: map[string]string{"tag": tag}})
		if err != nil || s.Tag != want || s.Name != "web" || s.ID != id {
			t.Errorf("tag %q: %+v %v, want %q", tag, s, err, want)
		}
	}
}
