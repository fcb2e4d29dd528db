package engine

import (
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

func TestWaitRefusesWhatIsNoCondition(t *testing.T) {
	_, err := (&Waiter{}).Wait(t.Context(), "x", "bored")
	if !errdefs.IsInvalidArgument(err) || !strings.HasPrefix(err.Error(), `invalid condition: "bored"`) {
		t.Error(err)
	}
}
