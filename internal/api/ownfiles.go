package api

import (
	"context"
	"net/http"
	"time"
)

// ownFileRoutes serve mounts of type file: files that the engine keeps for a container.
func (h *Handler) ownFileRoutes() []route {
	return []route{{"PUT", "/cleat/containers/{id}/files", h.ownFilesPut}}
}

func (h *Handler) ownFilesPut(ctx context.Context, w http.ResponseWriter, q *request) error {
	ctx, cancel := h.streamContext(ctx, w)
	defer cancel()
	// Else a client that sends nothing keeps the engine from ending.
	defer context.AfterFunc(ctx, func() { _ = http.NewResponseController(w).SetReadDeadline(time.Unix(1, 0)) })()
	if err := h.deps.OwnFiles.FillFiles(ctx, q.param("id"), q.Body); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
