package command

import (
	"context"
	"os"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"

	"github.com/cleatlabs/cleat/client/compose/label"
	"github.com/cleatlabs/cleat/client/compose/operate"
)

// named says whether the user's words name the project and no file of it: those of the directory, or that its .env names,
// may be another's.
func (a *app) named() bool { return a.options.Name != "" && len(a.options.Files) == 0 }

// byName says whether a project is what the engine has of it, as with docker compose: it is named, and no file of it.
func (a *app) byName() bool { return a.named() && os.Getenv("COMPOSE_FILE") == "" }

// own is the project that was loaded, p, unless the user has named one and it has containers, list, of which none was
// made by these files: they are another's, whose hooks, providers and images it has nothing to do with. Those that
// COMPOSE_FILE chooses in the project's own directory are its own.
func (a *app) own(o *operate.Operator, p *types.Project, list []operate.Container) *types.Project {
	if p == nil || !a.named() || len(list) == 0 {
		return p
	}
	files := strings.Join(p.ComposeFiles, ",")
	if slices.ContainsFunc(list, func(c operate.Container) bool {
		return c.Labels[label.ConfigFiles] == files || !a.byName() && c.Labels[label.WorkingDir] == p.WorkingDir
	}) {
		return p
	}
	a.project, o.Project = nil, nil
	return nil
}

// ownOf is own for who has not listed the containers.
func (a *app) ownOf(ctx context.Context, o *operate.Operator, name string, p *types.Project) (*types.Project, error) {
	if p == nil || !a.named() {
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
		if a.named() {
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
	if err != nil || p != nil && !a.named() {
		return o, p, err
	}
	list, err := o.Created(ctx, name)
	if err != nil {
		return nil, nil, err
	}
	a.own(o, p, list)
	p, err = o.Remembered(name, a.within(o, list))
	return o, p, err
}
