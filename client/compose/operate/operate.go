// Package operate brings what runs of a Compose project in line with its files, and takes
// it down again, by the Engine API alone: any Docker-compatible engine will do.
//
// It promises:
//   - Independent work is done at once; what depends on something waits for an event of
//     the engine, and never polls.
//   - Only what belongs to the project by its labels is touched.
//   - Whatever happens, and whenever the context ends, a `down` cleans up: nothing is made
//     before it carries the project's labels.
package operate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/cleatlabs/cleat/client/compose/label"
)

// Reporter is told what is done. It is called by many goroutines.
type Reporter interface {
	// Report says that an object ("Container", "web-1") is in a state ("Starting",
	// "Started"), or why it cannot be.
	Report(kind, name, state string)
	Warn(text string)
}

// Operator works on one project's objects.
type Operator struct {
	API    *client.Client
	Report Reporter
	// Separator stands between the parts of container and image names: "-", or "_" for
	// those of old.
	Separator string
	// Proxies are variables that every container has whose service does not say otherwise.
	Proxies types.MappingWithEquals
	// Parallel bounds how many calls of the engine are made at once; 0 is no bound.
	Parallel int
	// Pull fetches an image; Build makes that of services.
	Pull  func(ctx context.Context, image, platform string) error
	Build func(ctx context.Context, p *types.Project, services []string) error

	// images and seen are the ids and the containers that EnsureImages has found where it had nothing to fetch, the
	// latter for the next Create alone, and listed is what Create has left, as the engine would list it: what has just
	// been heard is not asked again.
	images       map[string]string
	seen, listed []Container

	// Project is the project as its files say, nil if they are not at hand: its hooks are run.
	Project *types.Project
	// DryRun says that the API only pretends: nothing is run in containers, and nothing is waited for.
	DryRun bool
	// Headers are sent with calls that Docker's API does not have, too.
	Headers map[string]string
	// HookOutput shows what hooks say; nil is nobody.
	HookOutput func(c Container) io.WriteCloser

	// Provider finds the program of a service's provider, and what of the environment it is run with.
	Provider func(name string) (program string, env []string, err error)

	// Yes makes volumes anew whose configuration has changed, and loses what is in them.
	Yes bool
	// Confirm asks the user whether that is to be done to a volume; nil is a client without a user, who is told.
	Confirm func(ctx context.Context, question string) (bool, error)

	asking  sync.Mutex // one question at a time
	lock    sync.Mutex
	renewed map[string]bool // networks that were made anew, by name
	removed map[string]bool // containers that went with a volume, by id

	product product
	slots   chan struct{}
	once    sync.Once
}

// product is whether the engine is Cleat, once that was asked.
type product struct {
	sync.Mutex
	known, cleat bool
}

// slot waits until another call may be made.
func (o *Operator) slot(ctx context.Context) (func(), error) {
	o.once.Do(func() {
		if o.Parallel > 0 {
			o.slots = make(chan struct{}, o.Parallel)
		}
	})
	if o.slots == nil {
		return func() {}, ctx.Err()
	}
	select {
	case o.slots <- struct{}{}:
		return func() { <-o.slots }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Container is one of the project's containers, as the engine listed it.
type Container struct {
	container.Summary
	Name    string
	Service string
	Number  int
	OneOff  bool
}

// Short is the name of a container in what several say at once: without the project's,
// unless the name was chosen.
func (c Container) Short() string {
	project := c.Labels[label.Project]
	for _, separator := range []string{"-", "_"} {
		short := c.Service + separator + strconv.Itoa(c.Number)
		if c.Name == project+separator+short {
			return short
		}
	}
	return c.Name
}

// Containers are the project's, sorted by service and number. Those of `run` are only
// among them if oneOffs is set.
func (o *Operator) Containers(ctx context.Context, project string, oneOffs bool) ([]Container, error) {
	filters := make(client.Filters).Add("label", label.Project+"="+project)
	if !oneOffs {
		filters.Add("label", label.OneOff+"=False")
	}
	list, err := o.API.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: filters})
	if err != nil {
		return nil, err
	}
	found := make([]Container, 0, len(list.Items))
	for _, s := range list.Items {
		if s.Labels[label.Service] == "" {
			continue
		}
		number, _ := strconv.Atoi(s.Labels[label.Number]) // 0 for what is not numbered
		found = append(found, Container{
			Summary: s, Name: name(s), Service: s.Labels[label.Service], Number: number, OneOff: s.Labels[label.OneOff] == "True",
		})
	}
	sortContainers(found)
	return found, nil
}

func sortContainers(list []Container) {
	slices.SortFunc(list, func(a, b Container) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.Number, b.Number), cmp.Compare(a.Name, b.Name))
	})
}

// Created are the project's containers; right after a Create they are known.
func (o *Operator) Created(ctx context.Context, project string) ([]Container, error) {
	if o.listed != nil {
		return slices.Clone(o.listed), nil
	}
	return o.Containers(ctx, project, false)
}

// name is the container's own, not one that a link gave it.
func name(s container.Summary) string {
	for _, n := range s.Names {
		if n = strings.TrimPrefix(n, "/"); !strings.Contains(n, "/") {
			return n
		}
	}
	return s.ID[:min(12, len(s.ID))]
}

// OfServices keeps the containers of services; naming none keeps all.
func OfServices(list []Container, services []string) []Container {
	if len(services) == 0 {
		return list
	}
	return slices.DeleteFunc(slices.Clone(list), func(c Container) bool { return !slices.Contains(services, c.Service) })
}

// Orphans are containers of services that the project no longer has.
func Orphans(p *types.Project, list []Container) []Container {
	return slices.DeleteFunc(slices.Clone(list), func(c Container) bool {
		_, ok := p.Services[c.Service]
		_, disabled := p.DisabledServices[c.Service]
		return ok || disabled || c.OneOff
	})
}

// Single is the container of a service with a number, or the first.
func Single(list []Container, service string, number int) (Container, error) {
	for _, c := range list {
		if c.Service == service && (number == 0 || c.Number == number) {
			return c, nil
		}
	}
	return Container{}, &NoContainerError{service, number}
}

// NoContainerError says that a service has no container, or none of that number.
type NoContainerError struct {
	Service string
	Number  int // 0 is any
}

func (e *NoContainerError) Error() string {
	if e.Number > 0 {
		return fmt.Sprintf("service %q is not running container #%d", e.Service, e.Number)
	}
	return fmt.Sprintf("service %q is not running", e.Service)
}

// AboutError is an error that is about one of a project's objects, by its key in the files: what the engine says names
// neither.
type AboutError struct {
	Kind, Key string // "services", "web"
	Attribute string // of it, "" if that is not known
	Err       error
}

func (e *AboutError) Error() string { return e.Err.Error() }

func (e *AboutError) Unwrap() error { return e.Err }

func about(kind, key string, err error) error {
	if err == nil {
		return nil
	}
	return &AboutError{kind, key, "", err}
}

// ended is done for a step that may have been cancelled because another failed, or by the user:
// what it says then is not its own error.
func (o *Operator) ended(ctx context.Context, kind, name, state string, err error) error {
	if cause := context.Cause(ctx); err != nil && cause != nil && (errors.Is(err, cause) || errors.Is(err, context.Canceled)) {
		o.Report.Report(kind, name, "Canceled")
		return cause
	}
	return o.done(kind, name, state, err)
}

// done reports the end of a step of an object's life, or its error.
func (o *Operator) done(kind, name, state string, err error) error {
	if err != nil {
		short := err
		if long := new(reasonError); errors.As(err, &long) {
			short = long.err // the rest is told at the end
		}
		said := short.Error()
		if !strings.HasPrefix(said, "Error") { // as the engine's do
			said = "Error " + said
		}
		o.Report.Report(kind, name, said)
		return err
	}
	o.Report.Report(kind, name, state)
	return nil
}

// gone says that an error means that the object is not there (any more).
func gone(err error) bool { return errdefs.IsNotFound(err) }
