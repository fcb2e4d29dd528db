package registryserver

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/url"
	"sort"
	"strconv"
	"strings"
)

// found is a repository in the answer to a search, as Docker's protocol has it.
type found struct {
	Name        string `json:"name"`
	Description string `json:"description"`
	StarCount   int    `json:"star_count"`
	IsOfficial  bool   `json:"is_official"`
	IsAutomated bool   `json:"is_automated"`
	IsTrusted   bool   `json:"is_trusted"`
}

// How many results a search gives if it does not say, and at most.
const (
	usualResults = 25
	maxResults   = 100
)

// search answers GET /v1/search?q=TERM&n=COUNT&page=NUMBER with the repositories whose
// name contains the term, for whoever may see the catalogue. Those under library/ are the
// official ones, as at Docker Hub.
func (s *Server) search(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "a search is a GET", http.StatusMethodNotAllowed)
		return
	}
	names, refused := s.catalogue(r)
	if refused != nil {
		refused.copyTo(w)
		return
	}
	query := strings.TrimPrefix(strings.ToLower(strings.TrimSpace(r.URL.Query().Get("q"))), "library/")
	results := []found{}
	for _, n := range names {
		short, official := strings.CutPrefix(n, "library/")
		if strings.Contains(strings.ToLower(short), query) {
			results = append(results, found{Name: n, IsOfficial: official})
		}
	}
	sort.SliceStable(results, func(i, j int) bool { return nearness(results[i].Name, query) < nearness(results[j].Name, query) })
	size := number(r.URL.Query().Get("n"), usualResults, maxResults)
	page := number(r.URL.Query().Get("page"), 1, 1<<20)
	pages := (len(results) + size - 1) / size
	first := min((page-1)*size, len(results))
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(struct { // a client that has gone does not read it
		Query      string  `json:"query"`
		NumResults int     `json:"num_results"`
		NumPages   int     `json:"num_pages"`
		Page       int     `json:"page"`
		PageSize   int     `json:"page_size"`
		Results    []found `json:"results"`
	}{r.URL.Query().Get("q"), len(results), pages, page, size, results[first:min(first+size, len(results))]})
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

// number reads a count from 1 to most.
func number(text string, absent, most int) int {
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		return absent
	}
	return min(n, most)
}

// catalogue lists all repositories for the one who asks, or gives the answer that refuses
// them.
func (s *Server) catalogue(r *http.Request) (names []string, refused *recorded) {
	query := url.Values{"n": {strconv.Itoa(catalogPage)}}
	for {
		answer := s.within(r, "/v2/_catalog?"+query.Encode())
		var page struct {
			Repositories []string `json:"repositories"`
		}
		if answer.status != http.StatusOK || json.Unmarshal(answer.body.Bytes(), &page) != nil {
			return nil, answer
		}
		names = append(names, page.Repositories...)
		if len(page.Repositories) == 0 || answer.header.Get("Link") == "" {
			return names, nil
		}
		query.Set("last", page.Repositories[len(page.Repositories)-1])
	}
}

// within asks the registry itself on behalf of a request, with its credentials.
func (s *Server) within(r *http.Request, target string) *recorded {
	answer := &recorded{header: http.Header{}, status: http.StatusOK}
	req, err := http.NewRequestWithContext(r.Context(), http.MethodGet, target, nil)
	if err != nil {
		answer.status = http.StatusBadRequest
		return answer
	}
	req.Host, req.RemoteAddr, req.TLS = r.Host, r.RemoteAddr, r.TLS
	for _, name := range []string{"Authorization", "Accept"} {
		if values := r.Header.Values(name); len(values) > 0 {
			req.Header[name] = values
		}
	}
	s.app.ServeHTTP(answer, req)
	return answer
}

// recorded is an answer that is kept instead of sent.
type recorded struct {
	header http.Header
	status int
	wrote  bool
	body   bytes.Buffer
}

func (a *recorded) Header() http.Header { return a.header }

func (a *recorded) WriteHeader(status int) {
	if !a.wrote {
		a.status, a.wrote = status, true
	}
}

func (a *recorded) Write(b []byte) (int, error) {
	a.wrote = true
	return a.body.Write(b)
}

// copyTo sends it after all.
func (a *recorded) copyTo(w http.ResponseWriter) {
	for name, values := range a.header {
		w.Header()[name] = values
	}
	w.WriteHeader(a.status)
	_, _ = w.Write(a.body.Bytes()) // a client that has gone does not read it
}
