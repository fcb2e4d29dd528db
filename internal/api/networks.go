package api

import (
	"context"
	"net/http"
	"strconv"
	"strings"

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
	if q.version.below(52) {
		return writeJSON(w, http.StatusOK, newSummariesBelow152(networks))
	}
	return writeJSON(w, http.StatusOK, list(networks))
}

// networkBelow152 is a network in a list, which had the place of the containers although
// they were not told: programs take its keys.
type networkBelow152 struct {
	*network.Summary
	Containers map[string]network.EndpointResource
}

func newSummariesBelow152(networks []network.Summary) []networkBelow152 {
	out := make([]networkBelow152, len(networks))
	for i := range networks {
		out[i] = networkBelow152{&networks[i], map[string]network.EndpointResource{}}
	}
	return out
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
			return failure.Invalid("invalid value for verbose: %s: want true or false", text)
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

func (h *Handler) networkCreate(ctx context.Context, w http.ResponseWriter, q *request) error {
	var req network.CreateRequest
	if err := readJSON(q.Request, &req); err != nil {
		return err
	}
	if q.version.below(48) {
		req.EnableIPv4 = nil
	}
	id, warnings, err := h.deps.Networks.Create(context.WithoutCancel(ctx), req)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusCreated, network.CreateResponse{ID: id, Warning: strings.Join(warnings, "\n")})
}

func (h *Handler) networkRemove(ctx context.Context, w http.ResponseWriter, q *request) error {
	return h.verb(ctx, w, func(ctx context.Context) error { return h.deps.Networks.Remove(ctx, q.param("id")) })
}

func (h *Handler) networkPrune(ctx context.Context, w http.ResponseWriter, q *request) error {
	filters, err := q.filters("label", "label!", "until")
	if err != nil {
		return err
	}
	removed, err := h.deps.Networks.Prune(ctx, filters)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, network.PruneReport{NetworksDeleted: list(removed)})
}

func (h *Handler) networkConnect(ctx context.Context, w http.ResponseWriter, q *request) error {
	var req network.ConnectRequest
	if err := readJSON(q.Request, &req); err != nil {
		return err
	}
	if req.Container == "" {
		return failure.Invalid("invalid request: Container must name the container to connect")
	}
	if e := req.EndpointConfig; e != nil {
		if q.version.below(44) {
			e.MacAddress = nil
		}
		if q.version.below(48) {
			e.GwPriority = 0
		}
	}
	if err := h.deps.Connections.Connect(ctx, q.param("id"), req.Container, req.EndpointConfig); err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

func (h *Handler) networkDisconnect(ctx context.Context, w http.ResponseWriter, q *request) error {
	var req network.DisconnectRequest
	if err := readJSON(q.Request, &req); err != nil {
		return err
	}
	if req.Container == "" {
		return failure.Invalid("invalid request: Container must name the container to disconnect")
	}
	if err := h.deps.Connections.Disconnect(ctx, q.param("id"), req.Container, req.Force); err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
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
