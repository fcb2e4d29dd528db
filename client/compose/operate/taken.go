package operate

import (
	"context"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/client"

	"github.com/cleatlabs/cleat/client/compose/label"
	"github.com/cleatlabs/cleat/client/compose/spec"
)

// explainTaken adds to the error of a create whose container's name is another's whose that is: the engine tells its id.
func (o *Operator) explainTaken(ctx context.Context, r *spec.Replica, err error) error {
	if !errdefs.IsConflict(err) || !strings.Contains(err.Error(), "is already in use by container") {
		return err
	}
	other, ierr := o.API.ContainerInspect(ctx, r.Name, client.ContainerInspectOptions{})
	if ierr != nil || other.Container.Config == nil {
		return err // it has gone meanwhile
	}
	project, service := other.Container.Config.Labels[label.Project], other.Container.Config.Labels[label.Service]
	switch project {
	case "":
		return fmt.Errorf("%w It is of no project: remove it by `cleat rm -f %s`, or give the service another container_name", err, r.Name)
	case r.Project.Name:
		return fmt.Errorf("%w It is of the service %q of this project: `cleat compose up --remove-orphans` removes it, if that service is no more", err, service)
	}
	return fmt.Errorf("%w It is of the service %q of project %q: take that down by `cleat compose -p %s down`, or give one of them another container_name",
		err, service, project, project)
}
