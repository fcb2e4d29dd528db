package engine_test

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	api "github.com/moby/moby/api/types/container"

	"github.com/cleatlabs/cleat/internal/engine"
	"github.com/cleatlabs/cleat/internal/record"
)

// Of a container's whole life only the creation waits for the disk, and that once.
func TestOneSyncPerLife(t *testing.T) {
	l := newLab(t)
	ctx := context.Background()
	for _, network := range []api.NetworkMode{"none", "bridge"} {
		for _, autoRemove := range []bool{false, true} {
			before := record.Syncs()
			id := l.create(spec{cmd: []string{"true"}, host: func(h *api.HostConfig) { h.NetworkMode, h.AutoRemove = network, autoRemove }})
			condition := api.WaitConditionNextExit
			if autoRemove {
				condition = api.WaitConditionRemoved
			}
			done, err := l.Wait(ctx, id, condition)
			if err != nil {
				t.Fatal(err)
			}
			if err := l.Start(ctx, id); err != nil {
				t.Fatal(err)
			}
			<-done
			if !autoRemove {
				if err := l.Remove(ctx, id, engine.RemoveOptions{}); err != nil {
					t.Fatal(err)
				}
			}
			if n := record.Syncs() - before; n > 1 {
				t.Errorf("network %s, AutoRemove %v: %d waits for the disk", network, autoRemove, n)
			}
		}
	}
}

// TestOneSyncPerLife counts in package record: nothing else of ours may sync.
func TestOnlyRecordsSync(t *testing.T) {
	sync := regexp.MustCompile(`\b(Fdatasync|Fsync|Syncfs|SyncFileRange)\(|\.Sync\(\)|\bO_D?SYNC\b`)
	err := filepath.WalkDir("..", func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		switch path {
		case "../record/record.go", // counted
			"../engine/ownfiles.go",                              // files that a client gives a container for good, before it starts
			"../mount/mirror.go",                                 // copies of volumes: no container waits for those
			"../build/aftermath.go",                              // the build cache's note, where the disk has no room for another
			"../buildexec/settle.go", "../buildexec/fewfiles.go", // what an image was built from, before it is named
			"../store/smallblobs.go", "../store/largeblob.go", // blobs of images, as containerd's store syncs them
			"../store/woven.go", "../store/wovenwrite.go", // likewise, of builds
			"../store/deferral.go": // what builds did not wait for
			return nil
		}
		source, err := os.ReadFile(path)
		if err == nil && sync.Match(source) {
			t.Errorf("%s waits for the disk on its own: %s", path, sync.Find(source))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
