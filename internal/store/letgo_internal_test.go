package store

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	bolt "go.etcd.io/bbolt"
)

// mapped is how many kilobytes of a file are in this process's memory.
func mapped(t *testing.T, path string) (size int) {
	t.Helper()
	text, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	_, of, found := strings.Cut(string(text), " "+path+"\n")
	_, rss, there := strings.Cut(of, "\nRss:")
	if _, err := fmt.Sscan(rss, &size); err != nil || !found || !there {
		t.Fatalf("%s is not mapped: %v", path, err)
	}
	return size
}

// TestLetGo reads a whole database, whose pages stay in the process's memory until LetGo, and reads it once more.
func TestLetGo(t *testing.T) {
	root := filepath.Join(t.TempDir(), "store")
	s, err := Open(t.Context(), Config{Root: root, Warn: func(err error) { t.Errorf("warned: %v", err) }})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	value := bytes.Repeat([]byte("0123456789abcdef"), 1<<10)
	err = s.db.Update(func(tx *bolt.Tx) error {
		b, err := tx.CreateBucket([]byte("of the test"))
		for i := 0; i < 512 && err == nil; i++ {
			err = b.Put(fmt.Appendf(nil, "%04d", i), value)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	read := func() {
		t.Helper()
		err := s.db.View(func(tx *bolt.Tx) error {
			return tx.Bucket([]byte("of the test")).ForEach(func(k, v []byte) error {
				if !bytes.Equal(v, value) {
					return fmt.Errorf("%s is another", k)
				}
				return nil
			})
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	read()
	before := mapped(t, s.db.Path())
	if before < 8<<10 {
		t.Fatalf("%d kB are mapped of 8 MB", before)
	}
	if err := s.LetGo(); err != nil {
		t.Fatal(err)
	}
	if after := mapped(t, s.db.Path()); after > before/8 {
		t.Errorf("%d kB are mapped, of %d", after, before)
	}
	read()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.LetGo(); err != nil {
		t.Errorf("of a closed store: %v", err)
	}
}
