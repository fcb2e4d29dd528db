package operate

import (
	"context"
	"errors"
	"fmt"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/moby/moby/client"

	"github.com/cleatlabs/cleat/client/compose/label"
	"github.com/cleatlabs/cleat/client/compose/spec"
)

// OneOffOptions are those of `run`.
type OneOffOptions struct {
	Name       string // "" is one by the slug
	Slug       string // 64 hexadecimal digits that nobody else has
	AutoRemove bool
	UseAliases bool
	Attached   bool
}

// OneOff makes a container of a service that is none of its replicas, and returns its id.
func (o *Operator) OneOff(ctx context.Context, p *types.Project, s types.ServiceConfig, opts OneOffOptions) (string, error) {
	existing, err := o.Containers(ctx, p.Name, false)
	if err != nil {
		return "", err
	}
	images, err := o.imageIDs(ctx, p)
	if err != nil {
		return "", err
	}
	name := opts.Name
	if name == "" {
		name = fmt.Sprintf("%s%s%s%srun%s%s", p.Name, o.Separator, s.Name, o.Separator, o.Separator, opts.Slug[:12])
	}
	image := spec.ImageName(p, s, o.Separator)
	r := &spec.Replica{
		Project: p, Service: s, Number: 1, Name: name, Image: image, ImageID: images[image], OneOff: true, Alone: !opts.UseAliases,
		AutoRemove: opts.AutoRemove, StdinOnce: opts.Attached, Labels: map[string]string{label.Slug: opts.Slug}, API: o.API.ClientVersion(),
		Others: func(service string) (string, error) {
			c, err := Single(existing, service, 0)
			return c.ID, err
		},
		Linked:    func(service string) []string { return names(OfServices(existing, []string{service})) },
		Separator: o.Separator, Proxies: o.Proxies,
	}
	o.Report.Report("Container", name, "Creating")
	made, err := o.make(ctx, r, name)
	if err == nil {
		if err = o.fill(ctx, p, s, made.ID); err != nil {
			err = errors.Join(err, o.discard(ctx, made.ID, true))
		}
	}
	return made.ID, o.ended(ctx, "Container", name, "Created", err)
}

// StartOne starts one container, by its id; nothing waits for what it depends on.
func (o *Operator) StartOne(ctx context.Context, id string) error {
	_, err := o.API.ContainerStart(ctx, id, client.ContainerStartOptions{})
	return err
}

// AwaitDependencies waits until what a service depends on is as its conditions say.
func (o *Operator) AwaitDependencies(ctx context.Context, p *types.Project, s types.ServiceConfig) error {
	list, err := o.Containers(ctx, p.Name, false)
	if err != nil {
		return err
	}
	news := o.watch(ctx, p.Name)
	defer news.close()
	return o.awaitDependencies(ctx, news, list, p, s)
}
