package engine

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	api "github.com/moby/moby/api/types/container"

	"github.com/cleatlabs/cleat/internal/archive"
	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/image"
	"github.com/cleatlabs/cleat/internal/instruction"
)

// ImportRequest is what POST /images/create asks for with fromSrc.
type ImportRequest struct {
	// Source is "-" for Body, or a URL that the engine fetches.
	Source    string
	Body      io.Reader
	Repo, Tag string // without Repo the image has no name
	Message   string
	Platform  string   // "" is the engine's own
	Changes   []string // Dockerfile instructions
}

// Import makes an image of the tar archive of a filesystem, plain or compressed, and
// returns its id. status is told what it is at.
func (i *Images) Import(ctx context.Context, req ImportRequest, status func(string)) (id string, err error) {
	var config api.Config
	if err := instruction.Apply(&config, req.Changes); err != nil {
		return "", err
	}
	body, from, err := importSource(ctx, req, status)
	if err != nil {
		return "", err
	}
	defer body.Close()
	comment := req.Message
	if comment == "" {
		comment = "Imported from " + from
	}
	plain, done, err := archive.Decompress(body)
	if errors.Is(err, archive.ErrEmpty) {
		return "", failure.Invalid("the archive to be imported is empty")
	}
	if err != nil {
		return "", err
	}
	defer done()
	made, _, err := i.Make(ctx, image.MakeRequest{
		Action: "import", Platform: req.Platform, Config: imageConfig(&config), Comment: comment, Repo: req.Repo, Tag: req.Tag,
		Layer: func(ctx context.Context, w io.Writer) (bool, error) { return false, copyTar(ctx, w, plain) },
	})
	if err != nil {
		return "", err
	}
	return made.String(), nil
}

// copyTar copies an archive whole, so that its digest is that of what was sent, and
// checks on the way that it is one.
func copyTar(ctx context.Context, w io.Writer, r io.Reader) error {
	through := io.TeeReader(contextReader{ctx, r}, w)
	for tr := tar.NewReader(through); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = archive.CheckName(h)
		}
		if errors.Is(err, tar.ErrHeader) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, tar.ErrFieldTooLong) {
			return failure.Invalid("what is to be imported is damaged or not a tar archive: %w", err)
		}
		if err != nil {
			return fmt.Errorf("read the archive to be imported: %w", err)
		}
	}
	_, err := io.Copy(io.Discard, through) // what follows the end mark
	return err
}

// contextReader ends with its context.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	return c.r.Read(p)
}

// importSource opens what is to be imported and says how it is called.
func importSource(ctx context.Context, req ImportRequest, status func(string)) (io.ReadCloser, string, error) {
	if req.Source == "-" {
		return io.NopCloser(req.Body), "-", nil
	}
	source := req.Source
	if !strings.Contains(source, "://") {
		source = "http://" + source
	}
	u, err := url.Parse(source)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return nil, "", failure.Invalid("cannot import from %q: it is neither - nor an http or https URL", req.Source)
	}
	status("Downloading from " + u.Redacted())
	get, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, "", failure.Invalid("cannot import from %q: %w", u.Redacted(), err)
	}
	res, err := http.DefaultClient.Do(get)
	if err != nil {
		return nil, "", failure.Unavailable("cannot import from %s: %w", u.Redacted(), errors.Unwrap(err))
	}
	if res.StatusCode >= http.StatusBadRequest {
		_ = res.Body.Close()
		return nil, "", failure.NotFound("cannot import from %s: it answers %s", u.Redacted(), res.Status)
	}
	return res.Body, u.Redacted(), nil
}
