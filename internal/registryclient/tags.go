package registryclient

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/distribution/reference"

	"github.com/cleatlabs/cleat/internal/failure"
)

// unknownRepositoryError says that the repository itself is not there, as opposed to
// the tag in it.
type unknownRepositoryError struct{ err error }

func (e *unknownRepositoryError) Error() string { return e.err.Error() }
func (e *unknownRepositoryError) Unwrap() error { return e.err }

// Limits on what a registry may make the engine read.
const (
	maxBody = 4 << 20
	maxTags = 100_000
)

// Tags lists the tags of the repository, as the first host that answers has them. Give
// the error to [Session.Explain].
func (s *Session) Tags(ctx context.Context) ([]string, error) {
	var mirrors []error
	for _, h := range s.hosts {
		tags, err := s.tagsOf(ctx, h)
		if err == nil {
			return tags, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		err = &hostError{address: h.address(), err: err}
		if !h.mirror {
			return nil, &resolveError{err: err, mirrors: mirrors}
		}
		mirrors = append(mirrors, err)
	}
	return nil, errors.New("no registry to ask")
}

func (s *Session) tagsOf(ctx context.Context, h host) ([]string, error) {
	var all []string
	next := "/tags/list?n=1000"
	for next != "" && len(all) < maxTags {
		resp, err := s.get(ctx, h, next, "application/json")
		if err != nil {
			return nil, err
		}
		if resp.StatusCode == http.StatusNotFound {
			return nil, &unknownRepositoryError{err: statusError(resp)}
		}
		if resp.StatusCode != http.StatusOK {
			return nil, statusError(resp)
		}
		var page struct {
			Tags []string `json:"tags"`
		}
		err = json.NewDecoder(io.LimitReader(resp.Body, maxBody)).Decode(&page)
		resp.Body.Close()
		if err != nil {
			return nil, fmt.Errorf("the list of tags is not what the protocol says: %w", err)
		}
		for _, tag := range page.Tags {
			if _, err := reference.WithTag(reference.TrimNamed(s.name), tag); err != nil {
				return nil, failure.Invalid("the registry lists a tag that is not one: %.40q", tag)
			}
		}
		all = append(all, page.Tags...)
		if next = nextPage(resp.Header.Get("Link"), next); len(page.Tags) == 0 {
			next = "" // whatever is said to follow: pages without tags could follow one another for ever
		}
	}
	return all, nil
}

// nextPage reads the query of the next page out of a Link header, "" if there is none.
// The path is always ours.
func nextPage(link, current string) string {
	target, rel, ok := strings.Cut(link, ">")
	if !ok || !strings.Contains(rel, "next") {
		return ""
	}
	u, err := url.Parse(strings.TrimPrefix(strings.TrimSpace(target), "<"))
	if err != nil {
		return ""
	}
	next := "/tags/list?" + u.RawQuery
	if next == current {
		return ""
	}
	return next
}

// whyNotFound asks for the repository's tags, to tell an unknown repository from an
// unknown tag: the answer for a manifest is the same for both at many registries.
func (s *Session) whyNotFound(ctx context.Context, h host, notFound error) error {
	resp, err := s.get(ctx, h, "/tags/list?n=1", "application/json")
	if err != nil {
		return notFound
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err == nil && resp.StatusCode == http.StatusNotFound && bytes.Contains(body, []byte("NAME_UNKNOWN")) {
		return &unknownRepositoryError{err: notFound}
	}
	return notFound
}
