package operate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/client"
	"golang.org/x/sync/errgroup"

	"github.com/cleatlabs/cleat/client/compose/label"
	"github.com/cleatlabs/cleat/client/compose/spec"
)

// Recreate says when containers are made anew.
type Recreate int

// The policies of Recreate.
const (
	WhenChanged Recreate = iota
	Always
	Never
)

// CreateOptions are those of `create` and `up`.
type CreateOptions struct {
	Services      []string // those asked for; others are their dependencies
	Only          []string // services that are made at all; none: all
	Recreate      Recreate
	Dependencies  Recreate // of the services that were not asked for
	RenewVolumes  bool     // anonymous volumes are made anew, too
	RemoveOrphans bool
	IgnoreOrphans bool
	Timeout       *int // for stopping what is replaced, seconds
}

// plan is what is to be done with a service's containers.
type plan struct {
	keep   []Container
	create []int       // numbers
	renew  []Container // to be replaced
	remove []Container
}

// Create makes the project's containers, and replaces and removes those that are not as
// the files say, without starting any that does not run.
func (o *Operator) Create(ctx context.Context, p *types.Project, opts CreateOptions) error {
	c := &converging{Operator: o, project: p, opts: opts, made: map[string][]Container{}, stopped: map[string]bool{}}
	if err := c.look(ctx); err != nil {
		return err
	}
	if err := c.orphans(ctx); err != nil {
		return err
	}
	if err := c.order().walk(ctx, c.service); err != nil {
		return err
	}
	o.listed = c.list()
	return nil
}

// look finds out what there is, and makes the networks and volumes meanwhile.
func (c *converging) look(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return c.EnsureObjects(ctx, c.project) })
	group.Go(func() (err error) {
		if c.existing, c.seen = c.seen, nil; c.existing == nil {
			c.existing, err = c.Containers(ctx, c.project.Name, false)
		}
		return err
	})
	group.Go(func() (err error) {
		c.images, err = c.imageIDs(ctx, c.project)
		return err
	})
	err := group.Wait()
	c.existing = slices.DeleteFunc(c.existing, func(m Container) bool { return c.removed[m.ID] })
	return err
}

// list is what the engine would list now: what this Create has made is known.
func (c *converging) list() []Container {
	list := slices.DeleteFunc(slices.Clone(c.existing), func(m Container) bool { _, ok := c.made[m.Service]; return ok })
	for _, made := range c.made {
		list = append(list, made...)
	}
	sortContainers(list)
	return list
}

func (c *converging) orphans(ctx context.Context) error {
	orphans := Orphans(c.project, c.existing)
	if c.opts.RemoveOrphans {
		all, err := c.Containers(ctx, c.project.Name, true)
		if err != nil {
			return err
		}
		orphans = append(orphans, slices.DeleteFunc(all, func(m Container) bool { return !m.OneOff || m.Running() || m.State == container.StateCreated })...)
	}
	if len(orphans) == 0 || c.opts.IgnoreOrphans {
		return nil
	}
	if c.opts.RemoveOrphans {
		c.existing = slices.DeleteFunc(c.existing, func(m Container) bool {
			return slices.ContainsFunc(orphans, func(o Container) bool { return o.ID == m.ID })
		})
		return c.Remove(ctx, orphans, RemoveOptions{Stop: true, Timeout: c.opts.Timeout})
	}
	c.Report.Warn(fmt.Sprintf("Found orphan containers (%s) for this project. If you removed or renamed this service in your compose file, you can run this command with the --remove-orphans flag to clean it up.", names(orphans)))
	return nil
}

// imageIDs are the ids of what the services run, by the image's name.
func (o *Operator) imageIDs(ctx context.Context, p *types.Project) (map[string]string, error) {
	if o.images != nil {
		return o.images, nil
	}
	names := map[string]string{} // until they are known, a service that has it
	for _, s := range p.Services {
		names[spec.ImageName(p, s, o.Separator)] = s.Name
		for _, v := range s.Volumes {
			if v.Type == types.VolumeTypeImage {
				names[v.Source] = s.Name
			}
		}
	}
	list := slices.Collect(maps.Keys(names))
	ids := make([]string, len(list))
	group, ctx := errgroup.WithContext(ctx)
	for i, name := range list {
		group.Go(func() error {
			inspected, err := o.API.ImageInspect(ctx, name)
			if gone(err) {
				return nil // the create will say so
			}
			if err != nil {
				return &AboutError{"services", names[name], "image", fmt.Errorf("unable to get image '%s': %w", name, err)}
			}
			ids[i] = inspected.ID
			return nil
		})
	}
	err := group.Wait()
	for i, name := range list {
		names[name] = ids[i]
	}
	return names, err
}

// converging is one Create.
type converging struct {
	*Operator
	project  *types.Project
	opts     CreateOptions
	existing []Container
	images   map[string]string

	lock sync.Mutex
	made map[string][]Container // made or kept, by service
	// stopped are the ids of containers that were stopped because they asked to be
	// restarted with others.
	stopped map[string]bool
}

// order is that in which containers can be made: those whose namespaces, volumes or
// addresses others refer to come first. What merely has to run first does not count.
func (c *converging) order() graph {
	g := graph{}
	for name, s := range c.project.Services {
		g[name] = references(s)
	}
	return g
}

// references are the services that a service's containers name by their ids.
func references(s types.ServiceConfig) []string {
	needs := map[string]bool{}
	for _, name := range s.GetDependencies() {
		if _, ordered := s.DependsOn[name]; !ordered || refers(s, name) {
			needs[name] = true
		}
	}
	for name, d := range s.DependsOn {
		if refers(s, name) || d.Restart {
			needs[name] = true
		}
	}
	list := make([]string, 0, len(needs))
	for name := range needs {
		list = append(list, name)
	}
	slices.Sort(list)
	return list
}

func refers(s types.ServiceConfig, name string) bool {
	for _, mode := range []string{s.NetworkMode, s.Ipc, s.Pid} {
		if mode == types.ServicePrefix+name {
			return true
		}
	}
	for _, from := range s.VolumesFrom {
		if spec.ServiceOf(from) == name {
			return true
		}
	}
	for _, l := range s.Links {
		if spec.ServiceOf(l) == name {
			return true
		}
	}
	return false
}

// service brings one service's containers in line.
func (c *converging) service(ctx context.Context, name string) error {
	if len(c.opts.Only) > 0 && !slices.Contains(c.opts.Only, name) {
		return nil
	}
	s := c.project.Services[name]
	todo, err := c.plan(s)
	if err != nil {
		return err
	}
	if err := c.Remove(ctx, todo.remove, RemoveOptions{Stop: true, Timeout: c.opts.Timeout}); err != nil {
		return err
	}
	if len(todo.renew) > 0 {
		if err := c.stopDependents(ctx, name); err != nil {
			return err
		}
	}
	created := make([]Container, len(todo.create)+len(todo.renew))
	group, ctx := errgroup.WithContext(ctx)
	for i, number := range todo.create {
		group.Go(func() (err error) {
			created[i], err = c.create(ctx, s, number)
			return err
		})
	}
	for i, old := range todo.renew {
		group.Go(func() (err error) {
			created[len(todo.create)+i], err = c.replace(ctx, s, old)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	c.lock.Lock()
	defer c.lock.Unlock()
	c.made[name] = append(todo.keep, created...)
	return nil
}

// stopDependents stops the containers of services that asked to be restarted with another
// one, before that one is made anew; they come after it, and are started with the others.
func (c *converging) stopDependents(ctx context.Context, name string) error {
	var stopped []Container
	for other, s := range c.project.Services {
		if s.DependsOn[name].Restart {
			stopped = append(stopped, OfServices(c.existing, []string{other})...)
		}
	}
	if err := c.Stop(ctx, stopped, c.opts.Timeout); err != nil {
		return err
	}
	c.lock.Lock()
	defer c.lock.Unlock()
	for _, s := range stopped {
		if s.Running() {
			c.stopped[s.ID] = true
		}
	}
	return nil
}

// Affected are services and those that have to be made or started anew with one of them: they use its namespaces or
// volumes, or asked to be restarted with it.
func Affected(p *types.Project, services []string) []string {
	all := slices.Clone(services)
	for i := 0; i < len(all); i++ {
		for _, name := range p.ServiceNames() {
			s := p.Services[name]
			if (refers(s, all[i]) || s.DependsOn[all[i]].Restart) && !slices.Contains(all, name) {
				all = append(all, name)
			}
		}
	}
	return all
}

// plan compares what is there with what should be.
func (c *converging) plan(s types.ServiceConfig) (plan, error) {
	var todo plan
	scale := s.GetScale()
	if scale > 1 && s.ContainerName != "" {
		return todo, fmt.Errorf("service %q: the container name %q can be only one container's, but %d are wanted: remove container_name, or scale to 1", s.Name, s.ContainerName, scale)
	}
	resolved, err := spec.Resolve(s, c.other)
	if err != nil {
		return todo, err
	}
	hash, err := spec.Hash(resolved)
	if err != nil {
		return todo, err
	}
	mine := OfServices(c.existing, []string{s.Name})
	policy := c.opts.Recreate
	if len(c.opts.Services) > 0 && !slices.Contains(c.opts.Services, s.Name) {
		policy = c.opts.Dependencies
	}
	// What is up to date stays longest; of equals the lower number does.
	slices.SortStableFunc(mine, func(a, b Container) int {
		return order(c.obsolete(a, s, hash, policy)) - order(c.obsolete(b, s, hash, policy))
	})
	next := 1
	for i, m := range mine {
		next = max(next, m.Number+1)
		switch {
		case i >= scale:
			todo.remove = append(todo.remove, m)
			continue
		case c.obsolete(m, s, hash, policy):
			todo.renew = append(todo.renew, m)
		default:
			c.lock.Lock()
			if c.stopped[m.ID] {
				m.State = container.StateExited
			}
			c.lock.Unlock()
			todo.keep = append(todo.keep, m)
			c.Report.Report("Container", m.Name, stateOf(m))
		}
	}
	for ; len(todo.keep)+len(todo.renew)+len(todo.create) < scale; next++ {
		todo.create = append(todo.create, next)
	}
	return todo, nil
}

func order(last bool) int {
	if last {
		return 1
	}
	return 0
}

func stateOf(c Container) string {
	if c.State == container.StateRunning {
		return "Running"
	}
	return "Created"
}

// obsolete says whether a container has to be made anew.
func (c *converging) obsolete(m Container, s types.ServiceConfig, hash string, policy Recreate) bool {
	switch policy {
	case Never:
		return false
	case Always:
		return true
	}
	image := c.images[spec.ImageName(c.project, s, c.Separator)]
	// A container of docker compose's has its image's id in a label; else the engine's counts.
	had := m.Labels[label.Image]
	if had == "" {
		had = m.ImageID
	}
	return m.Labels[label.ConfigHash] != hash || image != "" && had != image || m.State == container.StateDead || m.State == container.StateRemoving ||
		c.detached(m, s) || c.usesRenewed(c.project, s)
}

// detached says whether a container is not on a network, or has not a volume, that its
// service has: somebody has taken them away, or has not come to give them back.
func (c *converging) detached(m Container, s types.ServiceConfig) bool {
	if m.NetworkSettings != nil {
		for key := range s.Networks {
			if _, ok := m.NetworkSettings.Networks[c.project.Networks[key].Name]; !ok && !byID(m, c.project.Networks[key].Name) {
				return true
			}
		}
	}
	for _, v := range s.Volumes {
		declared, ok := c.project.Volumes[v.Source]
		if v.Type != types.VolumeTypeVolume || !ok {
			continue
		}
		if !slices.ContainsFunc(m.Mounts, func(p container.MountPoint) bool { return p.Name == declared.Name }) {
			return true
		}
	}
	return false
}

// byID says whether a container is on a network whose name in the file is its id.
func byID(m Container, id string) bool {
	for _, n := range m.NetworkSettings.Networks {
		if n != nil && n.NetworkID == id {
			return true
		}
	}
	return false
}

func (c *converging) replica(s types.ServiceConfig, number int) *spec.Replica {
	image := spec.ImageName(c.project, s, c.Separator)
	return &spec.Replica{
		Project: c.project, Service: s, Number: number, Name: spec.ContainerName(c.project, s, number, c.Separator),
		Image: image, ImageID: c.images[image], Others: c.other, Linked: c.linked, Separator: c.Separator, Proxies: c.Proxies, API: c.API.ClientVersion(),
	}
}

// linked are the names of a service's containers.
func (c *converging) linked(service string) []string {
	c.lock.Lock()
	list, ok := c.made[service]
	c.lock.Unlock()
	if !ok {
		list = OfServices(c.existing, []string{service})
	}
	return names(list)
}

func names(list []Container) []string {
	found := make([]string, len(list))
	for i, c := range list {
		found[i] = c.Name
	}
	return found
}

// other is the first container of another service.
func (c *converging) other(service string) (string, error) {
	c.lock.Lock()
	made := c.made[service]
	c.lock.Unlock()
	if len(made) > 0 {
		return made[0].ID, nil
	}
	found, err := Single(c.existing, service, 0)
	if err != nil {
		return "", fmt.Errorf("the service %q has no container: start it first", service)
	}
	return found.ID, nil
}

func (c *converging) create(ctx context.Context, s types.ServiceConfig, number int) (Container, error) {
	r := c.replica(s, number)
	c.Report.Report("Container", r.Name, "Creating")
	made, err := c.make(ctx, r, r.Name)
	err = c.explainTaken(ctx, r, err)
	return made, about("services", s.Name, c.ended(ctx, "Container", r.Name, "Created", err))
}

// make is the create of a container under a name, with its networks and files. What it
// returns is as the engine would list it.
func (o *Operator) make(ctx context.Context, r *spec.Replica, name string) (Container, error) {
	free, err := o.slot(ctx)
	if err != nil {
		return Container{}, err
	}
	defer free()
	if _, r.OwnFiles, err = o.unbound(ctx, r.Project, r.Service); err != nil {
		return Container{}, err
	}
	request, err := r.Request()
	if err != nil {
		return Container{}, err
	}
	request.Create.Name = name
	if ctx.Err() != nil {
		return Container{}, context.Cause(ctx)
	}
	// What is asked for is waited for, also when the user interrupts: a `down` that follows at
	// once would not find what the engine is still making.
	made, err := o.API.ContainerCreate(context.WithoutCancel(ctx), request.Create)
	if err != nil {
		return Container{}, err
	}
	for _, w := range made.Warnings {
		o.Report.Warn(r.Name + ": " + w)
	}
	for i, connect := range request.Connect {
		connect.Container = made.ID
		if _, err := o.API.NetworkConnect(ctx, request.Later[i], connect); err != nil {
			return Container{}, errors.Join(err, o.discard(ctx, made.ID, true))
		}
	}
	return Container{
		Summary: container.Summary{ID: made.ID, Names: []string{"/" + name}, Labels: request.Create.Config.Labels, State: container.StateCreated},
		Name:    name, Service: r.Service.Name, Number: r.Number, OneOff: r.OneOff,
	}, nil
}

// discard removes a container that could not be finished, with its anonymous volumes if they are nobody else's.
func (o *Operator) discard(ctx context.Context, id string, volumes bool) error {
	_, err := o.API.ContainerRemove(context.WithoutCancel(ctx), id, client.ContainerRemoveOptions{Force: true, RemoveVolumes: volumes})
	if gone(err) {
		return nil
	}
	return err
}

// replace makes a container anew. The old one is removed only when the new one is there,
// which gets the name last: a failure in between leaves the old one as it was.
func (c *converging) replace(ctx context.Context, s types.ServiceConfig, old Container) (Container, error) {
	c.Report.Report("Container", old.Name, "Recreate")
	made, err := c.exchange(ctx, s, old)
	return made, about("services", s.Name, c.ended(ctx, "Container", old.Name, "Recreated", err))
}

// imageVolumes are those that the image of a container asks for, if the one that it replaces has any.
func (c *converging) imageVolumes(ctx context.Context, r *spec.Replica) (map[string]struct{}, error) {
	if !slices.ContainsFunc(r.Replaces.Mounts, func(m container.MountPoint) bool { return m.Type == mount.TypeVolume }) {
		return nil, nil
	}
	found, err := c.API.ImageInspect(ctx, cmp.Or(r.ImageID, r.Image))
	if gone(err) { // the create will say so
		return nil, nil
	}
	if err != nil || found.Config == nil {
		return nil, err
	}
	return found.Config.Volumes, nil
}

func (c *converging) exchange(ctx context.Context, s types.ServiceConfig, old Container) (Container, error) {
	inspected, err := c.API.ContainerInspect(ctx, old.ID, client.ContainerInspectOptions{})
	if err != nil {
		return Container{}, err
	}
	r := c.replica(s, old.Number)
	r.Replaces = &inspected.Container
	if c.opts.RenewVolumes {
		r.Replaces.Mounts = nil
	}
	if r.ImageVolumes, err = c.imageVolumes(ctx, r); err != nil {
		return Container{}, err
	}
	aside := old.ID[:min(12, len(old.ID))] + "_" + r.Name
	made, err := c.make(ctx, r, aside)
	if err != nil {
		return Container{}, err
	}
	err = c.stop(ctx, old, c.opts.Timeout)
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return made, errors.Join(err, c.discard(ctx, made.ID, true))
	}
	// Waited for to the end: nobody would know whether the old one is gone, whose anonymous volumes the new one has.
	_, err = c.API.ContainerRemove(context.WithoutCancel(ctx), old.ID, client.ContainerRemoveOptions{RemoveVolumes: c.opts.RenewVolumes})
	if err != nil && !gone(err) {
		return made, errors.Join(err, c.discard(ctx, made.ID, false))
	}
	// From here on the new one is the service's container, whoever goes away.
	_, err = c.API.ContainerRename(context.WithoutCancel(ctx), made.ID, client.ContainerRenameOptions{NewName: r.Name})
	made.Name, made.Names = r.Name, []string{"/" + r.Name}
	return made, err
}
