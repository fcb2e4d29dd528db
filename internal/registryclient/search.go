package registryclient

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"sort"
	"strconv"
	"strings"
	"unicode"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/registry"

	"github.com/cleatlabs/cleat/internal/failure"
)

// hubSearchHost answers searches in Docker Hub.
const hubSearchHost = "index.docker.io"

// How many results a search has if it does not say, and at most.
const (
	usualResults = 25
	maxResults   = 100
)

// SearchRequest says what to search for, and where.
type SearchRequest struct {
	// Term is what names are to contain: in Docker Hub or, as HOST/TERM, at a registry.
	Term string
	// Limit is how many results there are at most; 0 is 25.
	Limit int
	// Auth may be nil.
	Auth *registry.AuthConfig
	// Official, if not nil, wants only official images, or only others.
	Official *bool
	// Automated images are those that Docker Hub built; there are none any more.
	Automated bool
	// Stars is the least number of stars.
	Stars int
}

// Search finds images by a part of their name. A registry that has no search is searched
// by its catalogue: then the descriptions say so. In place of Docker Hub its mirrors are
// asked first, as with pulls. Names of results can be pulled as they are.
func (c *Client) Search(ctx context.Context, req SearchRequest) ([]registry.SearchResult, error) {
	if strings.Contains(req.Term, "://") {
		return nil, failure.Invalid("invalid repository name: repository name (%s) should not have a scheme", req.Term)
	}
	if req.Limit == 0 {
		req.Limit = usualResults
	}
	if req.Limit < 1 || req.Limit > maxResults {
		return nil, failure.Invalid("limit %d is outside the range of [1, %d]", req.Limit, maxResults)
	}
	domain, term := splitTerm(req.Term)
	if req.Automated {
		return []registry.SearchResult{}, nil
	}
	found, err := c.search(ctx, domain, term, req)
	if err != nil {
		return nil, err
	}
	results := []registry.SearchResult{}
	for _, r := range found {
		if len(results) == req.Limit || req.Official != nil && *req.Official != r.IsOfficial || r.StarCount < req.Stars {
			continue
		}
		r.IsAutomated = false
		r.Name, r.Description = visible(r.Name), visible(r.Description)
		if domain == HubDomain {
			r.Name = strings.TrimPrefix(r.Name, "library/")
		} else if !strings.HasPrefix(r.Name, domain+"/") {
			r.Name = domain + "/" + r.Name
		}
		results = append(results, r)
	}
	return results, nil
}

// visible takes out what is not to be seen on a terminal. Descriptions may have several
// lines.
func visible(text string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || unicode.IsPrint(r) {
			return r
		}
		return -1
	}, text)
}

// splitTerm tells the registry from what is searched for there.
func splitTerm(text string) (domain, term string) {
	host, rest, found := strings.Cut(text, "/")
	if !found || !strings.ContainsAny(host, ".:") && host != "localhost" {
		return HubDomain, strings.TrimPrefix(text, "library/")
	}
	if host == HubDomain || host == hubSearchHost || host == HubHost {
		return HubDomain, strings.TrimPrefix(rest, "library/")
	}
	return host, rest
}

func (c *Client) search(ctx context.Context, domain, term string, req SearchRequest) ([]registry.SearchResult, error) {
	search := func(s *Session) ([]registry.SearchResult, error) { return s.search(ctx, term, req.Limit) }
	searchOrList := func(s *Session) ([]registry.SearchResult, error) { return s.searchOrList(ctx, term, req.Limit) }
	origin := &url.URL{Scheme: "https", Host: domain}
	if domain != HubDomain {
		return c.searchAt(origin, domain, req.Auth, searchOrList)
	}
	origin.Host = hubSearchHost
	mirrors := c.rules.Load().mirrors
	for _, m := range mirrors {
		if found, err := c.searchAt(m, m.Host, nil, search); err == nil {
			return found, nil
		}
	}
	found, err := c.searchAt(origin, HubDomain, req.Auth, search)
	if err == nil || ctx.Err() != nil {
		return found, err
	}
	for _, m := range mirrors {
		if found, err := c.searchAt(m, m.Host, nil, searchOrList); err == nil {
			return found, nil
		}
	}
	return nil, err
}

// searchAt searches at one host.
func (c *Client) searchAt(base *url.URL, certName string, auth *registry.AuthConfig, how func(*Session) ([]registry.SearchResult, error)) ([]registry.SearchResult, error) {
	s, err := c.door(base, certName, auth)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	return how(s)
}

// door opens a session with one host about no image in particular.
func (c *Client) door(base *url.URL, certName string, auth *registry.AuthConfig) (*Session, error) {
	if _, err := reference.ParseNormalizedNamed(certName + "/x"); err != nil {
		return nil, failure.Invalid("invalid registry %q: it is no host[:port]", certName)
	}
	s := &Session{agent: c.userAgent, patience: c.patience}
	return s, s.add(c, base, certName, auth, false, c.patience.ask)
}

// at makes the URL of a path of the one host.
func (s *Session) at(path string, query url.Values) *url.URL {
	h := s.hosts[0]
	return &url.URL{Scheme: h.Scheme, Host: h.Host, Path: path, RawQuery: query.Encode()}
}

// searchOrList searches, or looks through the catalogue.
func (s *Session) searchOrList(ctx context.Context, term string, limit int) ([]registry.SearchResult, error) {
	found, err := s.search(ctx, term, limit)
	var none *noSearchError
	if errors.As(err, &none) {
		return s.list(ctx, term, limit)
	}
	return found, err
}

// noSearchError is the answer of a registry that has no search.
type noSearchError struct{ error }

func (e *noSearchError) Unwrap() error { return e.error }

func (s *Session) search(ctx context.Context, term string, limit int) ([]registry.SearchResult, error) {
	resp, err := s.ask(ctx, s.hosts[0], request{
		method: http.MethodGet, url: s.at("/v1/search", url.Values{"q": {term}, "n": {strconv.Itoa(limit)}}),
		header: http.Header{"Accept": {"application/json"}}, scopes: []string{"registry:catalog:*"},
	})
	if err != nil {
		return nil, s.explainSearch(ctx, err)
	}
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusTooManyRequests:
		return nil, s.explainSearch(ctx, statusError(resp))
	default:
		return nil, &noSearchError{s.explainSearch(ctx, statusError(resp))}
	}
	var answer registry.SearchResults
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		// A proxy's or a web site's page for everything that it does not know.
		return nil, &noSearchError{failure.Unavailable("%s answers a search with something else than results", s.hosts[0].address())}
	}
	return answer.Results, nil
}

// list looks for a term in the names of all repositories, the nearest first.
func (s *Session) list(ctx context.Context, term string, limit int) ([]registry.SearchResult, error) {
	names, err := s.catalogue(ctx)
	if err != nil {
		return nil, s.explainSearch(ctx, err)
	}
	term = strings.ToLower(term)
	var found []registry.SearchResult
	for _, n := range names {
		if strings.Contains(strings.ToLower(n), term) {
			found = append(found, registry.SearchResult{
				Name: n, Description: fmt.Sprintf("in the catalogue of %s, which has no search", s.hosts[0].Host),
				IsOfficial: s.hosts[0].mirror && strings.HasPrefix(n, "library/"),
			})
		}
	}
	sort.SliceStable(found, func(i, j int) bool { return nearness(found[i].Name, term) < nearness(found[j].Name, term) })
	return found[:min(len(found), limit)], nil
}

// nearness orders names that contain a term: the very name, then those that begin with
// it, then the rest.
func nearness(name, term string) int {
	last := name[strings.LastIndex(name, "/")+1:]
	switch {
	case name == term || last == term:
		return 0
	case strings.HasPrefix(last, term) || strings.HasPrefix(name, term):
		return 1
	}
	return 2
}

// catalogue lists the repositories of the one host.
func (s *Session) catalogue(ctx context.Context) ([]string, error) {
	var all []string
	query := url.Values{"n": {"100"}} // some registries refuse to be asked for more
	for {
		resp, err := s.ask(ctx, s.hosts[0], request{
			method: http.MethodGet, url: s.at("/v2/_catalog", query), header: http.Header{"Accept": {"application/json"}}, scopes: []string{"registry:catalog:*"},
		})
		if err != nil {
			return nil, err
		}
		if resp.StatusCode != http.StatusOK {
			return nil, statusError(resp)
		}
		var page struct {
			Repositories []string `json:"repositories"`
		}
		if err := json.NewDecoder(resp.Body).Decode(&page); err != nil {
			return nil, fmt.Errorf("the catalogue of %s is not what the protocol says: %w", s.hosts[0].address(), err)
		}
		for _, n := range page.Repositories {
			if _, err := reference.ParseNormalizedNamed("registry.example/" + n); err == nil {
				all = append(all, n)
			}
		}
		next, ok := nextQuery(resp.Header.Get("Link"))
		if !ok || next.Encode() == query.Encode() || len(page.Repositories) == 0 || len(all) >= maxTags {
			return all, nil
		}
		query = next
	}
}

// nextQuery reads the query of the next page out of a Link header.
func nextQuery(link string) (url.Values, bool) {
	target, rel, ok := strings.Cut(link, ">")
	if !ok || !strings.Contains(rel, "next") {
		return nil, false
	}
	u, err := url.Parse(strings.TrimPrefix(strings.TrimSpace(target), "<"))
	if err != nil {
		return nil, false
	}
	return u.Query(), true
}

// explainSearch turns what went wrong into what the user reads.
func (s *Session) explainSearch(ctx context.Context, err error) error {
	if err == nil || ctx.Err() != nil {
		return err
	}
	address := s.hosts[0].address()
	hasStatus, status := statusOf(err)
	if text := refusal(err, hasStatus, status); text != "" {
		// Not "unauthenticated": that makes Docker's client ask for a password of Docker Hub's.
		return failure.New(errdefs.ErrPermissionDenied, "%s: searching %s needs a login (`cleat login%s`)", text, address, loginAddress(s.hosts[0].Host))
	}
	switch {
	case hasStatus && status.StatusCode == http.StatusTooManyRequests:
		return failure.Unavailable("toomanyrequests: %s answers that its rate limit is reached%s; wait and try again", address, registrySays(status.Body))
	case hasStatus:
		return failure.Unavailable("%s can be searched neither by /v1/search nor by /v2/_catalog: it answers %s%s", address, status.Status, registrySays(status.Body))
	}
	if text := unreachable(err); text != "" {
		return failure.Unavailable("cannot reach the registry at %s: %s", address, text)
	}
	return err
}
