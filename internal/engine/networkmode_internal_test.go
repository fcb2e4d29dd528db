package engine

import (
	"testing"

	api "github.com/moby/moby/api/types/container"

	"github.com/cleatlabs/cleat/internal/container"
)

// One of 256 ids begins with "db".
func TestNetworkOfAContainerWhoseNameTheNewIDBeginsWith(t *testing.T) {
	store, other := storeOf(t, api.StateCreated)
	def := &container.Definition{ID: "db" + container.NewID()[2:], Config: &api.Config{}, HostConfig: &api.HostConfig{NetworkMode: "container:db"}}
	if err := (&Creator{containers: store}).checkNetwork(def, CreateRequest{}); err != nil {
		t.Fatal(err)
	}
	if want := api.NetworkMode("container:" + other.ID()); def.HostConfig.NetworkMode != want || def.Config.Hostname != "data" {
		t.Errorf("mode %s and host name %q, not %s and data", def.HostConfig.NetworkMode, def.Config.Hostname, want)
	}
}
