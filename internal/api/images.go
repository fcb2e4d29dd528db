package api

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/moby/moby/api/types/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/image"
)

func (h *Handler) imageList(ctx context.Context, w http.ResponseWriter, q *request) error {
	filters, err := q.filters("before", "dangling", "label", "label!", "reference", "since", "until")
	if err != nil {
		return err
	}
	// Clients from before there was the filter "reference", and docker-java still.
	if name := q.query.Get("filter"); name != "" && q.version.below(41) {
		filters["reference"] = append(filters["reference"], name)
	}
	req := image.ListRequest{
		SharedSize: q.version.from(42) && q.boolean("shared-size"),
		Manifests:  q.version.from(47) && q.boolean("manifests"),
		Filters:    filters,
	}
	if q.version.from(54) && q.boolean("identity") {
		return unsupported("the identity of images (identity=1)")
	}
	images, err := h.deps.Images.List(ctx, req)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, imagesFor(images, q.version))
}

func (h *Handler) imageInspect(ctx context.Context, w http.ResponseWriter, q *request) error {
	manifests := q.version.from(48) && q.boolean("manifests")
	var platform string
	if q.version.from(49) {
		var err error
		if platform, err = jsonPlatform(q.query.Get("platform")); err != nil {
			return err
		}
	}
	if manifests && platform != "" {
		return failure.Invalid("conflicting options: manifests and platform options cannot both be set")
	}
	inspected, err := h.deps.Images.Inspect(ctx, q.param("name"), platform)
	if err != nil {
		return err
	}
	if !manifests {
		// The store describes them anyway; the client did not ask.
		copied := *inspected
		copied.Manifests = nil
		inspected = &copied
	}
	return writeJSON(w, http.StatusOK, imageInspectFor(inspected, q.version))
}

func (h *Handler) imageHistory(ctx context.Context, w http.ResponseWriter, q *request) error {
	var platform string
	if q.version.from(48) {
		var err error
		if platform, err = jsonPlatform(q.query.Get("platform")); err != nil {
			return err
		}
	}
	history, err := h.deps.Images.History(ctx, q.param("name"), platform)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, list(history))
}

func (h *Handler) imageAttestations(ctx context.Context, w http.ResponseWriter, q *request) error {
	if !q.version.from(55) {
		return failure.NotFound("page not found")
	}
	wish := q.query["platform"]
	if len(wish) > 1 {
		return failure.Invalid("multiple platform parameters are not supported")
	}
	req := image.AttestationsRequest{Types: q.query["type"], Statements: q.boolean("statement")}
	if len(wish) == 1 {
		var err error
		if req.Platform, err = jsonPlatform(wish[0]); err != nil {
			return err
		}
	}
	found, err := h.deps.Attested.Attestations(ctx, q.param("name"), req)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, list(found))
}

func (h *Handler) imageTag(ctx context.Context, w http.ResponseWriter, q *request) error {
	if err := h.deps.Images.Tag(ctx, q.param("name"), q.query.Get("repo"), q.query.Get("tag")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusCreated)
	return nil
}

func (h *Handler) imageRemove(ctx context.Context, w http.ResponseWriter, q *request) error {
	if len(q.query["platforms"]) > 0 && q.version.from(50) {
		return unsupported("removing single platforms of an image (platforms)")
	}
	opts := image.RemoveOptions{Force: q.boolean("force")}
	removed, err := h.deps.Images.Remove(context.WithoutCancel(ctx), q.param("name"), opts)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, list(removed))
}

func (h *Handler) imageCreate(ctx context.Context, w http.ResponseWriter, q *request) error {
	if q.query.Get("fromSrc") == "" { // else the body may be an archive, which curl calls a form
		if err := q.readForm(); err != nil {
			return err
		}
	}
	if q.query.Get("fromImage") == "" {
		if q.query.Get("fromSrc") != "" {
			return h.imageImport(ctx, w, q)
		}
		return failure.Invalid("the query names no image to pull: fromImage is empty")
	}
	req := image.PullRequest{
		Ref:        strings.TrimSuffix(q.query.Get("fromImage"), ":"),
		Tag:        q.query.Get("tag"),
		AuthConfig: decodeAuth(q.Header.Get(registry.AuthHeader)),
	}
	var err error
	if req.Platform, err = q.platform(32); err != nil {
		return err
	}
	// The server looks out for a client that goes away only when it has read all that it sends.
	if err := skipOptions(q.Request); err != nil {
		return err
	}
	ctx, cancel := h.streamContext(ctx, w)
	defer cancel()
	out := newProgress(w, q.version)
	return out.finish(final(h.deps.Transfer.Pull(ctx, req, out.write)))
}

func (h *Handler) imageLoad(ctx context.Context, w http.ResponseWriter, q *request) error {
	opts := image.LoadOptions{Quiet: q.booleanOr("quiet", true)}
	var err error
	if opts.Platforms, err = q.platforms(); err != nil {
		return err
	}
	// Progress is written while the archive is still being read.
	if err := http.NewResponseController(w).EnableFullDuplex(); err != nil {
		return fmt.Errorf("cannot read and write at once: %w", err)
	}
	ctx, cancel := h.streamContext(ctx, w)
	defer cancel()
	out := newProgress(w, q.version)
	if opts.Quiet {
		// skopeo takes the head of the answer for the end of the upload, and breaks off
		// what it has not sent by then.
		out.hold()
	} else {
		out.begin()
	}
	err = h.deps.Transfer.Load(ctx, q.Body, opts, out.write)
	// A client that is still sending what was not wanted would not see the answer if the
	// connection were closed under its hands.
	if opts.Quiet {
		_, _ = io.Copy(io.Discard, q.Body)
		out.release()
	}
	if failed := out.finish(err); failed != nil {
		return failed
	}
	_, _ = io.Copy(io.Discard, q.Body)
	return nil
}

// decodeAuth reads the X-Registry-Auth header: base64url of JSON, with or
// without padding. Unreadable credentials count as none, as with Docker: the
// registry decides whether any are needed.
func decodeAuth(header string) *registry.AuthConfig {
	text := strings.TrimRight(header, "=")
	text = strings.NewReplacer("+", "-", "/", "_").Replace(text)
	decoded, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil || len(decoded) == 0 {
		return nil
	}
	var auth registry.AuthConfig
	if json.Unmarshal(decoded, &auth) != nil || auth == (registry.AuthConfig{}) {
		return nil
	}
	return &auth
}

// jsonPlatform reads a platform that the query gives as a JSON object.
func jsonPlatform(text string) (string, error) {
	if text == "" {
		return "", nil
	}
	var platform ocispec.Platform
	if err := json.Unmarshal([]byte(text), &platform); err != nil {
		return "", failure.Invalid("failed to parse platform %q: %w", text, err)
	}
	if platform.OS == "" || platform.Architecture == "" {
		return "", failure.Invalid("both OS and Architecture must be provided in platform %q", text)
	}
	return platforms.Format(platform), nil
}

// plainText is the text of a library's error without the words of its class.
func plainText(err error) string {
	return strings.TrimSuffix(err.Error(), ": invalid argument")
}

// final has a registry that cannot be reached answered with 500, as by dockerd: what
// is on Docker's Go client (testcontainers) takes that for an answer, and tries a pull
// that was answered with 503 again for a quarter of an hour.
func final(err error) error {
	if errdefs.IsUnavailable(err) {
		return failure.Wrap(errdefs.ErrInternal, err)
	}
	return err
}
