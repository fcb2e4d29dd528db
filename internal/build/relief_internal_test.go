package build

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/leases"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cleatlabs/cleat/internal/kernel"
)

type noLeases struct{ leases.Manager }

func (noLeases) Delete(context.Context, leases.Lease, ...leases.DeleteOpt) error { return nil }

// tmpfs is a filesystem of a test's own.
func tmpfs(t *testing.T, options string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("cleat-test", dir, "tmpfs", 0, options); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	return dir
}

// What is let go of is collected at once where the disk is full, and only there.
func TestRelief(t *testing.T) {
	for options, want := range map[string]int{"size=1g": 0, "size=1m": 1, "size=1g,nr_inodes=5": 1} {
		collected := 0
		r := &relief{Manager: noLeases{}, dir: tmpfs(t, options), collect: func() { collected++ }}
		if err := r.Delete(context.Background(), leases.Lease{}); err != nil || collected != want {
			t.Errorf("%s: %d collections, %v", options, collected, err)
		}
	}
}

// A build that lacked inodes says so, also when they are free again; one that came later does not.
func TestReliefExplains(t *testing.T) {
	dir := tmpfs(t, "size=1g,nr_inodes=40")
	r := &relief{Manager: noLeases{}, dir: dir, collect: func() {}}
	began := time.Now()
	cause := errors.New("create /x: no space left on device")
	if err := r.explain(cause, began); err != cause {
		t.Errorf("with inodes: %v", err)
	}
	for i := range 39 {
		if err := os.WriteFile(filepath.Join(dir, strconv.Itoa(i)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Delete(context.Background(), leases.Lease{}); err != nil {
		t.Error(err)
	}
	for i := range 39 {
		if err := os.Remove(filepath.Join(dir, strconv.Itoa(i))); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.explain(cause, began); !errors.Is(err, kernel.ErrNoInodes) || !errors.Is(err, cause) {
		t.Errorf("without: %v", err)
	}
	if err := r.explain(cause, time.Now()); err != cause {
		t.Errorf("a later build: %v", err)
	}
	canceled := status.Error(codes.Canceled, "failed to solve: walker is closed: context canceled")
	if err := r.explain(canceled, began); !errors.Is(err, kernel.ErrNoInodes) || status.Code(err) == codes.Canceled {
		t.Errorf("without, the cause lost: %v", err)
	}
	if err := r.explain(canceled, time.Now()); err != canceled {
		t.Errorf("files that were not received for another reason: %v", err)
	}
	r.dir = tmpfs(t, "size=1m")
	if err := r.explain(canceled, time.Now()); !errors.Is(err, unix.ENOSPC) || errors.Is(err, kernel.ErrNoInodes) || status.Code(err) == codes.Canceled {
		t.Errorf("a full disk, the cause lost: %v", err)
	}
	if other := errors.New("exit 1"); r.explain(other, began) != other || r.explain(nil, began) != nil {
		t.Error("another error is explained by it")
	}
}
