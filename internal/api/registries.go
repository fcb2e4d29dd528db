package api

import (
	"context"
	"net/http"
	"strconv"

	"github.com/moby/moby/api/types/registry"

	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/registryclient"
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

func (h *Handler) imageSearch(ctx context.Context, w http.ResponseWriter, q *request) error {
	req := registryclient.SearchRequest{Term: q.query.Get("term"), Auth: decodeAuth(q.Header.Get(registry.AuthHeader))}
	limit, err := q.integer("limit")
	if err != nil {
		return err
	}
	if limit != nil {
		req.Limit = *limit
	}
	filters, err := q.filters("is-official", "is-automated", "stars")
	if err != nil {
		return err
	}
	if err := searchFilters(&req, filters); err != nil {
		return err
	}
	ctx, cancel := h.streamContext(ctx, w)
	defer cancel()
	results, err := h.deps.Registries.Search(ctx, req)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, list(results))
}

func searchFilters(req *registryclient.SearchRequest, filters map[string][]string) error {
	truth := func(name string) (*bool, error) {
		switch values := filters[name]; {
		case len(values) == 0:
			return nil, nil
		case len(values) > 1:
			return nil, failure.Invalid("invalid filter '%s=%v': give one value", name, values)
		default:
			b, err := strconv.ParseBool(values[0])
			if err != nil {
				return nil, failure.Invalid("invalid filter '%s=[%s]': want true or false", name, values[0])
			}
			return &b, nil
		}
	}
	automated, err := truth("is-automated")
	if err != nil {
		return err
	}
	req.Automated = automated != nil && *automated
	if req.Official, err = truth("is-official"); err != nil {
		return err
	}
	for _, text := range filters["stars"] {
		n, err := strconv.Atoi(text)
		if err != nil {
			return failure.Invalid("invalid filter 'stars=%s': want a number", text)
		}
		req.Stars = max(req.Stars, n)
	}
	return nil
}

func (h *Handler) distributionInspect(ctx context.Context, w http.ResponseWriter, q *request) error {
	ctx, cancel := h.streamContext(ctx, w)
	defer cancel()
	found, err := h.deps.Registries.Distribution(ctx, q.param("name"), decodeAuth(q.Header.Get(registry.AuthHeader)))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, found)
}
