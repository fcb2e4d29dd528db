package engine

import (
	"slices"
	"testing"

	api "github.com/moby/moby/api/types/container"

	"github.com/cleatlabs/cleat/internal/container"
)

// A volume whose name has become another when its container's end comes to it is idle under that.
func TestVolumesAreLeftUnderTheirNewNames(t *testing.T) {
	store, c := storeOf(t, api.StateRunning)
	name := func(volume string) {
		t.Helper()
		if err := store.Redefine(c, func(d *container.Definition) { d.Mounts = []container.Mount{{Name: volume}} }); err != nil {
			t.Fatal(err)
		}
	}
	name("before")
	var told []string
	leaveVolumes(c, func(volume, id string) {
		if id != c.ID() {
			t.Errorf("container %s", id)
		}
		if len(told) == 0 {
			name("after")
		}
		told = append(told, volume)
	})
	if !slices.Equal(told, []string{"before", "after"}) {
		t.Errorf("left were %q", told)
	}
}
