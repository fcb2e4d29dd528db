package api

import (
	"context"
	"io"
	"net/http"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/jsonstream"

	"github.com/cleatlabs/cleat/internal/engine"
	"github.com/cleatlabs/cleat/internal/failure"
)

func (h *Handler) containerChanges(ctx context.Context, w http.ResponseWriter, q *request) error {
	found, err := h.deps.Committer.Changes(ctx, q.param("id"))
	if err != nil {
		return err
	}
	list := make([]container.FilesystemChange, len(found))
	for i, c := range found {
		list[i] = container.FilesystemChange{Kind: container.ChangeType(c.Kind), Path: c.Path}
	}
	return writeJSON(w, http.StatusOK, list)
}

func (h *Handler) containerExport(ctx context.Context, w http.ResponseWriter, q *request) error {
	ctx, cancel := h.streamContext(ctx, w)
	defer cancel()
	found, err := h.deps.Committer.Export(ctx, q.param("id"))
	if err != nil {
		return err
	}
	defer found.Close()
	return h.download(w, "application/octet-stream", func(w io.Writer) error { return found.Write(ctx, w) })
}

func (h *Handler) containerCommit(ctx context.Context, w http.ResponseWriter, q *request) error {
	req := engine.CommitRequest{
		Container: q.query.Get("container"), Repo: q.query.Get("repo"), Tag: q.query.Get("tag"), Author: q.query.Get("author"),
		Comment: q.query.Get("comment"), Changes: q.query["changes"], Pause: q.booleanOr("pause", true),
	}
	if req.Container == "" {
		return failure.Invalid("the query names no container to commit: container is empty")
	}
	body, err := readBody(q.Request)
	if err != nil {
		return err
	}
	var sent *commitBody
	if len(body) > 0 { // else nothing, which may come in chunks, too
		err = decodeJSON(body, &sent)
	}
	if err != nil {
		return err
	}
	req.Config = sent.config()
	id, err := h.deps.Committer.Commit(ctx, req)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusCreated, container.CommitResponse{ID: id})
}

// imageSave answers both forms: one name in the path, or several in the query.
func (h *Handler) imageSave(ctx context.Context, w http.ResponseWriter, q *request) error {
	names := q.query["names"]
	if name := q.param("name"); name != "" {
		names = []string{name}
	}
	wishes, err := q.platforms()
	if err != nil {
		return err
	}
	ctx, cancel := h.streamContext(ctx, w)
	defer cancel()
	found, err := h.deps.Transfer.Save(ctx, names, wishes)
	if err != nil {
		return err
	}
	defer found.Close()
	return h.download(w, mediaTar, func(w io.Writer) error { return found.Write(ctx, w) })
}

// platforms reads the platforms that a save or load asks for.
func (q *request) platforms() (wishes []string, err error) {
	if q.version.below(48) {
		return nil, nil
	}
	asked := q.query["platform"]
	if len(asked) > 1 && q.version.below(52) {
		return nil, failure.Invalid("multiple platform parameters are not supported in this API version; use API version 1.52 or later")
	}
	for _, text := range asked {
		platform, err := jsonPlatform(text)
		if err != nil {
			return nil, err
		}
		if platform != "" {
			wishes = append(wishes, platform)
		}
	}
	return wishes, nil
}

func (h *Handler) imageImport(ctx context.Context, w http.ResponseWriter, q *request) error {
	req := engine.ImportRequest{
		Source: q.query.Get("fromSrc"), Body: q.Body, Repo: q.query.Get("repo"), Tag: q.query.Get("tag"),
		Message: q.query.Get("message"), Changes: q.query["changes"],
	}
	var err error
	if req.Platform, err = q.platform(32); err != nil {
		return err
	}
	ctx, cancel := h.streamContext(ctx, w)
	defer cancel()
	out := newProgress(w, q.version)
	id, err := h.deps.Transfer.Import(ctx, req, func(status string) { out.write(jsonstream.Message{Status: status}) })
	if err == nil {
		out.write(jsonstream.Message{Status: id})
	}
	return out.finish(err)
}
