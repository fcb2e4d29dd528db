package api

import (
	"context"
	"net/http"

	"github.com/cleatlabs/cleat/internal/network"
)

// NetworkChecks say what containers reach and what reaches them.
type NetworkChecks interface {
	CheckNetwork(ctx context.Context, name string) (*network.Diagnosis, error)
}

func (h *Handler) networkCheckRoutes() []route {
	return []route{{"GET", "/cleat/networks/check/{name}", h.networkCheck}}
}

func (h *Handler) networkCheck(ctx context.Context, w http.ResponseWriter, q *request) error {
	check, err := h.deps.NetworkChecks.CheckNetwork(ctx, q.param("name"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, check)
}
