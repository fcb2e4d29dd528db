package engine

import (
	"context"
	"slices"
	"testing"
	"time"

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

// A restart that the policy has planned before a stop was noted is not carried out after it, however late the stop comes
// to give it up.
func TestARestartIsNotCarriedOutAfterAStop(t *testing.T) {
	for _, stopped := range []bool{false, true} {
		_, c := storeOf(t, api.StateRestarting)
		if err := c.SetState(func(st *container.State) { st.StoppedByHand = stopped }); err != nil {
			t.Fatal(err)
		}
		started := false
		x := &exiter{start: func(context.Context, *container.Container, time.Duration) error { started = true; return nil }}
		x.restartNow(t.Context(), c, 0)
		if started == stopped || (c.Load().State.Status == api.StateExited) != stopped {
			t.Errorf("stopped: %t, started: %t, then %s", stopped, started, c.Load().State.Status)
		}
	}
}
