package api

import (
	"context"
	"net/http"
	"strconv"

	"github.com/moby/moby/api/types/network"

	"github.com/cleatlabs/cleat/internal/failure"
)

func (h *Handler) networkList(ctx context.Context, w http.ResponseWriter, q *request) error {
	filters, err := q.filters("dangling", "driver", "id", "label", "name", "scope", "type")
	if err != nil {
		return err
	}
	networks, err := h.deps.Networks.List(ctx, filters)
	if err != nil {
		return err
	}
	if q.version.below(28) {
		return h.networkListBelow128(ctx, w, networks)
	}
	for i := range networks {
		networks[i].Network = networkFor(networks[i].Network)
	}
	return writeJSON(w, http.StatusOK, list(networks))
}

// networkListBelow128 lists networks with their containers, as they then were.
func (h *Handler) networkListBelow128(ctx context.Context, w http.ResponseWriter, networks []network.Summary) error {
	out := make([]network.Inspect, 0, len(networks))
	for _, n := range networks {
		inspected, err := h.deps.Networks.Inspect(ctx, n.ID)
		if statusOf(err) == http.StatusNotFound {
			continue // removed in between
		}
		if err != nil {
			return err
		}
		out = append(out, networkInspectFor(inspected, v(27)))
	}
	return writeJSON(w, http.StatusOK, out)
}

func (h *Handler) networkInspect(ctx context.Context, w http.ResponseWriter, q *request) error {
	// verbose asks for the services of swarm networks; others have none.
	if text := q.query.Get("verbose"); text != "" {
		if _, err := strconv.ParseBool(text); err != nil {
			return failure.Invalid("invalid value for verbose: %s", text)
		}
	}
	inspected, err := h.deps.Networks.Inspect(ctx, q.param("id"))
	if err != nil {
		return err
	}
	if scope := q.query.Get("scope"); scope != "" && scope != inspected.Scope {
		return failure.NotFound("network %s not found", q.param("id"))
	}
	return writeJSON(w, http.StatusOK, networkInspectFor(inspected, q.version))
}

func networkInspectFor(n network.Inspect, asked version) network.Inspect {
	n.Network = networkFor(n.Network)
	n.Containers = object(n.Containers)
	if asked.below(52) {
		n.Status = nil
	}
	return n
}

func networkFor(n network.Network) network.Network {
	n.Options = object(n.Options)
	n.Labels = object(n.Labels)
	n.IPAM.Config = list(n.IPAM.Config)
	return n
}
