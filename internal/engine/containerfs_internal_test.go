package engine

import (
	"fmt"
	"os"
	"testing"

	"github.com/containerd/errdefs"
	api "github.com/moby/moby/api/types/container"

	"github.com/cleatlabs/cleat/internal/container"
)

// Files that are missing are an error of the engine, unless it has just removed the container.
func TestFilesThatAreMissing(t *testing.T) {
	store, c := storeOf(t, api.StateExited)
	_, missing := os.Open(c.Path(upperDir))
	missing = fmt.Errorf("commit: %w", missing)
	if err := unlessGone(c, missing); err != missing {
		t.Errorf("of a container that is there: %v", err)
	}
	c.SetStateInMemory(func(st *container.State) { st.Status = api.StateRemoving })
	if err := unlessGone(c, missing); !errdefs.IsNotFound(err) {
		t.Errorf("of one that is being removed: %v", err)
	}
	c.SetStateInMemory(func(st *container.State) { st.Status = api.StateExited })
	if _, err := store.Remove(c, false); err != nil {
		t.Fatal(err)
	}
	if err := unlessGone(c, missing); !errdefs.IsNotFound(err) {
		t.Errorf("of one that is removed: %v", err)
	}
}
