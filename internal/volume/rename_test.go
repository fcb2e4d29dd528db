package volume_test

import (
	"errors"
	"slices"
	"strings"
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

// Where the records of containers could not be written, as on a full disk, the next engine does it. Until then nobody else
// has the name that they know.
func TestRenameThatContainersDoNotLearnKeepsTheOldName(t *testing.T) {
	root := t.TempDir()
	s := open(t, root)
	if _, err := create(s, volume.Request{Name: "data"}); err != nil {
		t.Fatal(err)
	}
	full := errors.New("no space left on device")
	if _, err := s.Rename(ctx, "data", "moved", nil, func() error { return full }); !errors.Is(err, full) {
		t.Fatal(err)
	}
	takers := func(s *volume.Service) map[string]error {
		errs := map[string]error{}
		_, errs["create"] = create(s, volume.Request{Name: "data"})
		_, errs["import"] = s.Import(ctx, "data", nil, strings.NewReader(""))
		_, _, errs["clone"] = s.Clone(ctx, volume.CloneRequest{From: "moved", To: "data"}, nil)
		_, errs["rename back"] = s.Rename(ctx, "moved", "data", nil, func() error { return nil })
		_, errs["rename"] = s.Rename(ctx, "moved", "third", nil, func() error { return nil })
		return errs
	}
	for _, s := range []*volume.Service{s, open(t, root)} {
		for what, err := range takers(s) {
			if !errdefs.IsConflict(err) || !strings.Contains(err.Error(), "data was renamed to moved") {
				t.Errorf("%s: %v", what, err)
			}
		}
	}
	s = open(t, root)
	want := volume.Renaming{Old: "data", New: "moved"}
	if got := s.Unfinished(); !slices.Equal(got, []volume.Renaming{want}) {
		t.Fatalf("unfinished: %v", got)
	}
	if err := s.Renamed(want); err != nil {
		t.Fatal(err)
	}
	if _, err := create(s, volume.Request{Name: "data"}); err != nil {
		t.Error(err)
	}
	if got := s.Unfinished(); len(got) != 0 {
		t.Errorf("unfinished: %v", got)
	}
}
