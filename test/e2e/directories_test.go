package e2e

import (
	"context"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/test/harness"
)

// TestDirectoriesUsedAgain: while containers come and go, directories of removed ones become those of new ones, which
// find nothing of what the ones before have done to their files.
func TestDirectoriesUsedAgain(t *testing.T) {
	t.Parallel()
	e := harness.Start(t, harness.Options{})
	e.Load(t, "busybox")
	const script = `set -e
test "$(stat -c '%a %u %g' / /etc/hosts /etc/hostname /etc/resolv.conf | sort | uniq -c | xargs)" = "3 644 0 0 1 755 0 0"
test ! -e /dirty && test -d /home && ! grep -q dirty /etc/hosts /etc/hostname /etc/resolv.conf
test "$(cat /etc/hostname)" = "$(hostname)"
rm -r /home && mkdir /dirty && echo dirty > /dirty/file && mv /etc/passwd /dirty
for f in /etc/hosts /etc/hostname /etc/resolv.conf; do echo dirty >> $f; chmod 777 $f; chown 7:7 $f; done
chmod 700 / && chown 7:7 /`
	type place struct{ inode, born uint64 }
	var mu sync.Mutex
	places, again, lives := map[place]bool{}, 0, 0
	enough := func() bool {
		mu.Lock()
		defer mu.Unlock()
		return again >= 8
	}
	life := func(c *client.Client, remove bool) bool {
		ctx := context.Background()
		made, err := c.ContainerCreate(ctx, client.ContainerCreateOptions{
			Config:     &container.Config{Image: "busybox", Cmd: []string{"sh", "-c", script}},
			HostConfig: &container.HostConfig{NetworkMode: "none", AutoRemove: remove},
		})
		if err != nil {
			t.Error(err)
			return false
		}
		var st unix.Statx_t
		if err := unix.Statx(0, filepath.Join(e.DataRoot, "containers", made.ID, "work"), 0, unix.STATX_INO|unix.STATX_BTIME, &st); err != nil {
			t.Error(err)
			return false
		}
		mu.Lock()
		p := place{st.Ino, uint64(st.Btime.Sec)<<32 + uint64(st.Btime.Nsec)}
		if places[p] {
			again++
		}
		places[p] = true
		lives++
		mu.Unlock()
		end := c.ContainerWait(ctx, made.ID, client.ContainerWaitOptions{Condition: container.WaitConditionNextExit})
		if _, err := c.ContainerStart(ctx, made.ID, client.ContainerStartOptions{}); err != nil {
			t.Error(err)
			return false
		}
		select {
		case ended := <-end.Result:
			if ended.StatusCode != 0 {
				t.Errorf("the container found what another has left: %d", ended.StatusCode)
				return false
			}
		case err := <-end.Error:
			t.Error(err)
			return false
		}
		if remove {
			return true
		}
		_, err = c.ContainerRemove(ctx, made.ID, client.ContainerRemoveOptions{})
		if err != nil {
			t.Error(err)
		}
		return err == nil
	}
	var clients sync.WaitGroup
	until := time.Now().Add(harness.Patience)
	for n := range 4 {
		c := e.Client(t)
		clients.Go(func() {
			for !enough() && time.Now().Before(until) && life(c, n == 0) {
			}
		})
	}
	clients.Wait()
	if !t.Failed() && !enough() {
		t.Errorf("of %d containers %d had the directory of another", lives, again)
	}
}
