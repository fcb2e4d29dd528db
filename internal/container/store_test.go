package container_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	api "github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/container"
	"github.com/cleatlabs/cleat/test/expect"
)

func open(t *testing.T, root string) *container.Store {
	t.Helper()
	s, err := container.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func add(t *testing.T, s *container.Store, id, name string) *container.Container {
	t.Helper()
	if err := s.ReserveName(name, id); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(s.DirOf(id), 0o700); err != nil {
		t.Fatal(err)
	}
	c := s.Draft(&container.Record{
		Definition: container.Definition{ID: id, Name: name, Created: time.Now(), Config: &api.Config{}, HostConfig: &api.HostConfig{}},
		State:      container.State{Status: api.StateCreated},
	})
	if err := s.Add(c, false); err != nil {
		t.Fatal(err)
	}
	return c
}

func id(prefix string) string { return prefix + strings.Repeat("0", 64-len(prefix)) }

func TestFindByIDThenNameThenUniquePrefix(t *testing.T) {
	s := open(t, t.TempDir())
	a, b := add(t, s, id("abc1"), "first"), add(t, s, id("abc2"), "second")
	named := add(t, s, id("dead"), "abc2") // a name that is another's id prefix
	for _, c := range []struct {
		ref  string
		want *container.Container
	}{
		{id("abc1"), a}, {"first", a}, {"/first", a}, {"abc1", a}, {"second", b}, {id("abc2"), b}, {"abc2", named}, {"abc20", b}, {"d", named},
	} {
		if got, err := s.Find(c.ref); err != nil || got != c.want {
			t.Errorf("%s: %v, %v", c.ref, got, err)
		}
	}
	if _, err := s.Find("abc"); !errdefs.IsInvalidArgument(err) {
		t.Errorf("ambiguous: %v", err)
	}
	if _, err := s.Find("none"); !errdefs.IsNotFound(err) || err.Error() != "No such container: none" {
		t.Errorf("missing: %v", err)
	}
	if _, err := s.Find(""); !errdefs.IsInvalidArgument(err) {
		t.Errorf("empty: %v", err)
	}
}

func TestOfTwoCreatesWithOneNameOneFails(t *testing.T) {
	s := open(t, t.TempDir())
	var wg sync.WaitGroup
	var mu sync.Mutex
	won := 0
	for i := range 50 {
		wg.Go(func() {
			err := s.ReserveName("name", id(fmt.Sprint(i)))
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				won++
			} else if !errdefs.IsConflict(err) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if won != 1 {
		t.Errorf("%d creates got the name", won)
	}
	s.FreeName("name", "one that has not got it")
	if err := s.ReserveName("name", id("f")); !errdefs.IsConflict(err) {
		t.Errorf("another's name was freed: %v", err)
	}
}

func TestAllAreNewestFirst(t *testing.T) {
	s := open(t, t.TempDir())
	now := time.Now()
	for name, age := range map[string]time.Duration{"b": time.Hour, "c": 0, "a": 2 * time.Hour} {
		c := add(t, s, container.NewID(), name)
		if err := s.Redefine(c, func(d *container.Definition) { d.Created = now.Add(-age) }); err != nil {
			t.Fatal(err)
		}
	}
	var names string
	for _, c := range s.All() {
		names += c.Load().Name
	}
	if names != "cba" {
		t.Errorf("%s", names)
	}
}

func TestRenameThatCannotBeWritten(t *testing.T) {
	s := open(t, t.TempDir())
	c := add(t, s, id("1"), "old")
	if err := os.RemoveAll(c.Dir()); err != nil {
		t.Fatal(err)
	}
	if err := s.Rename(c, "new"); err == nil || !strings.Contains(err.Error(), "rename old: ") {
		t.Errorf("%v", err)
	}
	if got, err := s.Find("old"); err != nil || got != c {
		t.Errorf("by its old name: %v", err)
	}
	if err := s.ReserveName("new", id("2")); err != nil {
		t.Errorf("the name that it has not got: %v", err)
	}
}

func TestRecordsSurviveReopening(t *testing.T) {
	root := t.TempDir()
	s := open(t, root)
	c := add(t, s, id("1"), "before")
	if err := c.SetState(func(st *container.State) { st.Status, st.ExitCode = api.StateExited, 42 }); err != nil {
		t.Fatal(err)
	}
	if err := s.Rename(c, "after"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Find("before"); err == nil {
		t.Error("the old name still finds it")
	}
	again, err := open(t, root).Find("after")
	if err != nil {
		t.Fatal(err)
	}
	if st := again.Load().State; st.ExitCode != 42 || st.Status != api.StateExited {
		t.Errorf("state: %+v", st)
	}
}

// Records are read many at a time, and each becomes its own container's.
func TestReopeningMany(t *testing.T) {
	root := t.TempDir()
	s := open(t, root)
	const many = 100
	for i := range many {
		add(t, s, fmt.Sprintf("%064x", i+1), fmt.Sprintf("name-%d", i+1))
	}
	s = open(t, root)
	for i := range many {
		c, err := s.Find(fmt.Sprintf("name-%d", i+1))
		if err != nil {
			t.Fatal(err)
		}
		if want := fmt.Sprintf("%064x", i+1); c.ID() != want || c.Load().ID != want {
			t.Errorf("%s is %s, whose record says %s", want, c.ID(), c.Load().ID)
		}
	}
	if got := len(s.All()); got != many {
		t.Errorf("%d of %d", got, many)
	}
}

// What a container has in its own directory is where that is now, and nothing else of it moves.
func TestMovedRecords(t *testing.T) {
	from, to := filepath.Join(t.TempDir(), "from"), filepath.Join(t.TempDir(), "to")
	s := open(t, from)
	c := add(t, s, id("a"), "first")
	bare := add(t, s, id("b"), "second")
	err := s.Redefine(c, func(d *container.Definition) {
		d.LogPath = filepath.Join(s.DirOf(d.ID), d.ID+"-json.log")
		d.Mounts = []container.Mount{
			{Type: "file", Source: filepath.Join(s.DirOf(d.ID), "files", "0")},
			{Type: "file", Source: "/run/cleat/files/" + d.ID + "/1"},
			{Type: "bind", Source: filepath.Join(s.DirOf(d.ID), "files", "0")},
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
	s = open(t, to)
	c, err = s.Find("first")
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(to, id("a"))
	got := []string{c.Load().LogPath}
	for _, m := range c.Load().Mounts {
		got = append(got, m.Source)
	}
	want := []string{dir + "/" + id("a") + "-json.log", dir + "/files/0", "/run/cleat/files/" + id("a") + "/1", filepath.Join(from, id("a"), "files/0")}
	if !slices.Equal(got, want) {
		t.Errorf("%q, not %q", got, want)
	}
	if bare, err = s.Find("second"); err != nil || bare.Load().LogPath != "" {
		t.Errorf("a container without a log: %q, %v", bare.Load().LogPath, err)
	}
}

// What a kill at each instant of create, state change and remove leaves. Volumes that only a container that is gone knew
// are told until they are removed, named ones are not.
func TestOpenSweepsWhatACrashLeft(t *testing.T) {
	root := t.TempDir()
	s := open(t, root)
	c := add(t, s, id("1"), "whole")
	for name, volumes := range map[string]bool{"removed": true, "its volumes stay": false} {
		r := add(t, s, container.NewID(), name)
		err := s.Redefine(r, func(d *container.Definition) {
			d.Mounts = []container.Mount{{Type: "volume", Name: "named"}, {Type: "volume", Name: "anonymous of " + name, Anonymous: true}}
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Remove(r, volumes); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range []string{id("3") + "/upper", id("4")} { // creates that never answered
		if err := os.MkdirAll(filepath.Join(root, p), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, content := range map[string]string{c.Path(".tmp-state.json"): `{"Sta`, c.Path("state.json"): `{"Status":"exited"`} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Intend(id("3"), []string{"volume"}); err != nil {
		t.Fatal(err)
	}
	open(t, root)
	s = open(t, root) // the volumes' names outlive a second kill
	if got := slices.Sorted(slices.Values(s.Orphans())); !slices.Equal(got, []string{"anonymous of removed", "volume"}) {
		t.Errorf("orphans: %v", got)
	}
	if _, err := os.Stat(c.Path(".tmp-state.json")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that was being written: %v", err)
	}
	if entries, _ := os.ReadDir(root); len(entries) != 3 {
		t.Errorf("kept are one container and what names the orphans: %v", entries)
	}
	if err := s.ForgetOrphans(); err != nil || len(s.Orphans()) != 0 {
		t.Errorf("%v, still told: %v", err, s.Orphans())
	}
	if all := s.All(); len(all) != 1 || all[0].Load().Name != "whole" || all[0].Load().State.Status != api.StateExited {
		t.Errorf("loaded: %v", all)
	}
	entries, _ := os.ReadDir(root)
	if len(entries) != 1 {
		t.Errorf("left: %v", entries)
	}
	if err := s.ReserveName("removed", id("5")); err != nil {
		t.Errorf("the name of a removed container is not free: %v", err)
	}
}

// What is left of containers that are no more keeps no engine from starting, be it that it cannot be deleted: a file may
// be immutable, or something be mounted there.
func TestOpenLeavesWhatItCannotDelete(t *testing.T) {
	root := t.TempDir()
	add(t, open(t, root), id("1"), "whole")
	for _, name := range []string{".removed-" + id("2"), ".removed-volumes-" + id("3"), id("4")} {
		busy := filepath.Join(root, name, "upper")
		if err := os.MkdirAll(busy, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount("tmpfs", busy, "tmpfs", 0, ""); err != nil {
			t.Skipf("only root can mount what is in the way: %v", err)
		}
		defer func() { _ = unix.Unmount(busy, unix.MNT_DETACH) }()
	}
	s := open(t, root)
	if all := s.All(); len(all) != 1 || all[0].Load().Name != "whole" {
		t.Errorf("loaded: %v", all)
	}
	err := s.ForgetOrphans()
	for _, n := range []string{"2", "3", "4"} {
		if err == nil || !strings.Contains(err.Error(), id(n)) {
			t.Errorf("what is left is not told: %v", err)
		}
	}
}

// A crash of the machine may leave a create's list of volumes, which is not synced, in any state.
func TestOpenDropsACreateWhoseListOfVolumesIsDamaged(t *testing.T) {
	for _, list := range []string{"", `["volu`, "\x00\x00\x00\x00"} {
		root := t.TempDir()
		add(t, open(t, root), id("1"), "whole")
		if err := os.Mkdir(filepath.Join(root, id("2")), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, id("2"), "volumes.json"), []byte(list), 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := container.Open(root)
		if err != nil {
			t.Errorf("a list that reads %q keeps the engine from starting: %v", list, err)
			continue
		}
		if all := s.All(); len(all) != 1 || all[0].Load().Name != "whole" || len(s.Orphans()) != 0 {
			t.Errorf("%q: loaded %v, orphans %v", list, all, s.Orphans())
		}
		if _, err := os.Stat(filepath.Join(root, id("2"))); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%q: what the create has made is left: %v", list, err)
		}
	}
}

// FuzzOpen: whatever lies in a container's directory, the store opens with the container that it says, or refuses a later
// layout; and a state that is cut short anywhere keeps no engine from starting.
func FuzzOpen(f *testing.F) {
	whole := fmt.Sprintf(`{"Layout":%d,"ID":%q,"Name":"n","LogPath":"/x/y.log","Config":{},"HostConfig":{}}`, container.Layout, id("1"))
	for _, state := range []string{
		`{"Status":"running","Keeper":{"PID":1,"Dir":"/x"},"Sandbox":{"Endpoints":[null]},"Endpoints":{"a":null}}`,
		`{"Status":"exited","ExitCode":-1,"StartedAt":"2020-01-01T00:00:00Z"}`, "null", "[]", "\x00",
	} {
		f.Add([]byte(whole), []byte(state), []byte(`["volume"]`), uint(20))
	}
	f.Add([]byte(`{"Mounts":[{"Type":"file","Source":"/a/`+id("1")+`/files/1"}],"Config":null}`), []byte("{}"), []byte("{"), uint(0))
	f.Fuzz(func(t *testing.T, config, state, intent []byte, cut uint) {
		root := t.TempDir()
		dir := filepath.Join(root, id("1"))
		put := func(name string, content []byte) {
			if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		put("config.json", config)
		put("state.json", state)
		s, err := container.Open(root)
		switch {
		case err != nil && !strings.Contains(err.Error(), dir):
			t.Errorf("the error names no directory: %v", err)
		case err == nil:
			c, err := s.Find(id("1"))
			if err != nil || c.ID() != id("1") || c.Load().Config == nil || c.Load().HostConfig == nil {
				t.Errorf("%+v %v", c, err)
			}
			if !strings.HasPrefix(string(state), "{") { // as each that was written
				break
			}
			put("state.json", state[:cut%uint(len(state)+1)])
			if again, err := container.Open(root); err != nil || len(again.All()) != 1 {
				t.Errorf("cut to %d of %q: %v", cut, state, err)
			}
		}
		if err := os.Remove(filepath.Join(dir, "config.json")); err != nil {
			t.Fatal(err)
		}
		put("volumes.json", intent)
		if err := os.Remove(filepath.Join(dir, "state.json")); err != nil {
			t.Fatal(err)
		}
		if s, err := container.Open(root); err != nil || len(s.All()) > 0 {
			t.Errorf("a create that never answered: %v", err)
		}
	})
}

// A state file that is damaged is that of a container that was started: its restart policy holds.
func TestDamagedStateIsThatOfAnEndedContainer(t *testing.T) {
	root := t.TempDir()
	s := open(t, root)
	written := time.Unix(1_700_000_000, 0)
	for i, content := range []string{"", `{"Status":"run`, "\x00\x00\x00"} {
		c := add(t, s, id(fmt.Sprint(i)), fmt.Sprint(i))
		if err := os.WriteFile(c.Path("state.json"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(c.Path("state.json"), written, written); err != nil {
			t.Fatal(err)
		}
	}
	add(t, s, id("9"), "never started")
	for _, c := range open(t, root).All() {
		st, want := c.Load().State, api.StateExited
		if c.Load().Name == "never started" {
			want = api.StateCreated
		}
		if st.Status != want || st.StartedAt.IsZero() != (want == api.StateCreated) || (st.ExitCode == container.LostCode) != (want == api.StateExited) {
			t.Errorf("%s: %+v", c.Load().Name, st)
		}
		if want == api.StateExited && !st.FinishedAt.Equal(written) {
			t.Errorf("%s ended at %s, its state was last written at %s", c.Load().Name, st.FinishedAt, written)
		}
	}
}

func TestLockServesInOrderAndLetsWaitersLeave(t *testing.T) {
	s := open(t, t.TempDir())
	c := add(t, s, id("1"), "queue")
	unlock, err := c.Lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	leaving, leave := context.WithCancel(t.Context())
	left := make(chan error, 1)
	go func() { _, err := c.Lock(leaving); left <- err }()
	leave()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Errorf("a waiter that leaves: %v", err)
	}
	// Cancelled or not, no turn is lost.
	var wg sync.WaitGroup
	inside := 0
	for i := range 200 {
		ctx, cancel := context.WithCancel(t.Context())
		wg.Go(func() {
			u, err := c.Lock(ctx)
			if err != nil {
				return
			}
			inside++ // guarded by the lock itself: the race detector and the check below see faults
			if inside != 1 {
				t.Error("two operations at once")
			}
			inside--
			u()
		})
		if i%3 == 0 {
			cancel()
		}
		defer cancel()
	}
	unlock()
	wg.Wait()
	if u, err := c.Lock(t.Context()); err != nil {
		t.Error(err)
	} else {
		u()
	}
}

// What was written ahead is what another engine finds, and what this one says only once it is settled, without a second
// write unless something else came between.
func TestWriteAhead(t *testing.T) {
	root := t.TempDir()
	s := open(t, root)
	c := add(t, s, id("1"), "ahead")
	onDisk := func() container.Status {
		t.Helper()
		other, err := open(t, root).Find("ahead")
		if err != nil {
			t.Fatal(err)
		}
		return other.Load().State.Status
	}
	run := func(st *container.State) { st.Status = api.StateRunning }
	end := func(st *container.State) { st.Status = api.StateExited }
	ahead, err := c.WriteAhead(run)
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Load().State.Status; got != api.StateCreated || onDisk() != api.StateRunning {
		t.Errorf("written ahead: %s here, %s on disk", got, onDisk())
	}
	marker := []byte("not written again")
	mark := func() {
		t.Helper()
		if err := os.WriteFile(c.Path("state.json"), marker, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	marked := func() bool {
		t.Helper()
		b, err := os.ReadFile(c.Path("state.json"))
		if err != nil {
			t.Fatal(err)
		}
		return string(b) == string(marker)
	}
	mark()
	if err := c.Settle(ahead, run, func() {}); err != nil || !marked() || c.Load().State.Status != api.StateRunning {
		t.Errorf("settled: %v, %s here, untouched %v", err, c.Load().State.Status, marked())
	}
	if err := c.Persist(); err != nil || marked() {
		t.Errorf("what is left to be written: %v, untouched %v", err, marked())
	}
	mark()
	if err := c.Persist(); err != nil || !marked() {
		t.Errorf("nothing left to be written: %v, untouched %v", err, marked())
	}

	// A start that fails takes back what it wrote.
	if _, err := c.WriteAhead(run); err != nil {
		t.Fatal(err)
	}
	if err := c.SetExited(end, nil); err != nil || onDisk() != api.StateExited {
		t.Errorf("taken back: %v, %s", err, onDisk())
	}

	// Somebody else's change that came between is not the last word on disk.
	if ahead, err = c.WriteAhead(run); err != nil {
		t.Fatal(err)
	}
	if err := c.SetState(func(st *container.State) { st.StoppedByHand = true }); err != nil || onDisk() != api.StateExited {
		t.Errorf("a change between: %v, %s", err, onDisk())
	}
	if err := c.Settle(ahead, run, func() {}); err != nil || onDisk() != api.StateRunning {
		t.Errorf("settled after a change: %v, %s", err, onDisk())
	}
}

func TestWaitMissesNoExit(t *testing.T) {
	s := open(t, t.TempDir())
	c := add(t, s, id("1"), "waited")
	get := func(ch <-chan container.Exit) int {
		t.Helper()
		select {
		case e := <-ch:
			return e.Code
		case <-time.After(expect.Patience):
			t.Fatal("no answer")
			return 0
		}
	}
	// Of one that never ran, not-running answers at once.
	now, _ := c.Wait(api.WaitConditionNotRunning)
	if get(now) != 0 {
		t.Error("not-running")
	}
	next, _ := c.Wait(api.WaitConditionNextExit)
	removed, _ := c.Wait(api.WaitConditionRemoved)
	_, cancel := c.Wait(api.WaitConditionNextExit)
	cancel()
	c.SetStateInMemory(func(st *container.State) { st.Status = api.StateRunning })
	running, _ := c.Wait(api.WaitConditionNotRunning)
	// Who gives up a restart that has been carried out ends nothing.
	if err := c.SetExited(func(*container.State) {}, nil); err != nil || len(running)+len(next) != 0 {
		t.Errorf("told of an exit of what runs: %v", err)
	}
	announced := func() {
		if len(next) > 0 {
			t.Error("who waits is told before the exit is announced")
		}
	}
	if err := c.SetExited(func(st *container.State) { st.Status, st.ExitCode = api.StateExited, 5 }, announced); err != nil {
		t.Fatal(err)
	}
	// A restart that follows at once hides nothing.
	c.SetStateInMemory(func(st *container.State) { st.Status, st.ExitCode = api.StateRunning, 0 })
	if get(next) != 5 || get(running) != 5 {
		t.Error("the exit before the restart was missed")
	}
	if err := c.SetExited(func(st *container.State) { st.Status, st.ExitCode = api.StateExited, 6 }, nil); err != nil {
		t.Fatal(err)
	}
	never, _ := c.Wait(api.WaitConditionNextExit)
	if _, err := s.Remove(c, false); err != nil {
		t.Fatal(err)
	}
	c.Removed()
	if get(removed) != 6 || get(never) != 6 {
		t.Error("removed")
	}
	late, _ := c.Wait(api.WaitConditionRemoved)
	if get(late) != 6 {
		t.Error("removed, asked for after the removal")
	}
	if err := c.SetState(func(st *container.State) { st.ExitCode = 1 }); err != nil {
		t.Errorf("a state change after the removal: %v", err)
	}
}

func TestGeneratedNames(t *testing.T) {
	s := open(t, t.TempDir())
	form := regexp.MustCompile(`^[a-z]+_[a-z]+[0-9]*$`)
	seen := map[string]bool{}
	for range 2000 {
		n, err := s.ReserveGeneratedName(container.NewID())
		if err != nil {
			t.Fatal(err)
		}
		if !form.MatchString(n) || seen[n] {
			t.Errorf("name %q", n)
		}
		seen[n] = true
	}
}

func TestNewIDIsNoNumber(t *testing.T) {
	form := regexp.MustCompile(`^[0-9a-f]{64}$`)
	for range 1000 {
		if n := container.NewID(); !form.MatchString(n) || strings.Trim(n[:12], "0123456789") == "" {
			t.Fatal(n)
		}
	}
}
