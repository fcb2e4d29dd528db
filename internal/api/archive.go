package api

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"time"

	"github.com/moby/moby/api/types/container"

	"github.com/cleatlabs/cleat/internal/engine"
)

const (
	mediaTar       = "application/x-tar"
	pathStatHeader = "X-Docker-Container-Path-Stat"
)

func (h *Handler) archiveStat(ctx context.Context, w http.ResponseWriter, q *request) error {
	stat, err := h.deps.Files.StatPath(ctx, q.param("id"), q.query.Get("path"))
	if err != nil {
		return err
	}
	if err := setPathStat(w.Header(), stat); err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

func (h *Handler) archiveGet(ctx context.Context, w http.ResponseWriter, q *request) error {
	ctx, cancel := h.streamContext(ctx, w)
	defer cancel()
	found, err := h.deps.Files.ArchivePath(ctx, q.param("id"), q.query.Get("path"))
	if err != nil {
		return err
	}
	defer found.Close()
	if err := setPathStat(w.Header(), &found.Stat); err != nil {
		return err
	}
	return h.download(w, mediaTar, func(w io.Writer) error { return found.Pack(ctx, w) })
}

// setPathStat describes the path in a header, as standard base64 of JSON.
func setPathStat(header http.Header, stat *container.PathStat) error {
	text, err := json.Marshal(stat)
	if err != nil {
		return err
	}
	header.Set(pathStatHeader, base64.StdEncoding.EncodeToString(text))
	return nil
}

// download sends what write gives. An error before the first byte is the answer; after
// it, cutting the connection is what tells the client that his file is not whole.
func (h *Handler) download(w http.ResponseWriter, media string, write func(io.Writer) error) error {
	body := &lateBody{w: w, media: media}
	err := write(body)
	if err != nil && body.began {
		h.log.Debug("a download was cut short", "error", err)
		panic(http.ErrAbortHandler)
	}
	if err == nil {
		body.begin()
	}
	return err
}

// lateBody sends the status with the first byte.
type lateBody struct {
	w     http.ResponseWriter
	media string
	began bool
}

func (b *lateBody) begin() {
	if !b.began {
		b.began = true
		b.w.Header().Set("Content-Type", b.media)
		b.w.WriteHeader(http.StatusOK)
	}
}

func (b *lateBody) Write(p []byte) (int, error) {
	b.begin()
	return b.w.Write(p)
}

func (h *Handler) archivePut(ctx context.Context, w http.ResponseWriter, q *request) error {
	ctx, cancel := h.streamContext(ctx, w)
	defer cancel()
	// Else a client that sends nothing keeps the container, and the engine from ending.
	interrupt := func() { _ = http.NewResponseController(w).SetReadDeadline(time.Unix(1, 0)) }
	defer context.AfterFunc(ctx, interrupt)()
	opts := engine.CopyOptions{KeepKind: q.boolean("noOverwriteDirNonDir"), ToUser: q.boolean("copyUIDGID"), Interrupt: interrupt}
	if err := h.deps.Files.ExtractTo(ctx, q.param("id"), q.query.Get("path"), q.Body, opts); err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}
