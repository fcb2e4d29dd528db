package engine_test

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	api "github.com/moby/moby/api/types/container"

	"github.com/cleatlabs/cleat/internal/engine"
)

// groups lists the directories of a container's control group.
func (l *lab) groups(id string) []string {
	var all []string
	for _, root := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/*"} {
		dirs, _ := filepath.Glob(root + l.settings.CgroupParent + "/" + id)
		all = append(all, dirs...)
	}
	return all
}

func TestAContainerThatIsNotStartedKeepsNoGroup(t *testing.T) {
	l := newLab(t)
	id := ""
	l.eventually("a group made ahead", func() bool {
		id = l.create(spec{cmd: []string{"true"}}) // another one, as its group may have gone before anybody has looked
		for end := time.Now().Add(500 * time.Millisecond); time.Now().Before(end); time.Sleep(time.Millisecond) {
			if len(l.groups(id)) > 0 {
				return true
			}
		}
		return false
	})
	l.eventually("no group any more", func() bool { return len(l.groups(id)) == 0 })
	if err := l.Start(context.Background(), id); err != nil {
		t.Fatal(err)
	}
	if code := l.wait(id, ""); code != 0 {
		t.Errorf("a start without a head start: exit code %d", code)
	}
}

func TestARemovedContainerKeepsNoGroup(t *testing.T) {
	l := newLab(t)
	for range 20 {
		id := l.create(spec{cmd: []string{"true"}})
		if err := l.Remove(context.Background(), id, engine.RemoveOptions{}); err != nil {
			t.Fatal(err)
		}
		if left := l.groups(id); len(left) > 0 {
			t.Fatalf("left: %v", left)
		}
	}
}

// A start that comes while its head start is being given up must have a group of its own.
func TestAStartMeetsTheEndOfItsHeadStart(t *testing.T) {
	l := newLab(t)
	var all sync.WaitGroup
	for range 16 {
		id := l.create(spec{cmd: []string{"true"}})
		all.Go(func() {
			// Until its group begins to go, or has gone before anybody has looked.
			for whole, end := 0, time.Now().Add(5*time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
				n := len(l.groups(id))
				if n < whole {
					break
				}
				whole = n
			}
			if err := l.Start(context.Background(), id); err != nil {
				t.Error(err)
			} else if code := l.wait(id, ""); code != 0 {
				t.Errorf("exit code %d", code)
			}
		})
	}
	all.Wait()
}

func TestALimitThatChangedBeforeTheStartHolds(t *testing.T) {
	l := newLab(t)
	const mb = 1 << 20
	id := l.create(spec{cmd: []string{"sleep", "1000"}, host: func(h *api.HostConfig) { h.Memory = 64 * mb }})
	if _, err := l.Update(context.Background(), id, api.UpdateConfig{Resources: api.Resources{Memory: 80 * mb, MemorySwap: 80 * mb}}); err != nil {
		t.Fatal(err)
	}
	if err := l.Start(context.Background(), id); err != nil {
		t.Fatal(err)
	}
	defer l.Remove(context.Background(), id, engine.RemoveOptions{Force: true})
	limits := 0
	for _, dir := range l.groups(id) {
		for _, name := range []string{"memory.limit_in_bytes", "memory.max"} {
			b, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil {
				continue // another controller's
			}
			limits++
			if got := strings.TrimSpace(string(b)); got != strconv.Itoa(80*mb) {
				t.Errorf("%s of %s is %s", name, dir, got)
			}
		}
	}
	if limits == 0 {
		t.Error("no memory limit was found")
	}
}

// More containers than directories lie ready, as those of an application are created: the start of the last is begun as
// early as that of the first, and its control group is made once.
func TestEveryContainerOfManyHasItsHeadStart(t *testing.T) {
	l := newLab(t)
	const many = 24
	begin := time.Now()
	ids, inodes := make([]string, many), make([]uint64, many)
	for i := range ids {
		ids[i] = l.create(spec{cmd: []string{"sleep", "1000"}})
		for _, name := range []string{"hosts", "hostname", "resolv.conf"} {
			if _, err := os.Stat(filepath.Join(l.dir, "containers", ids[i], name)); err != nil {
				t.Errorf("container %d cannot be made ready: %v", i, err)
			}
		}
	}
	inode := func(id string) uint64 {
		for _, dir := range l.groups(id) {
			var st syscall.Stat_t
			if strings.Contains(dir, "/memory/") && syscall.Stat(dir, &st) == nil {
				return st.Ino
			}
		}
		return 0
	}
	for i, id := range ids {
		inodes[i] = inode(id)
	}
	for i, id := range ids {
		before := inodes[i]
		if err := l.Start(context.Background(), id); err != nil {
			t.Fatal(err)
		}
		after := inode(id)
		if late := time.Since(begin) > time.Second/2; before != 0 && after != 0 && after != before && !late {
			t.Errorf("the group of container %d was made again", i)
		}
	}
}
