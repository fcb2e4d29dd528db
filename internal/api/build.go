package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/containerd/platforms"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/jsonstream"

	"github.com/cleatlabs/cleat/internal/build"
	"github.com/cleatlabs/cleat/internal/classic"
	"github.com/cleatlabs/cleat/internal/failure"
)

// The builders that a client may ask for.
const (
	builderClassic  = "1"
	builderBuildKit = "2"
)

// imageBuild builds an image in one call.
func (h *Handler) imageBuild(ctx context.Context, w http.ResponseWriter, q *request) error {
	builder := builderClassic
	if q.version.from(38) && q.query.Get("version") != "" {
		builder = q.query.Get("version")
	}
	switch builder {
	case builderBuildKit:
		return h.buildWithBuildKit(ctx, w, q)
	case builderClassic:
		return h.buildClassic(ctx, w, q)
	default:
		return failure.Invalid("invalid version %s", builder)
	}
}

// buildCancel ends a build that names itself with buildid.
func (h *Handler) buildCancel(_ context.Context, w http.ResponseWriter, q *request) error {
	id := q.query.Get("id")
	if id == "" {
		return failure.Invalid("build ID not provided")
	}
	h.deps.Builds.Cancel(id)
	w.Header().Set("Content-Type", mediaJSON)
	w.WriteHeader(http.StatusOK)
	return nil
}

// buildWithBuildKit answers with BuildKit's log in records of its own form.
func (h *Handler) buildWithBuildKit(ctx context.Context, w http.ResponseWriter, q *request) error {
	req, err := q.buildRequest()
	if err != nil {
		return err
	}
	// The log is written while the files are still being read.
	if err := http.NewResponseController(w).EnableFullDuplex(); err != nil {
		return fmt.Errorf("cannot read and write at once: %w", err)
	}
	if err := q.buildBody(&req); err != nil {
		return err
	}
	ctx, cancel := h.streamContext(ctx, w)
	defer cancel()
	out := &buildRecords{newProgress(w, q.version)}
	failed := out.finish(h.deps.Builds.Build(ctx, req, out))
	if failed == nil {
		// A client that is still sending would not see the answer if the connection were
		// closed under its hands.
		_, _ = io.Copy(io.Discard, q.Body)
	}
	return failed
}

// buildClassic answers as Docker's builder before BuildKit.
func (h *Handler) buildClassic(ctx context.Context, w http.ResponseWriter, q *request) error {
	asked, err := q.buildRequest()
	if err != nil {
		return err
	}
	req := classic.Request{Request: asked, Quiet: q.boolean("q")}
	if req.Credentials, err = classic.ParseCredentials(q.Header.Get("X-Registry-Config")); err != nil {
		return err
	}
	if err := http.NewResponseController(w).EnableFullDuplex(); err != nil {
		return fmt.Errorf("cannot read and write at once: %w", err)
	}
	if err := q.buildBody(&req.Request); err != nil {
		return err
	}
	ctx, cancel := h.streamContext(ctx, w)
	defer cancel()
	out := newProgress(w, q.version)
	err = h.deps.ClassicBuilds.Build(ctx, req, out.write)
	var failed *jsonstream.Error
	if errors.As(err, &failed) {
		out.begin() // the build's own failures are records, whether anything was printed or not
	}
	return out.finish(err)
}

// buildBody hands over the request's body, or passes over one that nobody will read: the
// server looks out for a client that goes away only when it has read all that it sends.
func (q *request) buildBody(req *build.Request) error {
	req.Context = q.Body
	if req.Remote == "" || strings.HasPrefix(req.ID, build.RemoteUpload+":") {
		return nil
	}
	if _, err := io.Copy(io.Discard, q.Body); err != nil {
		return fmt.Errorf("read the request: %w", err)
	}
	return nil
}

// buildRecords is how a build is reported to clients that speak BuildKit.
type buildRecords struct{ *progress }

// auxRecord is a record for programs.
type auxRecord struct {
	ID  string `json:"id"`
	Aux any    `json:"aux"`
}

// Trace writes a piece of the log, which JSON has in base64.
func (r *buildRecords) Trace(encoded []byte) error {
	return r.record(auxRecord{"moby.buildkit.trace", encoded})
}

// Image writes which image was made.
func (r *buildRecords) Image(id string) error {
	return r.record(auxRecord{"moby.image.id", map[string]string{"ID": id}})
}

var _ build.Progress = (*buildRecords)(nil)

// buildRequest reads what the query says of a build with BuildKit.
func (q *request) buildRequest() (build.Request, error) {
	req := build.Request{
		ID: q.query.Get("buildid"), Session: q.query.Get("session"), Remote: q.query.Get("remote"),
		Dockerfile: q.query.Get("dockerfile"), Target: q.query.Get("target"),
		NoCache: q.boolean("nocache"), Pull: q.boolean("pull"),
		NetworkMode: q.query.Get("networkmode"), ExtraHosts: q.query["extrahosts"], Tags: q.query["t"],
	}
	if q.boolean("squash") {
		return req, failure.Invalid("squash is only supported with experimental mode, which this engine has not: build in stages and COPY --from the last")
	}
	if isolation := q.query.Get("isolation"); isolation != "" && isolation != "default" {
		return req, failure.Invalid("unsupported isolation: %q", isolation)
	}
	if len(q.query["securityopt"]) > 0 {
		return req, failure.Invalid("The daemon on this platform does not support setting security options on build")
	}
	if text := q.query.Get("platform"); text != "" && q.version.from(32) {
		var list []string
		for one := range strings.SplitSeq(text, ",") {
			p, err := platforms.Parse(one)
			if err != nil {
				return req, failure.Invalid("invalid platform %q: %s", one, plainText(err))
			}
			list = append(list, platforms.Format(platforms.Normalize(p)))
		}
		req.Platform = strings.Join(list, ",")
	}
	for key, into := range map[string]any{
		"buildargs": &req.Args, "labels": &req.Labels, "cachefrom": &req.CacheFrom, "ulimits": &req.Limits.Ulimits, "outputs": &req.Outputs,
	} {
		text := q.query.Get(key)
		if text == "" || key == "outputs" && q.version.below(40) {
			continue
		}
		if err := decodeJSON([]byte(text), into); err != nil {
			return req, failure.Invalid("error reading %s: %w", key, err)
		}
	}
	var err error
	req.Limits, err = q.buildLimits(req.Limits.Ulimits)
	return req, err
}

// buildLimits reads what steps may use at most.
func (q *request) buildLimits(ulimits []*container.Ulimit) (build.Limits, error) {
	limits := build.Limits{
		Ulimits: ulimits, CpusetCpus: q.query.Get("cpusetcpus"), CpusetMems: q.query.Get("cpusetmems"), CgroupParent: q.query.Get("cgroupparent"),
	}
	for key, into := range map[string]*int64{
		"memory": &limits.Memory, "memswap": &limits.MemorySwap, "shmsize": &limits.ShmSize,
		"cpushares": &limits.CPUShares, "cpuperiod": &limits.CPUPeriod, "cpuquota": &limits.CPUQuota,
	} {
		n, err := q.integer(key)
		if err != nil {
			return limits, err
		}
		if n != nil {
			*into = int64(*n)
		}
	}
	if limits.ShmSize < 0 {
		return limits, failure.Invalid("SHM size can not be less than 0")
	}
	for _, u := range ulimits {
		if u == nil {
			return limits, failure.Invalid("error reading ulimits: an entry is null")
		}
	}
	return limits, nil
}
