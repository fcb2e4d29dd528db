package engine

import (
	"context"
	"fmt"

	api "github.com/moby/moby/api/types/container"

	"github.com/cleatlabs/cleat/internal/container"
	"github.com/cleatlabs/cleat/internal/network"
)

// NetCheck says what containers reach and what reaches them.
type NetCheck struct {
	containers *container.Store
	networks   *network.Service
}

// CheckNetwork looks at a container's network and at what stands in its way. One that
// does not run is no error: that is what is found.
func (n *NetCheck) CheckNetwork(ctx context.Context, name string) (*network.Diagnosis, error) {
	c, err := n.containers.Find(name)
	if err != nil {
		return nil, err
	}
	r := c.Load()
	if r.HostConfig.NetworkMode.IsContainer() {
		return n.checkShared(ctx, r)
	}
	if !r.State.Running() || r.State.Keeper == nil {
		return unchecked(r), nil
	}
	check, err := n.networks.Diagnose(ctx, r.ID, r.State.Keeper.PID, c.Dir())
	if err != nil && !c.Load().State.Running() {
		return unchecked(r), nil // it has ended meanwhile
	}
	if err == nil && r.State.Status == api.StatePaused {
		check.Findings = append([]network.Finding{{Level: network.LevelProblem, Text: "the container is paused: it answers nothing", Remedy: "unpause " + r.Name}}, check.Findings...)
	}
	return check, err
}

// checkShared checks the container whose network another one uses.
func (n *NetCheck) checkShared(ctx context.Context, r *container.Record) (*network.Diagnosis, error) {
	owner, err := n.containers.Find(r.HostConfig.NetworkMode.ConnectedContainer())
	if err != nil {
		return nil, err
	}
	if owner.Load().HostConfig.NetworkMode.IsContainer() {
		return nil, fmt.Errorf("container %s uses the network of %s, which uses another one's", r.Name, owner.Load().Name)
	}
	check, err := n.CheckNetwork(ctx, owner.ID())
	if err != nil {
		return nil, err
	}
	check.Findings = append([]network.Finding{{
		Level: network.LevelNote, Text: fmt.Sprintf("container %s uses the network of container %s: what follows is about both", r.Name, owner.Load().Name),
	}}, check.Findings...)
	return check, nil
}

func unchecked(r *container.Record) *network.Diagnosis {
	return &network.Diagnosis{
		ID: r.ID, Name: r.Name, Mode: string(r.HostConfig.NetworkMode), Networks: []network.CheckedNetwork{}, Ports: []network.CheckedPort{},
		Findings: []network.Finding{{Level: network.LevelProblem, Text: fmt.Sprintf("the container does not run (%s): it has no network and publishes nothing", r.State.Status), Remedy: "start " + r.Name}},
	}
}
