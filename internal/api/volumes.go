package api

import (
	"context"
	"net/http"

	"github.com/moby/moby/api/types/volume"

	own "github.com/cleatlabs/cleat/internal/volume"
)

func (h *Handler) volumeList(ctx context.Context, w http.ResponseWriter, q *request) error {
	filters, err := q.filters("dangling", "driver", "label", "name")
	if err != nil {
		return err
	}
	volumes, warnings, err := h.deps.Volumes.List(ctx, filters)
	if err != nil {
		return err
	}
	response := volume.ListResponse{Volumes: make([]volume.Volume, 0, len(volumes)), Warnings: list(warnings)}
	for _, v := range volumes {
		response.Volumes = append(response.Volumes, volumeFor(v))
	}
	return writeJSON(w, http.StatusOK, response)
}

func (h *Handler) volumeCreate(ctx context.Context, w http.ResponseWriter, q *request) error {
	var req volume.CreateRequest
	if err := readJSON(q.Request, &req); err != nil {
		return err
	}
	if req.ClusterVolumeSpec != nil && q.version.from(42) {
		return errNoSwarm
	}
	created, err := h.deps.Volumes.Create(context.WithoutCancel(ctx), own.Request{
		Name: req.Name, Driver: req.Driver, Options: req.DriverOpts, Labels: req.Labels,
	})
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusCreated, volumeFor(created))
}

func (h *Handler) volumeInspect(ctx context.Context, w http.ResponseWriter, q *request) error {
	inspected, err := h.deps.Volumes.Inspect(ctx, q.param("name"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, volumeFor(inspected))
}

func (h *Handler) volumeRemove(ctx context.Context, w http.ResponseWriter, q *request) error {
	return h.verb(ctx, w, func(ctx context.Context) error {
		return h.deps.Volumes.Remove(ctx, q.param("name"), q.boolean("force"))
	})
}

// volumePrune removes volumes that nobody uses. Below 1.42 that was all of them,
// not the anonymous ones only.
func (h *Handler) volumePrune(ctx context.Context, w http.ResponseWriter, q *request) error {
	filters, err := q.filters("all", "label", "label!")
	if err != nil {
		return err
	}
	if q.version.below(42) {
		filters["all"] = []string{"true"}
	}
	report, err := h.deps.Volumes.Prune(ctx, filters)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, report)
}

func volumeFor(in *volume.Volume) volume.Volume {
	v := *in
	v.Labels = object(v.Labels)
	v.Options = object(v.Options)
	return v
}
