package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/common"
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/failure"
)

const (
	mediaJSON        = "application/json"
	mediaJSONLines   = "application/jsonl"
	mediaNDJSON      = "application/x-ndjson"
	mediaJSONSeq     = "application/json-seq"
	mediaRaw         = "application/vnd.docker.raw-stream"
	mediaMultiplexed = "application/vnd.docker.multiplexed-stream"
	mediaPlain       = "text/plain; charset=utf-8"
)

// statusOf is the one place where an error's class becomes an HTTP status. A
// class that internal/failure gave on purpose wins over those that came along
// with a wrapped error.
func statusOf(err error) int {
	if class := failure.Class(err); class != nil {
		err = class
	}
	for _, m := range statuses {
		if errors.Is(err, m.class) {
			return m.status
		}
	}
	return http.StatusInternalServerError
}

var statuses = [...]struct {
	class  error
	status int
}{
	{failure.ErrNotModified, http.StatusNotModified},
	{errdefs.ErrNotFound, http.StatusNotFound},
	{errdefs.ErrInvalidArgument, http.StatusBadRequest},
	{errdefs.ErrOutOfRange, http.StatusBadRequest},
	{errdefs.ErrConflict, http.StatusConflict},
	{errdefs.ErrAlreadyExists, http.StatusConflict},
	{errdefs.ErrFailedPrecondition, http.StatusConflict},
	{errdefs.ErrPermissionDenied, http.StatusForbidden},
	{errdefs.ErrUnauthenticated, http.StatusUnauthorized},
	{errdefs.ErrNotImplemented, http.StatusNotImplemented},
	{errdefs.ErrUnavailable, http.StatusServiceUnavailable},
}

// writeError answers with the status of err's class and its text. Not-modified
// is an answer without a body. Clients before 1.24 read errors as plain
// text.
func writeError(w http.ResponseWriter, asked version, err error) {
	status := statusOf(err)
	if status == http.StatusNotModified {
		w.WriteHeader(status)
		return
	}
	if asked.below(24) {
		w.Header().Set("Content-Type", mediaPlain)
		w.WriteHeader(status)
		// The client is told or has gone: there is nobody else to tell.
		_, _ = w.Write([]byte(told(err) + "\n"))
		return
	}
	_ = writeJSON(w, status, common.ErrorResponse{Message: told(err)})
}

// told is what the user reads of an error. One of a full disk, which any write may meet, ends in the kernel's words:
// the way out is the same for all.
func told(err error) string {
	text := err.Error()
	if strings.HasSuffix(text, unix.ENOSPC.Error()) || strings.HasSuffix(text, unix.EDQUOT.Error()) {
		return text + "; \"cleat system df\" says what takes space, and \"cleat system prune\" removes what nothing uses"
	}
	return text
}

// writeJSON answers with status and value. Nothing is sent if value cannot be
// encoded, so the caller may still answer with the error.
func writeJSON(w http.ResponseWriter, status int, value any) error {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(value); err != nil {
		return err
	}
	header := w.Header()
	header.Set("Content-Type", mediaJSON)
	header.Set("Content-Length", strconv.Itoa(buf.Len()))
	w.WriteHeader(status)
	// A write that fails means that the client has gone; net/http notices.
	_, _ = w.Write(buf.Bytes())
	return nil
}

// list makes nil slices [] in JSON: null breaks typed clients.
func list[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}

// object makes nil maps {} in JSON.
func object[K comparable, V any](m map[K]V) map[K]V {
	if m == nil {
		return map[K]V{}
	}
	return m
}
