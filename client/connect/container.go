package connect

import (
	"context"
	"fmt"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
)

// Container asks the engine for a container of which Config, HostConfig and State are to be read. Docker's API promises
// the three, but they are pointers: the answer of another engine, or of what stands in front of one, that leaves out how
// the container is or what it runs is an error here. A missing HostConfig is an empty one: of that only settings are read
// that most containers do not have.
func Container(ctx context.Context, api client.ContainerAPIClient, name string) (container.InspectResponse, error) {
	found, err := api.ContainerInspect(ctx, name, client.ContainerInspectOptions{})
	if err != nil {
		return container.InspectResponse{}, err
	}
	c := found.Container
	if c.HostConfig == nil {
		c.HostConfig = &container.HostConfig{}
	}
	for part, missing := range map[string]bool{"Config": c.Config == nil, "State": c.State == nil} {
		if missing {
			return c, fmt.Errorf("the engine's answer about container %s has no %s: it does not speak Docker's API, or something in between has changed it", name, part)
		}
	}
	return c, nil
}
