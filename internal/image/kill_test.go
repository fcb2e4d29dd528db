package image_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"

	"github.com/cleatlabs/cleat/internal/image"
	"github.com/cleatlabs/cleat/internal/registryclient"
	"github.com/cleatlabs/cleat/internal/store"
)

// pullUntilKilled is the child of TestKillAtAnyInstant: an engine's image part that
// pulls, uses and removes until it is killed.
func pullUntilKilled() {
	root, ref, _ := strings.Cut(os.Getenv("CLEAT_TEST_PULL"), " ")
	ctx := context.Background()
	fail := func(err error) {
		if err != nil {
			fmt.Println("child:", err)
			os.Exit(1)
		}
	}
	st, err := store.Open(ctx, store.Config{Root: root})
	fail(err)
	client, err := registryclient.New(registryclient.Config{})
	fail(err)
	images, err := image.New(ctx, image.Config{Store: st, Registry: client})
	fail(err)
	fmt.Println("ready")
	for {
		fail(images.Pull(ctx, image.PullRequest{Ref: ref}, nil))
		img, err := images.Resolve(ctx, ref, "")
		fail(err)
		_, err = images.Lower(ctx, img)
		fail(err)
		_, err = images.Remove(ctx, ref, image.RemoveOptions{}, nil)
		fail(err)
	}
}

func TestKillAtAnyInstant(t *testing.T) {
	reg := newRegistry(t)
	ref := reg.push(t, "lab/x:1", imageOf(t, "amd64", layerOf(t, entry{"a", noise(400_000)}), layerOf(t, entry{"b", noise(400_000)}), layerOf(t, entry{"c", noise(100)})))
	root := filepath.Join(t.TempDir(), "store")
	for range 20 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "CLEAT_TEST_PULL="+root+" "+ref)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		if !lines.Scan() || lines.Text() != "ready" {
			cmd.Process.Kill()
			cmd.Wait()
			t.Fatalf("the child says %q", lines.Text())
		}
		time.Sleep(time.Duration(rand.IntN(200)) * time.Millisecond) // the instant, not a wait for something
		cmd.Process.Kill()
		if lines.Scan() {
			t.Errorf("the child says %q", lines.Text())
		}
		cmd.Wait()
		checkAfterKill(t, root, ref)
	}
}

// checkAfterKill opens the store as the next engine does, and finds it whole.
func checkAfterKill(t *testing.T, root, ref string) {
	t.Helper()
	b := open(t, root, registryclient.Config{})
	defer b.store.Close()
	ctx := context.Background()
	if err := b.images.ReleaseUnused(ctx, func(string) bool { return false }); err != nil {
		t.Fatal(err)
	}
	if err := b.store.GC(ctx); err != nil {
		t.Fatal(err)
	}
	if c := b.contents(t); c.ingests != 0 {
		t.Errorf("%d ingests are left", c.ingests)
	}
	err := b.store.Snapshots.Walk(b.store.Context(ctx), func(_ context.Context, i snapshots.Info) error {
		if i.Kind == snapshots.KindActive {
			t.Errorf("the half-unpacked layer %s is left", i.Name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	img, err := b.images.Resolve(ctx, ref, "")
	switch {
	case errdefs.IsNotFound(err):
		b.mustBeEmpty(t)
	case err != nil:
		t.Fatal(err)
	default:
		for _, dir := range b.lower(t, img) {
			if e, err := os.ReadDir(dir); err != nil || len(e) != 1 {
				t.Errorf("a layer is not whole: %v, %v", e, err)
			}
		}
		if blobs, ingests, layers := files(t, root); blobs != 5 || ingests != 0 || layers != 4 {
			t.Errorf("on disk are %d blobs, %d ingests, %d layers", blobs, ingests, layers)
		}
	}
}

func TestSecondEngineOnTheSameRootIsRefused(t *testing.T) {
	b := newBench(t)
	_, err := store.Open(context.Background(), store.Config{Root: b.store.Root(), LockTimeout: 50 * time.Millisecond})
	if !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), b.store.Root()) || !strings.Contains(err.Error(), "--data-root") {
		t.Errorf("error %v", err)
	}
	var pathErr *os.PathError
	if _, err := store.Open(context.Background(), store.Config{Root: "/proc/nothing/here"}); !errors.As(err, &pathErr) {
		t.Errorf("a root that cannot be made: %v", err)
	}
}
