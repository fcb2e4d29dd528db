package engine

import (
	"context"
	"slices"

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
			for _, id := range imagesOf(c.Load()) {
				uses[id]++
			}
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
		r := c.Load()
		var has []*image.Image
		for _, img := range imageUses(r) {
			if img.ID.String() == imageID {
				has = append(has, &image.Image{ID: img.ID, Manifest: img.Manifest, ChainID: img.ChainID})
			}
		}
		if len(has) > 0 {
			out = append(out, image.User{ContainerID: r.ID, Running: r.State.Running(), Images: has})
		}
	}
	return out
}

// imagesOf are the ids of the images that a container needs: its own and those that
// are mounted in it.
func imagesOf(r *container.Record) []string {
	var ids []string
	for _, img := range imageUses(r) {
		if id := img.ID.String(); !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	return ids
}

// imageUses are those images, each as often as the container has it.
func imageUses(r *container.Record) []*container.Image {
	uses := []*container.Image{&r.Image}
	for i := range r.Mounts {
		if img := r.Mounts[i].Image; img != nil {
			uses = append(uses, img)
		}
	}
	return uses
}
