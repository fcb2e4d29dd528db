package api

import (
	"context"
	"net/http"

	"github.com/moby/moby/api/types/registry"

	"github.com/cleatlabs/cleat/internal/image"
)

// imagePush answers at once, so that faults of the image and of the registry are the
// last record, as with Docker.
func (h *Handler) imagePush(ctx context.Context, w http.ResponseWriter, q *request) error {
	req := image.PushRequest{
		Ref:        q.param("name"),
		Tag:        q.query.Get("tag"),
		AuthConfig: decodeAuth(q.Header.Get(registry.AuthHeader)),
	}
	if q.version.from(46) {
		var err error
		if req.Platform, err = jsonPlatform(q.query.Get("platform")); err != nil {
			return err
		}
	}
	ctx, cancel := h.streamContext(ctx, w)
	defer cancel()
	out := newProgress(w, q.version)
	return out.finish(h.deps.Transfer.Push(ctx, req, out.write))
}
