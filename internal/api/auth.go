package api

import (
	"context"
	"net/http"

	"github.com/moby/moby/api/types/registry"
)

func (h *Handler) registryLogin(ctx context.Context, w http.ResponseWriter, q *request) error {
	var auth registry.AuthConfig
	if err := readJSON(q.Request, &auth); err != nil {
		return err
	}
	token, err := h.deps.Registries.Login(ctx, &auth)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, registry.AuthResponse{Status: "Login Succeeded", IdentityToken: token})
}
