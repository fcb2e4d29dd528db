package engine_test

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

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
	id := l.create(spec{cmd: []string{"true"}})
	l.eventually("a group made ahead", func() bool { return len(l.groups(id)) > 0 })
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
		whole := 0
		all.Go(func() {
			l.eventually("a group that begins to go", func() bool {
				n := len(l.groups(id))
				whole = max(whole, n)
				return n < whole
			})
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
