package engine

import (
	"os"
	"path/filepath"
	"testing"

	api "github.com/moby/moby/api/types/container"

	"github.com/cleatlabs/cleat/internal/container"
)

// One of 256 ids begins with "db".
func TestNetworkOfAContainerWhoseNameTheNewIDBeginsWith(t *testing.T) {
	root := t.TempDir()
	store, err := container.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	id := container.NewID()
	if err := os.Mkdir(filepath.Join(root, id), 0o700); err != nil {
		t.Fatal(err)
	}
	other := &container.Record{Definition: container.Definition{ID: id, Name: "db", Config: &api.Config{Hostname: "data"}, HostConfig: &api.HostConfig{}}}
	if err := store.ReserveName("db", id); err != nil {
		t.Fatal(err)
	}
	if err := store.Add(store.Draft(other), false); err != nil {
		t.Fatal(err)
	}
	def := &container.Definition{ID: "db" + container.NewID()[2:], Config: &api.Config{}, HostConfig: &api.HostConfig{NetworkMode: "container:db"}}
	if err := (&Creator{containers: store}).checkNetwork(def, CreateRequest{}); err != nil {
		t.Fatal(err)
	}
	if want := api.NetworkMode("container:" + id); def.HostConfig.NetworkMode != want || def.Config.Hostname != "data" {
		t.Errorf("mode %s and host name %q, not %s and data", def.HostConfig.NetworkMode, def.Config.Hostname, want)
	}
}
