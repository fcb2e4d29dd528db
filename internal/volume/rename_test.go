package volume_test

import (
	"testing"

	"github.com/containerd/errdefs"

	"github.com/cleatlabs/cleat/internal/volume"
)

// Who copies files from or to a container has its volumes mounted under the names that they had then.
func TestRenameOfAVolumeThatIsCopiedFrom(t *testing.T) {
	s := open(t, t.TempDir())
	if _, err := create(s, volume.Request{Name: "data"}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Mount(ctx, "data", "copier"); err != nil {
		t.Fatal(err)
	}
	none := func() error { return nil }
	if _, err := s.Rename(ctx, "data", "other", nil, none); !errdefs.IsConflict(err) {
		t.Errorf("renamed: %v", err)
	}
	if err := s.Unmount(ctx, "data", "copier"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Rename(ctx, "data", "other", nil, none); err != nil {
		t.Error(err)
	}
}
