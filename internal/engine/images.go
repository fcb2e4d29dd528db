package engine

import (
	"context"

	apiimage "github.com/moby/moby/api/types/image"

	"github.com/cleatlabs/cleat/internal/container"
	"github.com/cleatlabs/cleat/internal/image"
)

// Images is the image service with what only the engine knows: which
// containers use an image.
type Images struct {
	*image.Service
	containers *container.Store
}

// List describes all images with the number of containers of each.
func (i *Images) List(ctx context.Context, req image.ListRequest) ([]apiimage.Summary, error) {
	return i.Service.List(ctx, req, func() map[string]int64 {
		uses := map[string]int64{}
		for _, c := range i.containers.All() {
			uses[c.Load().Image.ID.String()]++
		}
		return uses
	})
}

// Remove removes a name or an image, unless containers forbid it.
func (i *Images) Remove(ctx context.Context, ref string, opts image.RemoveOptions) ([]apiimage.DeleteResponse, error) {
	return i.Service.Remove(ctx, ref, opts, i.users)
}

func (i *Images) users(imageID string) []image.User {
	var out []image.User
	for _, c := range i.containers.All() {
		if r := c.Load(); r.Image.ID.String() == imageID {
			out = append(out, image.User{ContainerID: r.ID, Name: r.Name, Running: r.State.Running()})
		}
	}
	return out
}
