package command

import (
	"context"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"

	"github.com/cleatlabs/cleat/client/compose/label"
	"github.com/cleatlabs/cleat/client/compose/operate"
)

// byName says whether the user names the project and no file of it: it is what the engine has of it then, as with docker
// compose. Files that the environment names say no more than those of the directory.
func (a *app) byName() bool { return a.options.Name != "" && len(a.options.Files) == 0 }

// own is the project that was loaded, p, unless the user has named one alone and none of its containers, list, was made
// by these files: they are another's, whose hooks, providers and images it has nothing to do with.
func (a *app) own(o *operate.Operator, p *types.Project, list []operate.Container) *types.Project {
	if p == nil || !a.byName() {
		return p
	}
	files := strings.Join(p.ComposeFiles, ",")
	if slices.ContainsFunc(list, func(c operate.Container) bool { return c.Labels[label.ConfigFiles] == files }) {
		return p
	}
	a.project, o.Project = nil, nil
	return nil
}

// ownOf is own for who has not listed the containers.
func (a *app) ownOf(ctx context.Context, o *operate.Operator, name string, p *types.Project) (*types.Project, error) {
	if p == nil || !a.byName() {
		return p, nil
	}
	list, err := o.Containers(ctx, name, true)
	if err != nil {
		return nil, err
	}
	return a.own(o, p, list), nil
}

// outlineOrContainers is the project with the services that are named or, where it is known by its name alone, what its
// containers tell of it.
func (a *app) outlineOrContainers(ctx context.Context, services []string) (*operate.Operator, *types.Project, error) {
	var name string
	var p *types.Project
	o, err := a.begin(ctx, func() (err error) {
		if a.byName() {
			name, p, err = a.known(ctx)
			return err
		}
		if p, err = a.outline(ctx, services...); err == nil {
			return nil
		}
		var whole *types.Project
		var unknown error
		if name, whole, unknown = a.known(ctx); whole != nil || unknown != nil {
			return err
		}
		return nil
	})
	if err != nil || p != nil && !a.byName() {
		return o, p, err
	}
	list, err := o.Created(ctx, name)
	if err != nil {
		return nil, nil, err
	}
	a.own(o, p, list)
	p, err = o.Remembered(name, list)
	return o, p, err
}
