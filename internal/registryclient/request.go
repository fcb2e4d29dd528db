package registryclient

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	remoteerrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/distribution/reference"
)

// request is one call of a registry's API.
type request struct {
	method string
	url    *url.URL
	header http.Header // beside what every request has
	// body, if not nil, opens what is sent; it is opened anew for each attempt.
	body func() (io.ReadCloser, error)
	size int64 // of body
	// scopes are what a token server is asked for.
	scopes []string
}

// below makes the URL of a path below the repository. path begins with a slash.
func (s *Session) below(h host, path string) *url.URL {
	path, query, _ := strings.Cut(path, "?")
	return &url.URL{Scheme: h.Scheme, Host: h.Host, Path: h.Path + "/" + reference.Path(s.name) + path, RawQuery: query}
}

// pullScope is what is needed to read the repository, pushScope to write it.
func (s *Session) pullScope() string { return "repository:" + reference.Path(s.name) + ":pull" }
func (s *Session) pushScope() string { return "repository:" + reference.Path(s.name) + ":pull,push" }

// maxChallenges is how many 401s one request follows: the first asks for credentials, a
// second may say that a token has run out.
const maxChallenges = 2

// send makes a call, with the credentials that a challenge asks for. Credentials go to
// the host itself and nowhere else; the answer is the caller's to close.
func (s *Session) send(ctx context.Context, h host, r request) (*http.Response, error) {
	for _, scope := range r.scopes {
		ctx = docker.WithScope(ctx, scope)
	}
	trusted := strings.EqualFold(r.url.Host, h.Host) && (r.url.Scheme == h.Scheme || h.insecure)
	var challenges []*http.Response
	for {
		req, err := s.build(ctx, h, r, trusted)
		if err != nil {
			return nil, err
		}
		resp, err := h.Client.Do(req)
		if err != nil {
			return nil, err
		}
		s.reached.Store(true)
		if resp.StatusCode != http.StatusUnauthorized || !trusted || h.Authorizer == nil || len(challenges) == maxChallenges {
			return resp, nil
		}
		refusal := statusError(resp)
		challenges = append(challenges, resp)
		if err := h.Authorizer.AddResponses(ctx, challenges); err != nil {
			return nil, &unauthorizedError{err: err, refusal: refusal}
		}
	}
}

// unauthorizedError says why a challenge could not be met, and what the registry said
// with it.
type unauthorizedError struct{ err, refusal error }

func (e *unauthorizedError) Error() string   { return e.err.Error() }
func (e *unauthorizedError) Unwrap() []error { return []error{e.err, e.refusal} }

func (s *Session) build(ctx context.Context, h host, r request, trusted bool) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, r.method, r.url.String(), nil)
	if err != nil {
		return nil, err
	}
	for k, v := range r.header {
		req.Header[k] = v
	}
	req.Header.Set("User-Agent", s.agent)
	if trusted {
		for k, v := range h.Header {
			req.Header[k] = v
		}
		if h.Authorizer != nil {
			if err := h.Authorizer.Authorize(ctx, req); err != nil {
				return nil, err
			}
		}
	}
	if r.body == nil {
		return req, nil
	}
	if req.Body, err = r.body(); err != nil {
		return nil, fmt.Errorf("open what is to be sent: %w", err)
	}
	req.GetBody, req.ContentLength = r.body, r.size
	return req, nil
}

// ask makes a call whose answer needs little work and is small. All of it is read.
func (s *Session) ask(ctx context.Context, h host, r request) (*http.Response, error) {
	ctx, cancel := context.WithTimeout(ctx, s.patience.ask)
	defer cancel()
	resp, err := s.send(ctx, h, r)
	if err != nil {
		return nil, err
	}
	return buffered(resp)
}

// buffered reads what matters of an answer's body, so that it does not depend on the
// connection any more.
func buffered(resp *http.Response) (*http.Response, error) {
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err != nil {
		return nil, err
	}
	resp.Body = io.NopCloser(bytes.NewReader(b))
	return resp, nil
}

// get asks one host for a path below the repository.
func (s *Session) get(ctx context.Context, h host, path, accept string) (*http.Response, error) {
	return s.send(ctx, h, request{
		method: http.MethodGet, url: s.below(h, path), header: http.Header{"Accept": []string{accept}}, scopes: []string{s.pullScope()},
	})
}

// statusError reads and closes an answer that is not the one hoped for.
func statusError(resp *http.Response) error {
	defer resp.Body.Close()
	err := remoteerrors.NewUnexpectedStatusErr(resp)
	if wait, ok := retryAfter(resp.Header.Get("Retry-After"), time.Now()); ok {
		return &retryAfterError{err, wait}
	}
	return err
}

// drain ends an answer whose body does not matter, so that the connection can be used
// again.
func drain(resp *http.Response) {
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10))
	_ = resp.Body.Close()
}
