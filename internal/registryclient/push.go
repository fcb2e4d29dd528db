package registryclient

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/registry"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatlabs/cleat/internal/failure"
)

// Upload is a blob that is to be in the repository.
type Upload struct {
	ocispec.Descriptor
	// Open gives the blob's bytes from offset on. It is called for each attempt.
	Open func(offset int64) (io.ReadCloser, error)
	// From, if not empty, is another repository of the same registry that is believed to
	// have the blob.
	From string
	// Sent, if not nil, is told how many bytes have gone out.
	Sent func(n int64)
	// Retrying, if not nil, is told how long is waited before the next attempt.
	Retrying func(wait time.Duration)
}

// Outcome is how a blob has come to be in the repository.
type Outcome int

const (
	// Uploaded blobs were sent.
	Uploaded Outcome = iota
	// Existing blobs were in the repository.
	Existing
	// Mounted blobs were taken from another repository of the registry.
	Mounted
)

// OpenPush starts a session that sends to the registry that name says, and to no
// mirror. auth may be nil.
func (c *Client) OpenPush(name reference.Named, auth *registry.AuthConfig) (*Session, error) {
	s := &Session{name: name, agent: c.userAgent, patience: c.patience}
	domain := reference.Domain(name)
	origin := &url.URL{Scheme: "https", Host: domain}
	if domain == HubDomain {
		origin.Host = HubHost
	}
	if err := s.add(c, origin, domain, auth, false, c.patience.answer); err != nil {
		return nil, err
	}
	return s, nil
}

// PushBlob sees to it that a blob is in the repository: it is looked for, mounted from
// another repository if one is believed to have it, or sent. What breaks off is tried
// again with growing pauses, from where it broke off if the registry knows that place.
// When it fails, or ctx ends, the registry is told to forget what it has of it. Give the
// error to [Session.ExplainPush].
func (s *Session) PushBlob(ctx context.Context, u Upload) (Outcome, error) {
	p := &blobPush{s: s, h: s.hosts[0], u: u, scopes: []string{s.pushScope()}}
	defer p.forget(ctx)
	var outcome Outcome
	err := s.persist(ctx, u.Retrying, p, func() (err error) {
		outcome, err = p.attempt(ctx)
		return err
	})
	return outcome, err
}

// blobPush is a blob on its way.
type blobPush struct {
	s      *Session
	h      host
	u      Upload
	scopes []string
	// at is where the registry takes the blob's bytes; nil as long as it takes none.
	at *url.URL
	// received is how many bytes it is known to have.
	received int64
	// most is the largest count of bytes that went out in any attempt.
	most int64
}

// progressed reports whether an attempt got further than those before, and forgets it.
func (p *blobPush) progressed() bool {
	if p.received <= p.most {
		return false
	}
	p.most = p.received
	return true
}

func (p *blobPush) attempt(ctx context.Context) (Outcome, error) {
	if p.at != nil {
		if err := p.resume(ctx); err != nil {
			return 0, err
		}
	}
	if p.at == nil {
		there, err := p.exists(ctx)
		if err != nil {
			return 0, err
		}
		if there {
			return Existing, nil
		}
		mounted, err := p.begin(ctx)
		if err != nil {
			return 0, err
		}
		if mounted {
			return Mounted, nil
		}
	}
	if p.received > 0 {
		if err := p.rest(ctx); err != nil {
			return 0, err
		}
		return Uploaded, p.finish(ctx, nil, 0)
	}
	return Uploaded, p.finish(ctx, p.body(0), p.u.Size)
}

func (p *blobPush) exists(ctx context.Context) (bool, error) {
	resp, err := p.s.ask(ctx, p.h, request{method: http.MethodHead, url: p.s.below(p.h, "/blobs/"+p.u.Digest.String()), scopes: p.scopes})
	if err != nil {
		return false, err
	}
	switch resp.StatusCode {
	case http.StatusOK:
		drain(resp)
		return true, nil
	case http.StatusNotFound:
		drain(resp)
		return false, nil
	}
	return false, statusError(resp)
}

// begin opens an upload, or mounts the blob.
func (p *blobPush) begin(ctx context.Context) (mounted bool, err error) {
	if p.u.From != "" {
		query := url.Values{"mount": {p.u.Digest.String()}, "from": {p.u.From}}
		scopes := append([]string{"repository:" + p.u.From + ":pull"}, p.scopes...)
		done, err := p.post(ctx, "/blobs/uploads/?"+query.Encode(), scopes)
		if err == nil || ctx.Err() != nil {
			return done, err
		}
		// The other repository may be one that this user must not see: then the blob is sent.
	}
	return p.post(ctx, "/blobs/uploads/", p.scopes)
}

func (p *blobPush) post(ctx context.Context, path string, scopes []string) (created bool, err error) {
	resp, err := p.s.ask(ctx, p.h, request{method: http.MethodPost, url: p.s.below(p.h, path), scopes: scopes})
	if err != nil {
		return false, err
	}
	switch resp.StatusCode {
	case http.StatusCreated:
		drain(resp)
		return true, nil
	case http.StatusAccepted:
		return false, p.follow(resp)
	}
	return false, statusError(resp)
}

// follow takes the address that the registry gives for the next step. It may be on
// another host, which then gets no credentials; but not on one that is reached without
// encryption if the registry itself is not.
func (p *blobPush) follow(resp *http.Response) error {
	defer drain(resp)
	text := resp.Header.Get("Location")
	if text == "" {
		return fmt.Errorf("the registry names no address to send %s to", p.u.Digest)
	}
	at, err := resp.Request.URL.Parse(text)
	if err != nil || (at.Scheme != "http" && at.Scheme != "https") || at.Host == "" || at.User != nil {
		return fmt.Errorf("the registry names an address to send %s to that is none", p.u.Digest)
	}
	switch {
	case strings.EqualFold(at.Host, p.h.Host):
		at.Host, at.Scheme = p.h.Host, p.h.Scheme
	case at.Scheme == "http" && !p.h.insecure:
		return failure.New(errdefs.ErrPermissionDenied, "the registry wants %s to be sent to %s without encryption, which is refused", p.u.Digest, at.Host)
	}
	at.Fragment = ""
	p.at = at
	return nil
}

// body opens the blob, counting what goes out.
func (p *blobPush) body(offset int64) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) {
		rc, err := p.u.Open(offset)
		if err != nil {
			return nil, &localError{err}
		}
		return &countedBody{ReadCloser: rc, n: offset, sent: p.u.Sent}, nil
	}
}

// finish closes the upload, with all of the blob or with nothing more of it.
func (p *blobPush) finish(ctx context.Context, body func() (io.ReadCloser, error), size int64) error {
	to := *p.at
	query := to.Query()
	query.Set("digest", p.u.Digest.String())
	to.RawQuery = query.Encode()
	resp, err := p.stalling(ctx, request{
		method: http.MethodPut, url: &to, header: http.Header{"Content-Type": {"application/octet-stream"}}, body: body, size: size, scopes: p.scopes,
	})
	if err != nil {
		return err
	}
	switch resp.StatusCode {
	case http.StatusCreated, http.StatusOK, http.StatusNoContent, http.StatusAccepted:
		drain(resp)
		p.at = nil
		return nil
	}
	return statusError(resp)
}

// rest sends what the registry lacks of an upload that broke off.
func (p *blobPush) rest(ctx context.Context) error {
	if p.received >= p.u.Size {
		return nil
	}
	resp, err := p.stalling(ctx, request{
		method: http.MethodPatch, url: p.at,
		header: http.Header{"Content-Type": {"application/octet-stream"}, "Content-Range": {fmt.Sprintf("%d-%d", p.received, p.u.Size-1)}},
		body:   p.body(p.received), size: p.u.Size - p.received, scopes: p.scopes,
	})
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusAccepted && resp.StatusCode != http.StatusNoContent && resp.StatusCode != http.StatusCreated {
		return statusError(resp)
	}
	return p.follow(resp)
}

// resume learns how much of an upload that broke off the registry has. If it does not
// say, the upload begins anew.
func (p *blobPush) resume(ctx context.Context) error {
	old := p.at
	p.at, p.received = nil, 0
	resp, err := p.s.ask(ctx, p.h, request{method: http.MethodGet, url: old, scopes: p.scopes})
	if err != nil {
		p.at = old
		return err
	}
	if resp.StatusCode >= 500 || resp.StatusCode == http.StatusTooManyRequests {
		p.at = old
		return statusError(resp)
	}
	last, ok := lastByte(resp.Header.Get("Range"))
	if resp.StatusCode != http.StatusNoContent || !ok || last >= p.u.Size {
		drain(resp)
		if resp.StatusCode != http.StatusNotFound {
			p.drop(ctx, old)
		}
		return nil
	}
	if resp.Header.Get("Location") == "" {
		drain(resp)
		p.at = old
	} else if err := p.follow(resp); err != nil {
		return err
	}
	p.received = last + 1
	return nil
}

// lastByte reads the Range of an upload's status, "0-1023". An upload that has nothing
// cannot be told from one that has a single byte: neither is worth going on with.
func lastByte(header string) (int64, bool) {
	first, last, ok := strings.Cut(strings.TrimPrefix(header, "bytes="), "-")
	n, err := strconv.ParseInt(last, 10, 64)
	return n, ok && first == "0" && err == nil && n > 0
}

// forgetTime is how long the registry is given to hear that an upload has ended.
const forgetTime = 3 * time.Second

// forget tells the registry, as far as it can be reached, to drop what was begun.
func (p *blobPush) forget(ctx context.Context) {
	if p.at != nil {
		p.drop(ctx, p.at)
	}
}

func (p *blobPush) drop(ctx context.Context, at *url.URL) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), forgetTime)
	defer cancel()
	// The address that is valid now has to be asked for: it says how much was received.
	if resp, err := p.s.ask(ctx, p.h, request{method: http.MethodGet, url: at, scopes: p.scopes}); err == nil {
		q := &blobPush{s: p.s, h: p.h, u: p.u}
		if q.follow(resp) == nil {
			at = q.at
		}
	}
	if resp, err := p.s.ask(ctx, p.h, request{method: http.MethodDelete, url: at, scopes: p.scopes}); err == nil {
		drain(resp)
	}
}

// PushManifest puts a manifest or index into the repository, under a tag or, if
// that is "", under its digest. Give the error to [Session.ExplainPush].
func (s *Session) PushManifest(ctx context.Context, desc ocispec.Descriptor, document []byte, tag string, retrying func(time.Duration)) error {
	ref := tag
	if ref == "" {
		ref = desc.Digest.String()
	}
	h := s.hosts[0]
	return s.persist(ctx, retrying, nil, func() error {
		resp, err := s.ask(ctx, h, request{
			method: http.MethodPut, url: s.below(h, "/manifests/"+ref), header: http.Header{"Content-Type": {desc.MediaType}},
			body: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(document)), nil }, size: int64(len(document)),
			scopes: []string{s.pushScope()},
		})
		if err != nil {
			return err
		}
		if resp.StatusCode < 200 || resp.StatusCode > 299 {
			return statusError(resp)
		}
		drain(resp)
		got, err := digest.Parse(resp.Header.Get("Docker-Content-Digest"))
		if err == nil && got != desc.Digest && got.Algorithm() == desc.Digest.Algorithm() {
			return failure.New(errdefs.ErrDataLoss, "the registry at %s has stored %s under the digest %s: its storage or the connection is damaged", h.address(), desc.Digest, got)
		}
		return nil
	})
}

// HasManifest reports whether the repository has a manifest of this digest. A registry
// that does not say counts as one that has not.
func (s *Session) HasManifest(ctx context.Context, desc ocispec.Descriptor) bool {
	h := s.hosts[0]
	resp, err := s.ask(ctx, h, request{
		method: http.MethodHead, url: s.below(h, "/manifests/"+desc.Digest.String()), header: http.Header{"Accept": {desc.MediaType}}, scopes: []string{s.pushScope()},
	})
	if err != nil {
		return false
	}
	drain(resp)
	return resp.StatusCode == http.StatusOK
}

// localError is a fault of this machine, not of the registry.
type localError struct{ err error }

func (e *localError) Error() string { return e.err.Error() }
func (e *localError) Unwrap() error { return e.err }

// errStalled ends a request that does not go on.
var errStalled = errors.New("the registry takes no more data")
