package build

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/cleatlabs/cleat/internal/record"
)

func TestAftermath(t *testing.T) {
	root := t.TempDir()
	warn := func(err error) { t.Errorf("warned: %v", err) }
	open := func(killed, crashed bool) *settler {
		t.Helper()
		s, k, c, err := openSettler(root, root, warn)
		if err != nil || k != killed || c != crashed {
			t.Fatalf("killed %v, crashed %v, %v", k, c, err)
		}
		return s
	}
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	s := open(true, true) // nothing is known
	check(s.begin(true, true))
	first := s.settled
	if first.IsZero() {
		t.Error("what is read from the disk is on it")
	}
	s = open(true, false)
	check(s.begin(true, false))
	if !s.settled.Equal(first) {
		t.Error("a killed engine has synced nothing")
	}
	check(s.settle(true)) // nothing was built since, but by the one that was killed
	if s = open(true, false); !s.settled.After(first) {
		t.Error("what the killed one has made is not synced, and nobody will")
	}
	first = s.settled
	check(s.begin(false, false))
	s.stir()
	check(s.settle(true))
	s.stir()
	check(s.close())
	check(s.settle(true)) // a timer that was late changes nothing
	s = open(false, false)
	if !s.settled.After(first) {
		t.Error("it was not settled")
	}
	s.boot = "another"
	check(s.begin(false, false))
	open(true, true)
	check(os.WriteFile(filepath.Join(root, aftermathFile), []byte(`{"Boot":`), 0o600))
	open(true, true)
}

// What is made after the host's clock was set back is not taken for older than what was on the disk.
func TestSettlerWithTheClockSetBack(t *testing.T) {
	root := t.TempDir()
	s, _, _, err := openSettler(root, root, func(err error) { t.Errorf("warned: %v", err) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.stop)
	s.settled = time.Now().Add(time.Hour)
	if err := s.begin(false, false); err != nil {
		t.Fatal(err)
	}
	s.stir()
	made := time.Now()
	noted, killed, _, err := openSettler(root, root, s.warn)
	if err != nil || !killed || made.Before(noted.settled) {
		t.Errorf("made at %v, trusted up to %v, %v", made, noted.settled, err)
	}
}

// TestSettlerSettles: a build that does not come to rest is settled too.
func TestSettlerSettles(t *testing.T) {
	root := t.TempDir()
	s, _, _, err := openSettler(root, root, func(err error) { t.Errorf("warned: %v", err) })
	if err != nil {
		t.Fatal(err)
	}
	s.stir()
	s.mu.Lock()
	s.since = time.Now().Add(-restlessTime)
	s.mu.Unlock()
	s.stir()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		s.mu.Lock()
		done := !s.settled.IsZero()
		s.mu.Unlock()
		if done {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("it never settles")
		}
	}
	if err := s.close(); err != nil {
		t.Error(err)
	}
}

func TestTornDatabaseIsRemoved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	db, err := bolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bolt.Tx) error {
		b, err := tx.CreateBucket([]byte("b"))
		for i := range 2000 {
			err = errors.Join(err, b.Put(fmt.Appendf(nil, "%06d", i), make([]byte, 100)))
		}
		return err
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	torn := bytes.Clone(text)
	for at := 4 * 4096; at < len(torn); at += 2 * 4096 {
		clear(torn[at:min(at+4096, len(torn))])
	}
	for _, c := range []struct {
		name            string
		text            []byte
		thorough, stays bool
	}{
		{"sound", text, false, true},
		{"sound, read to its end", text, true, true},
		{"torn, and looked at only quickly", torn, false, true},
		{"torn", torn, true, false},
		{"empty", nil, false, false},
		{"half made on a full disk", text[:4096], false, false},
		{"cut short", text[:4*4096], false, false},
		{"blank", make([]byte, len(text)), false, false},
		{"of another kind", bytes.Repeat([]byte("garbage!"), 4096), false, false},
	} {
		told := 0
		err := os.WriteFile(path, c.text, 0o600)
		for range 2 {
			err = errors.Join(err, soundDatabase(path, c.thorough, func(error) { told++ }))
		}
		_, there := os.Stat(path)
		if err != nil || (there == nil) != c.stays || (told == 0) != c.stays || told > 1 {
			t.Errorf("a database that is %s: is there: %v; was told of %d times; %v", c.name, there, told, err)
		}
	}
}

// Who has a database open, or what is no file, is no damage.
func TestDatabaseInUseIsNotRemoved(t *testing.T) {
	warn := func(err error) { t.Errorf("warned: %v", err) }
	path := filepath.Join(t.TempDir(), "x.db")
	db, err := bolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	dir := t.TempDir()
	if err := errors.Join(soundDatabase(path, true, warn), soundDatabase(dir, true, warn)); err != nil {
		t.Error(err)
	}
	for _, name := range []string{path, dir} {
		if _, err := os.Stat(name); err != nil {
			t.Error(err)
		}
	}
}

// What could not be synced is not called settled by the close that comes after.
func TestSettlerThatFailedTriesAgain(t *testing.T) {
	root := t.TempDir()
	contents := filepath.Join(root, "absent")
	s, _, _, err := openSettler(root, contents, func(error) {})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.begin(false, false); err != nil {
		t.Fatal(err)
	}
	s.stir()
	if err := s.settle(true); err == nil {
		t.Fatal("a directory that is not there was synced")
	}
	if err := s.close(); err == nil {
		t.Error("the close forgot what was not synced")
	}
	if _, killed, _, err := openSettler(root, contents, func(error) {}); err != nil || !killed {
		t.Errorf("the next builder trusts it: %v, %v", killed, err)
	}
}

// TestWhatWasNotSyncedIsLost: a sync that failed is not tried again and believed, and the next builder trusts nothing of
// what was made since the last one that did not.
func TestWhatWasNotSyncedIsLost(t *testing.T) {
	eio := func() error { return record.Unwritten("x", syscall.EIO) }
	for what, fail := range map[string]func(*settler) error{
		"of its own":     func(s *settler) error { return s.settle(true) },
		"of build steps": func(s *settler) error { return s.with(eio)() },
	} {
		root := t.TempDir()
		s, _, _, err := openSettler(root, root, func(error) {})
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(s.begin(true, true), s.settle(true)); err != nil {
			t.Fatal(err)
		}
		settled := s.settled
		s.stir()
		s.sync = func(string) error { return syscall.EIO }
		if err := fail(s); !errors.Is(err, syscall.EIO) {
			t.Errorf("%s: %v", what, err)
		}
		s.sync = func(string) error { return nil }
		for _, again := range []error{s.settle(true), s.with(eio)(), s.close()} {
			if !errors.Is(again, syscall.EIO) {
				t.Errorf("%s: it is believed later: %v", what, again)
			}
		}
		next, killed, crashed, err := openSettler(root, root, func(error) {})
		if err != nil || !killed || !crashed || !next.settled.Equal(settled) {
			t.Errorf("%s: the next builder is told killed %v, crashed %v, settled %v after, %v", what, killed, crashed, next.settled.Sub(settled), err)
		}
	}
}
