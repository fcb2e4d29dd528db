package api

import (
	"context"
	"net/http"
	"slices"
	"strconv"

	"github.com/moby/moby/api/types/container"

	"github.com/cleatlabs/cleat/internal/engine"
	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/stats"
)

// containerFilters are the filters of GET /containers/json.
var containerFilters = []string{
	"ancestor", "before", "exited", "expose", "health", "id", "is-task", "label", "name",
	"network", "publish", "since", "status", "volume",
}

func (h *Handler) containerList(ctx context.Context, w http.ResponseWriter, q *request) error {
	allowed := containerFilters
	if q.version.from(56) {
		allowed = append(slices.Clone(allowed), "annotation")
	}
	filters, err := q.filters(allowed...)
	if err != nil {
		return err
	}
	limit, err := q.integer("limit")
	if err != nil {
		return err
	}
	opts := engine.ListOptions{All: q.boolean("all"), Size: q.boolean("size"), Filters: filters}
	if limit != nil && *limit > 0 {
		opts.Limit = *limit
	}
	// Clients from before there were filters.
	for _, key := range []string{"since", "before"} {
		if value := q.query.Get(key); value != "" {
			filters[key] = []string{value}
		}
	}
	if labels := filters["label"]; len(labels) > 0 {
		h.listings.note(peerOf(ctx), labels)
	}
	containers, err := h.deps.Queries.List(ctx, opts)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, summariesFor(containers, q.version))
}

func (h *Handler) containerInspect(ctx context.Context, w http.ResponseWriter, q *request) error {
	c, err := h.deps.Queries.Inspect(ctx, q.param("id"), q.boolean("size"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, inspectFor(c, q.version, q.unasked))
}

func (h *Handler) containerTop(ctx context.Context, w http.ResponseWriter, q *request) error {
	top, err := h.deps.Queries.Top(ctx, q.param("id"), q.query.Get("ps_args"))
	if err != nil {
		return err
	}
	top.Titles, top.Processes = list(top.Titles), list(top.Processes)
	return writeJSON(w, http.StatusOK, top)
}

func (h *Handler) containerStats(ctx context.Context, w http.ResponseWriter, q *request) error {
	opts := stats.Options{Stream: q.booleanOr("stream", true), OneShot: q.version.from(41) && q.boolean("one-shot")}
	ctx, cancel := h.streamContext(ctx, w)
	defer cancel()
	out := newRecordWriter(w, false)
	return h.deps.Stats.Stats(ctx, q.param("id"), opts, func(record *container.StatsResponse) error {
		w.Header().Set("Content-Type", mediaJSON) // of the first: later ones change nothing
		return out.write(record)
	})
}

// bodyLimitOfStart is the longest body of a start request that is no JSON
// object: Docker lets "null" and blanks pass.
const bodyLimitOfStart = 7

func (h *Handler) containerStart(ctx context.Context, w http.ResponseWriter, q *request) error {
	if q.ContentLength > bodyLimitOfStart || q.ContentLength < 0 {
		return failure.Invalid("starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24")
	}
	for _, key := range []string{"checkpoint", "checkpoint-dir"} {
		if q.query.Get(key) != "" {
			return unsupported("starting from a checkpoint (" + key + ")")
		}
	}
	return h.verb(ctx, w, func(ctx context.Context) error {
		return h.deps.Lifecycle.Start(ctx, q.param("id"))
	})
}

func (h *Handler) containerStop(ctx context.Context, w http.ResponseWriter, q *request) error {
	opts, err := stopOptions(q)
	if err != nil {
		return err
	}
	return h.verb(ctx, w, func(ctx context.Context) error {
		return h.deps.Lifecycle.Stop(ctx, q.param("id"), opts)
	})
}

func (h *Handler) containerRestart(ctx context.Context, w http.ResponseWriter, q *request) error {
	opts, err := stopOptions(q)
	if err != nil {
		return err
	}
	return h.verb(ctx, w, func(ctx context.Context) error {
		return h.deps.Lifecycle.Restart(ctx, q.param("id"), opts)
	})
}

func stopOptions(q *request) (engine.StopOptions, error) {
	timeout, err := q.integer("t")
	if err != nil {
		return engine.StopOptions{}, err
	}
	opts := engine.StopOptions{Timeout: timeout}
	if q.version.from(42) {
		opts.Signal = q.query.Get("signal")
	}
	return opts, nil
}

func (h *Handler) containerKill(ctx context.Context, w http.ResponseWriter, q *request) error {
	return h.verb(ctx, w, func(ctx context.Context) error {
		return h.deps.Lifecycle.Kill(ctx, q.param("id"), q.query.Get("signal"))
	})
}

func (h *Handler) containerPause(ctx context.Context, w http.ResponseWriter, q *request) error {
	return h.verb(ctx, w, func(ctx context.Context) error {
		return h.deps.Lifecycle.Pause(ctx, q.param("id"))
	})
}

func (h *Handler) containerUnpause(ctx context.Context, w http.ResponseWriter, q *request) error {
	return h.verb(ctx, w, func(ctx context.Context) error {
		return h.deps.Lifecycle.Unpause(ctx, q.param("id"))
	})
}

func (h *Handler) containerRename(ctx context.Context, w http.ResponseWriter, q *request) error {
	return h.verb(ctx, w, func(ctx context.Context) error {
		return h.deps.Upkeep.Rename(ctx, q.param("id"), q.query.Get("name"))
	})
}

func (h *Handler) containerUpdate(ctx context.Context, w http.ResponseWriter, q *request) error {
	var req container.UpdateConfig
	if err := readJSON(q.Request, &req); err != nil {
		return err
	}
	if q.version.below(40) {
		req.PidsLimit = nil
	}
	warnings, err := h.deps.Upkeep.Update(context.WithoutCancel(ctx), q.param("id"), req)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, container.UpdateResponse{Warnings: list(warnings)})
}

func (h *Handler) containerRemove(ctx context.Context, w http.ResponseWriter, q *request) error {
	opts := engine.RemoveOptions{Force: q.boolean("force"), Volumes: q.boolean("v"), Link: q.boolean("link")}
	return h.verb(ctx, w, func(ctx context.Context) error {
		return h.deps.Upkeep.Remove(ctx, q.param("id"), opts)
	})
}

// verb runs what changes a container and answers 204. It goes on to its end if
// the client leaves: half a stop or half a removal helps nobody.
func (h *Handler) verb(ctx context.Context, w http.ResponseWriter, do func(context.Context) error) error {
	if err := do(context.WithoutCancel(ctx)); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (h *Handler) containerWait(ctx context.Context, w http.ResponseWriter, q *request) error {
	cond := container.WaitConditionNotRunning
	if text := q.query.Get("condition"); text != "" && q.version.from(30) {
		cond = container.WaitCondition(text)
	}
	if err := skipOptions(q.Request); err != nil { // else it is not seen below 1.30 that the client goes
		return err
	}
	ctx, cancel := h.streamContext(ctx, w)
	defer cancel()
	results, err := h.deps.Upkeep.Wait(ctx, q.param("id"), cond)
	if err != nil {
		return err
	}
	delivered := h.deps.Upkeep.Delivery(q.param("id"))
	w.Header().Set("Content-Type", mediaJSON)
	out := newRecordWriter(w, false)
	if q.version.from(30) {
		// The client starts the container when it sees the status: the waiter is
		// registered, so no exit is missed.
		w.WriteHeader(http.StatusOK)
		out.flush()
	}
	select {
	case result, open := <-results:
		if !open {
			return nil
		}
		answer := container.WaitResponse{StatusCode: int64(result.Code)}
		if result.Err != "" {
			answer.Error = &container.WaitExitError{Message: result.Err}
		}
		delivered(ctx)
		// It is sent with the end of the answer. A write that fails means that the client has gone.
		_ = out.enc.Encode(answer)
	case <-ctx.Done():
	}
	return nil
}

func (h *Handler) containerResize(ctx context.Context, w http.ResponseWriter, q *request) error {
	rows, cols, err := terminalSize(q)
	if err != nil {
		return err
	}
	if err := h.deps.Upkeep.Resize(ctx, q.param("id"), rows, cols); err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

// terminalSize reads h (rows) and w (columns), which must both be given.
func terminalSize(q *request) (rows, cols uint16, err error) {
	if rows, err = terminalLength(q, "h", "height"); err != nil {
		return 0, 0, err
	}
	cols, err = terminalLength(q, "w", "width")
	return rows, cols, err
}

func terminalLength(q *request, key, what string) (uint16, error) {
	text := q.query.Get(key)
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return 0, failure.Invalid("invalid resize %s %q: it must be a number from 0 to 65535", what, text)
	}
	return uint16(n), nil
}
