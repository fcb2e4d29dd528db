package api

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"time"

	volumetypes "github.com/moby/moby/api/types/volume"

	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/volume"
)

// What Docker's API has no operations for lies under /cleat, so that it meets none
// of the future.
func (h *Handler) volumeCopyRoutes() []route {
	return []route{
		{"POST", "/cleat/volumes/{name}/clone", h.volumeClone},
		{"POST", "/cleat/volumes/{name}/rename", h.volumeRename},
		{"GET", "/cleat/volumes/{name}/snapshots", h.snapshotList},
		{"POST", "/cleat/volumes/{name}/snapshots", h.snapshotCreate},
		{"DELETE", "/cleat/volumes/{name}/snapshots", h.snapshotRemove},
		{"POST", "/cleat/volumes/{name}/restore", h.volumeRestore},
		{"GET", "/cleat/volumes/{name}/export", h.volumeExport},
		{"POST", "/cleat/volumes/{name}/import", h.volumeImport},
	}
}

// copying says how a copy was made.
type copying struct {
	Method   string // reflink or copy
	Bytes    int64
	PausedMs float64 // how long containers stood still
}

func copyingFor(c volume.Copying) copying {
	return copying{Method: c.Method, Bytes: c.Bytes, PausedMs: float64(c.Paused.Microseconds()) / 1000}
}

func (h *Handler) volumeClone(ctx context.Context, w http.ResponseWriter, q *request) error {
	var body struct {
		Name, Snapshot string
		Labels         map[string]string
	}
	if err := readJSON(q.Request, &body); err != nil {
		return err
	}
	if body.Name == "" {
		return failure.Invalid("clone %s: Name must say what the new volume is called", q.param("name"))
	}
	ctx, cancel := h.streamContext(ctx, w) // containers may stand still until it has ended
	defer cancel()
	created, how, err := h.deps.VolumeCopies.Clone(ctx, volume.CloneRequest{
		From: q.param("name"), To: body.Name, Snapshot: body.Snapshot, Labels: body.Labels,
	})
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusCreated, struct {
		Volume volumetypes.Volume
		copying
	}{volumeFor(created), copyingFor(how)})
}

func (h *Handler) volumeRename(ctx context.Context, w http.ResponseWriter, q *request) error {
	name := strings.TrimSpace(q.query.Get("name"))
	if name == "" {
		return failure.Invalid("rename %s: the parameter name must say how", q.param("name"))
	}
	renamed, err := h.deps.VolumeCopies.Rename(context.WithoutCancel(ctx), q.param("name"), name)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, volumeFor(renamed))
}

func (h *Handler) snapshotList(ctx context.Context, w http.ResponseWriter, q *request) error {
	snapshots, err := h.deps.VolumeCopies.Snapshots(ctx, q.param("name"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, list(snapshots))
}

func (h *Handler) snapshotCreate(ctx context.Context, w http.ResponseWriter, q *request) error {
	var body struct{ Name string }
	if err := readJSON(q.Request, &body); err != nil {
		return err
	}
	ctx, cancel := h.streamContext(ctx, w) // containers may stand still until it has ended
	defer cancel()
	made, how, err := h.deps.VolumeCopies.Snapshot(ctx, q.param("name"), body.Name)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusCreated, struct {
		volume.Snapshot
		copying
	}{made, copyingFor(how)})
}

func (h *Handler) snapshotRemove(ctx context.Context, w http.ResponseWriter, q *request) error {
	return h.verb(ctx, w, func(ctx context.Context) error {
		return h.deps.VolumeCopies.RemoveSnapshot(ctx, q.param("name"), q.query.Get("snapshot"))
	})
}

func (h *Handler) volumeRestore(ctx context.Context, w http.ResponseWriter, q *request) error {
	var body struct{ Snapshot string }
	if err := readJSON(q.Request, &body); err != nil {
		return err
	}
	ctx, cancel := h.streamContext(ctx, w)
	defer cancel()
	how, err := h.deps.VolumeCopies.Restore(ctx, q.param("name"), body.Snapshot)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, copyingFor(how))
}

func (h *Handler) volumeExport(ctx context.Context, w http.ResponseWriter, q *request) error {
	ctx, cancel := h.streamContext(ctx, w)
	defer cancel()
	x, err := h.deps.VolumeCopies.Export(ctx, q.param("name"), q.query.Get("snapshot"))
	if err != nil {
		return err
	}
	defer func() {
		if err := x.Close(); err != nil {
			h.log.Warn("the copy of a volume that was exported", "error", err)
		}
	}()
	if x.How.Paused > 0 {
		how, err := json.Marshal(copyingFor(x.How))
		if err != nil {
			return err
		}
		w.Header().Set("Cleat-Copying", string(how))
	}
	return h.download(w, mediaTar, func(w io.Writer) error { return x.Pack(ctx, w) })
}

func (h *Handler) volumeImport(ctx context.Context, w http.ResponseWriter, q *request) error {
	labels := map[string]string{}
	for _, l := range q.query["label"] {
		key, value, _ := strings.Cut(l, "=")
		labels[key] = value
	}
	ctx, cancel := h.streamContext(ctx, w)
	defer cancel()
	// Else a client that sends nothing keeps the engine from ending.
	defer context.AfterFunc(ctx, func() { _ = http.NewResponseController(w).SetReadDeadline(time.Unix(1, 0)) })()
	made, err := h.deps.VolumeCopies.Import(ctx, q.param("name"), labels, q.Body)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusCreated, volumeFor(made))
}
